"""What the zeros of a network's tensors say: which of them are pruned weights, and which are zero for other reasons.

A mask is read from zeros only where a pruned weight is the likely reason for them. Everything else that has zeros is
named, with the reason why it was left out (docs/decisions/0052-which-zeros-are-pruning.md).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from ticketguard.ticket import Array, BoolArray, Mask

# Of a dense network's weights fewer than this are zero by chance: float16 and bfloat16 round few of them to zero.
FEWEST_PRUNED_SHARE = 1e-3
# Rows that are zero as a whole, in a matrix without another zero, are padding unless they are more than this.
MOST_PADDING_SHARE = 0.05
_LONGEST_NAME = 100

_POSITIONAL = re.compile(
    r"pe|wpe|pos_?(?:emb|enc|table)\w*|position(?:al|s)?_?(?:emb|enc|id|bias|table)\w*|rel_pos\w*"
    r"|relative_\w*(?:index|table|bias|coords|emb)\w*|attn_bias\w*|attention_biases|inv_freq|freqs_cis|anchors|anchor_grid"
)
_EMBEDDING = re.compile(r".*emb(?:ed\w*|eddings?)?|wte|embed\w*|lookup\w*|shared")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Zeros:
    """What the zeros of a state dict say.

    Attributes:
        mask: The pruned layers.
        left_out: Why a tensor that has zeros is not one of them, by name.
    """

    mask: Mask
    left_out: Mapping[str, str]


def read_zeros(state: Mapping[str, Array], *, others: Mapping[str, str] | None = None) -> Zeros:
    """Read a mask from the zeros of weights, and say which zeros were ignored.

    Args:
        state: Arrays by name; those of fewer than two axes are not layers.
        others: Tensors that are known not to be layers: why, by name.
    """
    layers: dict[str, BoolArray] = {}
    left_out: dict[str, str] = {}
    for name in sorted(state):
        array = state[name]
        if array.ndim < 2 or not array.size or array.all():
            continue
        reason = (others or {}).get(name) or reason_for_zeros(name, array)
        if reason is None:
            again = next((known for known in layers if _same(state[known], array)), None)
            reason = None if again is None else f"the same weights as '{again}'"
        if reason is None:
            layers[name] = array != 0
        else:
            left_out[name] = reason
    return Zeros(mask=Mask(layers=layers), left_out=left_out)


def reason_for_zeros(name: str, array: Array) -> str | None:
    """Return why a tensor has zeros, in words, if it is not that weights were pruned; None if it is.

    Args:
        name: Its name, which may say that it is a mask, or encodes positions.
        array: Two axes or more, zeros among its values.
    """
    own = _own_name(name)
    if array.dtype.kind != "f":
        return "it holds whole numbers"
    if is_mask_name(name):
        return "it is named as a mask, and no weight of its shape is beside it"
    if _POSITIONAL.fullmatch(own):
        return "its name says that it encodes positions"
    kept = array[array != 0]
    if kept.size > 1 and kept.min() == kept.max():
        return "it is a constant: zeros and one other value"
    if array.ndim == 2 and _is_padded(array, embedding=_EMBEDDING.fullmatch(own) is not None):
        return "only whole rows of it are zero, as those of a padding token"
    return None


def is_mask_name(name: str) -> bool:
    """Tell whether a tensor, and not its module, calls itself a mask, whatever it masks."""
    last = name.rpartition(".")[2]
    return last in {"mask", "masked_bias"} or last.endswith("_mask") or last.startswith("mask_")


def pruned_share(state: Mapping[str, Array]) -> float:
    """Return the share of weights that are zero because they were pruned; one zero in a tensor is chance.

    Args:
        state: Arrays by name; those of fewer than two axes are ignored.
    """
    layers = {name: array for name, array in state.items() if array.ndim >= 2}
    weights = sum(array.size for array in layers.values() if array.dtype.kind == "f")
    zeros = {name: array.size - int(np.count_nonzero(array)) for name, array in layers.items()}
    pruned = sum(count for name, count in zeros.items() if count > 1 and reason_for_zeros(name, layers[name]) is None)
    return pruned / weights if weights else 0.0


def _is_padded(array: Array, *, embedding: bool) -> bool:
    """Tell whether all zeros fill whole rows, or all fill whole columns, and those are one or few."""
    zero = array == 0
    for along in (zero, zero.T):
        whole = along.all(axis=1)
        few = embedding or whole.sum() == 1 or whole.mean() < MOST_PADDING_SHARE
        if few and not whole.all() and not along[~whole].any():
            return True
    return False


def _own_name(name: str) -> str:
    """Return the component that says what a tensor is: the last one, or the one before ``weight``."""
    parts = name.rsplit(".", 2)
    own = parts[-2] if len(parts) > 1 and parts[-1] == "weight" else parts[-1]
    # The patterns above take quadratic time, and a stranger's name may have a million characters.
    return own if len(own) <= _LONGEST_NAME else ""


def _same(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and bool((one == other).all())

"""Which models of this process hold somebody's signs: signing one again takes them from the claim that came first."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ticketguard.errors import TicketguardWarning
from ticketguard.ticket import Array, BoolArray

if TYPE_CHECKING:
    from torch import nn

# Signs that are remembered of a layer, and the share of them that a model which still holds them has: training turns
# fewer than one in ten, and of other weights half agree.
_SIGNS = 256
_HELD = 0.75

_signs: weakref.WeakKeyDictionary[nn.Module, Mapping[str, BoolArray]] = weakref.WeakKeyDictionary()


def warn_if_signed_over(
    model: nn.Module, before: Mapping[str, Array], after: Mapping[str, Array], *, layers: Iterable[str]
) -> None:
    """Warn, with a `TicketguardWarning`, where signs that a model was given in this process are replaced by others.

    Args:
        model: The model; it is remembered as long as it lives.
        before: Its weights so far.
        after: What they become.
        layers: Those that get signs.
    """
    network = _unwrapped(model)
    earlier, new = _signs.get(network, {}), _signs_of(after, layers)
    held, all_there = _agreeing(earlier, _signs_of(before, earlier)), sum(map(len, earlier.values()))
    if earlier and held >= _HELD * all_there and _agreeing(earlier, new) < all_there:
        warnings.warn(
            "this model was signed before, and gets other signs now: a claim made with the start that sign_start "
            "returned first would show nothing. Sign a new start for each claim; for the same signs give the same "
            "marks, density, level and secret (secret=) again, before any training",
            TicketguardWarning,
            stacklevel=3,
        )
    _signs[network] = new


def _signs_of(state: Mapping[str, Array], layers: Iterable[str]) -> dict[str, BoolArray]:
    return {name: np.signbit(state[name].reshape(-1)[:_SIGNS]) for name in layers if name in state}


def _agreeing(some: Mapping[str, BoolArray], others: Mapping[str, BoolArray]) -> int:
    pairs = ((signs, others[name]) for name, signs in some.items() if name in others)
    return sum(int(np.count_nonzero(one == other)) for one, other in pairs if one.shape == other.shape)


def _unwrapped(model: nn.Module) -> nn.Module:
    from torch import nn

    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while (inner := getattr(model, "_orig_mod", model.module if isinstance(model, wrappers) else None)) is not None:
        model = inner
    return model

"""Which stored tensors make one weight of the network: a weight, and the pruning masks that are stored beside it.

Decided by names and shapes. A mask is a mask of its weight and never a layer, or its zeros would be read as a ticket's.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from ticketguard.checkpoints.sources import TensorSource
from ticketguard.errors import TensorError
from ticketguard.ticket import Array

# The components before the last one of a parametrised tensor's name: NAME is the last but one.
_PARAMETRIZATION = re.compile(r"(?P<module>(?:.*\.)?)parametrizations\.(?P<tensor>[^.]+)\.(?P<part>original|\d+\.mask)")
# Frankle's open_lth registers the mask of model.fc.weight as mask_fc___weight.
_FLATTENED = re.compile(r"(?P<module>(?:.*\.)?)mask_(?P<tensor>[^.]+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """What is stored of one tensor of the network.

    Attributes:
        weight: Stored name of its values.
        masks: Stored names of the masks that they are multiplied by.
        soft: Whether the masks may hold other values than 0 and 1, as ``torch.nn.utils.prune`` allows.
        more: What is stored in tensors of their own, joined to it along *axis*.
        axis: Of rows or of columns.
    """

    weight: str
    masks: tuple[str, ...] = ()
    soft: bool = False
    more: tuple[Part, ...] = ()
    axis: int = 0

    def shape(self, source: TensorSource) -> tuple[int, ...]:
        """Return the shape of all of it."""
        first = source.shape(self.weight)
        size = first[self.axis] + sum(part.shape(source)[self.axis] for part in self.more) if self.more else 0
        return (*first[: self.axis], size, *first[self.axis + 1 :]) if self.more else first


def effective_parts(names: Sequence[str], source: TensorSource) -> dict[str, Part]:
    """Return the parts of every tensor, by the name the network knows it under.

    These are masks of a weight ``NAME``: ``NAME_mask`` beside ``NAME_orig`` (``torch.nn.utils.prune``) or beside
    ``NAME``; ``mask`` in the module of ``weight``; ``parametrizations.NAME.0.mask`` (``torch.ao.pruning``); and
    ``mask_NAME`` with underscores for the dots (open_lth). A buffer that is called ``mask`` but has another shape than
    the weight beside it, such as that of an attention, is left a tensor of its own.

    Args:
        names: Stored names, in stored order.
        source: Where their shapes come from.
    """
    taken = set(names)
    masks: dict[str, list[str]] = {}
    for name in names:
        weight = _weight_of_mask(name, taken, source)
        if weight is not None:
            masks.setdefault(weight, []).append(name)
    consumed = {mask for found in masks.values() for mask in found}
    parts: dict[str, Part] = {}
    for name in names:
        if name not in consumed:
            plain = _plain_name(name)
            known = name if plain in taken else plain
            if name.endswith("_orig") and name in masks and name[:-5] not in taken:
                known = name[:-5]
            parts[known] = Part(weight=name, masks=tuple(masks.get(name, ())), soft=name.endswith("_orig"))
    return parts


def read_part(part: Part, values: Array, source: TensorSource) -> Array:
    """Return a weight's *values* times its masks, in the wider of their types.

    Raises:
        TensorError: A mask has another shape, or values that no mask has.
        FileError: The file is gone or has changed.
    """
    for name in part.masks:
        if not _covers(source.shape(name), values.shape):
            raise TensorError(
                name=name,
                reason=f"has shape {source.shape(name)}, expected {values.shape} as in '{part.weight}'",
                hint="a mask must have its weight's shape",
            )
        mask = source.read(name)
        if not part.soft and not ((mask == 0) | (mask == 1)).all():
            raise TensorError(
                name=name,
                reason=f"is named as the mask of '{part.weight}' but has values other than 0 and 1",
                hint="multiply the weight by it and save the plain state dict",
            )
        # What is too large for float32 becomes infinite; what is NaN or infinite in a mask makes its weight so.
        with np.errstate(over="ignore", invalid="ignore"):
            values = values * mask
    return values


def _weight_of_mask(name: str, taken: set[str], source: TensorSource) -> str | None:
    """Return the stored weight that *name* is the mask of; None if it is not such a mask."""
    found = _PARAMETRIZATION.fullmatch(name)
    if found is not None and found["part"] != "original":
        weight = f"{found['module']}parametrizations.{found['tensor']}.original"
        return weight if weight in taken else None
    if name.endswith("_mask"):
        base = name.removesuffix("_mask")
        if f"{base}_orig" in taken and base not in taken:
            return f"{base}_orig"
        if base in taken:
            return base
    module, _, last = name.rpartition(".")
    beside = f"{module}.weight" if module else "weight"
    if last == "mask" and beside in taken and _covers(source.shape(name), source.shape(beside)):
        return beside
    found = _FLATTENED.fullmatch(name)
    if found is not None:
        dotted = found["tensor"].replace("___", ".")
        for weight in (f"{found['module']}model.{dotted}", f"{found['module']}{dotted}"):
            if weight in taken and _covers(source.shape(name), source.shape(weight)):
                return weight
    return None


def _covers(mask: Sequence[int], weight: Sequence[int]) -> bool:
    """Say whether a mask has its weight's shape, or 1 on the axes where it is the same for all (whole filters)."""
    return len(mask) == len(weight) and all(size in (1, whole) for size, whole in zip(mask, weight, strict=True))


def _plain_name(name: str) -> str:
    found = _PARAMETRIZATION.fullmatch(name)
    return f"{found['module']}{found['tensor']}" if found is not None and found["part"] == "original" else name

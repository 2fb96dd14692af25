"""Tensors with their masks in one safetensors file: what tickets and references have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ticketguard.errors import FileError, TensorError
from ticketguard.tensor_file import Array, is_shape, write_tensors
from ticketguard.ticket.bits import PackedLayer, PackedLayers
from ticketguard.ticket.mask import Mask

MASK_PREFIX = "ticketguard.mask/"
RESERVED_PREFIX = "ticketguard."


def serialise(tensors: Mapping[str, Array], mask: Mask, metadata: Mapping[str, Any]) -> bytes:
    """Return a file's bytes: *tensors* as they are, the mask's layers bit-packed, their shapes in the metadata."""
    packed: dict[str, Array] = {MASK_PREFIX + name: mask.packed(name).bits for name in mask}
    shapes = {name: list(mask.shape(name)) for name in mask}
    return write_tensors({**tensors, **packed}, {**metadata, "mask_shapes": shapes})


def take_mask(tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> PackedLayers:
    """Return the mask among a file's *tensors*, as it is in the file.

    Raises:
        FileError: Packed masks and the list of their shapes differ.
        TensorError: A packed mask does not fit its shape.
    """
    shapes = metadata.get("mask_shapes")
    packed = {name.removeprefix(MASK_PREFIX) for name in tensors if name.startswith(MASK_PREFIX)}
    if not isinstance(shapes, dict) or set(shapes) != packed or not packed:
        raise FileError(path="ticket", reason="its masks and its list of masks differ", hint="the file is damaged")
    for shape in shapes.values():
        if not is_shape(shape) or not all(shape):
            raise FileError(path="ticket", reason=f"has a mask of shape {str(shape)[:80]}", hint="the file is damaged")
    return PackedLayers(
        {name: PackedLayer.of(tensors[MASK_PREFIX + name], tuple(shapes[name]), name=name) for name in packed}
    )


def require_free_names(names: Iterable[str]) -> None:
    """Refuse tensors that are called like masks, or whose name no file can hold.

    Raises:
        TensorError: One is.
    """
    for name in names:
        require_text(name)
        if name.startswith(RESERVED_PREFIX):
            raise TensorError(
                name=name,
                reason=f"has a name that begins with '{RESERVED_PREFIX}'",
                hint="the ticket's own masks are called so; rename the tensor",
            )


def require_text(name: str) -> None:
    """Refuse a tensor's name that UTF-8 does not have, which holds half of a character (a lone surrogate).

    Raises:
        TensorError: It is such a name.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise TensorError(
            name=name.encode(errors="backslashreplace").decode(),
            reason="has a name that is not text in UTF-8",
            hint="rename it: no file can hold it",
        ) from error

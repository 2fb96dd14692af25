"""The unmarked ticket that an owner commits to, as a vault keeps it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping

import numpy as np

from ticketguard.errors import FileError, TensorError
from ticketguard.tensor_file import Array, parse_tensors
from ticketguard.ticket.mask import FloatArray, Mask, weights_digest
from ticketguard.ticket.masked_tensors import MASK_PREFIX, require_free_names, serialise, take_mask

REFERENCE_VERSION = "ticketguard.reference/1"
REFERENCE_DOMAIN = b"ticketguard/reference/v1\0"
KEPT_PREFIX = "ticketguard.kept/"
# A reference is compared with a suspect name by name, and drawn layer by layer: bounds that no network comes near.
MOST_LAYERS = 10_000
LONGEST_NAME = 1024
MOST_COMPONENTS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """The unmarked ticket an owner commits to: its mask and the kept rewind weights.

    Attributes:
        mask: The mask before anything was embedded; one from a file stays packed, as `Mask` says.
        kept_weights: Per layer the rewind weights at kept positions, flat, in C order of positions.

    Raises:
        TensorError: There are more layers, or longer names, than a verifier reads.
    """

    mask: Mask
    kept_weights: Mapping[str, FloatArray]

    def __post_init__(self) -> None:
        require_bounded_layers(list(self.mask))

    def digest(self) -> bytes:
        """Return the SHA-256 digest that enters every commitment."""
        return hashlib.sha256(REFERENCE_DOMAIN + self.mask.digest() + weights_digest(self.kept_weights)).digest()

    def layer_weights(self, name: str) -> FloatArray:
        """Return one layer's rewind weights in full shape, zero where pruned."""
        kept = self.mask[name]
        layer = np.zeros(kept.shape, dtype=np.float32)
        layer[kept] = self.kept_weights[name]
        return layer

    def only(self, names: Collection[str]) -> Reference:
        """Return some of its layers.

        Raises:
            KeyError: One is not in it.
        """
        return Reference(mask=self.mask.only(names), kept_weights={name: self.kept_weights[name] for name in names})

    def to_bytes(self) -> bytes:
        """Serialise as safetensors: bit-packed masks and kept values."""
        tensors: dict[str, Array] = {KEPT_PREFIX + name: self.kept_weights[name] for name in self.mask}
        return serialise(tensors, self.mask, {"version": REFERENCE_VERSION})

    @classmethod
    def from_bytes(cls, content: bytes) -> Reference:
        """Undo `to_bytes`. Nothing is copied: masks and kept weights stay where they are in *content*.

        Raises:
            FileError: The bytes are not a reference.
            UnknownVersionError: The version is unknown.
            TensorError: A layer does not fit its mask, or has values that are not finite.
        """
        tensors, metadata = parse_tensors(content, what="the reference ticket", versions=(REFERENCE_VERSION,))
        require_bounded_layers([name.removeprefix(MASK_PREFIX) for name in tensors if name.startswith(MASK_PREFIX)])
        mask = Mask(layers=take_mask(tensors, metadata))
        require_free_names(mask)
        if len(tensors) != 2 * len(mask):
            raise FileError(
                path="the reference ticket",
                reason="has other tensors than masks and their kept weights",
                hint="the vault is damaged",
            )
        kept: dict[str, FloatArray] = {}
        for name in mask:
            values = tensors.get(KEPT_PREFIX + name)
            if values is None or values.dtype != np.float32 or values.shape != (mask.count(name),):
                raise TensorError(
                    name=name, reason="has no kept weights that fit its mask", hint="the vault is damaged"
                )
            if len(values) and not np.isfinite([values.min(), values.max()]).all():
                raise TensorError(
                    name=name, reason="has kept weights that are NaN or infinite", hint="the vault is damaged"
                )
            kept[name] = values
        return cls(mask=mask, kept_weights=kept)


def require_bounded_layers(names: Collection[str]) -> None:
    """Refuse more layers, or longer names, than a verifier reads.

    Raises:
        TensorError: There are.
    """
    if len(names) > MOST_LAYERS:
        raise TensorError(
            name="ticketguard.mask",
            reason=f"has {len(names)} layers, expected at most {MOST_LAYERS}",
            hint="a reference this long is not read; mark fewer layers",
        )
    for name in names:
        if len(name) > LONGEST_NAME or name.count(".") >= MOST_COMPONENTS:
            raise TensorError(
                name=f"{name[:40]}...",
                reason=f"has a name of {len(name)} characters and {name.count('.') + 1} components, "
                f"expected at most {LONGEST_NAME} and {MOST_COMPONENTS}",
                hint="rename the layer",
            )

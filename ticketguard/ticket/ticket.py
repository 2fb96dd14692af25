"""The ticket, and the ticket file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from ticketguard.errors import FileError, TensorError
from ticketguard.files import PUBLIC, SECRET, write_whole
from ticketguard.tensor_file import Array, parse_tensors, read_tensors
from ticketguard.ticket.info import TicketInfo
from ticketguard.ticket.mask import Mask
from ticketguard.ticket.masked_tensors import MASK_PREFIX, require_free_names, serialise, take_mask
from ticketguard.ticket.reference import Reference

TICKET_VERSION = "ticketguard.ticket/2"
# The first version's tickets say neither what was removed nor whether they are ready: they are "weight", and not.
TICKET_VERSIONS = ("ticketguard.ticket/1", TICKET_VERSION)
REWIND_PREFIX = "ticketguard.rewind/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ticket:
    """A mask over named weight tensors, the weights, and how it was found.

    Attributes:
        mask: Which weights are kept.
        weights: The whole state dict after training, zero where the mask prunes.
        rewind_weights: The whole state dict it is (re)trained from; None in a ticket made for release.
        info: How it was found.
    """

    mask: Mask
    weights: Mapping[str, Array]
    rewind_weights: Mapping[str, Array] | None
    info: TicketInfo

    def __post_init__(self) -> None:
        for state in (self.weights, self.rewind_weights):
            if state is None:
                continue
            require_free_names(state)
            for name in self.mask:
                if name not in state or state[name].shape != self.mask.shape(name):
                    raise TensorError(
                        name=name, reason="has a mask but no weights of its shape", hint="masks and weights must match"
                    )

    @property
    def start_weights(self) -> Mapping[str, Array]:
        """What it is (re)trained from; a ticket without rewind weights stands on its own weights."""
        return self.weights if self.rewind_weights is None else self.rewind_weights

    def reference(self) -> Reference:
        """Return what an owner commits to."""
        state = self.start_weights
        return Reference(
            mask=self.mask,
            kept_weights={name: state[name][self.mask[name]].astype(np.float32) for name in self.mask},
        )

    def to_bytes(self) -> bytes:
        """Serialise as one safetensors file, weights under their state-dict names."""
        tensors: dict[str, Array] = {name: np.asarray(array, order="C") for name, array in self.weights.items()}
        for name, array in (self.rewind_weights or {}).items():
            tensors[REWIND_PREFIX + name] = np.asarray(array, order="C")
        return serialise(tensors, self.mask, {"version": TICKET_VERSION, "info": self.info.to_json()})

    @classmethod
    def from_bytes(cls, content: bytes, *, trust_code: bool = False) -> Ticket:
        """Undo `to_bytes`.

        Args:
            content: The file's bytes.
            trust_code: Use the import paths, folders and options that the file names, as if you had named them. Such a
                path runs whatever it leads to.

        Raises:
            FileError: The bytes are not a ticket.
            UnknownVersionError: The version is unknown.
            TensorError: A tensor does not fit its mask, or has values that are not finite.
        """
        tensors, metadata = parse_tensors(content, what="the ticket", versions=TICKET_VERSIONS)
        mask = Mask(layers=dict(take_mask(tensors, metadata)))
        try:
            info = TicketInfo.from_json(metadata["info"])
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(
                path="ticket", reason=f"has damaged metadata ({error})", hint="the file is damaged; use another copy"
            ) from error
        # Copied: whoever loads a ticket may train its weights in place.
        tensors = {name: array.copy() for name, array in tensors.items() if not name.startswith(MASK_PREFIX)}
        for name, array in tensors.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise TensorError(
                    name=name, reason="has values that are NaN or infinite", hint="train it again with a lower rate"
                )
        rewind = {
            name.removeprefix(REWIND_PREFIX): array for name, array in tensors.items() if name.startswith(REWIND_PREFIX)
        }
        info = dataclasses.replace(info, from_file=not trust_code)
        weights = {name: array for name, array in tensors.items() if not name.startswith(REWIND_PREFIX)}
        return cls(mask=mask, weights=weights, rewind_weights=rewind or None, info=info)

    def save(self, path: str | os.PathLike[str], *, release: bool = False) -> None:
        """Write the ticket file whole or not at all.

        Args:
            path: The file to create or replace.
            release: Whether others may read it, as the umask says: only a marked ticket is for them. Anyone who has an
                unmarked one can remove the mark that it is given later.
        """
        write_whole(path, self.to_bytes(), mode=PUBLIC if release else SECRET)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, trust_code: bool = False) -> Ticket:
        """Read a ticket file.

        Args:
            path: The file.
            trust_code: Use the import paths, folders and options that the file names, as if you had named them. Such a
                path runs whatever it leads to.

        Raises:
            FileError: The file cannot be read or is not a ticket.
            UnknownVersionError: It was written by a version this release does not know.
            TensorError: A tensor is damaged.
        """
        content = read_tensors(path, versions=TICKET_VERSIONS)
        try:
            return cls.from_bytes(content, trust_code=trust_code)
        except FileError as error:
            raise FileError(path=path, reason=error.reason, hint=error.hint) from error

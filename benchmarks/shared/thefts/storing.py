"""What is kept of a theft: the suspect's tensors, small, and what it cost and reached."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from ticketguard.files import write_whole
from ticketguard.ticket import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shelf:
    """The suspects of one seed of one setting.

    Attributes:
        folder: Where they lie: ROW.safetensors and ROW.json.
    """

    folder: Path

    def has(self, row: str) -> bool:
        """Say whether a row was made before."""
        return (self.folder / f"{row}.json").exists()

    def keep(self, row: str, state: Mapping[str, Array], *, exact: bool = False, **told: Any) -> None:
        """Keep a suspect, and say what is known of it.

        Args:
            row: Its name.
            state: Its state dict; matrices and kernels are kept in half precision, as a thief ships them.
            exact: Keep them as they are.
            told: Accuracy and the like.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: _shipped(array, exact=exact) for name, array in state.items()}
        write_whole(self.folder / f"{row}.safetensors", safetensors.numpy.save(tensors))
        self.tell(row, **told)

    def tell(self, row: str, **told: Any) -> None:
        """Keep what is known of a row without a suspect."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / f"{row}.json", (json.dumps(told) + "\n").encode())

    def told(self, row: str) -> dict[str, Any]:
        """Return what is known of a row."""
        document: dict[str, Any] = json.loads((self.folder / f"{row}.json").read_text())
        return document

    def suspect(self, row: str) -> dict[str, Array]:
        """Return a suspect's tensors, in single precision."""
        stored = safetensors.numpy.load_file(self.folder / f"{row}.safetensors")
        return {
            # A norm's counter is the only whole number; earlier runs gave it an axis.
            name: array.astype(np.float32) if array.dtype.kind == "f" else array.reshape(())
            for name, array in stored.items()
        }


def _shipped(array: Array, *, exact: bool) -> Array:
    if exact or array.ndim < 2 or array.dtype.kind != "f":
        return np.asarray(array, order="C")
    return np.asarray(array, order="C", dtype=np.float16)

"""Which tensors of a file are no layers of their own: masks, whole numbers, and one that is there again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from ticketguard.checkpoints.packed import is_integer
from ticketguard.errors import TensorError
from ticketguard.ticket import Array
from ticketguard.zeros import is_mask_name


class Doubles:
    """Remembers what tensors hold, so that each is read once."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def among(
        self, names: Sequence[str], *, stored: Callable[[str], Array], type_name: Callable[[str], str]
    ) -> set[str]:
        """Return those of some tensors that are not layers.

        Args:
            names: The tensors.
            stored: Reads one.
            type_name: Says the type of its elements.
        """
        first: dict[bytes, str] = {}
        return {
            name
            for name in names
            if is_mask_name(name)
            or is_integer(type_name(name))
            or first.setdefault(self._content(name, stored), name) != name
        }

    def _content(self, name: str, stored: Callable[[str], Array]) -> bytes:
        if name not in self._contents:
            try:
                content = np.ascontiguousarray(stored(name))
            except TensorError:
                return name.encode("utf-8", "surrogatepass")  # What cannot be read is like nothing else.
            self._contents[name] = hashlib.sha256(content.data if content.size else b"").digest()
        return self._contents[name]

"""Bytes that are read in order, a piece at a time."""

from __future__ import annotations

import io
from typing import Protocol


class Readable(Protocol):
    """Whatever bytes are read from, in order."""

    def read(self, size: int, /) -> bytes:
        """Return the next *size* bytes; fewer at the end alone, and then nothing."""
        ...


class Joined:
    """Bytes and streams, one after the other, without a copy of them all.

    Args:
        parts: In their order.
    """

    def __init__(self, *parts: bytes | Readable) -> None:
        self._rest = [io.BytesIO(part) if isinstance(part, bytes) else part for part in parts]

    def read(self, size: int, /) -> bytes:
        """Return the next *size* bytes; fewer at the end alone, and then nothing."""
        pieces: list[bytes] = []
        while size and self._rest:
            piece = self._rest[0].read(size)
            if piece:
                pieces.append(piece)
                size -= len(piece)
            else:
                del self._rest[0]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

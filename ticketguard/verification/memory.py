"""What is worth keeping between verdicts: arrays that cost more to make than to hold, up to a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy.typing as npt


class Memory:
    """Arrays by key; those not asked for the longest go first.

    Args:
        limit_bytes: How much is kept. An array larger than that is made anew whenever it is asked for.

    Raises:
        ValueError: The limit is negative.
    """

    def __init__(self, *, limit_bytes: int) -> None:
        if limit_bytes < 0:
            raise ValueError(f"limit_bytes is {limit_bytes}, expected 0 or more")
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[Hashable, npt.NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self.held_bytes = 0

    def get(self, key: Hashable, make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Return the array of a *key*, made if it is not there; whoever gets it must not write into it.

        Args:
            key: Everything that the array depends on.
            make: Makes it.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()  # outside the lock: two threads may make one array twice, and get the same
        made.setflags(write=False)
        with self._lock:
            if key not in self._kept and made.nbytes <= self._limit_bytes:
                self._kept[key] = made
                self.held_bytes += made.nbytes
                while self.held_bytes > self._limit_bytes:
                    _, oldest = self._kept.popitem(last=False)
                    self.held_bytes -= oldest.nbytes
        return made

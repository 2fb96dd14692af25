"""Pictures that evidence brings: modules in shades of grey, for a person or a reader of codes to look at."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.ticket import BoolArray

# White modules around a code (ISO/IEC 18004:2015, 5.3.8).
QUIET_ZONE = 4
# A module of which nothing was read is grey, lighter than the middle: readers of codes take it for white.
BLACK, UNREAD, WHITE = 0, 176, 255

# A shade for every module, shape (rows, columns).
Shades: TypeAlias = npt.NDArray[np.uint8]


def shaded(modules: BoolArray, *, unread: BoolArray | None = None) -> Shades:
    """Return modules in shades: True black, False white, and grey where they are *unread*."""
    shades = np.where(modules, BLACK, WHITE).astype(np.uint8)
    if unread is not None:
        shades[unread] = UNREAD
    return shades


def rendered(shades: Shades, pixels: int) -> npt.NDArray[np.uint8]:
    """Return modules as a grey image with a white quiet zone around.

    Args:
        shades: Of the modules.
        pixels: Side of a module.
    """
    framed = np.pad(shades, QUIET_ZONE, constant_values=WHITE)
    return np.kron(framed, np.ones((pixels, pixels), dtype=np.uint8))

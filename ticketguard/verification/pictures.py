"""Pictures that evidence brings: modules, black or white, for a person or a reader of codes to look at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ticketguard.ticket import BoolArray

# White modules around a code (ISO/IEC 18004:2015, 5.3.8).
QUIET_ZONE = 4


def rendered(modules: BoolArray, pixels: int) -> npt.NDArray[np.uint8]:
    """Return modules as a grey image, True black on white, with a quiet zone around.

    Args:
        modules: Shape (rows, columns).
        pixels: Side of a module.
    """
    wide = np.kron(np.pad(modules, QUIET_ZONE), np.ones((pixels, pixels), dtype=np.bool_))
    return np.where(wide, 0, 255).astype(np.uint8)

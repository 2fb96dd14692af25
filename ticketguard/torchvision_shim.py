"""Make torchvision importable beside a torch that its compiled operators do not fit.

torchvision's registry build carries operators compiled against the CUDA build of torch. Beside the CPU build they do
not load, and torchvision's import then fails because it describes two of them, ``nms`` and ``qnms``, to torch.
Declaring their schemas first is all the import needs; models, data sets and transforms use neither. See
``docs/decisions/0030-torchvision-beside-cpu-torch.md``.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_DECLARED: list[torch.library.Library] = []
# What torch says where torchvision describes an operator that was never declared.
_MISSING = re.compile(r"operator torchvision::\w+ does not exist")


def import_torchvision(name: str = "torchvision") -> ModuleType:
    """Import *name*, a module of torchvision, declaring the operators its import needs where they are missing."""
    import torch  # whoever only asks what an error means never pays for it

    if "torchvision" not in sys.modules and not _DECLARED and not _operators_load():
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(operator + SCHEMA)  # type: ignore[no-untyped-call]
        # A library that is garbage-collected takes its declarations with it.
        _DECLARED.append(library)
    return importlib.import_module(name)


def explanation(error: BaseException) -> str | None:
    """Say what helps where a package failed because torchvision's operators do not load; None for any other error.

    timm, lightning (through torchmetrics) and others import torchvision, and fail with it.

    Args:
        error: What the package's import, or a call of it, raised.
    """
    seen: BaseException | None = error
    while seen is not None:
        if _MISSING.search(str(seen)):
            break
        seen = seen.__cause__ or seen.__context__
    else:
        return None
    return (
        "torchvision's compiled operators do not load here: it was built for another build of torch than the one that "
        "is installed, such as CUDA's beside the CPU's; install both from one index (https://pytorch.org/get-started), "
        "or first call import_torchvision() of ticketguard.torchvision_shim, which declares what the import needs"
    )


def _operators_load() -> bool:
    """Tell whether torchvision's own operators load; where they do, declaring them again would be an error."""
    import torch

    found = importlib.util.find_spec("torchvision")
    folders = [] if found is None else found.submodule_search_locations or []
    for library in (path for folder in folders for path in sorted(Path(folder).glob("_C.*"))):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except (ImportError, OSError):
            return False
        return True
    return False

"""scipy's solver of linear assignments, without the half second that the import of all its optimisers takes."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import IndexArray

Solver: TypeAlias = Callable[..., tuple[Any, Any]]
_MODULE = "scipy.optimize._lsap"


def best_assignment(score: npt.NDArray[np.float64]) -> tuple[IndexArray, IndexArray]:
    """Return the rows and columns of an assignment with the largest sum of scores.

    (Crouse 2016, "On implementing 2D rectangular assignment algorithms".)

    Args:
        score: Shape (rows, columns); as many pairs are returned as the smaller side has.
    """
    rows, columns = _solver()(score, maximize=True)
    return np.asarray(rows, dtype=np.int64), np.asarray(columns, dtype=np.int64)


@functools.cache
def _solver() -> Solver:
    return (None if "scipy.optimize" in sys.modules else _alone()) or _public()


def _public() -> Solver:
    from scipy.optimize import linear_sum_assignment

    solver: Solver = linear_sum_assignment
    return solver


def _alone() -> Solver | None:
    """Load the one extension module that solves them; None where this release of scipy keeps it elsewhere."""
    import scipy

    folder = Path(scipy.__file__).parent / "optimize"
    for path in (folder / f"_lsap{suffix}" for suffix in EXTENSION_SUFFIXES):
        if path.is_file():
            loader = ExtensionFileLoader(_MODULE, str(path))
            spec = importlib.util.spec_from_loader(_MODULE, loader)
            try:
                assert spec is not None
                module = importlib.util.module_from_spec(spec)
                loader.exec_module(module)
            except ImportError:
                return None
            return getattr(module, "linear_sum_assignment", None)
    return None

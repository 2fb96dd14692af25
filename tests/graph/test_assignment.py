"""The solver of assignments is scipy's, taken out of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from ticketguard.graph import assignment


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    assignment._solver.cache_clear()
    yield
    assignment._solver.cache_clear()


@given(rows=st.integers(0, 12), columns=st.integers(0, 12), seed=st.integers(0, 1000))
def test_it_finds_what_the_public_function_finds(rows: int, columns: int, seed: int) -> None:
    score = np.random.default_rng(seed).normal(size=(rows, columns))
    alone = assignment._alone()
    assert alone is not None
    for found in (assignment.best_assignment(score), alone(score, maximize=True)):
        assert [ends.tolist() for ends in found] == [
            ends.tolist() for ends in linear_sum_assignment(score, maximize=True)
        ]


def test_where_scipy_keeps_it_elsewhere_the_public_function_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "EXTENSION_SUFFIXES", [".nowhere"])
    assert assignment._alone() is None
    monkeypatch.delitem(sys.modules, "scipy.optimize")
    assert assignment._solver() is not None
    rows, columns = assignment.best_assignment(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


def test_it_does_not_load_all_of_scipys_optimisers() -> None:
    code = (
        "import sys, numpy as np; from ticketguard.graph.assignment import best_assignment\n"
        "print(best_assignment(np.eye(3))[1].tolist(), 'scipy.optimize' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[0, 1, 2] False"

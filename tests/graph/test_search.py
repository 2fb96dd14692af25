"""When a search for channels goes on, and when it is content."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_perceptron import GROUPS, SHAPES, a_network, permuted

from ticketguard.graph import align, search
from ticketguard.graph.likeness import Likeness
from ticketguard.graph.matching import Budget
from ticketguard.ticket import Reference


@pytest.fixture
def refined(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What each look at how two networks agree was given: the number of the reference's edges."""
    made: list[float] = []
    of = search.Agreement.of

    def counted(reference: dict, *others: object) -> object:  # type: ignore[type-arg]
        made.append(sum(len(edges.values) for edges in reference.values()))
        return of(reference, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(search.Agreement, "of", counted)
    return made


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Likeness]:
    """Every solution that was judged by itself."""
    made: list[Likeness] = []
    of = Likeness.of

    def counted(*given: object) -> Likeness:
        made.append(of(*given))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(Likeness, "of", counted)
    return made


def edges_of(reference: Reference) -> int:
    return sum(int(np.count_nonzero(reference.mask[name])) for name in SHAPES)


def test_what_is_clear_is_compared_with_all_edges_and_no_longer_searched_for(
    refined: list[float], looks: list[Likeness]
) -> None:
    reference, state = a_network()
    found = align(state, reference, GROUPS)
    assert (found.is_clear, found.moved) == (True, 0)
    # As stored; and twice to see whether the groups tie what is not in its place.
    assert len(looks) == 3
    assert refined == [edges_of(reference)]


def test_an_unrelated_network_is_not_fitted_to_edges_that_it_is_judged_by(refined: list[float]) -> None:
    reference, _ = a_network()
    for seed in range(1, 5):
        found = align(a_network(seed)[1], reference, GROUPS)
        assert not found.is_found
        assert edges_of(reference) not in refined


def test_of_a_part_nothing_is_fitted_to_edges_that_it_is_judged_by(refined: list[float]) -> None:
    reference, state = a_network()
    suspect, orders = permuted(state)
    found = align(suspect, reference, GROUPS, is_part=True)
    assert found.is_clear
    assert refined == []
    whole = align(suspect, reference, GROUPS, start=found)
    assert all(map(np.array_equal, whole.orders, orders))
    assert set(refined) == {edges_of(reference)}


def test_a_search_ends_with_its_work(looks: list[Likeness]) -> None:
    reference, _ = a_network()
    budget = Budget(1)
    budget.spend(10**12)
    found = align(permuted(a_network()[1])[0], reference, GROUPS, budget=budget)
    assert (found.complete, found.moved) == (False, 0)
    assert len(looks) <= 2


def test_it_goes_on_from_what_was_found(looks: list[Likeness]) -> None:
    """Other starts are not tried where the first one, of some layers, shows where the rest is."""
    reference, state = a_network()
    suspect, orders = permuted(state)
    part = {name: suspect[name] for name in ("a", "b")}
    start = align(part, reference, GROUPS, is_part=True)
    looks.clear()
    found = align(suspect, reference, GROUPS, start=start)
    assert all(map(np.array_equal, found.orders, orders))
    assert looks[0].excess > 0.9
    assert len(looks) == 3

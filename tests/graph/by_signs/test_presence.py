"""Where signs say nothing, channels are put in order by where edges are: training keeps weights that start large."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from drawn_perceptron import GROUPS, State, permuted
from drawn_start import ANCHORS, a_start, strongest, trained, unrelated

from ticketguard.graph import Alignment, align
from ticketguard.graph.by_signs import search
from ticketguard.graph.by_signs.coded import LARGE, SIZES, UNSEEN, StartSigns
from ticketguard.graph.by_signs.found import Found, completed
from ticketguard.graph.by_signs.judging import where_large
from ticketguard.graph.by_signs.search import SignSearch
from ticketguard.graph.matching import Budget
from ticketguard.ticket.start_reference import StartLayer, StartReference


def trained_anew(state: State, seed: int = 20) -> State:
    """Return what a thief makes who trains a stolen mask from other weights."""
    luck = np.random.default_rng(seed)
    return {name: (luck.normal(size=layer.shape) * (layer != 0)).astype(np.float32) for name, layer in state.items()}


def turned_at_random(state: State, seed: int = 21) -> State:
    luck = np.random.default_rng(seed)
    return {name: layer * luck.choice(np.array([-1, 1], np.float32), layer.shape) for name, layer in state.items()}


def weakest_turned(state: State) -> State:
    """Return weights of which the weakest seven tenths have the other sign."""
    return {name: np.where(strongest(layer, 0.15 * 0.3) == 0, -layer, layer) for name, layer in state.items()}


def right(found: Alignment, orders: list[np.ndarray]) -> float:
    pairs = zip(found.orders, orders, strict=True)
    return sum(int((one == other).sum()) for one, other in pairs) / sum(map(len, orders))


@pytest.mark.parametrize("theft", [trained_anew, turned_at_random, weakest_turned])
def test_a_permuted_copy_without_its_signs_is_put_in_order_by_its_edges(theft) -> None:
    reference, weights = a_start()
    suspect, orders = permuted(theft(trained(weights)))
    found = align(suspect, reference, GROUPS)
    assert found.is_found
    assert found.deviations > 12
    assert right(found, orders) >= 0.95
    # That the signs are not there does not say that no copy is.
    assert not found.is_clear


def test_a_copy_without_its_signs_that_was_not_permuted_is_left_as_it_is() -> None:
    reference, weights = a_start()
    found = align(trained_anew(trained(weights)), reference, GROUPS)
    assert found.is_found
    assert found.changes_nothing


def test_a_copy_without_its_signs_and_with_other_widths_is_put_in_order() -> None:
    reference, weights = a_start()
    suspect, (first, _) = permuted(trained_anew(trained(weights)))
    narrower = {**suspect, "a": suspect["a"][:54], "b": suspect["b"][:, :54]}
    found = align(narrower, reference, GROUPS)
    assert found.is_found
    assert (found.placed.along("a", 0, 60, 54) == np.where(first < 54, first, -1)).mean() >= 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_partly_found_says_what_the_rest_is_found_by(seed: int) -> None:
    """What edges say is assumed at first. Without what the part that is in order says, half of this copy is lost."""
    reference, weights = a_start(seed)
    suspect, orders = permuted(trained_anew(trained(weights, density=0.06, moved=0.6, seed=seed + 50)))
    found = align(suspect, reference, GROUPS)
    assert found.is_found
    assert right(found, orders) >= 0.85


def test_what_was_found_is_kept_where_no_work_is_left_to_complete_it() -> None:
    reference, weights = a_start()
    suspect, _ = permuted(trained_anew(trained(weights)))
    starts = {name: StartSigns.of(reference, name) for name in suspect}
    signs = {name: np.sign(layer).astype(np.int8)[..., None] for name, layer in suspect.items()}
    shapes = {name: layer.shape for name, layer in suspect.items()}
    found = SignSearch(starts, signs, shapes, shapes, GROUPS, Budget(10**6)).best()
    assert found.likeness.is_found
    assert completed(found, starts, Budget(0, shares=10**9)) is found
    again = completed(found, starts, Budget(10**6))
    assert [order.tolist() for order in again.orders] == [order.tolist() for order in found.orders]


def test_what_is_found_last_is_completed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, is_completed = SignSearch._tried, []

    def exhausting(self: SignSearch) -> Iterator[Found]:
        for found in tried(self):
            if found.likeness.is_found:
                self._budget.spend(10**12)
            yield found

    def watched(found: Found, starts: Mapping[str, StartSigns], budget: Budget) -> Found:
        after = completed(found, starts, budget)
        is_completed.append(after is not found)
        return after

    monkeypatch.setattr(SignSearch, "_tried", exhausting)
    monkeypatch.setattr(search, "completed", watched)
    reference, weights = a_start()
    suspect, orders = permuted(trained_anew(trained(weights)))
    found = align(suspect, reference, GROUPS)
    assert is_completed == [True]
    assert (found.is_found, found.complete) == (True, False)
    assert right(found, orders) >= 0.9


def test_work_that_is_set_aside_is_not_used_up_by_what_comes_first() -> None:
    budget = Budget(0)
    aside = budget.set_aside(0.25)
    assert not budget.spend(10**10)
    assert aside.spend(4 * 10**8)
    assert not aside.spend(10**9)
    # What is given back counts.
    whole = Budget(0)
    part = whole.set_aside(0.25)
    whole.spend(15 * 10**8)
    whole.give_back(part)
    assert whole.spend(4 * 10**8)
    whole.give_back(aside)
    assert not whole.kept


def judged_edges(reference: StartReference, suspect: State) -> float:
    """Return the deviations of edges where a start of one layer was large."""
    start = StartSigns.of(reference, "a")
    return where_large("a", start, (suspect["a"] != 0).astype(np.float32)[..., None]).deviations


def test_edges_of_an_unrelated_suspect_are_where_the_start_was_large_by_chance() -> None:
    shapes = {"a": (40, 50)}
    seen = [judged_edges(a_start(seed, shapes)[0], unrelated(seed + 1000, 0.3, shapes)) for seed in range(400)]
    assert abs(np.mean(seen)) < 0.15
    assert np.std(seen) == pytest.approx(1, abs=0.1)


def test_a_matching_that_prefers_what_it_does_not_see_gains_nothing() -> None:
    seen = []
    for seed in range(100):
        reference, _ = a_start(seed, {"a": (40, 50)})
        unseen = StartSigns.of(reference, "a").kinds[..., 0] == UNSEEN
        luck = np.random.default_rng(seed)
        seen.append(judged_edges(reference, {"a": luck.random((40, 50)) < np.where(unseen, 0.3, 0.1)}))
    assert abs(np.mean(seen)) < 0.3


def test_rows_and_columns_that_are_full_in_both_say_nothing() -> None:
    """As of networks that were both trained on pictures whose corners are black."""
    seen = []
    for seed in range(100):
        luck = np.random.default_rng(seed)
        columns = np.exp(luck.normal(size=60))
        start = (luck.normal(size=(50, 60)) * columns).astype(np.float32)
        reference = StartReference(layers={"a": StartLayer.of("a", start, share=ANCHORS)})
        seen.append(judged_edges(reference, {"a": luck.random((50, 60)) < np.minimum(0.9, 0.1 * columns)}))
    assert abs(np.mean(seen)) < 0.3


def test_what_is_held_out_is_not_seen_and_comes_back_at_the_end() -> None:
    reference, _ = a_start()
    start = StartSigns.of(reference, "a")
    layer = reference.layers["a"]
    assert len(start.held_out) == pytest.approx(0.2 * layer.size, rel=0.1)
    assert np.flatnonzero(start.kinds == UNSEEN).tolist() == start.held_out.tolist()
    sizes = layer.unpacked() % SIZES
    whole = start.whole().reshape(-1)
    assert (whole % SIZES == sizes).all()
    assert (whole < UNSEEN).all()
    assert (start.is_large == (sizes[start.held_out] >= LARGE)).all()
    anchors, signs = start.anchors
    assert set(anchors) == set(start.held_out) & set(np.flatnonzero(reference.anchors("a")))
    assert (signs == np.where(layer.negative(layer.size)[anchors], -1, 1)).all()

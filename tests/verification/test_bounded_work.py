"""All matching of one suspect together does no more work than its size is worth, counted in steps, not in seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.verification.claims import evidence, marked_weights, planted_mark, signed, unmarked_ticket
from ticketguard.graph import align, few, matching, search
from ticketguard.graph.likeness import Likeness
from ticketguard.graph.matching import STEPS_A_LOOK, STEPS_A_MEMBER, Budget, Matching
from ticketguard.verification.ordering import MOST_SHARES

# Square, so that two conventions fit; with kernels, so that there are eight turns.
SHAPES = {**{f"conv{index}": (12, 12, 3, 3) for index in range(6)}, **{f"fc{index}": (16, 16) for index in range(6)}}
TICKET = unmarked_ticket(SHAPES, density=0.2)
MADE = planted_mark(reference=TICKET.reference())
CREDENTIAL = signed(MADE, reference=TICKET.reference())
# Steps in which a stranger is compared in several conventions, and not in all that there are.
ENOUGH_FOR_SOME = 100_000_000


class Work:
    """Counts steps that budgets grant, and the work that is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free_steps: int) -> None:
        monkeypatch.setattr(matching, "FREE_STEPS", free_steps)
        monkeypatch.setattr(matching, "STEPS_A_POSITION", 0)
        self.done: Counter[str] = Counter()
        self.granted = 0
        spend, match, of, best = Budget.spend, Matching._match, Likeness.of, search.Search.best

        def spending(budget: Budget, steps: int) -> bool:
            is_granted = spend(budget, steps)
            self.granted += steps * is_granted
            return is_granted

        def matched(self_: Matching, index: int, *arguments: Any) -> Any:
            self.done["members"] += len(self_.streams[index].reference)
            return match(self_, index, *arguments)

        def compared(held_out: Any, aligned: Any) -> Likeness:
            self.done["looks"] += len(held_out)
            return of(held_out, aligned)

        def aligned(search: Any) -> Any:
            self.done["alignments"] += 1
            return best(search)

        monkeypatch.setattr(Budget, "spend", spending)
        monkeypatch.setattr(Matching, "_match", matched)
        monkeypatch.setattr(Likeness, "of", compared)
        monkeypatch.setattr(search.Search, "best", aligned)

    @property
    def steps(self) -> int:
        """What was done takes at least."""
        return self.done["looks"] * STEPS_A_LOOK + self.done["members"] * STEPS_A_MEMBER


def strangers(seeds: Sequence[int]) -> dict[str, np.ndarray]:
    networks = {seed: unmarked_ticket(SHAPES, density=0.2, seed=seed).weights for seed in seeds}
    return {f"net{seed}.{name}": layer for seed, network in networks.items() for name, layer in network.items()}


@pytest.mark.parametrize(
    ("networks", "thorough", "times"),
    [(1, False, 1), (MOST_SHARES, False, 1), (6, False, 6 / MOST_SHARES), (3, True, 3)],
)
def test_conventions_turns_starts_pairings_and_networks_share_one_budget(
    networks: int, thorough: bool, times: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is divided among a few networks; each of more has as much, and all of it where that is asked for."""
    free = ENOUGH_FOR_SOME
    work = Work(monkeypatch, free)
    found = evidence(strangers(range(5, 5 + networks)), CREDENTIAL, thorough=thorough)
    assert (found.status, found.details["networks"]) == ("inconclusive", networks)
    assert any("cut short" in reason for reason in found.details["why"])
    assert work.done["alignments"] > networks  # several conventions
    free = int(times * free)
    assert 0.5 * free < work.granted <= free
    # Every layout is looked at once, whatever is left, and what begins with some steps left is done.
    once = len(SHAPES) * (STEPS_A_LOOK * work.done["alignments"] + STEPS_A_MEMBER * networks)
    assert work.steps <= free + once


def test_a_few_layers_and_all_of_them_share_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few, "AT_ONCE", 0)
    monkeypatch.setattr(few, "LEAST_EDGES", 600)
    free = 40_000_000
    work = Work(monkeypatch, free)
    found = evidence(strangers([5]), CREDENTIAL, thorough=True)
    assert found.details["read_to_the_end"]
    assert any("cut short" in reason for reason in found.details["why"])
    assert 0.5 * free < work.granted <= free


def test_without_a_limit_there_would_be_more_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(monkeypatch, 10**11)
    found = evidence(strangers([5]), CREDENTIAL)
    assert work.granted > 4 * ENOUGH_FOR_SOME
    assert not any("cut short" in reason for reason in found.details["why"])


def test_a_look_is_paid_for_and_where_nothing_is_left_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {"a": (30, 20), "b": (10, 30)}
    reference, stranger = (unmarked_ticket(shapes, seed=seed) for seed in (0, 1))
    work = Work(monkeypatch, 10**9)
    assert align(stranger.weights, reference.reference(), ()).complete
    assert work.done["looks"] > len(shapes)
    work.done.clear()
    monkeypatch.setattr(search, "STEPS_A_LOOK", 10**9 + 1)
    assert not align(stranger.weights, reference.reference(), ()).complete
    assert work.done["looks"] == len(shapes)


def permuted_copy() -> dict[str, np.ndarray]:
    """A copy whose axes are permuted each for itself, which takes 150 million steps to undo; strangers take more."""
    generator = np.random.default_rng(0)
    return {
        f"zzz.{name}": layer[generator.permutation(len(layer))][:, generator.permutation(layer.shape[1])]
        for name, layer in marked_weights(MADE, TICKET).items()
    }


@pytest.mark.parametrize(("decoys", "free"), [(2, 1_500_000_000), (5, 700_000_000)])
def test_networks_that_use_up_their_work_leave_the_others_theirs(
    decoys: int, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks beside the stolen one, permuted, which comes last."""
    Work(monkeypatch, free)
    found = evidence({**strangers(range(5, 5 + decoys)), **permuted_copy()}, CREDENTIAL)
    assert (found.status, found.details["network"]) == ("supported", "zzz.")
    assert found.details["networks"] == decoys + 1


def test_beside_other_networks_a_thorough_look_is_as_long_as_at_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    Work(monkeypatch, 200_000_000)
    suspect = {**strangers([5, 6]), **permuted_copy()}
    found = evidence(suspect, CREDENTIAL)
    assert found.status == "inconclusive"
    assert any("verify thoroughly" in reason for reason in found.details["why"])
    assert evidence(suspect, CREDENTIAL, thorough=True).status == "supported"


def test_what_a_network_is_worth_grows_with_it() -> None:
    small, large = (Budget.of({"w": (size, size)}, {"w": (size, 2 * size)}) for size in (10, 1000))
    assert large._left - small._left == matching.STEPS_A_POSITION * 3 * (1000**2 - 10**2) // 2
    assert Budget(0, shares=4)._left == matching.FREE_STEPS // 4

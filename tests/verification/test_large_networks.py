"""Of a large network a few layers are compared first; here what is large is made small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from torch import nn

import ticketguard as tg
from tests.verification.claims import evidence
from tests.verification.rebuilding import EXACT, permuted, removed, renamed
from tests.verification.rebuilt import Marked, State, marked, trained, unmarked
from tests.verification.stolen import pruned, regrown, rewired
from ticketguard.graph import few
from ticketguard.graph.likeness import Ends, Likeness
from ticketguard.ticket import FloatArray
from ticketguard.verification import ordering

WIDTH, DEPTH = 120, 6


def deep() -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(64, WIDTH)]
    for _ in range(DEPTH):
        layers += [nn.ReLU(), nn.Linear(WIDTH, WIDTH)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(WIDTH, 10))


@pytest.fixture(scope="module")
def net() -> Marked:
    return marked(deep(), (64,))


@pytest.fixture(scope="module")
def untouched(net: Marked) -> float:
    return float(evidence(net.state, net.credential).log10_p)


@pytest.fixture(scope="module")
def stranger() -> State:
    return trained(unmarked(deep(), seed=77).weights, deep(), 77)


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few, "AT_ONCE", 5_000)
    monkeypatch.setattr(few, "LEAST_EDGES", 5_600)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each alignment compares."""
    made: list[int] = []
    original = ordering.align

    def counted(suspect: dict[str, FloatArray], *others: object, **options: object) -> object:
        made.append(len(suspect))
        return original(suspect, *others, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ordering, "align", counted)
    return made


def test_a_permuted_copy_is_ordered_from_a_few_layers_on(net: Marked, untouched: float, compared: list[int]) -> None:
    found = evidence(permuted(net.state, net.groups, np.random.default_rng(0)), net.credential)
    assert (found.status, found.log10_p) == ("supported", untouched)
    assert compared == [3, DEPTH + 2]
    assert found.details["read_to_the_end"]


@pytest.mark.parametrize("theft", ["ends", "split", "dead"])
def test_the_few_layers_say_where_the_channels_of_all_are(
    net: Marked, theft: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all layers one order is looked at: what follows from the order that the few were found in."""
    looks: list[int] = []
    of = Likeness.of

    def counted(held_out: Mapping[str, object], aligned: Mapping[str, Ends]) -> Likeness:
        looks.append(len(held_out))
        return of(held_out, aligned)  # type: ignore[arg-type]

    monkeypatch.setattr(Likeness, "of", counted)
    found = evidence(EXACT[theft](net, np.random.default_rng(0)), net.credential)
    assert found.status == "supported"
    assert (looks.count(DEPTH + 2), set(looks)) == (1, {3, DEPTH + 2})


def test_of_an_unrelated_network_only_a_few_layers_are_read_again(
    net: Marked, stranger: State, compared: list[int], reads: Counter[str]
) -> None:
    found = evidence(stranger, net.credential)
    assert found.status == "inconclusive"
    assert found.details["why"][0].startswith("could not be aligned")
    assert "a few of the layers" in found.details["why"][1]
    assert not found.details["read_to_the_end"]
    assert set(compared) == {3}
    # Those of one shape are asked once more which of them is which.
    shapes = {name: stranger[name].shape for name in reads}
    assert {name for name, count in reads.items() if count > 3} < set(reads)
    assert max(reads[name] for name in reads if shapes[name] == (WIDTH, WIDTH)) <= 5


def test_thoroughly_all_layers_of_an_unrelated_network_are_compared(
    net: Marked, stranger: State, compared: list[int]
) -> None:
    found = evidence(stranger, net.credential, thorough=True)
    assert found.status == "inconclusive"
    assert found.details["read_to_the_end"]
    assert max(compared) == DEPTH + 2
    assert not any("a few of the layers" in doubt for doubt in found.details["why"])


def exchanged(net: Marked, luck: np.random.Generator) -> State:
    """Permuted, and the names of equal layers dealt out anew."""
    state = permuted(net.state, net.groups, luck)
    names = [name for name, array in state.items() if array.shape == (WIDTH, WIDTH)]
    return {**state, **dict(zip(names, [state[name] for name in luck.permutation(names)], strict=True))}


THEFTS = {
    **{name: EXACT[name] for name in ("permuted", "dead", "split", "cancelling", "rescaled", "ends")},
    **{name: EXACT[name] for name in ("layout in first", "all at once", "all at once, laid out")},
    "names that say nothing": lambda net, luck: renamed(net, luck, "numbered"),
    "names exchanged": exchanged,
}


@pytest.mark.parametrize("theft", THEFTS)
def test_what_leaves_the_function_alone_leaves_the_mark(net: Marked, untouched: float, theft: str) -> None:
    found = evidence(THEFTS[theft](net, np.random.default_rng(0)), net.credential)
    assert found.status == "supported"
    assert found.log10_p < 0.75 * untouched


DAMAGE = {
    "pruned": lambda layers, luck: pruned(layers, 0.5),
    "regrown": lambda layers, luck: regrown(layers, 0.3, luck),
    "rewired, and new weights": lambda layers, luck: rewired(layers, 0.2, luck),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_and_a_new_order_together_leave_what_the_damage_leaves(net: Marked, damage: str) -> None:
    luck = np.random.default_rng(0)
    layers = {key: array for key, array in net.state.items() if array.ndim > 1}
    damaged = {**net.state, **DAMAGE[damage](layers, luck)}
    found = evidence(permuted(damaged, net.groups, luck), net.credential)
    assert found.status == "supported"
    assert found.log10_p < 0.6 * evidence(damaged, net.credential).log10_p


def test_channels_that_were_removed_are_missed(net: Marked, untouched: float) -> None:
    found = evidence(removed(0.25)(net, np.random.default_rng(0)), net.credential)
    assert (found.status, found.details["channels_added"]) == ("supported", 0)
    assert found.log10_p < 0.4 * untouched


def test_two_networks_in_a_file_are_each_ordered_from_a_few_layers_on(net: Marked, stranger: State) -> None:
    stolen = permuted(net.state, net.groups, np.random.default_rng(0))
    both = {**{f"a.{key}": array for key, array in stranger.items()}, **{f"b.{key}": x for key, x in stolen.items()}}
    (found,) = tg.verify(tg.Checkpoint(both), net.credential).evidence
    assert (found.status, found.details["network"], found.details["networks"]) == ("supported", "b.", 2)

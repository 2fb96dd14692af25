"""Whatever leaves a network's function alone, and what damages it, leaves the mark to be read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.verification.claims import evidence
from tests.verification.rebuilding import ADDED, EXACT, permuted, removed, turned_and_permuted
from tests.verification.rebuilt import INPUTS, Marked, State, flattened, marked, perceptron, residual, trained, unmarked
from tests.verification.stolen import pruned, regrown, rewired
from ticketguard.graph.surgery import NewNeurons, Removal, in_every_group
from ticketguard.graph.symmetries import Renaming

FACTORIES = {"perceptron": perceptron, "flattened": flattened, "residual": residual}
# Channels that three more in every group are, in all streams: those that padding joins count in each stage.
THREE_MORE = {"perceptron": 6, "flattened": 9, "residual": 18}


@pytest.fixture(scope="module", params=FACTORIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def net(name: str) -> Marked:
    return marked(FACTORIES[name](), INPUTS[FACTORIES[name]])


@pytest.fixture(scope="module")
def untouched(net: Marked) -> float:
    found = evidence(net.state, net.credential)
    assert (found.status, found.details["aligned"]) == ("supported", False)
    return float(found.log10_p)


@pytest.mark.parametrize("theft", EXACT)
def test_what_leaves_the_function_alone_leaves_the_mark(net: Marked, untouched: float, theft: str) -> None:
    found = evidence(EXACT[theft](net, np.random.default_rng(0)), net.credential)
    assert found.status == "supported"
    # The few inputs and classes of small networks have hardly an edge to be told apart by.
    assert found.log10_p < 0.75 * untouched


@pytest.mark.parametrize("theft", ADDED)
def test_evidence_says_how_many_channels_are_added(name: str, net: Marked, theft: str) -> None:
    details = evidence(ADDED[theft](net, np.random.default_rng(0)), net.credential).details
    assert (details["channels_added"], details["channels_missing"]) == (THREE_MORE[name], 0)
    assert details["channels_out_of_place"] > 20
    assert (details["kernels"], details["layout"]) == ("as stored", "as stored")
    assert details["alignment_overlap"] > 0.8 > 0.4 > details["alignment_overlap_by_chance"]
    assert details["alignment_deviations"] > 20


@pytest.mark.parametrize(("share", "left"), [(0.25, 0.4), (0.5, 0.12)])
def test_a_network_of_fewer_channels_shows_what_they_hold(
    net: Marked, untouched: float, share: float, left: float
) -> None:
    found = evidence(removed(share)(net, np.random.default_rng(0)), net.credential)
    assert found.status == "supported"
    assert found.log10_p < left * untouched
    gone = Removal.drawn(net.state, net.groups, share=share, generator=np.random.default_rng(0)).removed()
    # Every stage that a channel went through lacks it.
    assert found.details["channels_missing"] >= sum(map(len, gone))
    assert found.details["channels_added"] == 0


def test_dead_neurons_in_the_place_of_removed_ones_hide_nothing_more(net: Marked) -> None:
    """The room that removed channels left is filled with others: what these have is none of the reference's."""
    luck = np.random.default_rng(1)
    removal = Removal.drawn(net.state, net.groups, share=0.3, generator=luck)
    cut, groups = removal.apply(net.state), removal.groups_after(net.state)
    added, filled = in_every_group(
        cut, groups, lambda state, group: NewNeurons.dead(state, group, count=5, generator=luck)
    )
    plain = evidence(permuted(cut, groups, luck), net.credential)
    found = evidence(permuted(added.apply(cut), filled, luck), net.credential)
    assert found.log10_p < 0.6 * plain.log10_p
    assert found.details["channels_not_recognised"] > 0


def test_turned_kernels_are_turned_back(name: str, net: Marked, untouched: float) -> None:
    has_kernels = name != "perceptron"
    for number in range(1, 8 if has_kernels else 2):
        found = evidence(turned_and_permuted(number)(net, np.random.default_rng(0)), net.credential)
        assert (found.status, found.log10_p) == ("supported", pytest.approx(untouched, rel=0.05))
        assert found.details["kernels"].startswith("kernel axes (" if has_kernels else "as stored")


@pytest.fixture(scope="module")
def ungrouped() -> Marked:
    return marked(residual(), INPUTS[residual], has_groups=False)


@pytest.mark.parametrize("theft", ["permuted", "streams", "split", "ends"])
def test_a_claim_without_groups_is_aligned_axis_by_axis(ungrouped: Marked, theft: str) -> None:
    plain = evidence(ungrouped.state, ungrouped.credential)
    found = evidence(EXACT[theft](ungrouped, np.random.default_rng(0)), ungrouped.credential)
    assert found.status == "supported"
    assert found.log10_p < 0.5 * plain.log10_p


DAMAGE: dict[str, Callable[[State, np.random.Generator], State]] = {
    "pruned": lambda weights, luck: pruned(weights, 0.5),
    "regrown": lambda weights, luck: regrown(weights, 1.0, luck),
    "pruned and regrown": lambda weights, luck: regrown(pruned(weights, 0.3), 0.5, luck),
    "rewired, and new weights": lambda weights, luck: rewired(weights, 0.3, luck),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_and_a_new_order_together_leave_what_the_damage_leaves(net: Marked, damage: str) -> None:
    luck = np.random.default_rng(0)
    layers = {key: array for key, array in net.state.items() if array.ndim > 1}
    damaged = {**net.state, **DAMAGE[damage](layers, luck)}
    as_stored = evidence(damaged, net.credential)
    found = evidence(permuted(damaged, net.groups, luck), net.credential)
    assert (as_stored.status, found.status) == ("supported", "supported")
    assert found.log10_p < 0.6 * as_stored.log10_p


def test_names_dealt_out_to_a_network_with_more_channels_are_seen_through(net: Marked, untouched: float) -> None:
    luck = np.random.default_rng(0)
    stolen = EXACT["all at once"](net, luck)
    found = evidence(Renaming.drawn(stolen, generator=luck, style="numbered").apply(stolen), net.credential)
    assert found.status == "supported"
    assert found.log10_p < 0.1 * untouched


def stranger(name: str, seed: int = 77) -> State:
    model = FACTORIES[name]()
    return trained(unmarked(model, seed=seed).weights, model, seed)


@pytest.mark.parametrize("is_last", [False, True])
def test_a_rebuilt_network_beside_another_is_found(name: str, net: Marked, untouched: float, is_last: bool) -> None:
    stolen = EXACT["split"](net, np.random.default_rng(0))
    both = [("b." if is_last else "a.", stolen), ("a." if is_last else "b.", stranger(name))]
    found = evidence({front + key: array for front, state in both for key, array in state.items()}, net.credential)
    assert (found.status, found.details["networks"]) == ("supported", 2)
    assert found.details["network"] == ("b." if is_last else "a.")
    assert found.log10_p < 0.75 * untouched


def test_an_unrelated_network_is_not_recognised(name: str, net: Marked) -> None:
    found = evidence(stranger(name), net.credential)
    assert found.status == "inconclusive"
    assert found.details["why"][0].startswith("could not be aligned")
    assert found.details["alignment_deviations"] < 6


def test_the_unmarked_network_is_recognised_and_not_accused(name: str, net: Marked) -> None:
    state = trained(net.ticket.weights, FACTORIES[name](), 3)
    found = evidence(permuted(state, net.groups, np.random.default_rng(0)), net.credential)
    assert found.status == "not_supported"
    assert found.details["alignment_deviations"] > 20

"""What is foreseen of a planted graph is what the verifier reads once it is planted and stolen."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ticketguard as tg
from tests.verification.claims import EVE, GROUPS, TICKET, marked_weights, permuted, planted_mark, signed
from tests.verification.residual import residual_ticket
from tests.verification.stolen import THEFTS, Weights, of_densities
from ticketguard.embedding.interface import Binding, Start
from ticketguard.embedding.planted_graph import PARTS
from ticketguard.ticket import Ticket
from ticketguard.verification.planted_graph.counting import ReadSuspect, count_hits
from ticketguard.verification.planted_graph.foresight import Copy, after
from ticketguard.verification.planted_graph.sizes import PlantedSize, sizes_of
from ticketguard.verification.registry import scheme
from ticketguard.verification.sizing import ONE_IN_TWENTY, SizedScheme
from ticketguard.verification.thefts import Theft

KEYS = 6
SCHEME = scheme("planted-graph")
assert isinstance(SCHEME, SizedScheme)


@functools.cache
def residual() -> Ticket:
    return residual_ticket()


def size_of(ticket: Ticket, *, share: float, secret_share: float | None = None, signed: bool = True) -> PlantedSize:
    mark = tg.PlantedGraph(secret_share=secret_share, signed=signed)
    return next(size for size in sizes_of(mark, ticket) if size.mark.share == share)


# What trained, marked ResNet-20 tickets of 5% density showed, counted outside the reference, one copy each; their
# edges were planted without signs.
MEASURED = {
    (0.05, 0.03): {"untouched": -1044, "pruned-50": -484, "pruned-80": -188, "pruned-90": -80, "regrown-100": -142},
    (0.02, 0.014): {"untouched": -497, "pruned-50": -261, "pruned-80": -104, "pruned-90": -46, "regrown-100": -59},
    (0.01, 0.01): {"untouched": -272, "pruned-50": -143, "pruned-80": -68, "pruned-90": -37, "regrown-100": -19},
}


@pytest.mark.parametrize("theft", MEASURED[0.05, 0.03])
def test_what_a_trained_network_showed_is_foreseen(theft: str) -> None:
    foreseen = size_of(residual(), share=0.05, secret_share=0.03, signed=False).foresee(Theft.parse(theft))
    assert foreseen.log10_p == pytest.approx(MEASURED[0.05, 0.03][theft], rel=0.1)


@pytest.mark.parametrize("theft", MEASURED[0.05, 0.03])
@pytest.mark.parametrize("sizes", [(0.02, 0.014), (0.01, 0.01)])
def test_small_marks_showed_no_less_than_unlucky_ones_should(sizes: tuple[float, float], theft: str) -> None:
    share, secret_share = sizes
    foreseen = size_of(residual(), share=share, secret_share=secret_share, signed=False).foresee(Theft.parse(theft))
    # One copy of each was measured; with 1% moved, the planted edges of that one were among the larger.
    assert 0.97 * foreseen.unlucky_log10_p >= MEASURED[sizes][theft] >= 1.8 * foreseen.log10_p


TICKETS: dict[str, tuple[Callable[[], Ticket], float, float | None]] = {
    "residual": (residual, 0.03, 0.02),
    "perceptron": (lambda: of_densities(0.15, 0.06, 0.4), 0.05, 0.03),
    "full last layer": (lambda: of_densities(0.1, 0.1, 1.0), 0.1, 0.01),
    "holes": (lambda: of_densities(1.0, 1.0, 1.0), 0.1, None),
    "holes and edges": (lambda: of_densities(1.0, 0.7, 0.7), 0.1, None),
}


@functools.cache
def stolen_from(ticket_name: str, signed: bool) -> list[tuple[Binding, Weights]]:
    """Plant the mark of `TICKETS` with several keys, and turn the share of its signs that a training turns."""
    make, share, secret_share = TICKETS[ticket_name]
    ticket = make()
    size = size_of(ticket, share=share, secret_share=secret_share, signed=signed)
    marked = []
    for key in range(KEYS):
        binding = Binding(secret=key.to_bytes(32, "little"), commitment=bytes(32))
        start = Start(mask=ticket.mask, weights=ticket.weights)
        planned = size.mark.plan(ticket, start, binding, size.mark.parameters(ticket))
        weights = dict(planned.start.weights)
        luck = np.random.default_rng(key)
        for name, positions in planned.planted.items():
            turned = positions[luck.random(len(positions)) < size.parameters.turned_ppm / PARTS]
            weights[name].reshape(-1)[turned] *= -1
        marked.append((binding, weights))
    return marked


def read(weights: Weights, ticket: Ticket, binding: Binding, size: PlantedSize) -> float:
    """Return what a verifier finds in what is not zero, its looks paid for."""
    found = count_hits(ReadSuspect.of(weights, ticket.reference(), size.parameters), binding, size.parameters)
    return min(0.0, min(found[0].results) + math.log10(SCHEME.looks(size.mark, ticket)))


@pytest.mark.parametrize(
    ("name", "theft"),
    # The residual network's channels lie in streams that several layers share.
    [(name, theft) for name in TICKETS for theft in THEFTS if name != "residual" or "channels" not in theft],
)
@pytest.mark.parametrize("signed", [True, False])
def test_what_is_foreseen_is_what_is_read_after_the_theft(name: str, theft: str, signed: bool) -> None:
    make, share, secret_share = TICKETS[name]
    ticket = make()
    size = size_of(ticket, share=share, secret_share=secret_share, signed=signed)
    foreseen = size.foresee(Theft.parse(theft))
    shown = [
        read(THEFTS[theft](weights, np.random.default_rng(key)), ticket, binding, size)
        for key, (binding, weights) in enumerate(stolen_from(name, signed))
    ]
    mean = statistics.mean(shown)
    spread = (foreseen.unlucky_log10_p - foreseen.log10_p) / ONE_IN_TWENTY
    assert foreseen.log10_p == pytest.approx(mean, abs=3 * spread / math.sqrt(KEYS) + 0.04 * abs(mean) + 0.5)
    # One in twenty is expected; four of six would come once in ten thousand.
    assert sum(log10_p > 0.99 * foreseen.unlucky_log10_p + 0.5 for log10_p in shown) < 4


def test_a_verdict_on_prepared_marks_shows_what_was_foreseen() -> None:
    ticket = of_densities(0.15, 0.06, 0.4)
    imported = dataclasses.replace(ticket.info, method="import")
    ticket = dataclasses.replace(ticket, rewind_weights=None, info=imported)
    size = size_of(ticket, share=0.05, secret_share=0.03)

    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ticket.mask:
                self.register_parameter(name, torch.nn.Parameter(torch.zeros(ticket.mask[name].shape)))

    model = Layers()
    plan = tg.prepare(ticket, owner=EVE, marks=[size.mark], secret=bytes(range(32)))
    plan.start(model)
    marked, credential = plan.finish(model, check=False)
    for theft in ("untouched", "pruned-50", "regrown-100"):
        suspect = THEFTS[theft](dict(marked.weights), np.random.default_rng(0))
        evidence = tg.verify(tg.Checkpoint(suspect), credential).evidence[0]
        foreseen = size.foresee(Theft.parse(theft))
        assert evidence.log10_p == pytest.approx(foreseen.log10_p, rel=0.15)


@pytest.mark.parametrize("with_signs", [True, False])
def test_looks_are_those_that_an_aligned_verdict_pays_for(with_signs: bool) -> None:
    made = planted_mark(groups=GROUPS, with_signs=with_signs)
    evidence = tg.verify(tg.Checkpoint(permuted(marked_weights(made))), signed(made, groups=GROUPS)).evidence[0]
    assert evidence.details["looks"] == SCHEME.looks(tg.PlantedGraph(signed=with_signs), TICKET)


def test_a_ticket_without_room_for_signs_pays_for_no_look_at_them() -> None:
    assert SCHEME.looks(tg.PlantedGraph(), of_densities(1.0, 1.0, 1.0)) == 10
    assert SCHEME.looks(tg.PlantedGraph(share=0.5), of_densities(1.0, 0.9, 1.0)) == 20


def test_pruning_follows_the_layers_own_weights() -> None:
    ticket = of_densities(0.1, 0.1, 0.1)
    larger = {name: array * (10 if name == "2" else 1) for name, array in ticket.weights.items()}
    uneven = dataclasses.replace(ticket, weights=larger)
    for one in (ticket, uneven):
        size = size_of(one, share=0.1, secret_share=0.05)
        left = after(size.copy, Theft.parse("pruned-50")).edges / size.copy.edges
        kept = np.concatenate([np.abs(one.weights[name][one.mask[name]]) for name in one.mask])
        threshold = np.median(kept)
        expected = [np.mean(np.abs(one.weights[name][one.mask[name]]) > threshold) for name in one.mask]
        assert left == pytest.approx(np.array(expected), abs=0.01)


@functools.cache
def flat_size() -> PlantedSize:
    ticket = of_densities(0.1, 0.2, 0.5)
    flat = {name: ticket.mask[name].astype(np.float32) for name in ticket.mask}
    return size_of(dataclasses.replace(ticket, weights=flat), share=0.05, secret_share=0.05)


@given(share=st.floats(0.01, 0.99), again=st.floats(0.01, 0.99))
def test_equal_weights_are_pruned_at_one_rate(share: float, again: float) -> None:
    size = flat_size()
    twice = Theft.parse(f"pruned-{100 * share}+pruned-{100 * again}")
    assert after(size.copy, twice).edges == pytest.approx(size.copy.edges * (1 - share) * (1 - again))


def left_of(densities: tuple[float, ...], theft: str, *, share: float = 0.1, secret_share: float | None = None) -> Copy:
    return after(size_of(of_densities(*densities), share=share, secret_share=secret_share).copy, Theft.parse(theft))


def test_what_is_left_after_two_thefts_varies_as_after_one_of_both_strengths() -> None:
    twice = left_of((0.1, 0.2, 0.5), "channels-20+channels-50", secret_share=0.1)
    once = left_of((0.1, 0.2, 0.5), "channels-60", secret_share=0.1)
    assert twice.hits == pytest.approx(once.hits)
    assert twice.variance == pytest.approx(once.variance)


def test_an_unlucky_copy_has_as_many_edges_but_fewer_hits() -> None:
    copy = left_of((1.0, 1.0, 1.0), "pruned-50")
    unlucky = copy.unlucky(ONE_IN_TWENTY)
    assert unlucky.edges == pytest.approx(copy.edges)
    fewer = float((copy.hits - unlucky.hits).sum())
    assert fewer == pytest.approx(ONE_IN_TWENTY * math.sqrt(copy.variance.sum()))


def test_a_layer_short_of_secret_positions_plants_as_many_as_the_key_gives() -> None:
    ticket = of_densities(0.1, 0.1, 0.6)
    size = size_of(ticket, share=0.1, secret_share=0.03)
    planted = []
    for key in range(200):
        binding = Binding(secret=key.to_bytes(32, "little"), commitment=bytes(32))
        start = Start(mask=ticket.mask, weights=ticket.weights)
        planted.append(len(size.mark.plan(ticket, start, binding, size.mark.parameters(ticket)).planted["3"]))
    assert size.copy.hits[-1] == pytest.approx(statistics.mean(planted), abs=0.6)
    assert size.copy.variance[-1] == pytest.approx(statistics.variance(planted), rel=0.25)
    assert not size.copy.variance[:-1].any()


def test_no_copy_has_more_edges_than_positions() -> None:
    full = left_of((0.1, 0.7, 1.0), "regrown-5000", secret_share=0.1)
    assert full.edges == pytest.approx(full.outline.positions)
    assert full.hits == pytest.approx(full.secret)


def test_after_retraining_small_weights_are_not_those_that_were_small() -> None:
    again = left_of((0.1, 0.1, 0.1), "pruned-50+rewired-30+pruned-50", secret_share=0.1)
    assert again.alive.mean(axis=1) == pytest.approx(0.5, abs=0.05)
    untrained = left_of((0.1, 0.1, 0.1), "pruned-50+pruned-50", secret_share=0.1)
    assert untrained.alive.mean(axis=1) == pytest.approx(0.25, abs=0.05)

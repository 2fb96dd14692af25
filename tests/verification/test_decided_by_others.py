"""A planted graph beside a mark that decides positions: what that one decides is not counted (rule PG23)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import pytest

import ticketguard as tg
from tests.verification import by_the_page, code_by_the_page
from tests.verification.claims import SECRET, evidence, mark, signed
from tests.verification.coded import PARAMETERS, SETTINGS, TICKET, binding_of, code_mark
from ticketguard.embedding.interface import Binding, Start
from ticketguard.embedding.pairs import PairedLayers
from ticketguard.embedding.planted_graph import PlantedGraph, PlantedParameters
from ticketguard.errors import CapacityError, CredentialError
from ticketguard.ticket import Mask, Reference
from ticketguard.verification.decided import decided_by_others
from ticketguard.verification.planted_graph.counting import ReadSuspect, count_hits
from ticketguard.verification.registry import scheme
from ticketguard.verification.sizing import SizedScheme
from ticketguard.verification.thefts import Theft

PLANTED = {"secret_ppm": 20_000, "share_ppm": 50_000}
REFERENCE = TICKET.reference()
GRAPH, CODE = mark("planted-graph", PLANTED, reference=REFERENCE), code_mark()
BOTH, ALONE = (signed(GRAPH, *others, reference=REFERENCE) for others in ((CODE,), ()))
KEYS = 600


def both_marks() -> dict[str, np.ndarray]:
    """The weights of a ticket with both marks, as a training of no steps leaves them."""
    unmarked = Start(mask=TICKET.mask, weights=TICKET.weights)
    start = SETTINGS.plan(TICKET, unmarked, binding_of(CODE), PARAMETERS).start
    settings = PlantedGraph(share=0.05, secret_share=0.02, signed=False)
    return dict(
        settings.plan(TICKET, start, Binding(secret=SECRET, commitment=GRAPH.commitment), PLANTED).start.weights
    )


def decided() -> dict[str, np.ndarray]:
    return decided_by_others(BOTH.claim.marks, GRAPH, secret=SECRET, mask=TICKET.mask)


COPY = both_marks()


@pytest.mark.parametrize("how", ["untouched", "dense"])
def test_what_other_marks_decide_is_left_out_as_the_page_says(how: str) -> None:
    generator = np.random.default_rng(5)
    suspect = {
        "untouched": lambda: COPY,
        "dense": lambda: {
            name: np.where(layer == 0, 0.02 * generator.normal(size=layer.shape), layer) for name, layer in COPY.items()
        },
    }[how]()
    suspect = {name: layer.astype(np.float32) for name, layer in suspect.items()}
    count = 208 * int(str(PARAMETERS["pairs"]))
    positions: dict[str, set[int]] = {name: set() for name in TICKET.mask}
    for pair in code_by_the_page.drawn_pairs(TICKET.mask, count, SECRET, CODE.commitment):
        positions[pair.layer] |= {pair.first, pair.second}
    expected = by_the_page.readings(suspect, TICKET.mask, PLANTED, SECRET, GRAPH.commitment, decided=positions)
    best = min(expected, key=lambda counted: counted.log10_p)
    (found,) = (item for item in tg.verify(tg.Checkpoint(suspect), BOTH).evidence if item.mark == "planted-graph")
    assert found.details["log10_p_uncorrected"] == pytest.approx(float(best.log10_p), abs=1e-6)
    assert (found.details["edges"], found.observed) == (sum(layer.kept for layer in best.layers), best.hits)
    assert found.details["positions"] == sum(layer.size for layer in best.layers)
    copy = min(counted.attainable_log10_p(PLANTED["share_ppm"]) for counted in expected)
    assert found.details["attainable_log10_p"] == pytest.approx(min(0, float(copy) + 1), abs=1e-6)
    words = "edges that the reference and the claim's other marks do not have, inside the owner's secret edge set"
    assert found.statistic == words


def test_an_untouched_copy_of_both_marks_shows_what_is_foreseen() -> None:
    """Edges of the code were counted as chance's: 10^-147 was found of the 10^-319 that "an intact copy would show"."""
    (graph, _) = tg.verify(tg.Checkpoint(COPY), BOTH).evidence
    assert graph.log10_p == pytest.approx(graph.details["attainable_log10_p"], rel=0.02)
    settings = tg.PlantedGraph(signed=False, secret_share=0.02)
    known = scheme("planted-graph")
    assert isinstance(known, SizedScheme)
    size = next(size for size in known.sizes(settings, TICKET) if size.settings["share"] == 0.05)
    assert graph.log10_p == pytest.approx(size.foresee(Theft.parse("untouched")).log10_p, rel=0.02)


def test_a_claim_of_one_mark_reads_as_it_did() -> None:
    assert decided_by_others(ALONE.claim.marks, GRAPH, secret=SECRET, mask=TICKET.mask) == {}
    expected = by_the_page.readings(COPY, TICKET.mask, PLANTED, SECRET, GRAPH.commitment)
    found = evidence(COPY, ALONE)
    best = min(expected, key=lambda counted: counted.log10_p)
    assert found.details["log10_p_uncorrected"] == pytest.approx(float(best.log10_p), abs=1e-6)
    assert found.details["positions"] == sum(layer.size for layer in best.layers)


def test_claims_that_share_a_planted_graph_do_not_share_what_is_left_out() -> None:
    judge = tg.Judge({"both": BOTH, "alone": ALONE})
    suspect = tg.Checkpoint(COPY)
    for _ in range(2):
        assert judge.verify(suspect, "both") == tg.verify(suspect, BOTH)
        assert judge.verify(suspect, "alone") == tg.verify(suspect, ALONE)


def test_marks_that_are_not_known_decide_nothing_and_broken_ones_are_refused() -> None:
    newer = dataclasses.replace(CODE, version=2)
    other = dataclasses.replace(CODE, scheme="another")
    assert decided_by_others([GRAPH, newer, other], GRAPH, secret=SECRET, mask=TICKET.mask) == {}
    broken = dataclasses.replace(CODE, parameters={**CODE.parameters, "pairs": 9})
    with pytest.raises(CredentialError, match="it was not made by ticketguard"):
        decided_by_others([GRAPH, broken], GRAPH, secret=SECRET, mask=TICKET.mask)


def test_room_is_for_what_the_verifier_will_count() -> None:
    """A mark that just proves the square of its level beside a code, and would not if the code's edges counted."""
    marks = [tg.PlantedGraph(share=0.02, secret_share=0.02, signed=False), tg.QrCode(text="ACME-1")]
    plan = tg.prepare(TICKET, owner=tg.Owner.generate("Ada"), marks=marks, level_bits=150)
    graph = plan.claims[0]
    binding = Binding(secret=plan.secret, commitment=graph.commitment)
    with pytest.raises(CapacityError, match="edges of the mark, which needs"):
        scheme(graph.scheme).require_room(graph, binding, marked=plan.mask, reference=REFERENCE, decided={})


@pytest.mark.parametrize("suspect", ["random", "another owner's code"])
def test_p_is_as_rare_as_it_says_beside_positions_that_the_same_key_decides(suspect: str) -> None:
    """Fresh keys, each of which draws its own pairs and secret edges, on one suspect."""
    generator = np.random.default_rng(1)
    mask = Mask(layers={"a.weight": generator.random((40, 30)) < 0.2, "b.weight": generator.random((12, 40)) < 0.2})
    kept = {name: np.ones(mask.count(name), np.float32) for name in mask}
    reference = Reference(mask=mask, kept_weights=kept)
    paired, parameters = PairedLayers(mask), PlantedParameters.from_json({"secret_ppm": 50_000, "share_ppm": 50_000})

    def positions(key: int) -> Mapping[str, np.ndarray]:
        drawn = paired.draw(Binding(secret=key.to_bytes(32, "big"), commitment=bytes(31) + b"c"), 60)
        return {name: np.sort(pairs.positions.reshape(-1)) for name, pairs in drawn.items()}

    layers = {name: (generator.random(mask.shape(name)) < 0.25).astype(np.float32) for name in mask}
    if suspect != "random":
        layers = {name: layer * 0.5 + mask[name] for name, layer in layers.items()}
        for name, there in positions(0).items():
            layers[name].reshape(-1)[there[::2]] = 2.0
    found = []
    for key in range(1, KEYS + 1):
        read = ReadSuspect.of(layers, reference, parameters, positions(key))
        binding = Binding(secret=key.to_bytes(32, "big"), commitment=bytes(31) + b"g")
        found.append([counted.log10_p for counted in count_hits(read, binding, parameters)[:2]])
    for reading in np.array(found).T:
        for level in (0.5, 0.1, 0.01):
            assert np.mean(reading <= math.log10(level)) <= level + 4 * math.sqrt(level * (1 - level) / KEYS)
        assert np.mean(reading <= math.log10(0.3)) > 0.1

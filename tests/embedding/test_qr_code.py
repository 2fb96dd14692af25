"""Settings of the QR code, what fits a ticket, and how edges are planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.verification.claims import unmarked_ticket
from tests.verification.coded import PARAMETERS, SHAPES, TICKET, binding_of, code_mark
from ticketguard.embedding.interface import MatchedMark, MovingMark, Start
from ticketguard.embedding.planted_graph import PlantedGraph
from ticketguard.embedding.qr_code import CodeParameters, QrCode
from ticketguard.embedding.qr_planning import Code, codes
from ticketguard.embedding.qr_symbol import Symbol
from ticketguard.errors import CapacityError, ConfigurationError
from ticketguard.ticket import Mask

START = Start(mask=TICKET.mask, weights=TICKET.weights)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"text": "acme"}, "text has 'acem', expected only capital letters"),
        ({"text": 12}, "text is 12, expected text: give a number in quotation marks"),
        ({"survive": 0.04}, r"survive is 0.04, expected 0.05 to 1"),
        ({"survive": "half"}, "survive"),
        ({"qr_version": 7}, "qr_version is 7, expected one of 1, 2, 3, 4, 5, 6"),
        ({"qr_version": True}, "qr_version is True, expected one of"),
        ({"correction": "Q"}, "correction is 'Q', expected one of 7, 15, 25, 30"),
        ({"pairs": 9}, "pairs is 9, expected one of 1, 2"),
        ({"every_steps": 0}, "every_steps is 0, expected 1 or more"),
        ({"rate": 2}, "rate is 2, expected 0.01 to 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=f"QR code: {match}"):
        QrCode(**settings)


@pytest.mark.parametrize(
    ("settings", "edges", "designation"),
    [
        ({}, 624, "1-Q"),
        ({"text": "ACME-1"}, 624, "1-M"),
        ({"text": "ACME-0001"}, 832, "1-L"),
        ({"text": "ACME-0001/2026"}, 1056, "2-Q"),
        ({"survive": 0.2}, 1248, "1-Q"),
        ({"qr_version": 2, "correction": 25, "pairs": 2}, 704, "2-Q"),
        ({"correction": 30}, 704, "2-H"),
    ],
)
def test_the_smallest_code_that_carries_the_text_and_survives_is_taken(
    settings: dict[str, Any], edges: int, designation: str
) -> None:
    code = QrCode(**settings).code()
    assert (code.edges, code.symbol.designation) == (edges, designation)


def test_a_text_that_no_code_carries_is_refused_and_says_what_fits() -> None:
    with pytest.raises(
        ConfigurationError, match="text has 200 characters, expected at most 182 beside the fingerprint"
    ):
        QrCode(text="A" * 200).code()
    with pytest.raises(
        ConfigurationError, match="text has 8 characters, expected at most 7 beside .* leave out qr_vers"
    ):
        QrCode(text="A" * 8, qr_version=2, correction=30).parameters(TICKET)
    with pytest.raises(ConfigurationError, match="no code of at most 8 pairs a module carries 150 characters and surv"):
        QrCode(text="A" * 150, survive=0.05).code()


def test_a_code_too_large_for_the_ticket_is_refused_and_says_what_fits() -> None:
    with pytest.raises(
        CapacityError,
        match=r"has room for 906 edges of the mark, which needs 1056: what fits is a text of 12 characters "
        r"\(version 1-L, 832 edges\): shorten the text",
    ):
        QrCode(text="ACME-0001/2026").parameters(TICKET)
    small = unmarked_ticket({"fc1.weight": (60, 40)})
    with pytest.raises(
        CapacityError, match="which needs 624: no QR code that survives 0.5 fits: find a ticket of more"
    ):
        QrCode().parameters(small)
    full = Mask(layers={name: np.ones(shape, dtype=np.bool_) for name, shape in SHAPES.items()})
    with pytest.raises(CapacityError, match="has room for 0 edges"):
        QrCode().moved_edges(type(TICKET)(mask=full, weights=TICKET.weights, rewind_weights=None, info=TICKET.info))


def test_a_code_keeps_the_density_of_each_layer_and_its_edges_are_like_the_others() -> None:
    made = code_mark()
    planned = QrCode(text="ACME-1").plan(TICKET, START, binding_of(made), PARAMETERS)
    assert isinstance(planned, MatchedMark)
    assert isinstance(QrCode(), MovingMark)
    start = planned.start
    assert sum(map(len, planned.planted.values())) == 624
    for name, layer in TICKET.weights.items():
        assert start.mask.count(name) == TICKET.mask.count(name)
        weights = start.weights[name].reshape(-1)
        assert ((weights != 0) == start.mask[name].reshape(-1)).all()
        ours, kept = planned.planted[name], start.mask[name] & TICKET.mask[name]
        assert np.median(np.abs(weights[ours])) == pytest.approx(np.median(np.abs(layer[kept])), rel=0.1)
        # The sign is the rewind weight's.
        assert TICKET.rewind_weights is not None
        assert (np.sign(weights[ours]) == np.sign(TICKET.rewind_weights[name].reshape(-1)[ours])).all()
        # Both positions of each pair, and where an edge left.
        assert len(start.fixed_in(name)) == 3 * len(ours)


@pytest.mark.parametrize("first", ["code", "graph"])
def test_neither_of_two_marks_undoes_the_other(first: str) -> None:
    """What the first has planted, and left empty, is as it was after the second."""
    made = code_mark()
    graph = PlantedGraph(share=0.1, secret_share=0.05)
    code = QrCode(text="ACME-1")
    marks = {"code": (code, PARAMETERS), "graph": (graph, graph.parameters(TICKET))}
    order = [first, *({*marks} - {first})]
    start, planned = START, []
    for name in order:
        mark, parameters = marks[name]
        planned.append(mark.plan(TICKET, start, binding_of(made), parameters))
        start = planned[-1].start
    before = planned[0].start
    for name in SHAPES:
        assert start.mask.count(name) == TICKET.mask.count(name)
        for one in planned:
            assert start.mask[name].reshape(-1)[one.planted[name]].all()
        fixed = before.fixed_in(name)
        assert (start.mask[name].reshape(-1)[fixed] == before.mask[name].reshape(-1)[fixed]).all()
        # The first one's edges keep the weights that it gave them.
        ours = planned[0].planted[name]
        assert (start.weights[name].reshape(-1)[ours] == before.weights[name].reshape(-1)[ours]).all()


def test_a_claims_parameters_are_read_and_its_text_ends_with_a_fingerprint() -> None:
    parameters = CodeParameters.from_json(PARAMETERS)
    text = parameters.payload(bytes(32))
    assert text.startswith("ACME-1:")
    assert len(text) == 7 + 12
    assert parameters.payload(bytes([1] * 32)) != text
    assert len(CodeParameters.from_json({**PARAMETERS, "text": ""}).payload(bytes(32))) == 12


# What is foreseen of codes: 40 trials each on a ResNet-20 of 13,402 edges, whose weakest edges were pruned, and edges
# added at random. (Half of the edges and as many again: the code's own layers are a little denser than the mean.)
MEASURED = {
    (1, 25, 2): {(0.8, 0.0): (0.93, 1), (0.7, 0.0): (0.28, 1), (0.2, 0.0): (0, 0), (0.5, 0.035): (0, 0.63)},
    (2, 25, 2): {(0.8, 0.0): (0.98, 1), (0.7, 0.0): (0.29, 1), (0.5, 0.006): (0, 0.976), (0.5, 0.035): (0, 0.28)},
    (2, 30, 2): {(0.8, 0.0): (1, 1), (0.7, 0.0): (0.73, 1), (0.5, 0.006): (0, 1), (0.5, 0.035): (0, 0.83)},
    (2, 25, 3): {(0.8, 0.0): (1, 1), (0.7, 0.0): (1, 1), (0.5, 0.0): (0, 1), (0.5, 0.035): (0, 0.98)},
    (2, 25, 5): {(0.8, 0.0): (1, 1), (0.5, 0.0): (1, 1), (0.5, 0.006): (0.95, 1)},
}  # fmt: skip


@pytest.mark.parametrize("kind", MEASURED)
def test_what_is_foreseen_is_what_was_measured(kind: tuple[int, int, int]) -> None:
    version, correction, pairs = kind
    code = Code(symbol=Symbol(version=version, correction=correction), pairs=pairs)
    for (left, noise), (raw, soft) in MEASURED[kind].items():
        assert code.raw_probability(left, noise) == pytest.approx(raw, abs=0.16)
        assert code.soft_probability(left, noise) == pytest.approx(soft, abs=0.16)


def test_a_code_that_lasts_longer_is_read_after_more() -> None:
    for code in codes():
        assert code.soft_probability(min(1.0, code.least_left + 0.01)) > 0.99
        assert code.soft_probability(code.least_left - 0.06) < 0.6
        assert code.raw_probability(1.0) == 1.0

"""What is foreseen of QR codes, beside what is read of codes that are made and stolen."""

from __future__ import annotations

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.coded import TICKET, binding_of, code_mark, pruned, regrown
from ticketguard.embedding.interface import Start
from ticketguard.embedding.pairs import PairedLayers
from ticketguard.embedding.qr_code import CodeParameters, QrCode
from ticketguard.errors import ConfigurationError
from ticketguard.marking.choosing import choose_marks
from ticketguard.verification.pairs import ReadLayers, votes_of
from ticketguard.verification.qr_code.decoding import corrected
from ticketguard.verification.qr_code.scheme import SCHEME
from ticketguard.verification.qr_code.sizes import CodeSize, sizes_of
from ticketguard.verification.sizing import SizedScheme
from ticketguard.verification.thefts import Theft

REFERENCE, START = TICKET.reference(), Start(mask=TICKET.mask, weights=TICKET.weights)
STOLEN = {
    "untouched": lambda weights, generator: weights,
    "pruned-50": lambda weights, generator: pruned(weights, 0.5),
    "pruned-80": lambda weights, generator: pruned(weights, 0.8),
    "regrown-100": lambda weights, generator: regrown(weights, 1.0, generator),
    "pruned-50+regrown-100": lambda weights, generator: regrown(pruned(weights, 0.5), 1.0, generator),
}


def size(**settings: int) -> CodeSize:
    return sizes_of(QrCode(**settings), TICKET)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("theft", STOLEN)
def test_foreseen_evidence_is_what_is_read(theft: str) -> None:
    """Of one reading: the planner foresees what is not zero, or the largest weights where edges were added."""
    planned = size(qr_version=2, correction=25, pairs=2)
    code, shown = planned.code, []
    for number in range(6):
        made = code_mark({"text": str(number), "qr_version": 2, "correction": 25, "pairs": 2})
        marked = planned.mark.plan(TICKET, START, binding_of(made), made.parameters).start.weights
        drawn = PairedLayers(TICKET.mask).draw(binding_of(made), code.edges)
        bits = code.symbol.encode(CodeParameters.from_json(made.parameters).payload(made.commitment))
        stolen = STOLEN[theft](dict(marked), np.random.default_rng(number))
        shown.append(votes_of(ReadLayers.of(stolen, REFERENCE), drawn)[0].agreement(bits).log10_p + 1)
    foreseen = planned.foresee(Theft.parse(theft))
    assert foreseen.log10_p == pytest.approx(np.mean(shown), rel=0.1)
    assert sum(read <= foreseen.unlucky_log10_p + 1e-6 for read in shown) >= 5


@pytest.mark.parametrize("settings", [(1, 25, 2), (2, 30, 1), (1, 7, 3)])
def test_a_code_is_read_down_to_the_share_of_edges_that_is_foreseen(settings: tuple[int, int, int]) -> None:
    version, correction, pairs = settings
    code = size(qr_version=version, correction=correction, pairs=pairs).code
    generator, symbol = np.random.default_rng(0), code.symbol
    bits = symbol.encode("ABC")

    def times_read(left: float) -> int:
        votes = (generator.random((16, symbol.bits, pairs)) < left).sum(axis=2)
        return sum((corrected(symbol, (1 - 2.0 * bits) * seen) == bits).all() for seen in votes)

    more, less = code.least_left + 0.04, code.least_left - 0.12
    assert code.soft_probability(more) > 0.99
    assert times_read(more) >= 15
    assert code.soft_probability(less) < 0.01
    assert times_read(less) <= 2


def test_sizes_grow_and_each_lasts_longer_than_the_one_before() -> None:
    assert isinstance(SCHEME, SizedScheme)
    found = SCHEME.sizes(QrCode(text="ACME-1"), TICKET)
    edges = [one.moved_edges for one in found]
    assert edges == sorted(edges)
    assert edges[-1] <= PairedLayers(TICKET.mask).room
    left = [one.code.least_left for one in found]  # type: ignore[attr-defined]
    assert left == sorted(left, reverse=True)
    for one in found:
        assert QrCode(text="ACME-1", **one.settings).code() == one.code  # type: ignore[arg-type, attr-defined]
        assert 0.5 <= one.layers_auc < 0.51  # layers give the same share of their edges
    assert {one.settings["pairs"] for one in SCHEME.sizes(QrCode(pairs=3), TICKET)} == {3}


def test_a_choice_is_the_smallest_code_that_is_decoded_after_every_theft() -> None:
    choice = choose_marks(TICKET, marks=[QrCode(text="ACME-1")], survive=["pruned-50", "channels-25", "tuned-dense"])
    (mark,) = choice.marks
    assert isinstance(mark, QrCode)
    assert mark.text == "ACME-1"
    smaller = [sized for sized in choice.sizes if sized.size.moved_edges < mark.code().edges]
    lost = [min(seen.decoded or 0.0 for seen in sized.foreseen if seen.theft in choice.survive) for sized in smaller]
    assert all(share < 0.99 for share in lost)
    assert choice.looks == 10
    both = choose_marks(TICKET, marks=[tg.PlantedGraph(), QrCode()], survive=["pruned-50"])
    assert both.scheme == "planted-graph"


def test_a_theft_that_no_code_survives_is_told() -> None:
    choice = choose_marks(TICKET, marks=[QrCode(text="ACME-1")], survive=["pruned-95"])
    with pytest.raises(ConfigurationError, match=r"pruned-95 leaves 10\^-\d.* and a picture that 0% decode"):
        _ = choice.marks

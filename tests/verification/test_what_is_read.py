"""What a verdict reads and looks at: a copy that is stored as the reference is asks for no more than one pass."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.claims import evidence, marked_weights, planted_mark, signed, unmarked_ticket
from ticketguard.ticket import FloatArray, Mask
from ticketguard.ticket.bits import PackedLayer
from ticketguard.verification import by_content

# Square layers could each be stored either way round.
SHAPES = {f"fc{index}.weight": (80, 80) for index in range(4)}
TICKET = unmarked_ticket(SHAPES)
REFERENCE = TICKET.reference()
MARK = planted_mark(reference=REFERENCE)
MARKED = marked_weights(MARK, TICKET)


@pytest.fixture
def credential() -> tg.Credential:
    return signed(MARK, reference=REFERENCE)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    original = by_content.look

    def counted(layer: FloatArray, *others: object) -> object:
        made.append(str(layer.shape))
        return original(layer, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(by_content, "look", counted)
    return made


def test_a_copy_as_stored_is_read_without_a_look_at_what_its_layers_resemble(
    credential: tg.Credential, looks: list[str], reads: Counter[str]
) -> None:
    found = evidence(MARKED, credential)
    assert (found.status, found.details["aligned"]) == ("supported", False)
    assert looks == []
    # Once to see whether it can be read at all, once to read it.
    assert reads == dict.fromkeys(SHAPES, 2)


def test_which_way_round_square_layers_are_is_looked_at_where_as_stored_is_not_enough(
    credential: tg.Credential, looks: list[str]
) -> None:
    plain = evidence(MARKED, credential)
    turned = {name: np.ascontiguousarray(layer.T) for name, layer in MARKED.items()}
    found = evidence(turned, credential)
    assert (found.status, found.log10_p) == ("supported", plain.log10_p)
    assert found.details["layout"] == "in, out"
    assert len(looks) == 2 * len(SHAPES)


def test_the_mask_of_a_copys_reference_is_unpacked_once_a_layer(
    credential: tg.Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: Counter[tuple[int, ...]] = Counter()
    original = PackedLayer.unpacked

    def counted(self: PackedLayer) -> object:
        unpacked[self.shape] += 1
        return original(self)

    shapes = {name: (80 + index, 70) for index, name in enumerate(SHAPES)}
    ticket = unmarked_ticket(shapes)
    mark = planted_mark(reference=ticket.reference())
    own = signed(mark, reference=ticket.reference())
    assert isinstance(own.reference.mask, Mask)
    monkeypatch.setattr(PackedLayer, "unpacked", counted)
    assert evidence(marked_weights(mark, ticket), own).status == "supported"
    assert unpacked == dict.fromkeys(shapes.values(), 1)

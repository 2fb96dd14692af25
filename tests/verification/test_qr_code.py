"""A QR code in a suspect's weights: what is seen and said of copies, of innocents and of forged claims."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.claims import evidence, planted_mark, unmarked_ticket
from tests.verification.coded import (
    GROUPS,
    PARAMETERS,
    SHAPES,
    TICKET,
    Weights,
    binding_of,
    code_credential,
    code_mark,
    coded_weights,
    pruned,
    regrown,
    shuffled,
    text_of,
    without_channels,
)
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.pairs import PairedLayers
from ticketguard.embedding.qr_code import CodeParameters
from ticketguard.errors import CapacityError, CredentialError, UnknownVersionError
from ticketguard.graph.alignment import Alignment
from ticketguard.verification.interface import Inquiry
from ticketguard.verification.pairs import ReadLayers, votes_of
from ticketguard.verification.qr_code import examination
from ticketguard.verification.qr_code.decoding import corrected, decoded, scan
from ticketguard.verification.qr_code.scheme import SCHEME

MADE = code_mark(groups=GROUPS)
CREDENTIAL = code_credential(MADE, groups=GROUPS)
COPY = coded_weights(MADE)
CODE = CodeParameters.from_json(PARAMETERS).code
REFERENCE = TICKET.reference()
KEYS = 300


# What is seen


def test_an_untouched_copy_shows_every_module_and_its_text() -> None:
    found = evidence(COPY, CREDENTIAL)
    text = text_of(MADE)
    assert text.startswith("ACME-1:")
    assert found.status == "supported"
    # 624 fair coins, and ten looks.
    assert found.log10_p == pytest.approx(-624 * math.log10(2) + 1, abs=1e-6)
    assert (found.observed, found.expected) == (624, 312)
    shown = (
        "text_of_the_claim",
        "decoded",
        "decoded_raw",
        "modules",
        "modules_wrong",
        "modules_unread",
        "pairs",
        "pairs_read",
    )
    assert [found.details[name] for name in shown] == [text, text, text, 208, 0, 0, 624, 624]
    assert found.details["symbol"] == "1-M"
    for name in ("raw", "cleaned"):
        assert scan(found.pictures[name]) == text


THEFTS = {
    "pruned 10": lambda weights, generator: pruned(weights, 0.1),
    "pruned 20": lambda weights, generator: pruned(weights, 0.2),
    "pruned 50": lambda weights, generator: pruned(weights, 0.5),
    "regrown 2": lambda weights, generator: regrown(weights, 0.02, generator),
    "regrown 5": lambda weights, generator: regrown(weights, 0.05, generator),
    "regrown 100": lambda weights, generator: regrown(weights, 1.0, generator),
    "pruned 50, regrown 20": lambda weights, generator: regrown(pruned(weights, 0.5), 0.2, generator),
}
RAW_TOO = ("pruned 10", "pruned 20", "regrown 2")


@pytest.mark.parametrize("theft", THEFTS)
def test_soft_decoding_restores_what_thieves_leave(theft: str) -> None:
    """Sixteen owners of a code each; of the readings that lose least, any reader restores the raw symbol too."""
    drawn_on, read = PairedLayers(TICKET.mask), []
    for number in range(16):
        made = code_mark({**PARAMETERS, "text": f"NO-{number}"})
        suspect = THEFTS[theft](coded_weights(made), np.random.default_rng(number))
        bits = CODE.symbol.encode(text_of(made))
        modules = votes_of(ReadLayers.of(suspect, REFERENCE), drawn_on.draw(binding_of(made), CODE.edges))[0].evidence(
            208
        )
        read.append((corrected(CODE.symbol, modules) == bits).all())
        if theft in RAW_TOO and number < 4:
            assert decoded(CODE.symbol, modules).raw_text == text_of(made)
    # Where edges were both taken and added, 0.99 are foreseen.
    assert sum(read) >= (15 if "," in theft else 16)


ALIGNED = {
    "permuted": lambda weights, generator: weights,
    "pruned 50": lambda weights, generator: pruned(weights, 0.5),
    "a quarter of the channels removed": lambda weights, generator: without_channels(weights, 0.25, generator),
}


@pytest.mark.parametrize("theft", ALIGNED)
def test_a_permuted_copy_is_put_in_order_and_read(theft: str) -> None:
    generator = np.random.default_rng(3)
    found = evidence(shuffled(ALIGNED[theft](COPY, generator), generator), CREDENTIAL)
    assert (found.status, found.details["aligned"], found.details["decoded"]) == ("supported", True, text_of(MADE))
    assert found.details["looks"] == 10


def test_a_code_that_decodes_to_something_else_is_never_counted() -> None:
    """A copy that carries another text: its owner's claim, whose commitment is another, finds no more than chance."""
    stranger = code_mark({**PARAMETERS, "text": "ACME-2"})
    drawn = PairedLayers(TICKET.mask).draw(binding_of(MADE), CODE.edges)
    bits = CODE.symbol.encode(text_of(stranger))
    forged: Weights = {}
    for name, layer in TICKET.weights.items():
        pairs, flat = drawn[name], layer.reshape(-1).copy()
        flat[pairs.positions[np.arange(len(pairs)), bits[pairs.bits_carried(208)] ^ pairs.coins]] = 1.0
        forged[name] = flat.reshape(layer.shape)
    found = evidence(forged, CREDENTIAL)
    assert scan(found.pictures["cleaned"]) == text_of(stranger)
    assert found.details["decoded"] == found.details["decoded_raw"] == examination.OTHER_TEXT
    assert found.observed < 450  # what two codes have in common: header, padding, and half of the rest
    assert text_of(stranger) not in str(found)


def test_pictures_are_not_in_the_document_and_not_compared() -> None:
    verdict, again = (tg.verify(tg.Checkpoint(COPY), CREDENTIAL) for _ in range(2))
    assert verdict == again
    assert set(verdict.evidence[0].pictures) == {"raw", "cleaned"}
    assert "pictures" not in verdict.to_json()["evidence"][0]


# What is said


def test_the_unmarked_ticket_is_not_supported() -> None:
    found = evidence(dict(TICKET.weights), CREDENTIAL)
    assert (found.status, found.log10_p > -3) == ("not_supported", True)
    assert found.details["decoded"] == "nothing decoded"
    assert found.details["attainable_log10_p"] == pytest.approx(-624 * math.log10(2) + 1, abs=1e-6)


def test_a_stranger_is_inconclusive_for_it_could_not_be_aligned() -> None:
    found = evidence(dict(unmarked_ticket(SHAPES, seed=9).weights), CREDENTIAL)
    assert (found.status, found.log10_p > -3) == ("inconclusive", True)
    assert any("could not be aligned" in why for why in found.details["why"])


def test_missing_layers_acquit_nobody() -> None:
    found = evidence({"fc1.weight": TICKET.weights["fc1.weight"]}, CREDENTIAL)
    assert found.status == "inconclusive"
    assert any("layers or networks are missing" in why for why in found.details["why"])


def test_what_an_intact_copy_could_not_show_acquits_nobody() -> None:
    found = evidence(pruned(dict(TICKET.weights), 0.97), CREDENTIAL)
    assert found.status == "inconclusive"
    assert found.details["attainable_log10_p"] > found.threshold_log10_p


@pytest.mark.parametrize("suspect", ["a stranger", "a copy, pruned and regrown"])
def test_wrong_keys_have_p_values(suspect: str) -> None:
    """Whatever the suspect is, over keys its p is at most as small as it says, and not much larger either."""
    generator = np.random.default_rng(0)
    weights = {
        "a stranger": dict(unmarked_ticket(SHAPES, density=0.3, seed=9).weights),
        "a copy, pruned and regrown": regrown(pruned(COPY, 0.5), 1.0, generator),
    }[suspect]
    read, layers = ReadLayers.of(weights, REFERENCE), PairedLayers(TICKET.mask)
    bits = generator.integers(0, 2, 40).astype(np.uint8)
    found = []
    for number in range(KEYS):
        key = Binding(secret=number.to_bytes(32, "little"), commitment=bytes(32))
        found.append(10 ** votes_of(read, layers.draw(key, 80))[0].agreement(bits).log10_p)
    for level in (0.5, 0.2, 0.05):
        rare = np.count_nonzero(np.array(found) <= level)
        assert rare <= KEYS * level + 4 * math.sqrt(KEYS * level * (1 - level)), level
        assert rare >= KEYS * level / 2 - 4 * math.sqrt(KEYS * level * (1 - level)), level


def test_no_reading_or_weight_looks_at_a_coin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turning coins turns what votes say, and neither which pairs vote nor what they weigh."""
    read = ReadLayers.of(pruned(COPY, 0.3), REFERENCE)
    drawn = PairedLayers(TICKET.mask).draw(binding_of(MADE), CODE.edges)
    turned = {
        name: type(pairs)(positions=pairs.positions, coins=1 - pairs.coins, first=pairs.first)
        for name, pairs in drawn.items()
    }
    for one, other in zip(votes_of(read, drawn), votes_of(read, turned), strict=True):
        agreed, disagreed = (reading.agreement(CODE.symbol.encode(text_of(MADE))) for reading in (one, other))
        assert (agreed.votes, agreed.coins) == (disagreed.votes, disagreed.coins)
        assert agreed.right + disagreed.right == agreed.votes
        assert agreed.observed + disagreed.observed == sum(weight * count for weight, count in agreed.coins.items())
        assert (one.evidence(208) == -other.evidence(208)).all()


def test_votes_of_a_layer_that_lost_more_weigh_less() -> None:
    weights = {
        **COPY,
        "fc1.weight": regrown(pruned({"fc1.weight": COPY["fc1.weight"]}, 0.6), 1.0, np.random.default_rng(0))[
            "fc1.weight"
        ],
    }
    found = votes_of(ReadLayers.of(weights, REFERENCE), PairedLayers(TICKET.mask).draw(binding_of(MADE), CODE.edges))[0]
    weight = {name: layer.weight for name, layer in zip(SHAPES, found.layers, strict=True)}
    first = REFERENCE.mask["fc1.weight"]
    kept = np.count_nonzero(weights["fc1.weight"][first]) / np.count_nonzero(first)
    noise = np.count_nonzero(weights["fc1.weight"][~first]) / np.count_nonzero(~first)
    assert weight["fc1.weight"] == pytest.approx(math.log(1 + kept / ((1 - kept) * noise)), rel=0.1)
    assert weight["fc2.weight"] > 3 * weight["fc1.weight"]
    assert set(found.agreement(CODE.symbol.encode(text_of(MADE))).coins) == {
        8,
        round(8 * weight["fc1.weight"] / weight["fc2.weight"]),
    }


# What a claim binds, and what is paid


def test_another_version_is_refused() -> None:
    with pytest.raises(UnknownVersionError, match="the claim's qr-code has version '?2'?, expected 1"):
        tg.verify(tg.Checkpoint(COPY), code_credential(code_mark(version=2)))


@pytest.mark.parametrize(
    "change",
    [
        {"text": "acme"}, {"text": "A" * 8}, {"text": 7}, {"qr_version": 0}, {"qr_version": 7}, {"qr_version": True},
        {"correction": 20}, {"correction": "M"}, {"pairs": 0}, {"pairs": 9}, {"pairs": 3.0}, {"level": "M"},
    ],
)  # fmt: skip
def test_committed_parameters_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CredentialError, match="the claim's qr-code has parameters .*expected a text of a QR code"):
        CodeParameters.from_json({**PARAMETERS, **change})
    if not any(isinstance(value, float | bool) for value in change.values()):  # no claim has these
        with pytest.raises(CredentialError, match="the claim's qr-code has parameters"):
            tg.verify(tg.Checkpoint(COPY), code_credential(code_mark({**PARAMETERS, **change})))


@pytest.mark.parametrize("missing", PARAMETERS)
def test_missing_parameters_are_refused(missing: str) -> None:
    left = {name: value for name, value in PARAMETERS.items() if name != missing}
    with pytest.raises(CredentialError, match="the claim's qr-code has parameters"):
        CodeParameters.from_json(left)


def test_more_pairs_than_the_reference_has_room_for_are_refused() -> None:
    made = code_mark({**PARAMETERS, "pairs": 5})
    with pytest.raises(CredentialError, match="qr-code has 1040 pairs, but its reference has room for 906"):
        tg.verify(tg.Checkpoint(COPY), code_credential(made))


def test_channel_groups_that_the_commitment_does_not_bind_are_not_used() -> None:
    made = code_mark()
    wrong = ((("fc1.weight", 0, 1, 0, 30), ("fc2.weight", 1, 1, 100, 30)),)
    suspect = coded_weights(made)
    none, others = (evidence(suspect, code_credential(made, groups=groups)) for groups in (None, wrong))
    assert none == others
    assert none.details["channel_groups"] == 0


def test_every_network_is_paid_for() -> None:
    other = unmarked_ticket(SHAPES, seed=5).weights
    both = {f"{net}.{name}": weights[name] for net, weights in (("a", other), ("b", COPY)) for name in SHAPES}
    alone, found = (evidence(suspect, CREDENTIAL) for suspect in (COPY, both))
    assert (found.details["looks"], found.details["networks"], found.details["network"]) == (20, 2, "b.")
    assert found.log10_p == pytest.approx(alone.log10_p + math.log10(2), abs=1e-9)


def test_every_reading_is_paid_for_as_stored_and_aligned() -> None:
    for suspect in (COPY, dict(TICKET.weights)):
        found = evidence(suspect, CREDENTIAL)
        assert found.details["looks"] == 10
        assert found.log10_p == min(0.0, found.details["log10_p_uncorrected"] + 1)


def test_ownership_is_supported_down_to_the_level_itself() -> None:
    made = code_mark(level_bits=1)
    weights, credential = pruned(coded_weights(made), 0.5), code_credential(made)
    reached = math.floor(-evidence(weights, credential, level_bits=1).log10_p / math.log10(2))
    assert tg.verify(tg.Checkpoint(weights), credential, level_bits=reached).status == "supported"
    assert tg.verify(tg.Checkpoint(weights), credential, level_bits=reached + 1).status == "inconclusive"


def test_the_alignment_never_sees_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two keys of one reference: what is read of a suspect is the same for both."""
    suspect = tg.Checkpoint(shuffled(COPY, np.random.default_rng(4)))
    seen: list[list[Alignment]] = []

    class Watched(examination.Passes):  # type: ignore[type-arg]
        @property
        def alignments(self) -> list[Alignment]:
            seen.append(super().alignments)
            return seen[-1]

    monkeypatch.setattr(examination, "Passes", Watched)
    for made in (MADE, code_mark({**PARAMETERS, "text": "OTHER"}, groups=GROUPS)):
        with contextlib.ExitStack() as stack:
            inquiry = Inquiry(
                credential=code_credential(made, groups=GROUPS),
                mark=made,
                weights=suspect,
                answers=None,
                open_files=stack,
            )
            SCHEME.examine(inquiry)(-19.0)
    first, second = seen
    assert [one.moved for one in first] == [one.moved for one in second]
    for name, layer in TICKET.weights.items():
        aligned = [one[0].apply(name, np.asarray(suspect.weights(name)), layer.shape) for one in (first, second)]
        assert (aligned[0] == aligned[1]).all()


def test_a_code_beside_a_planted_graph_is_a_test_of_its_own() -> None:
    graph = planted_mark(reference=TICKET.reference())
    verdict = tg.verify(tg.Checkpoint(COPY), code_credential(code_mark(groups=GROUPS), graph, groups=GROUPS))
    assert verdict.tests == 2
    assert verdict.log10_p == pytest.approx(verdict.evidence[0].log10_p + math.log10(2))


# What the scheme tells others


def test_a_code_of_too_few_pairs_is_refused() -> None:
    small = code_mark({"text": "", "qr_version": 1, "correction": 25, "pairs": 1}, level_bits=128)
    marked = tg.Mask(layers={name: layer != 0 for name, layer in coded_weights(small).items()})
    with pytest.raises(CapacityError, match="has room for 208 edges of the mark, which needs 256: have more pairs"):
        SCHEME.require_room(small, binding_of(small), marked=marked, reference=REFERENCE, decided={})


def test_secret_positions_are_those_of_the_pairs() -> None:
    found = SCHEME.secret_positions(MADE, binding_of(MADE), TICKET.mask)
    for name, positions in found.items():
        assert (np.diff(positions) > 0).all()
        assert not TICKET.mask[name].reshape(-1)[positions].any()
    assert sum(map(len, found.values())) == 2 * 624


def test_there_is_no_quick_look() -> None:
    (candidate,) = tg.Judge({"claim": CREDENTIAL}).screen(tg.Checkpoint(COPY)).candidates
    assert (candidate.credential_id, candidate.standing, candidate.glance) == ("claim", "unclear", None)

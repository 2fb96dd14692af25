"""Keyed signs in a suspect's weights: what a verdict says of copies, of innocents and of forged starts.

Nothing is trained: training is a start whose magnitudes move, and some of whose signs turn.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from typing import Any

import numpy as np
import pytest

import ticketguard as tg
from tests.verification import by_the_page
from tests.verification.claims import GROUPS, SECRET, SHAPES, TICKET, evidence, permuted, planted_mark
from tests.verification.signed_starts import (
    SMALL,
    Weights,
    as_if_trained,
    bound,
    credential_of,
    drawn_start,
    p_of_fair_coins,
    sign_mark,
    signed_weights,
)
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.keyed_signs import SignParameters, drawn_signs
from ticketguard.errors import CapacityError, CredentialError, UnknownVersionError, UnverifiableError
from ticketguard.graph import groups_from_json
from ticketguard.keyed import commit
from ticketguard.ticket import Array, Mask, StartReference, start_reference
from ticketguard.ticket.start_reference import StartLayer
from ticketguard.verification.binomial import log10_at_least
from ticketguard.verification.keyed_signs import counting, examination, glancing
from ticketguard.verification.keyed_signs.counting import ReadVotes, count_agreements
from ticketguard.verification.keyed_signs.examination import examine_signs
from ticketguard.verification.keyed_signs.scheme import SCHEME
from ticketguard.verification.passes import Passes
from ticketguard.verification.ways import likeliest_way

START = drawn_start(SHAPES)
REFERENCE = bound(START)
MADE = sign_mark(REFERENCE, density_ppm=100_000, groups=GROUPS)
CREDENTIAL = credential_of(MADE, reference=REFERENCE, groups=GROUPS)
SIGNED = signed_weights(START, REFERENCE, MADE)
COPY = as_if_trained(SIGNED, density=0.1)
DENSER = as_if_trained(SIGNED, density=0.5)
BINDING = Binding(secret=SECRET, commitment=MADE.commitment)


def votes_of(reference: StartReference, name: str) -> Any:
    return ~reference.anchors(name)


# Copies


def test_a_copy_and_what_thieves_make_of_it_is_supported() -> None:
    whole = evidence(COPY, CREDENTIAL)
    assert whole.status == "supported"
    # Ninety percent of some six hundred votes, as coins would by 10^-90.
    assert whole.log10_p < -80
    generator = np.random.default_rng(5)
    pruned = {
        name: np.where(np.abs(layer) > np.quantile(np.abs(layer[layer != 0]), 0.5), layer, 0)
        for name, layer in COPY.items()
    }
    filled = {
        name: np.where(layer == 0, 0.01 * generator.normal(size=layer.shape), layer).astype(np.float32)
        for name, layer in COPY.items()
    }
    for stolen in (pruned, filled, permuted(DENSER), as_if_trained(SIGNED)):
        found = evidence(stolen, CREDENTIAL)
        assert found.status == "supported"
        assert found.log10_p < -30


def test_a_permuted_copy_is_put_in_order_by_the_anchors() -> None:
    found = evidence(permuted(DENSER), CREDENTIAL)
    assert (found.status, found.details["aligned"], found.details["looks"]) == ("supported", True, 10)
    assert found.details["channels_out_of_place"] > 190
    straight = evidence(DENSER, CREDENTIAL)
    assert straight.log10_p <= found.log10_p < 0.5 * straight.log10_p


def test_a_dense_copy_of_a_network_that_is_not_pruned_is_supported() -> None:
    made = sign_mark(REFERENCE)
    found = evidence(as_if_trained(signed_weights(START, REFERENCE, made)), credential_of(made, reference=REFERENCE))
    assert found.status == "supported"
    assert found.details["votes"] == found.details["positions"] - sum(
        np.count_nonzero(REFERENCE.anchors(name)) for name in SHAPES
    )


def test_a_network_trained_from_another_start_is_not_supported() -> None:
    innocent = as_if_trained(drawn_start(SHAPES, seed=7), density=0.1)
    found = evidence(innocent, CREDENTIAL)
    # Nothing of the reference is in it, so that it may have been rebuilt.
    assert (found.status, found.log10_p > -3) == ("inconclusive", True)
    assert any("could not be aligned" in why for why in found.details["why"])


def test_a_network_from_the_same_start_without_the_keys_signs_is_not_supported() -> None:
    """Its anchors are the reference's, so that a copy would have been recognised."""
    found = evidence(as_if_trained(START, density=0.1), CREDENTIAL)
    assert (found.status, found.log10_p > -3) == ("not_supported", True)
    assert "why" not in found.details


# What is counted


def test_the_true_key_gives_what_a_hand_computes() -> None:
    """All weights are as large, so that reading 1 takes every vote: p is 2^-n times ten, to the last digit."""
    weights = drawn_start({"a.weight": (30, 20)})
    reference = bound(weights)
    made = sign_mark(reference)
    negative = drawn_signs(Binding(secret=SECRET, commitment=made.commitment), "a.weight", 600)
    votes = np.flatnonzero(votes_of(reference, "a.weight"))
    anchors = reference.anchors("a.weight")
    started = weights["a.weight"].reshape(-1) < 0
    suspect = np.where(np.where(anchors, started, negative), -1, 1).astype(np.float32)
    credential = credential_of(made, reference=reference)
    for wrong in (0, 1, 7, 30):
        turned = suspect.copy()
        turned[votes[:: len(votes) // max(1, wrong)][:wrong]] *= -1
        found = evidence({"a.weight": turned.reshape(30, 20)}, credential)
        assert (found.details["votes"], found.observed) == (len(votes), len(votes) - wrong)
        expected = p_of_fair_coins(len(votes) - wrong, len(votes)) + math.log10(10)
        assert found.log10_p == pytest.approx(expected, abs=1e-9)


def test_ownership_is_supported_down_to_the_level_itself() -> None:
    weights = drawn_start({"a.weight": (30, 20)})
    reference = bound(weights)
    made = sign_mark(reference, level_bits=1)
    suspect, credential = signed_weights(weights, reference, made), credential_of(made, reference=reference)
    votes = int(np.count_nonzero(votes_of(reference, "a.weight")))
    reached = math.floor(votes - math.log2(10))
    assert evidence(suspect, credential, level_bits=reached).status == "supported"
    assert evidence(suspect, credential, level_bits=reached + 1).status == "inconclusive"


def test_a_weight_that_is_zero_has_no_vote() -> None:
    """Of either sign: a zero that is negative would agree with half of the coins."""
    negative = {name: drawn_signs(BINDING, name, layer.size).reshape(layer.shape) for name, layer in SIGNED.items()}
    for zero in (0.0, -0.0):
        found = evidence(
            {name: np.where(layer == 0, np.float32(zero), layer) for name, layer in COPY.items()}, CREDENTIAL
        )
        alive = sum(
            np.count_nonzero((layer != 0).reshape(-1) & votes_of(REFERENCE, name)) for name, layer in COPY.items()
        )
        assert found.details["reading"] == "weights that are not zero"
        assert found.details["votes"] == alive
    keyed_zeros = {name: np.where(there, np.float32(-0.0), np.float32(0.0)) for name, there in negative.items()}
    found = evidence(keyed_zeros, CREDENTIAL)
    assert (found.details["votes"], found.log10_p, found.status) == (0, 0.0, "inconclusive")


def test_signs_of_anchors_are_not_counted() -> None:
    whole = evidence(COPY, CREDENTIAL)
    # A third of them: of rows whose anchors all say so, the votes are turned too.
    luck = np.random.default_rng(0)
    turned = {
        name: np.where(REFERENCE.anchors(name).reshape(layer.shape) & (luck.random(layer.shape) < 0.33), -layer, layer)
        for name, layer in COPY.items()
    }
    found = evidence(turned, CREDENTIAL)
    assert (found.details["votes"], found.observed, found.log10_p) == (
        whole.details["votes"],
        whole.observed,
        whole.log10_p,
    )
    everywhere = bound(START, anchors=0.95)
    made = sign_mark(everywhere)
    few = evidence(signed_weights(START, everywhere, made), credential_of(made, reference=everywhere))
    assert few.details["votes"] == sum(np.count_nonzero(votes_of(everywhere, name)) for name in SHAPES)


def test_a_layer_without_votes_is_aligned_by_and_not_counted() -> None:
    reference = StartReference(
        layers={
            "fc1.weight": StartLayer.of("fc1.weight", START["fc1.weight"], share=256),
            "fc2.weight": REFERENCE.layers["fc2.weight"],
        }
    )
    made = sign_mark(reference)
    suspect = signed_weights(START, reference, made)
    assert (suspect["fc1.weight"] == START["fc1.weight"]).all()
    found = evidence(suspect, credential_of(made, reference=reference))
    assert found.status == "supported"
    assert found.details["votes"] == np.count_nonzero(votes_of(reference, "fc2.weight"))
    assert found.details["positions"] == 20_000


def test_nothing_that_is_read_before_the_key_looks_at_a_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    """How layers are paired, aligned and turned, and which weights are taken: the coins are independent of it."""

    def refused(*arguments: object) -> Any:
        raise AssertionError("a vote's sign was drawn")

    monkeypatch.setattr(counting, "drawn_signs", refused)
    monkeypatch.setattr(glancing, "drawn_signs", refused)
    parameters = SignParameters(density_ppm=100_000)

    def see(layers: Any, present: Any) -> ReadVotes:
        return ReadVotes.of(layers, present, parameters)

    for suspect in (COPY, permuted(DENSER), as_if_trained(drawn_start(SHAPES, seed=7))):
        way = likeliest_way(tg.Checkpoint(suspect), REFERENCE, groups_from_json(GROUPS), thorough=True)
        passes = Passes(way, see=see)
        assert len(passes.stored) == 1
        assert len(passes.aligned) <= 1
        assert passes.passes == 2
    with pytest.raises(AssertionError, match="a vote's sign was drawn"):
        evidence(COPY, CREDENTIAL)


def test_channel_groups_that_the_commitment_does_not_bind_are_not_used() -> None:
    made = sign_mark(REFERENCE, density_ppm=100_000)
    wrong = ((("fc1.weight", 0, 1, 0, 30), ("fc2.weight", 1, 1, 100, 30)),)
    suspect = permuted(as_if_trained(signed_weights(START, REFERENCE, made), density=0.5))
    none, some, others = (
        evidence(suspect, credential_of(made, reference=REFERENCE, groups=groups)) for groups in (None, GROUPS, wrong)
    )
    assert none == some == others
    assert none.details["channel_groups"] == 0
    assert evidence(permuted(DENSER), CREDENTIAL).details["aligned"]


def test_every_network_is_paid_for() -> None:
    other = drawn_start(SHAPES, seed=5)
    both = {f"{net}.{name}": weights[name] for net, weights in (("a", other), ("b", COPY)) for name in SHAPES}
    alone, found = evidence(COPY, CREDENTIAL), evidence(both, CREDENTIAL)
    assert (found.details["looks"], found.details["networks"], found.details["network"]) == (20, 2, "b.")
    assert found.log10_p == pytest.approx(alone.log10_p + math.log10(2), abs=1e-9)
    assert found.status == "supported"


@pytest.mark.parametrize("is_thorough", [False, True])
def test_every_reading_is_paid_for_as_stored_and_aligned(is_thorough: bool) -> None:
    found = evidence(COPY, CREDENTIAL, thorough=is_thorough)
    assert found.details["looks"] == 10
    assert found.log10_p == found.details["log10_p_uncorrected"] + math.log10(10)


# What is not enough


def test_what_an_intact_copy_could_not_show_acquits_nobody() -> None:
    same = as_if_trained(START, density=0.1)
    part = {name: layer.copy() for name, layer in same.items()}
    for layer in part.values():
        layer.reshape(-1)[2000:] = 0
    found = evidence(part, CREDENTIAL)
    assert found.details["attainable_log10_p"] > found.threshold_log10_p
    assert found.status == "inconclusive"
    # Of two thirds of the votes of a copy, three in four agree.
    votes = evidence(same, CREDENTIAL).details["votes"]
    assert evidence(same, CREDENTIAL).details["attainable_log10_p"] < p_of_fair_coins(round(0.75 * votes), votes) + 2


def test_missing_layers_acquit_nobody() -> None:
    same = as_if_trained(START, density=0.1)
    assert evidence(same, CREDENTIAL).status == "not_supported"
    found = evidence({"fc1.weight": same["fc1.weight"]}, CREDENTIAL)
    assert (found.status, found.details["missing_layers"]) == ("inconclusive", ["fc2.weight"])
    spoiled = {**same, "fc2.weight": np.full(SHAPES["fc2.weight"], np.nan, np.float32)}
    found = evidence(spoiled, CREDENTIAL)
    assert found.status == "inconclusive"
    assert [item["layer"] for item in found.details["unreadable_layers"]] == ["fc2.weight"]


def test_a_stolen_mask_that_was_trained_anew_from_other_signs_shows_nothing() -> None:
    generator = np.random.default_rng(3)
    anew = {name: layer * generator.choice(np.array([-1, 1], np.float32), layer.shape) for name, layer in COPY.items()}
    assert evidence(anew, CREDENTIAL).log10_p > -3


# Claims that anybody may have written


@pytest.mark.parametrize(
    "parameters",
    [{}, {"density_ppm": 0}, {"density_ppm": 1_000_001}, {"density_ppm": "1"}, {"density_ppm": 5, "share_ppm": 5}],
)
def test_committed_parameters_out_of_range_are_refused(parameters: Any) -> None:
    made = sign_mark(REFERENCE, parameters=parameters)
    with pytest.raises(CredentialError, match="keyed-signs has parameters .*, expected density_ppm from 1 to 1000000"):
        evidence(COPY, credential_of(made, reference=REFERENCE))


def test_another_version_is_refused() -> None:
    with pytest.raises(UnknownVersionError, match="the claim's keyed-signs has version '?2'?, expected 1"):
        evidence(COPY, credential_of(sign_mark(REFERENCE, version=2), reference=REFERENCE))


def test_a_reference_that_is_a_ticket_is_refused() -> None:
    ticket = TICKET.reference()
    credential = credential_of(sign_mark(ticket), reference=ticket)
    with pytest.raises(CredentialError, match="the vault keeps an unmarked ticket, expected the start weights that"):
        evidence(COPY, credential)
    (found,) = tg.Judge({"forged": credential}).screen(tg.Checkpoint(COPY)).candidates
    assert (found.standing, "the vault keeps an unmarked ticket" in found.reason) == ("unverifiable", True)


def test_a_start_of_other_shapes_than_the_suspects_is_a_verdict_or_a_clear_error() -> None:
    others = {"fc1.weight": (60, 200), "fc2.weight": (200, 40)}, {"fc1.weight": (200, 61), "fc3.weight": (40, 200)}
    for shapes in (*others, {"fc1.weight": (200,), "fc2.weight": (40, 2, 10, 10)}, {"fc1.weight": (1, 1)}):
        layers = drawn_start(shapes)
        reference = StartReference(
            layers={name: StartLayer.of(name, layer, share=179) for name, layer in layers.items()}
        )
        credential = credential_of(sign_mark(reference), reference=reference)
        with contextlib.suppress(UnverifiableError):
            found = evidence(COPY, credential)
            assert (found.status, found.log10_p > -4) == ("inconclusive", True)


def test_a_planted_graph_may_bind_the_same_start() -> None:
    """Start weights are a reference that keeps everything: the secret edges follow from their digest."""
    weights = drawn_start()
    reference = bound(weights)
    full = Mask(layers={name: np.ones(shape, bool) for name, shape in SMALL.items()})
    parameters = {"secret_ppm": 100_000, "share_ppm": 50_000, "density_ppm": 150_000}
    made = sign_mark(reference, parameters=parameters, scheme="planted-graph")
    generator = np.random.default_rng(1)
    suspect: dict[str, Array] = {}
    for name, layer in weights.items():
        drawn = by_the_page.secret_positions(SECRET, made.commitment, name, layer.size, 100_000)
        is_secret = np.isin(np.arange(layer.size), sorted(drawn)).reshape(layer.shape)
        suspect[name] = np.where(generator.random(layer.shape) < np.where(is_secret, 0.6, 0.1), layer, 0)
    expected = by_the_page.readings(suspect, full, parameters, SECRET, made.commitment)
    signs = sign_mark(reference)
    found = tg.verify(tg.Checkpoint(suspect), credential_of(made, signs, reference=reference))
    assert [item.mark for item in found.evidence] == ["planted-graph", "keyed-signs"]
    smallest = float(min(counted.log10_p for counted in expected))
    assert found.evidence[0].details["log10_p_uncorrected"] == pytest.approx(smallest, abs=1e-6)
    assert found.evidence[0].status == "supported"
    assert found.evidence[1].status != "supported"


def test_a_permuted_copy_that_was_trained_from_other_weights_is_put_in_order_by_its_edges() -> None:
    """Training keeps weights that start large: where the edges of a stolen mask are says which channel is which."""
    parameters = {"secret_ppm": 30_000, "share_ppm": 100_000, "density_ppm": 100_000}
    planted = sign_mark(REFERENCE, parameters=parameters, groups=GROUPS, scheme="planted-graph")
    generator = np.random.default_rng(11)
    suspect: dict[str, Array] = {}
    for name, layer in as_if_trained(START, density=0.1).items():
        drawn = by_the_page.secret_positions(SECRET, planted.commitment, name, layer.size, 30_000)
        is_secret = np.isin(np.arange(layer.size), sorted(drawn)).reshape(layer.shape)
        edges = (layer != 0) | (is_secret & (generator.random(layer.shape) < 0.3))
        suspect[name] = np.where(edges, generator.normal(size=layer.shape), 0).astype(np.float32)
    credential = credential_of(planted, MADE, reference=REFERENCE, groups=GROUPS)
    stored, moved = (tg.verify(tg.Checkpoint(one), credential) for one in (suspect, permuted(suspect)))
    assert (stored.status, moved.status) == ("supported", "supported")
    assert moved.evidence[0].details["channels_out_of_place"] > 190
    assert moved.log10_p < 0.9 * stored.log10_p < -20
    assert moved.evidence[1].log10_p > -3


def test_room_is_what_an_untouched_copy_has_votes_for() -> None:
    mask = Mask(layers={name: layer != 0 for name, layer in DENSER.items()})
    SCHEME.require_room(MADE, BINDING, marked=mask, reference=REFERENCE, decided={})
    few = Mask(layers={name: layer != 0 for name, layer in COPY.items()})
    with pytest.raises(CapacityError, match=r"has room for 591 edges of the mark, which needs 679"):
        SCHEME.require_room(MADE, BINDING, marked=few, reference=REFERENCE, decided={})
    with pytest.raises(CredentialError, match="the vault keeps an unmarked ticket"):
        SCHEME.require_room(MADE, BINDING, marked=mask, reference=TICKET.reference(), decided={})
    assert SCHEME.secret_positions(MADE, BINDING, mask) == {}
    with pytest.raises(CredentialError, match="keyed-signs has parameters"):
        SCHEME.secret_positions(planted_mark(), BINDING, mask)


def test_a_glance_knows_a_copy_from_a_stranger() -> None:
    stranger = as_if_trained(drawn_start(SHAPES, seed=7), density=0.1)
    another = credential_of(sign_mark(REFERENCE, secret=bytes(32)), reference=REFERENCE, secret=bytes(32))
    judge = tg.Judge({"another": another, "mine": CREDENTIAL})
    first, second = judge.screen(tg.Checkpoint(COPY)).candidates
    assert (first.credential_id, first.standing, second.credential_id) == ("mine", "stands_out", "another")
    assert first.glance is not None
    assert second.glance is not None
    assert (first.glance.log10_p < -80, second.glance.log10_p > -4) == (True, True)
    assert judge.screen(tg.Checkpoint(stranger)).worth_verifying() == ()


def test_wrong_keys_see_a_small_p_at_first_sight_as_rarely_as_it_says() -> None:
    for suspect in (COPY, {name: np.abs(layer) for name, layer in COPY.items()}):
        found = [
            glancing.glance(
                tg.Checkpoint(suspect),
                REFERENCE,
                Binding(secret=number.to_bytes(32, "little"), commitment=bytes(32)),
                groups=(),
                memory=None,
            )
            for number in range(120)
        ]
        require_valid([sight.log10_p for sight in found])
    copied = glancing.glance(tg.Checkpoint(COPY), REFERENCE, BINDING, groups=(), memory=None)
    assert copied.log10_p < -80
    assert 0.7 < copied.likeness < 0.9  # nine signs in ten
    others = {
        "other.weight": np.ones((3, 3), np.float32),
        **{name: layer.T.copy()[:50] for name, layer in COPY.items()},
    }
    assert glancing.glance(tg.Checkpoint(others), REFERENCE, BINDING, groups=(), memory=None).log10_p == 0.0


def test_every_network_is_paid_for_at_first_sight() -> None:
    other = as_if_trained(drawn_start(SHAPES, seed=5), density=0.1)
    both = {f"{net}.{name}": weights[name] for net, weights in (("a", other), ("b", COPY)) for name in SHAPES}
    alone, found = (
        glancing.glance(tg.Checkpoint(suspect), REFERENCE, BINDING, groups=(), memory=None) for suspect in (COPY, both)
    )
    assert found.log10_p == pytest.approx(alone.log10_p + math.log10(2), abs=1e-9)
    assert found.likeness == alone.likeness


def test_a_claim_whose_parameters_cannot_be_used_is_not_glanced_at() -> None:
    made = sign_mark(REFERENCE, parameters={"density_ppm": 0})
    judge = tg.Judge({"forged": credential_of(made, reference=REFERENCE)})
    (found,) = judge.screen(tg.Checkpoint(COPY)).candidates
    assert (found.standing, "keyed-signs has parameters" in found.reason) == ("unverifiable", True)


# Wrong keys: p-values of thousands of them

TINY = {"fc1.weight": (24, 16), "fc2.weight": (10, 24)}
TINY_GROUPS = ((("fc1.weight", 0, 1, 0, 24), ("fc2.weight", 1, 1, 0, 24)),)


def remember(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute tails and anchors, functions of what they are given, once."""
    monkeypatch.setattr(counting, "log10_at_least", functools.cache(log10_at_least))
    monkeypatch.setattr(start_reference, "anchors_of", functools.cache(start_reference.anchors_of))


class Trials:
    """One suspect, tested with any number of secrets: what is read before the key is read once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, suspect: Weights, reference: StartReference) -> None:
        self.reference = reference
        self.way = likeliest_way(tg.Checkpoint(suspect), reference, groups_from_json(TINY_GROUPS), thorough=True)
        self.passes: Any = None

        def once(*arguments: Any, **options: Any) -> Any:
            self.passes = self.passes or Passes(*arguments, **options)
            return self.passes

        monkeypatch.setattr(examination, "Passes", once)
        monkeypatch.setattr(examination, "_decoys", lambda *arguments: {})
        remember(monkeypatch)

    def log10_p(self, number: int) -> float:
        """Return what the claimant's secret of this number shows, commitment and all."""
        secret = hashlib.sha256(number.to_bytes(8, "little")).digest()
        commitment = commit(
            secret=secret,
            owner_public_key=bytes(32),
            reference_digest=self.reference.digest(),
            scheme="keyed-signs",
            version=1,
            level_bits=64,
            parameters=b"{}",
        )
        return examine_signs(
            self.way,
            Binding(secret=secret, commitment=commitment),
            SignParameters(density_ppm=300_000),
            threshold_log10_p=-19.0,
        ).log10_p


def require_valid(found: list[float]) -> None:
    """P(p ≤ α) ≤ α, but for five standard deviations of a binomial variable."""
    for alpha in (0.5, 0.1, 0.01):
        most = alpha * len(found) + 5 * math.sqrt(alpha * (1 - alpha) * len(found))
        assert sum(log10_p <= math.log10(alpha) for log10_p in found) <= most


def innocent(kind: str, weights: Weights, reference: StartReference) -> dict[str, Array]:
    if kind == "trained":
        return as_if_trained(drawn_start(TINY, seed=50))
    if kind == "constant":
        return {name: np.full(shape, 0.5, np.float32) for name, shape in TINY.items()}
    if kind == "one sign, pruned":
        return {name: np.abs(layer) for name, layer in as_if_trained(weights, density=0.3).items()}
    if kind == "the reference":
        return {name: reference.layer_weights(name) for name in TINY}
    return as_if_trained(weights)  # the start before its signs were drawn


@pytest.mark.parametrize("kind", ["trained", "constant", "one sign, pruned", "the reference", "the start unsigned"])
def test_wrong_keys_have_p_values(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = drawn_start(TINY)
    reference = bound(weights)
    trials = Trials(monkeypatch, innocent(kind, weights, reference), reference)
    found = [trials.log10_p(number) for number in range(250)]
    require_valid(found)
    assert len(set(found)) > 10


def test_single_readings_of_wrong_keys_have_p_values_that_are_nearly_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)
    weights = drawn_start(TINY)
    reference = bound(weights)
    parameters = SignParameters(density_ppm=300_000)
    for kind in ("trained", "constant", "one sign, pruned", "the reference"):
        read = ReadVotes.of(innocent(kind, weights, reference), reference, parameters)
        found: list[list[float]] = [[] for _ in range(5)]
        for number in range(400):
            binding = Binding(secret=number.to_bytes(32, "little"), commitment=bytes(32))
            for reading, counted in enumerate(count_agreements(read, reference, binding)):
                found[reading].append(counted.log10_p)
        for values in found:
            require_valid(values)
        # Of fifty coins the largest tail up to 0.1 is 0.07.
        assert np.mean(np.array(found[0]) <= math.log10(0.1)) > 0.04


def test_a_start_that_is_forged_to_look_like_the_suspect_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its magnitudes, anchors and votes are the suspect's own; only then the secrets are drawn."""
    suspect = as_if_trained(drawn_start(TINY, seed=50))
    best: StartReference | None = None
    for share in (26, 128, 179, 243):
        layers = {name: StartLayer.of(name, layer, share=share) for name, layer in suspect.items()}
        # What no honest writer does: the signs of votes, too.
        for name, layer in suspect.items():
            codes = layers[name].unpacked() % 8 | np.where(layer.reshape(-1) < 0, 8, 0).astype(np.uint8)
            codes = np.append(codes, np.zeros(len(codes) % 2, np.uint8))
            layers[name] = StartLayer(
                shape=layer.shape, share=share, codes=codes[::2] | codes[1::2] << np.uint8(4), sizes=layers[name].sizes
            )
        best = StartReference.from_bytes(StartReference(layers=layers).to_bytes())
        trials = Trials(monkeypatch, suspect, best)
        require_valid([trials.log10_p(number) for number in range(500)])


def test_the_best_of_many_secrets_gains_a_factor_of_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)
    weights = drawn_start(TINY)
    reference = bound(weights)
    read = ReadVotes.of(as_if_trained(drawn_start(TINY, seed=50)), reference, SignParameters(density_ppm=300_000))
    best = []
    for batch in range(2):
        bindings = (
            Binding(secret=(batch << 10 | number).to_bytes(32, "little"), commitment=bytes(32))
            for number in range(2**10)
        )
        best.append(min(count_agreements(read, reference, binding)[0].log10_p for binding in bindings))
    # The smallest of 1024 uniform numbers is 10^-3.4 to 10^-2.5 half of the time.
    assert -3.7 < np.median(best) < -2.4
    assert min(best) > -6

"""What a verdict says of the embedded ticket, of copies of it, and of what thieves bring."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import ticketguard as tg
from ticketguard.credentials.channel_groups import groups_digest
from ticketguard.errors import CredentialError, PredictorError, UnverifiableError
from ticketguard.graph import group_channels, groups_from_json, permute
from ticketguard.models import build_model, load_arrays

from .conftest import MODEL_OPTIONS, TRAINING, predictor_of, state_of


def test_a_copys_weights_and_answers_prove_ownership(embedded: tuple[tg.Ticket, tg.Credential]) -> None:
    marked, credential = embedded
    by_weights = tg.verify(tg.Checkpoint(state_of(marked)), credential)
    by_answers = tg.verify(predictor_of(marked.weights), credential)
    assert (by_weights.status, by_answers.status) == ("supported", "supported")
    assert by_weights.log10_p < -50
    assert by_answers.log10_p < -19.2


def test_the_unmarked_ticket_is_innocent(ticket: tg.Ticket, embedded: tuple[tg.Ticket, tg.Credential]) -> None:
    _, credential = embedded
    assert tg.verify(tg.Checkpoint(state_of(ticket)), credential).status == "not_supported"
    assert tg.verify(predictor_of(ticket.weights), credential).status == "not_supported"


def test_embedding_leaves_density_and_layer_counts(
    ticket: tg.Ticket, embedded: tuple[tg.Ticket, tg.Credential]
) -> None:
    marked, _ = embedded
    assert [marked.mask[name].sum() for name in marked.mask] == [ticket.mask[name].sum() for name in ticket.mask]
    assert marked.mask != ticket.mask
    assert all((marked.weights[name][~marked.mask[name]] == 0).all() for name in marked.mask)


def test_a_released_ticket_carries_nothing_of_the_reference(embedded: tuple[tg.Ticket, tg.Credential]) -> None:
    marked, _ = embedded
    assert marked.rewind_weights is None


def test_embedding_again_with_the_same_secret_is_bit_for_bit_the_same(
    ticket: tg.Ticket, owner: tg.Owner, embedded: tuple[tg.Ticket, tg.Credential]
) -> None:
    again, _ = tg.embed(ticket, owner=owner, training=TRAINING, secret=bytes(range(32)))
    assert all((again.weights[name] == array).all() for name, array in embedded[0].weights.items())


def test_a_permuted_and_pruned_copy_is_still_supported(embedded: tuple[tg.Ticket, tg.Credential]) -> None:
    marked, credential = embedded
    groups = groups_from_json(credential.vault.channel_groups)
    generator = np.random.default_rng(0)
    permutations = [generator.permutation(group_channels(group)) for group in groups]
    stolen = permute(state_of(marked), groups, permutations)
    for name in marked.mask:
        threshold = np.quantile(np.abs(stolen[name][stolen[name] != 0]), 0.3)
        stolen[name] = np.where(np.abs(stolen[name]) > threshold, stolen[name], 0)
    verdict = tg.verify(tg.Checkpoint(stolen), credential)
    assert verdict.status == "supported"
    assert verdict.evidence[0].details["aligned"]


def test_a_copy_under_other_names_is_supported_and_the_pairing_is_told(
    embedded: tuple[tg.Ticket, tg.Credential],
) -> None:
    marked, credential = embedded
    plain = tg.verify(tg.Checkpoint(marked.weights), credential).evidence[0]
    renamed = {f"blob{index}": weight for index, weight in enumerate(marked.weights.values())}
    evidence = tg.verify(tg.Checkpoint(renamed), credential).evidence[0]
    assert evidence.log10_p == plain.log10_p
    assert plain.details["layers_paired_by_order"] == []
    assert evidence.details["layers_paired_by_order"] == list(marked.mask)


def test_a_reference_brought_afterwards_is_refused(
    ticket: tg.Ticket, embedded: tuple[tg.Ticket, tg.Credential]
) -> None:
    """The forgery of a reference that steers alignment: the commitment binds the one there was."""
    marked, credential = embedded
    steering = dataclasses.replace(ticket, mask=marked.mask).reference()
    forged = dataclasses.replace(credential, vault=dataclasses.replace(credential.vault, reference=steering.to_bytes()))
    with pytest.raises(CredentialError, match="the vault does not belong to the claim"):
        tg.verify(tg.Checkpoint(state_of(marked)), forged)


def test_another_owners_claim_on_the_same_copy_is_not_supported(
    ticket: tg.Ticket, embedded: tuple[tg.Ticket, tg.Credential]
) -> None:
    marked, credential = embedded
    thief = tg.Owner.generate("Eve")
    plan = tg.prepare(ticket, owner=thief, marks=[tg.PlantedGraph()])
    network = build_model("mlp", options=MODEL_OPTIONS, seed=0)
    load_arrays(network, ticket.weights)
    _, forged = plan.finish(network, check=False)
    assert tg.verify(tg.Checkpoint(state_of(marked)), forged).status == "not_supported"
    with pytest.raises(CredentialError, match="is not this owner's claim"):
        tg.verify(tg.Checkpoint(state_of(marked)), credential, owner_public_key=thief.public_key)


def test_a_claim_cannot_ask_for_less_than_the_verifier_does(ticket: tg.Ticket, owner: tg.Owner) -> None:
    plan = tg.prepare(ticket, owner=owner, marks=[tg.PlantedGraph()], level_bits=1)
    network = build_model("mlp", options=MODEL_OPTIONS, seed=0)
    plan.start(network)
    marked, credential = plan.finish(network)
    weak = tg.verify(tg.Checkpoint(state_of(marked)), credential)
    assert weak.evidence[0].threshold_log10_p == pytest.approx(-64 * np.log10(2))


def test_a_suspect_of_another_kind_than_the_marks_could_not_be_checked(ticket: tg.Ticket, owner: tg.Owner) -> None:
    plan = tg.prepare(ticket, owner=owner, marks=[tg.PlantedGraph()])
    network = build_model("mlp", options=MODEL_OPTIONS, seed=0)
    plan.start(network)
    marked, credential = plan.finish(network)
    with pytest.raises(UnverifiableError, match="no mark that can be read from answers"):
        tg.verify(predictor_of(marked.weights), credential)


def test_an_endpoint_with_other_classes_is_an_error_not_a_verdict(embedded: tuple[tg.Ticket, tg.Credential]) -> None:
    with pytest.raises(PredictorError, match="10"):
        tg.verify(tg.CallablePredictor(lambda inputs: np.zeros((1, 7), np.float32)), embedded[1])


def test_a_constant_endpoint_says_nothing(embedded: tuple[tg.Ticket, tg.Credential]) -> None:
    assert tg.verify(tg.CallablePredictor(lambda inputs: 3), embedded[1]).status == "inconclusive"


def test_weights_and_answers_are_one_verdict_that_pays_for_both(embedded: tuple[tg.Ticket, tg.Credential]) -> None:
    marked, credential = embedded
    verdict = tg.verify(tg.Checkpoint(state_of(marked)), credential, answers=predictor_of(marked.weights))
    alone = tg.verify(tg.Checkpoint(state_of(marked)), credential)
    assert verdict.status == "supported"
    assert verdict.log10_p == pytest.approx(alone.log10_p + np.log10(2))
    for item in verdict.evidence:
        assert item.threshold_log10_p == pytest.approx(-64 * np.log10(2) - np.log10(2))
        assert item.log10_p <= item.threshold_log10_p


def test_a_claim_at_fault_is_an_error_whatever_the_weights_say(embedded: tuple[tg.Ticket, tg.Credential]) -> None:
    marked, credential = embedded
    marks = tuple(
        mark if mark.merkle_root is None else dataclasses.replace(mark, merkle_root=bytes(32))
        for mark in credential.claim.marks
    )
    forged = dataclasses.replace(credential, claim=dataclasses.replace(credential.claim, marks=marks))
    with pytest.raises(CredentialError, match="do not have the claim's Merkle root"):
        tg.verify(tg.Checkpoint(state_of(marked)), forged, answers=predictor_of(marked.weights))


def test_the_claim_binds_the_channel_groups(embedded: tuple[tg.Ticket, tg.Credential]) -> None:
    _, credential = embedded
    parameters = credential.mark("planted-graph").parameters
    assert parameters["channel_groups_digest"] == groups_digest(credential.vault.channel_groups)


def test_bound_channel_groups_that_leave_their_layers_are_refused(
    embedded: tuple[tg.Ticket, tg.Credential], monkeypatch: pytest.MonkeyPatch
) -> None:
    marked, credential = embedded
    groups = [[[name, 0, 1, 0, 2**40]] for name in marked.mask]
    forged = dataclasses.replace(credential, vault=dataclasses.replace(credential.vault, channel_groups=groups))
    monkeypatch.setattr(tg.Credential, "check", lambda self: None)  # as if a claimant had bound them
    with pytest.raises(CredentialError, match="the vault's channel groups are malformed"):
        tg.verify(tg.Checkpoint(state_of(marked)), forged)

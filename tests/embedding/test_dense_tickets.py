"""Tickets that were pruned by their structure: what remains is full, and the mark is in what is missing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import ticketguard as tg
from ticketguard.embedding.interface import Binding, Start
from ticketguard.embedding.planted_graph import PARTS, PlantedParameters, secret_edges
from ticketguard.errors import CapacityError, ConfigurationError, CredentialError
from ticketguard.graph import group_channels, groups_from_json, permute
from ticketguard.models import build_model, state_arrays
from ticketguard.ticket import Mask, Ticket, TicketInfo

BINDING = Binding(secret=bytes(range(32)), commitment=bytes(32))
OPTIONS = {"classes": 10, "input_shape": [1, 8, 8], "widths": [300, 120]}


def dense_ticket(widths: tuple[int, ...] = (300, 120)) -> Ticket:
    options = {**OPTIONS, "widths": list(widths)}
    state = state_arrays(build_model("mlp", options=options, seed=0))
    mask = Mask(layers={name: np.ones(a.shape, bool) for name, a in state.items() if name.endswith("weight")})
    info = TicketInfo(method="layer_lottery", model="mlp", model_options=options, input_shape=(1, 8, 8))
    return Ticket(mask=mask, weights=state, rewind_weights=state, info=info)


@pytest.fixture(scope="module")
def embedded() -> tuple[Ticket, tg.Credential]:
    ticket = dense_ticket()
    network = build_model("mlp", options=OPTIONS, seed=0)
    # The secret edges follow from the owner's key too, and which reading shows most would be a draw with a fresh one.
    owner = tg.Owner(name="Ada", private_key=Ed25519PrivateKey.from_private_bytes(bytes(32)))
    plan = tg.prepare(ticket, owner=owner, marks=[tg.PlantedGraph()], model=network, secret=bytes(range(32)))
    plan.start(network)
    return plan.finish(network)


def pruned(weights: dict[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    matrices = {name: array for name, array in weights.items() if array.ndim == 2}
    kept = np.concatenate([np.abs(array[array != 0]) for array in matrices.values()])
    threshold = np.quantile(kept, share)
    return weights | {name: np.where(np.abs(array) > threshold, array, 0) for name, array in matrices.items()}


def test_holes_lie_outside_the_secret_set_and_twice_as_many_as_edges_would_move() -> None:
    ticket = dense_ticket()
    mark = tg.PlantedGraph()
    planned = mark.plan(ticket, Start(mask=ticket.mask, weights=ticket.start_weights), BINDING, mark.parameters(ticket))
    parameters = PlantedParameters.from_json(mark.parameters(ticket))
    assert parameters == PlantedParameters(secret_ppm=250_000, share_ppm=50_000, holes_ppm=100_000)
    shapes = {name: ticket.mask[name].shape for name in ticket.mask}
    secret = secret_edges(BINDING, shapes, secret_ppm=parameters.secret_ppm)
    for name in ticket.mask:
        layer = planned.start.mask[name].reshape(-1)
        assert layer[secret[name]].all()
        assert int(layer.sum()) == parameters.edges_of_a_copy(ticket.mask.count(name), layer.size)
        assert (~layer).sum() == layer.size * 100_000 // PARTS


def test_holes_are_not_the_weakest_edges() -> None:
    """Those are what a thief prunes anyway."""
    ticket = dense_ticket()
    mark = tg.PlantedGraph()
    planned = mark.plan(ticket, Start(mask=ticket.mask, weights=ticket.start_weights), BINDING, mark.parameters(ticket))
    for name in ("1.weight", "3.weight"):
        magnitudes = np.abs(ticket.weights[name])
        assert magnitudes[~planned.start.mask[name]].mean() == pytest.approx(magnitudes.mean(), rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.35])
def test_a_copy_is_supported_and_a_pruned_one_too(embedded: tuple[Ticket, tg.Credential], share: float) -> None:
    marked, credential = embedded
    verdict = tg.verify(tg.Checkpoint(pruned(dict(marked.weights), share)), credential)
    assert verdict.status == "supported"


def test_a_copy_whose_holes_were_filled_is_read_by_its_largest_weights(
    embedded: tuple[Ticket, tg.Credential],
) -> None:
    marked, credential = embedded
    generator = np.random.default_rng(0)
    filled = {
        name: array + np.where(array == 0, 0.01 * generator.normal(size=array.shape), 0).astype(np.float32)
        for name, array in marked.weights.items()
    }
    evidence = tg.verify(tg.Checkpoint(filled), credential).evidence[0]
    assert evidence.status == "supported"
    assert evidence.details["reading"].endswith("as many as the reference has edges")


def test_a_permuted_copy_is_still_supported(embedded: tuple[Ticket, tg.Credential]) -> None:
    marked, credential = embedded
    groups = groups_from_json(credential.vault.channel_groups)
    generator = np.random.default_rng(1)
    stolen = permute(dict(marked.weights), groups, [generator.permutation(group_channels(group)) for group in groups])
    evidence = tg.verify(tg.Checkpoint(stolen), credential).evidence[0]
    assert evidence.status == "supported"
    assert evidence.details["aligned"]


def test_the_unmarked_network_is_not_supported_and_of_a_foreign_one_nothing_is_recognised(
    embedded: tuple[Ticket, tg.Credential],
) -> None:
    _, credential = embedded
    for weights, status in (
        (dense_ticket().weights, "not_supported"),
        (pruned(dict(dense_ticket().weights), 0.5), "not_supported"),
        (state_arrays(build_model("mlp", options=OPTIONS, seed=1)), "inconclusive"),
    ):
        assert tg.verify(tg.Checkpoint(weights), credential).status == status


def test_a_dense_ticket_too_small_for_the_level_is_refused() -> None:
    with pytest.raises(CapacityError, match="the whole ticket"):
        tg.prepare(dense_ticket((8,)), owner=tg.Owner.generate("Ada"), marks=[tg.PlantedGraph()])


def test_full_layers_of_a_sparse_ticket_get_no_holes() -> None:
    ticket = dense_ticket()
    layers = {name: np.array(ticket.mask[name]) for name in ticket.mask}
    generator = np.random.default_rng(0)
    layers["1.weight"] = generator.random(layers["1.weight"].shape) < 0.05
    layers["3.weight"] = generator.random(layers["3.weight"].shape) < 0.05
    sparse = dataclasses.replace(ticket, mask=Mask(layers=layers))
    mark = tg.PlantedGraph()
    planned = mark.plan(sparse, Start(mask=sparse.mask, weights=sparse.start_weights), BINDING, mark.parameters(sparse))
    assert planned.start.mask["5.weight"].all()
    assert "holes_ppm" not in mark.parameters(sparse)


@pytest.mark.parametrize("holes", [0, 500_001, "1", True])
def test_a_claim_with_other_holes_is_refused(holes: object) -> None:
    with pytest.raises(CredentialError, match="holes_ppm"):
        PlantedParameters.from_json({"secret_ppm": 1, "share_ppm": 1, "holes_ppm": holes})  # type: ignore[dict-item]


def test_a_share_that_leaves_no_room_for_holes_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"share is 0\.2, expected 0\.1875 or less for a ticket that keeps half"
    ):
        tg.PlantedGraph(share=0.2).parameters(dense_ticket())


def test_what_a_pruned_copy_could_show_is_told_as_it_is(embedded: tuple[Ticket, tg.Credential]) -> None:
    marked, credential = embedded
    for share in (0.2, 0.35):
        evidence = tg.verify(tg.Checkpoint(pruned(dict(marked.weights), share)), credential).evidence[0]
        assert evidence.details["attainable_log10_p"] == pytest.approx(evidence.log10_p, rel=0.3)

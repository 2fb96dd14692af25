"""Planted edges start with signs that the key gives them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from tests.embedding.test_planted_graph import BINDING, VECTORS, random_ticket
from tests.verification.stolen import of_densities
from ticketguard.embedding.coins import draw_coins, with_coins, with_signs
from ticketguard.embedding.interface import Binding, Start
from ticketguard.embedding.planned_edges import PlannedEdges
from ticketguard.embedding.planted_graph import PlantedGraph, PlantedParameters, secret_edges
from ticketguard.errors import ConfigurationError, CredentialError
from ticketguard.ticket import Ticket


def planned(ticket: Ticket, **settings: Any) -> PlannedEdges:
    mark = PlantedGraph(**{"share": 0.2, "secret_share": 0.2, **settings})
    start = Start(mask=ticket.mask, weights=ticket.start_weights)
    return mark.plan(ticket, start, BINDING, mark.parameters(ticket))


def coins_of(ticket: Ticket, name: str, secret_ppm: int = 200_000) -> np.ndarray:
    """Return the coin of every position of a layer: 1 or -1, 0 where it is not secret."""
    secret = secret_edges(BINDING, {name: ticket.mask[name].shape}, secret_ppm=secret_ppm)[name]
    coins = np.zeros(ticket.mask[name].size)
    coins[secret] = np.where(draw_coins(BINDING, name, secret), -1, 1)
    return coins


def test_coins_are_the_published_ones() -> None:
    vector = json.loads((VECTORS / "planted-signs.json").read_text())
    binding = Binding(secret=bytes.fromhex(vector["secret"]), commitment=bytes.fromhex(vector["commitment"]))
    for name, positions in vector["secret_edges"].items():
        shape = tuple(vector["layers"][name])
        secret = secret_edges(binding, {name: shape}, secret_ppm=vector["parameters"]["secret_ppm"])[name]
        assert secret.tolist() == positions
        assert np.where(draw_coins(binding, name, secret), -1, 1).tolist() == vector["coins"][name]


def test_coins_are_fair_and_do_not_depend_on_where_the_secret_edges_are() -> None:
    generator = np.random.default_rng(0)
    first, second = np.sort(generator.choice(10_000, size=(2, 4000), replace=False), axis=1)
    coins = draw_coins(BINDING, "a", first)
    assert coins.tolist() == draw_coins(BINDING, "a", second).tolist()
    assert abs(coins.mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)
    other = draw_coins(Binding(secret=bytes(32), commitment=bytes(32)), "a", first)
    assert abs((coins == other).mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)


@pytest.mark.parametrize("imported", [False, True])
def test_edges_that_come_start_with_their_coins_signs(imported: bool) -> None:
    ticket = random_ticket(density=0.3, imported=imported)
    mark = planned(ticket)
    for name, positions in mark.planted.items():
        came = mark.start.weights[name].reshape(-1)[positions]
        assert len(came) > 60
        assert (np.sign(came) == coins_of(ticket, name)[positions]).all()
        # The others keep theirs, secret or not.
        stayed = (mark.start.mask[name] & ticket.mask[name]).reshape(-1)
        before = ticket.start_weights[name].reshape(-1)[stayed]
        assert (mark.start.weights[name].reshape(-1)[stayed] == before).all()


def test_edges_that_come_keep_the_order_of_their_sizes() -> None:
    """Signs are all that the key changes: ranks, and so sizes after rank matching, are the rewind weights'."""
    ticket = random_ticket(density=0.3)
    signed, unsigned = planned(ticket), planned(ticket, signed=False)
    for name in ticket.mask:
        assert (signed.start.mask[name] == unsigned.start.mask[name]).all()
        assert (np.abs(signed.start.weights[name]) == np.abs(unsigned.start.weights[name])).all()
    assert any((signed.start.weights[name] != unsigned.start.weights[name]).any() for name in ticket.mask)


def test_marks_without_signs_are_planted_as_they_always_were() -> None:
    digest = hashlib.sha256()
    for imported in (False, True):
        start = planned(random_ticket(density=0.3, imported=imported), signed=False).start
        for name in sorted(start.weights):
            digest.update(np.sign(start.weights[name]).astype(np.int8).tobytes())
            digest.update(np.packbits(start.mask[name]).tobytes())
    assert digest.hexdigest() == "1b27199ef5d5e824e939e8c0c11b1fc56ce06619e535d80f4916de7d2f9184bf"


@pytest.mark.parametrize(
    ("densities", "signed", "turned_ppm"),
    [
        ((0.1, 0.1, 0.1), True, 80_000),
        ((0.1, 0.1, 0.1), False, None),
        ((0.1, 0.1, 1.0), True, 80_000),
        ((1.0, 0.7, 1.0), True, 80_000),
        ((1.0, 1.0, 1.0), True, None),
    ],
)
def test_a_claim_says_what_share_of_signs_training_turns(
    densities: tuple[float, ...], signed: bool, turned_ppm: int | None
) -> None:
    ticket = of_densities(*densities)
    assert PlantedGraph(signed=signed).parameters(ticket).get("turned_ppm") == turned_ppm
    assert PlantedParameters.from_json(PlantedGraph(signed=signed).parameters(ticket)).is_signed == bool(turned_ppm)


def test_the_holes_of_full_layers_leave_their_weights_alone() -> None:
    ticket = of_densities(1.0, 0.7, 1.0)
    mark = planned(ticket, secret_share=None, share=0.1)
    for name in ("1", "3"):
        kept = mark.start.mask[name]
        assert not kept.all()
        assert (mark.start.weights[name][kept] == ticket.start_weights[name][kept]).all()
    assert len(mark.planted["2"]) > 0


def test_marks_that_a_search_plants_have_no_planted_signs() -> None:
    mark, ticket = PlantedGraph(), random_ticket(density=0.3)
    assert "turned_ppm" not in mark.search_parameters(0.1)
    secret = {name: np.arange(50) for name in ticket.mask}
    start = Start(mask=ticket.mask, weights=ticket.start_weights)
    assert mark.found_in(start, secret, BINDING).start is start


@pytest.mark.parametrize("signed", [1, "true", None])
def test_signed_is_true_or_false(signed: Any) -> None:
    with pytest.raises(ConfigurationError, match="planted graph: signed is .*, expected true or false"):
        PlantedGraph(signed=signed)


@pytest.mark.parametrize("turned_ppm", [0, -1, 500_001, "80000", True, 0.5, None, [1]])
def test_a_hostile_claims_share_of_turned_signs_is_refused(turned_ppm: Any) -> None:
    parameters = {"secret_ppm": 10_000, "share_ppm": 50_000}
    assert PlantedParameters.from_json({**parameters, "turned_ppm": 500_000}).is_signed
    assert not PlantedParameters.from_json(parameters).is_signed
    with pytest.raises(CredentialError, match="secret_ppm and share_ppm and turned_ppm .*expected 1 to 500000"):
        PlantedParameters.from_json({**parameters, "turned_ppm": turned_ppm})


def test_an_edge_that_starts_at_zero_gets_a_weight_for_its_sign() -> None:
    weights = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    weights.reshape(-1)[::3] = 0
    secret = np.arange(0, 1200, 2)
    planted = secret[1::2]
    negative = draw_coins(BINDING, "a", secret)[1::2]
    coined = with_coins(weights, planted, BINDING, "a", secret).reshape(-1)
    assert (np.sign(coined[planted]) == np.where(negative, -1, 1)).all()
    signed = with_signs(weights, planted, BINDING, "a").reshape(-1)
    zeros = planted[planted % 3 == 0]
    other = with_signs(weights, planted, BINDING, "b").reshape(-1)
    assert 0.35 < (np.sign(signed[zeros]) == np.sign(other[zeros])).mean() < 0.65
    for found in (coined, signed):
        assert (np.abs(found[zeros]) == np.finfo(np.float32).tiny).all()
        others = np.setdiff1d(planted, zeros)
        assert (np.abs(found[others]) == np.abs(weights.reshape(-1)[others])).all()
        left = np.setdiff1d(np.arange(1200), planted)
        assert (found[left] == weights.reshape(-1)[left]).all()
    assert (signed[others] == weights.reshape(-1)[others]).all()

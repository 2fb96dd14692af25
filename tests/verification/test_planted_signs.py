"""Hits whose sign is the key's: what they add, what nobody can pretend, and what a thief can turn for nothing."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest

import ticketguard as tg
from tests.verification import by_the_page
from tests.verification.claims import (
    GROUPS,
    PLANTED,
    SECRET,
    SHAPES,
    SIGNED,
    TICKET,
    evidence,
    mark,
    marked_weights,
    permuted,
    planted_mark,
    signed,
    unmarked_ticket,
)
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.errors import CapacityError
from ticketguard.graph.orientation import orientation
from ticketguard.graph.sides import Norm
from ticketguard.graph.symmetries import NormScaling
from ticketguard.ticket import Mask, Reference
from ticketguard.verification.memory import Memory
from ticketguard.verification.planted_graph.counting import NEGATIVE, ReadSuspect, count_hits
from ticketguard.verification.planted_graph.drawing import secret_of_layer
from ticketguard.verification.readings import READINGS
from ticketguard.verification.registry import scheme

Weights = dict[str, np.ndarray]
MARK = planted_mark(with_signs=True)
CREDENTIAL = signed(MARK)
MARKED = marked_weights(MARK)
PARAMETERS = PlantedParameters.from_json(SIGNED)
REFERENCE = TICKET.reference()
BINDING = Binding(secret=SECRET, commitment=MARK.commitment)


def wrong_key(index: int) -> Binding:
    return Binding(secret=index.to_bytes(32, "little"), commitment=bytes(32))


def drawn(seed: int, *, density: float = 1.0) -> Weights:
    luck = np.random.default_rng(seed)
    return {
        name: (luck.normal(size=shape) * (luck.random(shape) < density)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def pruned(weights: Mapping[str, np.ndarray], share: float) -> Weights:
    threshold = np.quantile(np.concatenate([np.abs(array[array != 0]) for array in weights.values()]), share)
    return {name: np.where(np.abs(array) > threshold, array, 0) for name, array in weights.items()}


# What is counted


SMALL = {"a.weight": (30, 20), "b.weight": (12, 5, 3, 3), "full.weight": (20, 6)}


@pytest.mark.parametrize("agreement", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_hits_whose_sign_agrees_are_counted_as_the_page_says(agreement: float, seed: int) -> None:
    parameters = {"secret_ppm": 100_000, "share_ppm": 50_000, "turned_ppm": 100_000}
    ticket = unmarked_ticket(SMALL, density=0.15)
    layers = {name: ticket.mask[name] | (name == "full.weight") for name in SMALL}
    ticket = dataclasses.replace(ticket, mask=Mask(layers=layers), weights=ticket.rewind_weights)
    reference = ticket.reference()
    made = mark("planted-graph", parameters, reference=reference)
    luck, suspect = np.random.default_rng(seed), {}
    for name, shape in SMALL.items():
        size = math.prod(shape)
        secret = by_the_page.secret_positions(SECRET, made.commitment, name, size, parameters["secret_ppm"])
        coins = by_the_page.coins_of(SECRET, made.commitment, name, secret)
        layer = luck.normal(size=size) * (luck.random(size) < np.where(np.isin(range(size), sorted(secret)), 0.5, 0.2))
        for position, coin in coins.items():
            layer[position] = abs(layer[position]) * (coin if luck.random() < agreement else -coin)
        suspect[name] = layer.reshape(shape).astype(np.float32)
    is_negative = {
        name: orientation(layer, reference.layer_weights(name), reference.mask[name]).undo(layer) < 0
        for name, layer in suspect.items()
    }
    expected = by_the_page.readings(suspect, reference.mask, parameters, SECRET, made.commitment, is_negative)
    found = evidence(suspect, signed(made, reference=reference))
    alone, together = (
        min(float(getattr(counted, which)) for counted in expected) for which in ("log10_p", "signed_log10_p")
    )
    assert found.details["log10_p_uncorrected"] == pytest.approx(min(alone, together), abs=1e-6)
    assert found.details["signs"] == ("agreeing" if together < alone else "not looked at")
    best = expected[[reading.name for reading in READINGS].index(found.details["reading"])]
    assert found.details["signs_agreeing"] == best.agreeing
    assert found.details["signs_expected"] == best.coins / 2
    # Hits of the full layer have no coins.
    assert found.observed == best.hits == best.coins + best.layers[-1].hits
    assert expected[0].layers[-1].hits > 0
    assert found.log10_p == min(0.0, found.details["log10_p_uncorrected"] + math.log10(20))
    copy = min(counted.attainable_log10_p(50_000, turned_ppm=100_000) for counted in expected)
    assert found.details["attainable_log10_p"] == pytest.approx(min(0.0, float(copy) + math.log10(20)), abs=1e-6)


def test_signs_are_told_where_they_were_the_strongest() -> None:
    found = evidence(MARKED, CREDENTIAL)
    assert found.status == "supported"
    hits, agreeing = found.observed, found.details["signs_agreeing"]
    assert hits == agreeing > 100
    assert found.details["signs"] == "agreeing"
    assert found.details["looks"] == 20
    assert found.statistic == (
        f"edges that the reference does not have, inside the owner's secret edge set ({agreeing} of {hits} with the "
        "owner's sign)"
    )


def test_claims_without_signs_are_read_as_they_always_were() -> None:
    made = planted_mark()
    for weights in (marked_weights(made), MARKED, dict(TICKET.weights)):
        found = evidence(weights, signed(made))
        assert not [name for name in found.details if "sign" in name]
        assert found.details["looks"] == 10
        assert found.statistic == "edges that the reference does not have, inside the owner's secret edge set"
    read = ReadSuspect.of(MARKED, REFERENCE, PlantedParameters.from_json(PLANTED))
    assert max(int(readings.max()) for readings in read.readings.values()) < 2 ** len(READINGS)


def test_new_weights_under_the_mask_leave_the_hits_and_cost_one_look() -> None:
    """A thief who trains again from other signs removes these, and not one edge."""
    luck = np.random.default_rng(0)
    fresh = {name: np.abs(array) * luck.choice([-1, 1], array.shape) for name, array in MARKED.items()}
    fresh = {name: array.astype(np.float32) for name, array in fresh.items()}
    found = evidence(fresh, CREDENTIAL)
    assert found.status == "supported"
    assert found.details["signs"] == "not looked at"
    assert abs(found.details["signs_agreeing"] - found.details["signs_expected"]) < 3 * math.sqrt(found.observed / 4)
    assert found.statistic == "edges that the reference does not have, inside the owner's secret edge set"
    alone = count_hits(ReadSuspect.of(fresh, REFERENCE, PARAMETERS), BINDING, PARAMETERS)[0].log10_p
    assert found.log10_p == pytest.approx(alone + math.log10(20))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_signs_add_to_every_reading_of_a_copy(share: float) -> None:
    for counted in count_hits(ReadSuspect.of(pruned(MARKED, share), REFERENCE, PARAMETERS), BINDING, PARAMETERS)[:3]:
        assert counted.signs is not None
        assert counted.signs.agreeing == counted.signs.coins == counted.hits
        alone, together = counted.results
        assert alone - counted.hits * math.log10(2) < together
        assert together == pytest.approx(
            alone - counted.hits * math.log10(2) + math.log10(1 + counted.hits * math.log(2)), abs=1e-6
        )


def test_a_layer_is_drawn_alike_with_and_without_a_memory_and_after_a_quick_look() -> None:
    read, memory = ReadSuspect.of(MARKED, REFERENCE, PARAMETERS), Memory(limit_bytes=2**20)
    first = secret_of_layer(REFERENCE.mask, "fc1.weight", BINDING, PARAMETERS, memory)
    again = secret_of_layer(REFERENCE.mask, "fc1.weight", BINDING, PARAMETERS, memory)
    assert (first.positions == again.positions).all()
    assert np.array_equal(first.is_negative, again.is_negative)  # type: ignore[arg-type]
    assert not REFERENCE.mask["fc1.weight"].reshape(-1)[first.positions].any()
    assert count_hits(read, BINDING, PARAMETERS, memory) == count_hits(read, BINDING, PARAMETERS)
    judge = tg.Judge({"own": CREDENTIAL})
    assert judge.screen(tg.Checkpoint(MARKED)).worth_verifying() == ("own",)
    assert judge.verify(tg.Checkpoint(MARKED), "own") == tg.verify(tg.Checkpoint(MARKED), CREDENTIAL)


@pytest.mark.usefixtures("all_decoys")
def test_decoys_go_through_the_same_counts() -> None:
    found = evidence(MARKED, CREDENTIAL)
    assert found.details["decoy_keys"] == 20
    assert -4 < found.details["decoy_log10_p"] <= 0


# What nobody can pretend


SUSPECTS: dict[str, Callable[[], Weights]] = {
    "a copy": lambda: MARKED,
    "a copy, pruned": lambda: pruned(MARKED, 0.7),
    "weights of one sign": lambda: {name: -np.ones(shape, np.float32) for name, shape in SHAPES.items()},
    "positive weights": lambda: {name: np.abs(layer) for name, layer in drawn(1).items()},
    "positive weights, few": lambda: {name: np.abs(layer) for name, layer in drawn(2, density=0.2).items()},
    "the reference and noise": lambda: {
        name: (layer + 0.3 * drawn(3, density=0.3)[name]).astype(np.float32) for name, layer in TICKET.weights.items()
    },
    "what the ticket was trained from": lambda: dict(TICKET.start_weights),
    "rows of one sign each": lambda: {
        name: np.abs(layer) * np.where(np.arange(len(layer)) % 2, 1, -1)[:, None].astype(np.float32)
        for name, layer in drawn(4, density=0.3).items()
    },
}


@pytest.mark.parametrize("name", SUSPECTS)
def test_p_with_signs_is_as_rare_as_it_says_whatever_the_suspect(name: str) -> None:
    """Over 2400 wrong keys in all, for hits alone and with their signs, in two readings."""
    read = ReadSuspect.of(SUSPECTS[name](), REFERENCE, PARAMETERS)
    keys = 300
    found = [count_hits(read, wrong_key(index), PARAMETERS)[:3:2] for index in range(1, keys + 1)]
    results = np.array([[*some.results, *other.results] for some, other in found])
    assert results.max() <= 0
    for column in results.T:
        for level in (0.5, 0.2, 0.1, 0.01, 0.001):
            # Four standard deviations above the share that an exact test has at most.
            most = level + 4 * math.sqrt(level * (1 - level) / keys)
            assert (10**column <= level).mean() <= most
    # Signs say something at all, of suspects that have hits: no p is 1 for all keys.
    assert (results[:, 1] < math.log10(0.5)).mean() > 0.05


@pytest.mark.parametrize("name", SUSPECTS)
def test_nobody_but_the_owner_is_supported(name: str) -> None:
    own, others = CREDENTIAL, signed(planted_mark(with_signs=True, level_bits=63))
    is_copy = "copy" in name
    assert (evidence(SUSPECTS[name](), own).status == "supported") == is_copy
    assert evidence(SUSPECTS[name](), others).status != "supported"  # another level is another draw


# What a thief can turn for nothing


def with_norm(weights: Mapping[str, np.ndarray]) -> Weights:
    luck, size = np.random.default_rng(7), len(weights["fc1.weight"])
    norm = {"weight": luck.random(size) + 0.5, "bias": luck.normal(size=size)}
    norm |= {"running_mean": luck.normal(size=size), "running_var": luck.random(size) + 0.5}
    return {**weights, **{f"bn.{name}": array.astype(np.float32) for name, array in norm.items()}}


def answers(state: Mapping[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    hidden = inputs @ state["fc1.weight"].T.astype(np.float64)
    hidden = (hidden - state["bn.running_mean"]) / np.sqrt(state["bn.running_var"] + 1e-5)
    return np.maximum(hidden * state["bn.weight"] + state["bn.bias"], 0) @ state["fc2.weight"].T


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("reorder", [False, True])
def test_a_copy_whose_filters_were_turned_reads_as_the_copy_does(share: float, reorder: bool) -> None:
    made = planted_mark(groups=GROUPS, with_signs=True)
    credential = signed(made, groups=GROUPS)
    copy = with_norm(pruned(marked_weights(made), share))
    turning = NormScaling.drawn(
        copy, [Norm(layer="fc1.weight", norm="bn")], generator=np.random.default_rng(0), signs=True
    )
    turned = turning.apply(copy)
    inputs = np.random.default_rng(1).normal(size=(20, 60))
    assert answers(turned, inputs) == pytest.approx(answers(copy, inputs), abs=1e-3)
    assert 80 < (turning.layers["fc1.weight"] < 0).sum() < 120
    if reorder:
        turned, copy = permuted(turned), permuted(copy)
    found, straight = evidence(turned, credential), evidence(copy, credential)
    assert found.details["aligned"] == reorder
    assert straight.details["signs"] == found.details["signs"] == "agreeing"
    assert found.observed == straight.observed
    # Of a row that lost its edges nobody can say which way it was.
    assert found.details["signs_agreeing"] >= (1.0 if share == 0 else 0.97) * straight.details["signs_agreeing"]
    assert found.log10_p <= (1.0 if share == 0 else 0.98) * straight.log10_p


def test_pairs_of_channels_may_be_turned_as_well() -> None:
    """Between a product's two factors, or before an odd function, rows of one layer and columns of the next."""
    signs = np.random.default_rng(0).choice([-1, 1], 200).astype(np.float32)
    turned = {"fc1.weight": MARKED["fc1.weight"] * signs[:, None], "fc2.weight": MARKED["fc2.weight"] * signs}
    assert evidence(turned, CREDENTIAL).details["signs_agreeing"] >= 0.99 * evidence(MARKED, CREDENTIAL).observed


def test_what_shares_no_edge_with_the_reference_keeps_its_sign() -> None:
    mask, name = TICKET.mask["fc1.weight"].copy(), "fc1.weight"
    mask[:20] = False
    sizes = np.abs(TICKET.start_weights[name])
    reference = Reference(mask=Mask(layers={name: mask}), kept_weights={name: sizes[mask]})
    layer = {name: np.where(np.arange(200)[:, None] < 40, -sizes, sizes)}
    (readings,) = ReadSuspect.of(layer, reference, PARAMETERS).readings.values()
    is_negative = (readings >= NEGATIVE).reshape(mask.shape)
    assert is_negative[:20].all()  # nothing says that these are turned
    assert not is_negative[20:40].any()
    assert not is_negative[40:].any()


# Room


def test_signs_give_a_mark_room() -> None:
    """Square of the level, of hits and the signs that training leaves."""
    share = 0.15
    part = {name: np.arange(layer.size).reshape(layer.shape) < share * layer.size for name, layer in MARKED.items()}
    layers = {name: (MARKED[name] != 0) & part[name] for name in SHAPES}
    marked, known = Mask(layers=layers), scheme("planted-graph")
    weights = {name: np.where(marked[name], MARKED[name], 0) for name in SHAPES}
    counted = count_hits(ReadSuspect.of(weights, REFERENCE, PARAMETERS), BINDING, PARAMETERS)[0]
    alone, together = counted.results
    assert together < 1.04 * alone
    # A level whose square lies between what hits and what hits with signs prove.
    bits = math.floor(-1.02 * alone / 2 / math.log10(2))
    room = functools.partial(known.require_room, binding=BINDING, marked=marked, reference=REFERENCE, decided={})
    room(dataclasses.replace(MARK, level_bits=bits))
    with pytest.raises(CapacityError, match=f"has room for {counted.hits} edges of the mark, which needs [0-9]+:"):
        room(dataclasses.replace(MARK, level_bits=bits, parameters=PLANTED))
    with pytest.raises(CapacityError) as caught:
        room(dataclasses.replace(MARK, level_bits=2 * bits))
    assert 1.5 * counted.hits < caught.value.needed_edges < 3 * counted.hits

"""Keyed signs: which start weights can carry them, what is bound, and what is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ticketguard.embedding.interface import Binding, SearchedMark, Start, StartMark
from ticketguard.embedding.keyed_signs import KeyedSigns, SignParameters, drawn_signs
from ticketguard.embedding.symmetry import why_not_symmetric
from ticketguard.errors import ConfigurationError, CredentialError
from ticketguard.keyed import KeyedStream
from ticketguard.tensor_file import Array
from ticketguard.ticket import Mask, StartReference, Ticket, TicketInfo

BINDING = Binding(secret=bytes(range(32)), commitment=bytes(32))
VECTOR = json.loads((Path(__file__).parents[2] / "signatures" / "vectors" / "start-signs.json").read_text())
SHAPES = {"conv.weight": (16, 8, 3, 3), "fc.weight": (40, 64)}


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def start(**changes: Array) -> dict[str, Array]:
    return {**{name: normal(*shape, seed=number) for number, (name, shape) in enumerate(SHAPES.items())}, **changes}


def orthogonal(size: int = 64) -> Array:
    return np.asarray(np.linalg.qr(normal(size, size).astype(np.float64))[0], dtype=np.float32)


def dirac() -> Array:
    layer = np.zeros((32, 32, 3, 3), np.float32)
    layer[np.arange(32), np.arange(32), 1, 1] = 1
    return layer


def trained() -> Array:
    """What training makes of a layer: a few directions grow."""
    return np.asarray(0.1 * normal(64, 80) + np.outer(normal(64, seed=1), normal(80, seed=2)) * 0.1, dtype=np.float32)


# Which starts can carry signs


@pytest.mark.parametrize(
    "layer",
    [
        normal(64, 80),
        normal(300, 3),
        normal(16, 8, 3, 3),
        normal(500),
        normal(1, 400),
        np.random.default_rng(0).uniform(-0.1, 0.1, size=(50, 60)).astype(np.float32),
        np.random.default_rng(0).choice([-1.0, 1.0], size=(64, 64)).astype(np.float32),
        np.clip(normal(64, 64), -2, 2),
        normal(64, 64) * np.geomspace(1e-3, 1, 64, dtype=np.float32)[:, None],
        normal(40, 50).astype(np.float16),
        normal(2000, 1500)[:, :1200],
    ],
)
def test_a_layer_of_symmetric_independent_weights_can_carry_signs(layer: Array) -> None:
    assert why_not_symmetric(layer) is None


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (np.zeros((20, 30), np.float32), "has 600 of 600 start weights that are exactly zero, which have no sign"),
        (dirac(), "has 9184 of 9216 start weights that are exactly zero"),
        (
            np.where(np.arange(3000) % 10 == 0, 0, normal(3000)).reshape(50, 60),
            "has 300 of 3000 start weights that are",
        ),
        (np.full((20, 30), 0.5, np.float32), "has 600 of 600 start weights that are positive, which is not symmetric"),
        (-np.abs(normal(20, 30)), "has 0 of 600 start weights that are positive"),
        (normal(60, 60) + 0.3, "start weights that are positive, which is not symmetric around zero"),
        (np.where(np.arange(600) == 7, np.nan, normal(600)).reshape(20, 30), "has values that are NaN or infinite"),
        (np.where(np.arange(600) == 7, np.inf, normal(600)).reshape(20, 30), "has values that are NaN or infinite"),
        (orthogonal(), "has start weights that depend on each other, as those of a trained or an orthogonal layer"),
        (trained(), "has start weights that depend on each other"),
        (np.tile(normal(8, 80), (8, 1)), "has start weights that depend on each other"),
    ],
)
def test_a_layer_whose_signs_mean_something_cannot(layer: Array, why: str) -> None:
    found = why_not_symmetric(layer)
    assert found is not None
    assert why in found


def test_few_of_many_ordinary_layers_are_left_out_by_chance() -> None:
    shapes = ((10, 3), (64, 64), (16, 16, 3, 3), (300, 20), (2, 500))
    layers = (normal(*shapes[number % 5], seed=number) for number in range(90))
    assert sum(why_not_symmetric(layer) is not None for layer in layers) == 0


def test_single_zeros_of_many_weights_are_rounding_and_a_few_of_a_thousand_are_not() -> None:
    layer = normal(200, 100)
    layer[:2, 0] = 0
    assert why_not_symmetric(layer) is None
    layer[2, 0] = 0
    assert "has 3 of 20000 start weights that are exactly zero" in str(why_not_symmetric(layer))


# What is bound


def test_most_positions_are_anchors_of_layers_that_can_carry_signs() -> None:
    reference, left_out = KeyedSigns().bound(start(**{"odd.weight": np.ones((9, 9), np.float32)}))
    assert {name: layer.share for name, layer in reference.layers.items()} == {
        "conv.weight": 179, "fc.weight": 179, "odd.weight": 256,
    }  # fmt: skip
    assert list(left_out) == ["odd.weight"]
    assert "81 of 81 start weights that are positive" in left_out["odd.weight"]
    few, _ = KeyedSigns(anchors=0.1).bound(start())
    assert few.layers["fc.weight"].share == 26


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"a": np.ones((9, 9), np.float32)}, "layer 'a' has 81 of 81 start weights that are positive, .* hold most"),
        ({"a": normal(40, 40), "b": np.zeros((41, 41), np.float32)}, "layer 'b' has 1681 of 1681 start weights"),
        ({}, "layer '' has no layers"),
    ],
)
def test_a_start_most_of_which_cannot_carry_signs_is_refused(weights: dict[str, Array], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        KeyedSigns().bound(weights)


def test_a_start_that_is_not_finite_is_refused_before_it_is_bound() -> None:
    """A vault of it could not be read again."""
    for late in (np.full((3, 3), np.nan, np.float32), np.full((3, 3), np.inf), np.empty((0, 3), np.float32)):
        with pytest.raises(ConfigurationError, match=r"'late.weight' is empty or has values .*: initialise it first"):
            KeyedSigns().bound(start(**{"late.weight": late}))


def test_anchors_of_a_salted_start_have_the_salts_signs_a_stream_for_each_layer() -> None:
    """Their own would say, to whoever guesses the start's seed, which signs are the key's."""
    salt, weights = bytes(range(32, 64)), {"a.weight": normal(30, 30), "b.weight": normal(30, 30, seed=1)}
    reference, _ = KeyedSigns().bound(weights, salt=salt)
    assert reference.salt == salt
    drawn = {}
    for name, layer in reference.layers.items():
        stream = KeyedStream(secret=salt, commitment=bytes(32), label=f"signs/{name}").bytes((900 + 7) // 8)
        drawn[name] = np.unpackbits(np.frombuffer(stream, np.uint8), count=900, bitorder="little").astype(bool)
        anchors = reference.anchors(name)
        assert (layer.negative(900) == drawn[name])[anchors].all()
        assert 0.4 < (drawn[name] == (weights[name].reshape(-1) < 0))[anchors].mean() < 0.6
    assert 0.4 < (drawn["a.weight"] == drawn["b.weight"]).mean() < 0.6
    # What training starts from has them, too.
    signed = KeyedSigns().drawn(weights, reference, BINDING)
    for name, negative in drawn.items():
        anchors = reference.anchors(name)
        assert ((signed[name].reshape(-1) < 0) == negative)[anchors].all()


# What is drawn


def test_signs_are_the_published_ones() -> None:
    binding = Binding(secret=bytes.fromhex(VECTOR["secret"]), commitment=bytes.fromhex(VECTOR["commitment"]))
    layers = json.loads((Path(__file__).parents[2] / "signatures" / "vectors" / "start-weights.json").read_text())
    for name, layer in layers["layers"].items():
        negative = drawn_signs(binding, name, len(layer["weights"]))
        votes = np.setdiff1d(np.arange(len(layer["weights"])), layer["anchors"])
        assert votes[negative[votes]].tolist() == VECTOR["negative_votes"][name]


def test_signs_are_fair_and_differ_by_layer_key_and_commitment() -> None:
    others = Binding(secret=bytes(32), commitment=bytes(32)), Binding(secret=BINDING.secret, commitment=bytes([1] * 32))
    drawn = [drawn_signs(binding, name, 100_000) for binding in (BINDING, *others) for name in ("a", "b")]
    for number, signs in enumerate(drawn):
        assert abs(signs.mean() - 0.5) < 0.008
        for other in drawn[:number]:
            assert abs((signs == other).mean() - 0.5) < 0.008
    assert (drawn[0][:77] == drawn_signs(BINDING, "a", 77)).all()


def test_drawing_changes_neither_magnitudes_nor_anchors_and_gives_votes_the_keys_signs() -> None:
    weights = start(**{"bias": np.arange(5.0), "odd.weight": np.ones((9, 9), np.float32)})
    weights["fc.weight"] = weights["fc.weight"].astype(np.float16)
    mark = KeyedSigns()
    reference, _ = mark.bound({name: array for name, array in weights.items() if name != "bias"})
    drawn = mark.drawn(weights, reference, BINDING)
    assert list(drawn) == list(weights)
    for name, array in weights.items():
        assert drawn[name].dtype == array.dtype
        assert (np.abs(drawn[name]) == np.abs(array)).all()
    assert drawn["bias"] is weights["bias"]
    assert drawn["odd.weight"] is weights["odd.weight"]
    for name in SHAPES:
        anchors = reference.anchors(name).reshape(SHAPES[name])
        assert (drawn[name] == weights[name])[anchors].all()
        negative = drawn_signs(BINDING, name, anchors.size).reshape(anchors.shape)
        assert ((drawn[name] < 0) == negative)[~anchors].all()
        assert 0.4 < (drawn[name] == weights[name])[~anchors].mean() < 0.6
    # The start is what it was for whoever binds it, signed or not.
    again, _ = mark.bound({name: drawn[name] for name in reference.layers})
    assert again.digest() == reference.digest()


def test_the_caller_keeps_its_own_weights() -> None:
    weights = start()
    before = {name: array.copy() for name, array in weights.items()}
    reference, _ = KeyedSigns().bound(weights)
    KeyedSigns().drawn(weights, reference, BINDING)
    assert all((weights[name] == array).all() for name, array in before.items())


# Settings and parameters


@pytest.mark.parametrize(
    ("anchors", "told"), [(0.09, "0.09, expected 0.1 to 0.95"), (0.96, "expected"), ("x", "anchors")]
)
def test_shares_of_anchors_out_of_range_are_refused(anchors: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        KeyedSigns(anchors=anchors)


@pytest.mark.parametrize(("density", "ppm"), [(1.0, 1_000_000), (0.05, 50_000), (1e-9, 1), (2.0, 1_000_000)])
def test_a_claim_says_what_an_untouched_copy_keeps(density: float, ppm: int) -> None:
    assert KeyedSigns().start_parameters(density) == {"density_ppm": ppm}
    assert SignParameters.from_json({"density_ppm": ppm}) == SignParameters(density_ppm=ppm)


@pytest.mark.parametrize(
    "parameters",
    [
        {}, {"density_ppm": 0}, {"density_ppm": -1}, {"density_ppm": 1_000_001}, {"density_ppm": 2**60},
        {"density_ppm": True},
        {"density_ppm": "50000"}, {"density_ppm": [1]}, {"density_ppm": 0.5}, {"density_ppm": None}, {"other": 1},
        {"density_ppm": 50_000, "other": 1}, {"density_ppm": 50_000, "secret_ppm": 30_000},
    ],
)  # fmt: skip
def test_parameters_that_anybody_may_have_written_are_refused(parameters: Any) -> None:
    with pytest.raises(CredentialError, match="keyed-signs has parameters .*, expected density_ppm from 1 to 1000000"):
        SignParameters.from_json(parameters)


def test_a_ticket_that_exists_already_is_refused() -> None:
    mask = Mask(layers={name: array > 0 for name, array in start().items()})
    ticket = Ticket(mask=mask, weights=mask.applied(start()), rewind_weights=None, info=TicketInfo(method="random"))
    with pytest.raises(ConfigurationError, match="this ticket was found without them: find it with an owner"):
        KeyedSigns().parameters(ticket)


def test_nothing_is_done_while_a_network_with_signs_is_trained() -> None:
    begun = Start(mask=Mask(layers={}), weights={})
    planned = KeyedSigns().plan(None, begun, BINDING, {})  # type: ignore[arg-type]
    assert planned.start is begun
    assert planned.extra_batch(1, None) is None  # type: ignore[arg-type]
    planned.after_step(1, {})
    assert planned.learned(lambda inputs: np.zeros(len(inputs), np.int64)) == 1.0
    assert planned.leaves() == ()


def test_it_is_a_mark_of_a_start_and_not_of_a_search() -> None:
    mark = KeyedSigns()
    assert isinstance(mark, StartMark)
    assert not isinstance(mark, SearchedMark)
    assert (mark.scheme, mark.version) == ("keyed-signs", 1)
    assert isinstance(mark.bound(start())[0], StartReference)

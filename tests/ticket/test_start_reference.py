"""Start weights: what is kept of them, their bytes and digest, and files that anybody may have written."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.verification import signs_by_the_page as page
from ticketguard.errors import FileError, TensorError, TicketguardError, UnknownVersionError
from ticketguard.tensor_file import Array, write_tensors
from ticketguard.ticket import Reference, StartReference, read_reference
from ticketguard.ticket.start_reference import SHARES, START_VERSION, StartLayer, anchors_of

VECTOR = json.loads((Path(__file__).parents[2] / "signatures" / "vectors" / "start-weights.json").read_text())
CONTENT = base64.b64decode(VECTOR["file"])
SALT = bytes.fromhex(VECTOR["salt"])
SHAPES = {"a.weight": (5, 3, 3), "b.weight": (4, 6)}


def weights_of(name: str) -> Array:
    layer = VECTOR["layers"][name]
    return np.array(layer["weights"], dtype=np.float32).reshape(layer["shape"])


def start_of(weights: dict[str, Array], share: int = 179) -> StartReference:
    return StartReference(layers={name: StartLayer.of(name, layer, share=share) for name, layer in weights.items()})


def drawn(seed: int = 0) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


# As the pages say


def test_start_weights_are_the_published_ones() -> None:
    read = StartReference.from_bytes(CONTENT)
    made = StartReference(
        layers={
            name: StartLayer.of(name, weights_of(name), share=layer["share"], salt=SALT)
            for name, layer in VECTOR["layers"].items()
        },
        salt=SALT,
    )
    assert list(read.layers) == list(VECTOR["layers"])
    for start in (read, made, StartReference.from_bytes(made.to_bytes())):
        assert start.digest().hex() == VECTOR["digest"]
        for name, layer in VECTOR["layers"].items():
            assert start.layers[name].codes.tobytes().hex() == layer["codes"]
            assert start.layers[name].sizes.astype("<f4").tobytes().hex() == layer["sizes"]
            assert np.flatnonzero(start.anchors(name)).tolist() == layer["anchors"]


def test_a_second_implementation_reads_the_published_start_weights() -> None:
    layers = page.read_start(CONTENT)
    assert page.digest(layers).hex() == VECTOR["digest"]
    for layer in layers:
        said = VECTOR["layers"][layer.name]
        assert (layer.share, list(layer.shape)) == (said["share"], said["shape"])
        assert sorted(layer.anchors()) == said["anchors"]
        codes, sizes = page.quantised(weights_of(layer.name), layer.anchors())
        assert [layer.nibble(position) for position in range(layer.positions)] == codes
        assert all(size is None or np.float32(size) == own for size, own in zip(sizes, layer.sizes, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_any_start_is_read_and_hashed_as_the_page_says(seed: int) -> None:
    start = start_of(drawn(seed), share=(1, 100, 256)[seed])
    layers = page.read_start(start.to_bytes())
    assert page.digest(layers) == start.digest()
    for layer in layers:
        assert sorted(layer.anchors()) == np.flatnonzero(start.anchors(layer.name)).tolist()
        expected = [layer.weight(position) for position in range(layer.positions)]
        assert start.layer_weights(layer.name).reshape(-1).tolist() == expected
        assert start.kept_weights[layer.name].tolist() == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: dataclasses.replace(layer, share=layer.share - 1),
        lambda layer: dataclasses.replace(layer, shape=layer.shape[::-1]),
        lambda layer: dataclasses.replace(layer, codes=layer.codes ^ np.uint8(1)),
        lambda layer: dataclasses.replace(layer, sizes=layer.sizes * np.float32(2)),
    ],
)
def test_the_digest_covers_everything(change: Callable[[StartLayer], StartLayer]) -> None:
    start = start_of(drawn())
    changed = StartReference(layers={**start.layers, "b.weight": change(start.layers["b.weight"])})
    renamed = StartReference(layers={"a.weight": start.layers["a.weight"], "c.weight": start.layers["b.weight"]})
    assert len({start.digest(), changed.digest(), renamed.digest(), start.only(["a.weight"]).digest()}) == 4


def test_anchors_are_as_many_as_their_share_says_and_others_in_each_layer() -> None:
    size = 200_000
    for share in (1, 26, 179, 255):
        there = np.count_nonzero(anchors_of("fc.weight", size, share))
        expected = size * share / SHARES
        assert abs(there - expected) < 5 * math.sqrt(expected * (1 - share / SHARES))
    assert anchors_of("fc.weight", size, SHARES).all()
    same = np.mean(anchors_of("fc.weight", size, 128) == anchors_of("fc.bias", size, 128))
    assert abs(same - 0.5) < 0.01
    # The rule is one of positions: a longer layer begins as a shorter one does.
    assert (anchors_of("fc.weight", size, 128)[:99] == anchors_of("fc.weight", 99, 128)).all()


# What is kept

layers_of_floats = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=1, max_dims=4, max_side=7),
    elements=st.floats(-4, 4, width=32) | st.sampled_from([0.0, 0.5, -0.5, 1e-40, -1e-40, 3e38, -3e38]),
)


@settings(max_examples=40, deadline=None)
@given(weights=layers_of_floats, share=st.integers(1, 256))
def test_any_finite_layer_survives_writing_and_reading(weights: Array, share: int) -> None:
    start = start_of({"x.weight": weights}, share=share)
    again = read_reference(start.to_bytes())
    assert isinstance(again, StartReference)
    assert again.digest() == start.digest()
    assert again.to_bytes() == start.to_bytes()
    layer = again.layers["x.weight"]
    assert (layer.shape, layer.share, layer.size) == (weights.shape, share, weights.size)
    assert again.mask["x.weight"].all()
    assert again.mask["x.weight"].shape == weights.shape
    anchors = again.anchors("x.weight")
    negative = np.signbit(layer.weights())
    assert (negative == (anchors & (weights.reshape(-1) < 0))).all()
    assert (layer.negative(weights.size) == negative).all()
    assert (layer.negative(weights.size // 2) == negative[: weights.size // 2]).all()
    assert (layer.magnitudes() == np.abs(layer.weights())).all()


@settings(max_examples=30, deadline=None)
@given(weights=layers_of_floats, share=st.integers(1, 255), seed=st.integers(0, 2**32 - 1))
def test_the_signs_of_votes_never_enter(weights: Array, share: int, seed: int) -> None:
    votes = ~anchors_of("x.weight", weights.size, share).reshape(weights.shape)
    turned = np.where(votes & (np.random.default_rng(seed).random(weights.shape) < 0.5), -weights, weights)
    assert (
        start_of({"x.weight": turned}, share=share).to_bytes()
        == start_of({"x.weight": weights}, share=share).to_bytes()
    )


@settings(max_examples=30, deadline=None)
@given(weights=layers_of_floats)
def test_sizes_are_means_and_keep_the_order_of_magnitudes(weights: Array) -> None:
    layer = StartLayer.of("x.weight", weights, share=256)
    magnitudes, kept = np.abs(weights).reshape(-1), layer.magnitudes()
    assert (np.diff(layer.sizes) >= 0).all()
    order = np.argsort(magnitudes, kind="stable")
    assert (np.diff(kept[order]) >= 0).all()
    for size in np.unique(kept):
        mean = magnitudes[kept == size].astype(np.float64).mean()
        assert size == pytest.approx(mean, rel=1e-6, abs=1e-44)


def test_eighths_of_normal_weights_say_nearly_what_the_weights_do() -> None:
    weights = np.random.default_rng(0).normal(size=(300, 400)).astype(np.float32)
    layer = StartLayer.of("x.weight", weights, share=256)
    assert np.corrcoef(layer.weights(), weights.reshape(-1))[0, 1] > 0.985
    assert np.bincount(layer.unpacked() % 8).tolist() == [15_000] * 8


def test_a_start_is_a_reference_that_keeps_everything() -> None:
    start = start_of(drawn())
    assert {name: start.mask.shape(name) for name in start.mask} == SHAPES
    assert start.mask.kept == start.mask.size == 69
    assert len(start.kept_weights) == 2
    assert list(start.kept_weights) == list(start.mask)
    assert list(start.only(["b.weight"]).layers) == ["b.weight"]
    with pytest.raises(KeyError, match="other"):
        start.only(["other"])


def test_the_mask_of_a_start_is_made_once() -> None:
    """A verifier looks a layer's shape up for every pair of a layer and a tensor."""
    start = StartReference(layers={"a": StartLayer.of("a", np.ones((2, 3), np.float32), share=179)})
    assert start.mask is start.mask


def test_either_kind_of_reference_is_read_by_its_version() -> None:
    ticket = Reference(mask=start_of(drawn()).mask, kept_weights=start_of(drawn()).kept_weights)
    assert isinstance(read_reference(ticket.to_bytes()), Reference)
    assert isinstance(read_reference(CONTENT), StartReference)
    with pytest.raises(UnknownVersionError, match="the reference has version 'ticketguard.start/2'"):
        read_reference(forged(version="ticketguard.start/2"))
    with pytest.raises(FileError, match="not a whole safetensors file"):
        read_reference(b"{}")


# Files that anybody may have written


def forged(
    tensors: dict[str, Array | None] | None = None,
    layers: object = None,
    *,
    version: object = START_VERSION,
    salt: object = "00" * 32,
) -> bytes:
    """Return a file of one layer, x of shape (3, 3), with some tensors replaced or left out."""
    whole: dict[str, Array | None] = {
        "ticketguard.codes/x": np.zeros(5, np.uint8), "ticketguard.sizes/x": np.arange(8, dtype=np.float32)
    }  # fmt: skip
    kept = {name: array for name, array in {**whole, **(tensors or {})}.items() if array is not None}
    said = {"x": [179, 3, 3]} if layers is None else layers
    return write_tensors(kept, {"version": version, "layers": said, "anchors_salt": salt})


def test_the_file_that_is_spoiled_below_is_read() -> None:
    assert StartReference.from_bytes(forged()).layers["x"].shape == (3, 3)


@pytest.mark.parametrize("version", ["ticketguard.start/2", "ticketguard.reference/1", None, 1])
def test_other_versions_are_refused(version: object) -> None:
    with pytest.raises(UnknownVersionError, match=r"the start weights has version .*, expected ticketguard\.start/1"):
        StartReference.from_bytes(forged({"ticketguard.codes/x": None}, layers=[], version=version))


@pytest.mark.parametrize(
    "said",
    [
        [0, 3, 3], [257, 3, 3], [True, 3, 3], [179.0, 3, 3], ["179", 3, 3], [-1, 3, 3], [179], [], 179, "abc", None,
        {"0": 179},
        [179, 0, 3], [179, 3, -3], [179, 3, True], [179, 3, 3.0], [179, *[1] * 32], [179, 2**31, 2**31], [179, 2**63],
    ],
)  # fmt: skip
def test_shares_and_shapes_that_are_none_are_refused(said: object) -> None:
    with pytest.raises(FileError, match="the start weights.*has a layer of share and shape"):
        StartReference.from_bytes(forged(layers={"x": said}))


@pytest.mark.parametrize(
    "salt", [None, 0, "", "00" * 31, "00" * 33, "0g" * 32, "AB" * 32, "00" * 32 + "\n", ["00" * 32]]
)
def test_salts_that_are_none_are_refused(salt: object) -> None:
    with pytest.raises(FileError, match="has the salt .*, expected 64 hexadecimal digits"):
        StartReference.from_bytes(forged(salt=salt))


def test_another_salt_is_another_start_with_other_anchors() -> None:
    weights = drawn()
    one, other = (
        StartReference(
            layers={name: StartLayer.of(name, layer, share=179, salt=salt) for name, layer in weights.items()},
            salt=salt,
        )
        for salt in (SALT, bytes(32))
    )
    assert one.digest() != other.digest()
    assert all((one.anchors(name) != other.anchors(name)).any() for name in weights)
    assert StartReference.from_bytes(one.to_bytes()).salt == SALT
    assert one.only(list(weights)[:1]).salt == SALT


@pytest.mark.parametrize("layers", [{}, [], "x", 1, {"x": [179, 3, 3], "y": [179, 3, 3]}])
def test_other_tensors_than_those_of_the_layers_are_refused(layers: object) -> None:
    with pytest.raises(FileError, match="has other tensors than codes and sizes of its layers"):
        StartReference.from_bytes(forged(layers=layers))


@pytest.mark.parametrize(
    "tensors",
    [
        {"ticketguard.codes/x": None},
        {"ticketguard.sizes/x": None},
        {"x": np.zeros(1, np.float32)},
        {"ticketguard.codes/y": np.zeros(5, np.uint8)},
    ],
)
def test_missing_and_extra_tensors_are_refused(tensors: dict[str, Array | None]) -> None:
    with pytest.raises(FileError, match="has other tensors than codes and sizes of its layers"):
        StartReference.from_bytes(forged(tensors))


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros(4, np.uint8), np.zeros(6, np.uint8), np.zeros((5, 1), np.uint8), np.zeros(5, np.int8),
        np.zeros(5, np.bool_),
        np.array([0, 0, 0, 0, 16], np.uint8), np.array([0, 0, 0, 0, 128], np.uint8), np.zeros(0, np.uint8), None,
    ],
)  # fmt: skip
def test_codes_that_do_not_fit_are_refused(codes: Array | None) -> None:
    tensors = {"ticketguard.codes/x": codes}
    if codes is None:
        tensors["ticketguard.codes/y"] = np.zeros(5, np.uint8)
    with pytest.raises(TensorError, match="'x' has no codes that fit its shape: the vault is damaged"):
        StartReference.from_bytes(forged(tensors))


def sizes(*changed: float) -> Array:
    return np.array([*np.arange(8 - len(changed)), *changed], dtype=np.float32)


@pytest.mark.parametrize(
    "given",
    [
        sizes(np.nan), sizes(np.inf), sizes(5), sizes(9, 8), -np.ones(8, np.float32), sizes()[::-1].copy(),
        sizes()[:7].copy(),
        sizes().astype(np.float64), sizes().astype(np.float16), sizes().reshape(8, 1), None,
    ],
)  # fmt: skip
def test_sizes_that_are_none_are_refused(given: Array | None) -> None:
    tensors = {"ticketguard.sizes/x": given}
    if given is None:
        tensors["ticketguard.sizes/y"] = sizes()
    with pytest.raises(TensorError, match="'x' has no sizes that are ascending magnitudes: the vault is damaged"):
        StartReference.from_bytes(forged(tensors))


@pytest.mark.parametrize("name", ["x" * 1025, ".".join("x" * 65)])
def test_names_that_are_too_long_are_refused(name: str) -> None:
    tensors: dict[str, Array] = {
        f"ticketguard.codes/{name}": np.zeros(5, np.uint8), f"ticketguard.sizes/{name}": sizes()
    }  # fmt: skip
    content = write_tensors(
        tensors, {"version": START_VERSION, "layers": {name: [179, 3, 3]}, "anchors_salt": "00" * 32}
    )
    with pytest.raises(TensorError, match="has a name of .* expected at most 1024 and 64"):
        StartReference.from_bytes(content)
    with pytest.raises(TensorError, match="has a name of"):
        start_of({name: np.ones((3, 3), np.float32)})


def test_more_layers_than_any_network_has_are_refused() -> None:
    layer = StartLayer.of("x", np.ones((1, 1), np.float32), share=256)
    with pytest.raises(TensorError, match="has 10001 layers, expected at most 10000"):
        StartReference(layers={f"x{number}": layer for number in range(10_001)})


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_file_with_any_bytes_changed_is_read_as_a_start_or_refused(data: st.DataObject) -> None:
    content = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    try:
        start: Any = StartReference.from_bytes(bytes(content))
    except TicketguardError:
        return
    for name, layer in start.layers.items():
        assert np.isfinite(layer.weights()).all()
        assert start.mask[name].all()
    assert StartReference.from_bytes(start.to_bytes()).digest() == start.digest()

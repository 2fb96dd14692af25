from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ticketguard.errors import ConfigurationError, FileError, TensorError, UnknownVersionError
from ticketguard.ticket import Mask, Reference, Ticket, TicketInfo, pack_bits, unpack_bits, weights_digest

VECTORS = Path(__file__).parents[2] / "signatures" / "vectors"
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, max_side=7)


def small_ticket(*, rewind: bool = True) -> Ticket:
    generator = np.random.default_rng(0)
    mask = Mask(layers={"b.weight": generator.random((3, 5)) < 0.5, "a.weight": generator.random((2, 2, 3, 3)) < 0.5})
    state = {name: generator.normal(size=mask[name].shape).astype(np.float32) for name in mask}
    state |= {"a.bias": np.ones(2, np.float32), "bn.num_batches_tracked": np.array(7)}
    weights = {name: np.where(mask[name], array, 0) if name in mask else array for name, array in state.items()}
    info = TicketInfo(
        method="imp", model="mlp", classes=10, input_shape=(1, 8, 8), input_mean=(0.5,), history=({"density": 0.5},)
    )
    return Ticket(mask=mask, weights=weights, rewind_weights=state if rewind else None, info=info)


@given(SHAPES.flatmap(lambda shape: arrays.arrays(np.bool_, shape)))
def test_packed_bits_unpack_to_the_same_layer(layer: np.ndarray) -> None:
    assert (unpack_bits(pack_bits(layer), layer.shape, name="x") == layer).all()


@pytest.mark.parametrize("rewind", [True, False])
def test_a_ticket_survives_its_file(tmp_path: Path, rewind: bool) -> None:
    ticket = small_ticket(rewind=rewind)
    ticket.save(tmp_path / "t.safetensors")
    back = Ticket.load(tmp_path / "t.safetensors")
    assert back.mask == ticket.mask
    assert back.info == ticket.info
    assert weights_digest(back.weights) == weights_digest(ticket.weights)
    assert (back.rewind_weights is None) is not rewind
    assert all(back.weights[name].shape == array.shape for name, array in ticket.weights.items())
    assert all(back.weights[name].dtype == array.dtype for name, array in ticket.weights.items())


def test_a_file_is_a_function_of_its_ticket() -> None:
    assert small_ticket().to_bytes() == small_ticket().to_bytes()


def test_weights_stand_under_their_state_dict_names() -> None:
    tensors = safetensors.numpy.load(small_ticket().to_bytes())
    assert (tensors["b.weight"] == small_ticket().weights["b.weight"]).all()


def test_a_reference_survives_its_bytes() -> None:
    reference = small_ticket().reference()
    back = Reference.from_bytes(reference.to_bytes())
    assert back.digest() == reference.digest()
    assert (back.layer_weights("b.weight") == reference.layer_weights("b.weight")).all()


def test_a_reference_with_values_that_are_not_finite_is_refused() -> None:
    reference = small_ticket().reference()
    kept = {name: np.full_like(values, np.nan) for name, values in reference.kept_weights.items()}
    content = Reference(mask=reference.mask, kept_weights=kept).to_bytes()
    with pytest.raises(TensorError, match="has kept weights that are NaN or infinite"):
        Reference.from_bytes(content)


def test_digests_are_the_published_ones() -> None:
    vector = json.loads((VECTORS / "ticket.json").read_text())
    layers = {name: np.array(layer, dtype=bool) for name, layer in vector["mask"].items()}
    kept = {name: np.array(values, dtype=np.float32) for name, values in vector["kept_weights"].items()}
    mask = Mask(layers=layers)
    assert mask.digest().hex() == vector["mask_digest"]
    assert weights_digest(kept).hex() == vector["weights_digest"]
    assert Reference(mask=mask, kept_weights=kept).digest().hex() == vector["reference_digest"]


@pytest.mark.parametrize("change", ["bit", "name", "shape"])
def test_any_change_of_a_mask_changes_its_digest(change: str) -> None:
    layer = np.zeros((2, 6), dtype=bool)
    before = Mask(layers={"a": layer}).digest()
    if change == "bit":
        layer = layer.copy()
        layer[1, 5] = True
    after = Mask(layers={"b" if change == "name" else "a": layer.reshape(3, 4) if change == "shape" else layer})
    assert after.digest() != before


def test_a_masks_layers_cannot_be_written_to() -> None:
    source = np.ones(3, dtype=bool)
    mask = Mask(layers={"a": source})
    source[0] = False
    assert mask["a"].all()
    with pytest.raises(ValueError, match="read-only"):
        mask["a"][0] = False


def tampered(**changes: object) -> bytes:
    """Return a ticket file with other metadata."""
    content = small_ticket().to_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    document = json.loads(header["__metadata__"]["ticketguard"])
    tensors = safetensors.numpy.load(content)
    return safetensors.numpy.save(tensors, metadata={"ticketguard": json.dumps({**document, **changes})})


@pytest.mark.parametrize("keep", [0, 7, 100, 1000])
def test_a_truncated_ticket_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(small_ticket().to_bytes()[:keep])
    with pytest.raises(FileError, match=r"t\.safetensors': is not a whole safetensors file"):
        Ticket.load(path)


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(UnknownVersionError, match=r"version 'ticketguard.ticket/9', expected ticketguard.ticket/1"):
        Ticket.from_bytes(tampered(version="ticketguard.ticket/9"))


def test_foreign_weights_are_pointed_to_import() -> None:
    with pytest.raises(FileError, match="'ticketguard import' turns a sparse checkpoint into a ticket"):
        Ticket.from_bytes(safetensors.numpy.save({"a": np.ones(3)}))


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"a.weight": [2, 2, 3, 3]},
        "nonsense",
        {"a.weight": [1], "b.weight": [3, 5]},
        {"a.weight": 3, "b.weight": [-3, -5]},
    ],
)
def test_masks_that_do_not_fit_their_list_are_refused(shapes: object) -> None:
    with pytest.raises((FileError, TensorError), match="differ|mask bytes|a mask of shape"):
        Ticket.from_bytes(tampered(mask_shapes=shapes))


@pytest.mark.parametrize("info", [{}, None, {"method": "imp"}, []])
def test_damaged_metadata_is_refused(info: object) -> None:
    with pytest.raises(FileError, match="damaged metadata"):
        Ticket.from_bytes(tampered(info=info))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(name, value) for name in ("method", "model", "data") for value in (5, None, ["imp"], {})],
        *[(name, value) for name in ("model_options", "data_options", "training", "cost") for value in ([], "a", None)],
        *[(name, value) for name in ("seed", "classes") for value in (True, 1.0, "1", 2**63)],
        *[("classes", value) for value in (-1, None)],
        *[("input_shape", value) for value in ([True], [0], [-1], [1.5], ["3"], [2**63], [[3]], 3, None, {})],
        *[(name, value) for name in ("input_mean", "input_std") for value in (["a"], [None], [True], [[0.5]], 0.5)],
        *[
            (name, value)
            for name in ("accuracy", "dense_accuracy")
            for value in (-0.1, 1.1, True, "0.5", [0.5], 10**400)
        ],
        *[("cost", {"seconds": value}) for value in ("1", None, True, [1], 10**400)],
        *[("history", value) for value in ([1], [[]], [None], {}, "a")],
        *[("structure", value) for value in ("other", None, ["weight"], {})],
        *[("ready", value) for value in (1, "true", None)],
        ("training", {"a": functools.reduce(lambda inner, _: {"a": inner}, range(17), 0)}),
        ("history", [{"a": functools.reduce(lambda inner, _: [inner], range(17), 0)}]),
    ],
    ids=repr,
)
def test_metadata_of_another_kind_are_refused_by_name(field: str, value: object) -> None:
    info = {**small_ticket().info.to_json(), field: value}
    with pytest.raises(FileError, match=f"damaged metadata .field {field} is"):
        Ticket.from_bytes(tampered(info=info))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    content = small_ticket().to_bytes()
    changed = content.replace(b'\\"accuracy\\": null', b'\\"accuracy\\": ' + number.encode())
    size = int.from_bytes(content[:8], "little") + len(changed) - len(content)
    with pytest.raises(FileError, match="has metadata that holds"):
        Ticket.from_bytes(size.to_bytes(8, "little") + changed[8:])


def test_weights_that_are_not_finite_are_refused() -> None:
    ticket = small_ticket()
    weights = {**ticket.weights, "a.bias": np.array([np.nan, 1], np.float32)}
    with pytest.raises(TensorError, match=r"'a.bias' has values that are NaN or infinite"):
        Ticket.from_bytes(dataclasses.replace(ticket, weights=weights).to_bytes())


def test_a_mask_without_weights_is_refused() -> None:
    ticket = small_ticket()
    with pytest.raises(TensorError, match="has a mask but no weights of its shape"):
        dataclasses.replace(ticket, weights={})


def test_padding_bits_must_be_zero() -> None:
    with pytest.raises(TensorError, match="padding bits"):
        unpack_bits(np.array([0b1000], dtype=np.uint8), (3,), name="a")


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(content: bytes) -> None:
    with pytest.raises((FileError, UnknownVersionError, TensorError)):
        Ticket.from_bytes(content)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([f"layer{index}" for index in range(10_001)], "has 10001 layers, expected at most 10000"),
        (["a." * 20_000 + "w"], "has a name of 40001 characters and 20001 components"),
        (["a." * 64 + "w"], "65 components, expected at most 1024 and 64"),
        (["w" * 1025], "has a name of 1025 characters"),
    ],
    ids=["layers", "components", "one component more", "length"],
)
def test_a_reference_of_more_layers_or_longer_names_than_any_network_is_refused(names: list[str], reason: str) -> None:
    mask = Mask(layers={name: np.ones((1, 1), dtype=bool) for name in names})
    kept = {name: np.ones(1, np.float32) for name in names}
    with pytest.raises(TensorError, match=reason):
        Reference(mask=mask, kept_weights=kept)
    allowed = Reference(mask=Mask(layers={}), kept_weights={})
    object.__setattr__(allowed, "mask", mask)
    object.__setattr__(allowed, "kept_weights", kept)
    with pytest.raises(TensorError, match=reason) as refused:
        Reference.from_bytes(allowed.to_bytes())
    assert len(str(refused.value)) < 400


def test_the_longest_name_and_the_most_components_are_read() -> None:
    names = ["a." * 63 + "w", "w" * 1024]
    kept = {name: np.ones(1, np.float32) for name in names}
    reference = Reference(mask=Mask(layers={name: np.ones((1, 1), bool) for name in names}), kept_weights=kept)
    assert Reference.from_bytes(reference.to_bytes()).digest() == reference.digest()


@pytest.mark.parametrize("history", [({"accuracy": float("nan")},), ({"made": {1, 2}},)])
def test_a_history_that_no_file_can_hold_is_refused(history: tuple[dict[str, object], ...]) -> None:
    ones = np.ones((2, 2), np.float32)
    info = TicketInfo(method="import", history=history)
    ticket = Ticket(mask=Mask(layers={"w": ones > 0}), weights={"w": ones}, rewind_weights=None, info=info)
    with pytest.raises(ConfigurationError, match="options or history of this ticket cannot be written"):
        ticket.to_bytes()


def test_a_layer_whose_name_is_not_text_is_refused() -> None:
    ones = np.ones((2, 2), np.float32)
    with pytest.raises(TensorError, match="has a name that is not text in UTF-8"):
        Ticket(
            mask=Mask(layers={"\ud800": ones > 0}),
            weights={"\ud800": ones},
            rewind_weights=None,
            info=TicketInfo(method="import"),
        )

"""Masks that stay packed are the masks that they are packed from, in an eighth of the memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ticketguard.ticket import Mask, Reference
from ticketguard.ticket.bits import PackedLayers

SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=7)
LAYERS = st.dictionaries(
    st.text(max_size=4), SHAPES.flatmap(lambda shape: arrays.arrays(np.bool_, shape)), min_size=1, max_size=4
)


def packed(mask: Mask) -> Mask:
    return Mask(layers=PackedLayers({name: mask.packed(name) for name in reversed(list(mask))}))


@given(LAYERS, st.data())
def test_a_packed_mask_is_the_same_mask(layers: dict[str, np.ndarray], data: st.DataObject) -> None:
    plain = Mask(layers=layers)
    tight = packed(plain)
    assert tight == plain
    assert (tight.digest(), hash(tight), len(tight)) == (plain.digest(), hash(plain), len(plain))
    assert (tight.kept, tight.size, tight.density) == (plain.kept, plain.size, plain.density)
    assert list(tight) == list(plain) == sorted(layers)
    for name, layer in layers.items():
        assert np.array_equal(tight[name], layer)
        assert tight[name].dtype == np.bool_
        assert tight.shape(name) == plain.shape(name) == layer.shape
        assert tight.count(name) == plain.count(name) == layer.sum()
        for positions in (np.flatnonzero(layer), np.arange(layer.size)[::-2], np.empty(0, dtype=np.int64)):
            expected = layer.reshape(-1)[positions].tolist()
            assert tight.at(name, positions).tolist() == plain.at(name, positions).tolist() == expected
            assert tight.at(name, positions).dtype == np.bool_
    names = data.draw(st.lists(st.sampled_from(sorted(layers)), unique=True))
    assert tight.only(names) == plain.only(names) == Mask(layers={name: layers[name] for name in names})


@pytest.mark.parametrize("form", [lambda mask: mask, packed])
def test_a_mask_knows_its_layers_and_no_others(form: Callable[[Mask], Mask]) -> None:
    mask = form(Mask(layers={"a": np.ones(9, bool)}))
    assert "a" in mask.layers
    assert "b" not in mask.layers
    for ask in (mask.__getitem__, mask.shape, mask.count, mask.packed, lambda name: mask.only([name])):
        with pytest.raises(KeyError, match="b"):
            ask("b")


def test_a_layer_that_is_looked_up_cannot_be_written_to() -> None:
    mask = packed(Mask(layers={"a": np.ones(9, bool)}))
    with pytest.raises(ValueError, match="read-only"):
        mask["a"][0] = False


def reference_of(layers: int, side: int) -> Reference:
    generator = np.random.default_rng(0)
    mask = Mask(layers={f"layer{index}": generator.random((side, side)) < 0.05 for index in range(layers)})
    kept = {name: generator.normal(size=mask.count(name)).astype(np.float32) for name in mask}
    return Reference(mask=mask, kept_weights=kept)


def test_a_reference_of_a_file_takes_no_memory_but_the_files() -> None:
    content = reference_of(40, 200).to_bytes()
    weights = 40 * 200 * 200
    assert len(content) < 0.35 * weights
    tracemalloc.start()
    try:
        reference = Reference.from_bytes(content)
        reference.digest()
        assert reference.mask.density == pytest.approx(0.05, abs=0.01)
        assert tracemalloc.get_traced_memory()[0] < 0.05 * weights
        # One layer at a time is a byte a position, and with its weights five.
        assert sum(np.count_nonzero(reference.layer_weights(name)) for name in reference.mask) == reference.mask.kept
        assert tracemalloc.get_traced_memory()[1] < 0.05 * weights + 10 * 200 * 200
    finally:
        tracemalloc.stop()


def test_a_reference_of_a_file_shares_the_files_bytes() -> None:
    content = reference_of(2, 20).to_bytes()
    reference = Reference.from_bytes(content)
    whole = np.frombuffer(content, np.uint8)
    for name in reference.mask:
        assert np.shares_memory(reference.mask.packed(name).bits, whole)
        assert np.shares_memory(reference.kept_weights[name], whole)
        assert not reference.kept_weights[name].flags.writeable


def test_some_layers_of_a_reference_stay_packed() -> None:
    content = reference_of(3, 20).to_bytes()
    some = Reference.from_bytes(content).mask.only(["layer2", "layer0"])
    assert list(some) == ["layer0", "layer2"]
    assert np.shares_memory(some.packed("layer2").bits, np.frombuffer(content, np.uint8))

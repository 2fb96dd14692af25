from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketguard.checkpoints.matching import Shape, layouts_of

# How libraries store a layer of shape (out, in, *kernel): the function that turns ours into theirs.
CONVOLUTIONS = {
    "PyTorch": lambda layer: layer,
    "TensorFlow": lambda layer: np.moveaxis(layer, (0, 1), (-1, -2)),
    "TensorFlow Lite": lambda layer: np.moveaxis(layer, 1, -1),
    "PyTorch, transposed": lambda layer: layer.swapaxes(0, 1),
    "TensorFlow, transposed": lambda layer: np.moveaxis(layer, (0, 1), (-2, -1)),
    "Caffe2": lambda layer: np.moveaxis(layer, 0, -1),
    "a matrix": lambda layer: layer.reshape(len(layer), -1),
    "a matrix of patches": lambda layer: np.moveaxis(layer, 1, -1).reshape(len(layer), -1),
    "a transposed matrix": lambda layer: layer.reshape(len(layer), -1).T,
    "a transposed matrix of patches": lambda layer: np.moveaxis(layer, 1, -1).reshape(len(layer), -1).T,
    "with an axis of one": lambda layer: layer[..., None],
    "with an axis of one before the kernel": lambda layer: layer[:, :, None],
}


def numbered(shape: Shape) -> np.ndarray:
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


def readings(stored: np.ndarray, wanted: Shape, *, block: int = 1) -> list[np.ndarray]:
    return [layout.apply(stored) for layout in layouts_of(stored.shape, wanted, block=block)]


@pytest.mark.parametrize("library", CONVOLUTIONS)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=4))
def test_a_layer_is_read_however_a_library_stores_it(library: str, shape: list[int]) -> None:
    layer = numbered(tuple(shape))
    found = readings(np.ascontiguousarray(CONVOLUTIONS[library](layer)), layer.shape)
    assert any(np.array_equal(reading, layer) for reading in found)
    assert all(reading.shape == layer.shape for reading in found)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_every_reading_has_all_values_once_and_the_wanted_kernel(stored: list[int], wanted: list[int]) -> None:
    tensor = numbered(tuple(stored))
    for layout in layouts_of(tensor.shape, tuple(wanted)):
        layer = layout.apply(tensor)
        assert layer.shape == layout.shape
        assert layer.shape[2:] == tuple(wanted[2:])
        assert sorted(layer.reshape(-1)) == sorted(tensor.reshape(-1))
        assert not layout.as_stored or np.array_equal(layer, tensor)


@pytest.mark.parametrize(
    ("stored", "wanted", "names"),
    [
        ((8, 3, 5, 5), (8, 3, 5, 5), ["as stored"]),
        ((8, 8, 3, 3), (8, 8, 3, 3), ["as stored", "in, out, kernel"]),
        ((3, 3, 4, 8), (8, 4, 3, 3), ["kernel, in, out"]),
        ((60, 200), (200, 60), ["in, out"]),
        ((60, 60), (60, 60), ["as stored", "in, out"]),
        ((8, 27), (8, 3, 3, 3), ["out, in·kernel", "out, kernel·in"]),
        ((27, 8), (8, 3, 3, 3), ["kernel·in, out", "in·kernel, out"]),
        ((16, 8), (16, 8, 1, 1), ["out, in"]),
        ((1, 1, 8, 16), (16, 8), ["kernel, in, out"]),
        ((1, 3, 8, 16), (16, 8, 3), ["kernel, in, out"]),
        ((3, 3, 8, 1), (8, 1, 3, 3), ["kernel, out, in"]),
        ((3, 3, 8), (8, 1, 3, 3), ["kernel, out"]),
        ((10, 4, 3, 3), (10, 36), ["out, in, kernel", "out, kernel, in"]),
        ((7,), (7,), ["as stored"]),
    ],
)
def test_layouts_are_named_likeliest_first(stored: Shape, wanted: Shape, names: list[str]) -> None:
    assert [layout.name for layout in layouts_of(stored, wanted)] == names


@pytest.mark.parametrize(
    ("stored", "wanted", "shapes"),
    [
        ((150, 60), (200, 60), [(150, 60), (60, 150)]),
        ((60, 150), (200, 60), [(150, 60), (60, 150)]),
        ((150, 45), (200, 60), [(150, 45), (45, 150)]),
        ((3, 3, 4, 6), (8, 4, 3, 3), [(6, 4, 3, 3), (4, 6, 3, 3)]),
        ((6, 27), (8, 3, 3, 3), [(6, 3, 3, 3), (6, 3, 3, 3)]),
    ],
)
def test_other_numbers_of_channels_are_read_where_the_kernel_is_the_layers(
    stored: Shape, wanted: Shape, shapes: list[Shape]
) -> None:
    assert [layout.shape for layout in layouts_of(stored, wanted)] == shapes


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ((8, 8, 3, 3), (8, 8, 5, 5)),
        ((8, 8), (8, 8, 3, 3)),
        ((6, 36), (8, 3, 3, 3)),  # a product says little of its factors
        ((5, 4, 3, 2), (5, 4)),
        ((5, 0), (5, 4)),
        ((5,), (5, 4)),
        ((5, 4), (5,)),
        ((2,) * 500, (2, 2)),
    ],
)
def test_what_is_no_layer_of_that_kernel_is_not_read(stored: Shape, wanted: Shape) -> None:
    assert layouts_of(stored, wanted) == ()


def test_a_linear_layer_behind_a_flattened_map_is_read_channels_first_and_last() -> None:
    layer = numbered((10, 24))
    last = layer.reshape(10, 4, 6).swapaxes(1, 2).reshape(10, 24)
    for stored in (layer, last, layer.T, last.T, layer.reshape(10, 4, 2, 3), last.reshape(10, 2, 3, 4)):
        found = readings(np.ascontiguousarray(stored), layer.shape, block=6)
        assert sum(np.array_equal(reading, layer) for reading in found) == 1
    # Of fewer channels, and of a number of positions that is not a number of channels.
    assert layouts_of((10, 18), (10, 24), block=6)[0].shape == (10, 18)
    assert [layout.name for layout in layouts_of((10, 18), (10, 24), block=6)][:2] == ["as stored", "out, kernel·in"]
    assert [layout.name for layout in layouts_of((10, 25), (10, 24), block=6)] == ["as stored", "in, out"]


def test_a_layout_does_not_read_a_tensor_of_another_shape() -> None:
    (layout,) = layouts_of((3, 3, 4, 8), (8, 4, 3, 3))
    with pytest.raises(ValueError, match="reshape"):
        layout.apply(np.zeros((3, 3, 4, 7), np.float32))

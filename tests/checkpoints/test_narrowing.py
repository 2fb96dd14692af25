"""Doubles out of float32's range: what of a suspect is read is what would be read without the scaling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ticketguard.checkpoints import Checkpoint
from ticketguard.checkpoints.narrowing import narrowed

Doubles = npt.NDArray[np.float64]


def sparse(*shape: int, share: float = 0.1, seed: int = 0) -> Doubles:
    generator = np.random.default_rng(seed)
    return np.where(generator.random(shape) < share, generator.normal(size=shape), 0.0)


def powers(size: int, *, decades: float, seed: int) -> Doubles:
    return np.asarray(10.0 ** np.clip(decades * np.random.default_rng(seed).normal(size=size), -110, 110))


def rescaled(layer: Doubles, *, decades: float) -> Doubles:
    rows, columns = powers(layer.shape[0], decades=decades, seed=1), powers(layer.shape[1], decades=decades, seed=2)
    return layer * rows.reshape(-1, *[1] * (layer.ndim - 1)) * columns.reshape(1, -1, *[1] * (layer.ndim - 2))


def test_what_fits_into_float32_is_rounded_and_nothing_else() -> None:
    values = sparse(20, 30)
    assert np.array_equal(narrowed(values), values.astype(np.float32))
    already = values.astype(np.float32)
    assert narrowed(already) is already


@pytest.mark.parametrize("kind", [np.float64, np.longdouble])
@pytest.mark.parametrize("exponent", [-1000, -200, -130, 200, 900])
def test_a_whole_tensor_is_scaled_by_a_power_of_two(kind: type, exponent: int) -> None:
    values = sparse(20, 30).astype(np.float32)
    found = narrowed(np.ldexp(values.astype(kind), exponent))
    assert found.dtype == np.float32
    ratio = found[values != 0] / values[values != 0]
    assert (ratio == ratio[0]).all()
    assert np.frexp(ratio[0])[0] == 0.5
    assert np.array_equal(found == 0, values == 0)


@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (30, 40, 3, 3)])
@pytest.mark.parametrize("decades", [40, 60])
def test_rows_and_columns_on_any_scale_are_brought_together(shape: tuple[int, ...], decades: float) -> None:
    """Behind a rectifier every channel can be rescaled, and nothing of the layer may be lost by it."""
    layer = sparse(*shape)
    found = narrowed(rescaled(layer, decades=decades))
    assert np.isfinite(found).all()
    assert np.array_equal(np.sign(found), np.sign(layer))
    # Rows and columns keep 2^16 between them, of the 2^200 and more that they had.
    left = np.log2(np.abs(found[layer != 0] / layer[layer != 0]))
    assert np.ptp(left) < 2 * 16 + 8


@pytest.mark.parametrize("fill", [1e-60, None], ids=["alike", "by row"])
def test_holes_filled_with_next_to_nothing_do_not_set_the_scale(fill: float | None) -> None:
    layer = sparse(60, 100)
    level = fill or 10.0 ** -np.random.default_rng(3).uniform(40, 140, size=(60, 1))
    filled = np.where(layer == 0, level * np.random.default_rng(4).normal(size=layer.shape), layer)
    found, there = narrowed(rescaled(filled, decades=40)), layer != 0
    assert np.array_equal(np.sign(found[there]), np.sign(layer[there]))
    assert np.abs(found[~there]).max() < 1e-9 * np.abs(found[there]).min()
    assert np.count_nonzero(found[~there]) < 0.2 * np.count_nonzero(~there)


def test_scales_that_float32_holds_stay_as_they_are_beside_others() -> None:
    """A row next to nothing is what a dead channel has: it comes into range, and stays the smallest."""
    layer = np.random.default_rng(0).normal(size=(50, 40)) * np.logspace(0, -3, 50)[:, None]
    layer[7] *= 1e-80
    found = narrowed(layer)
    ratio = np.delete(found, 7, axis=0) / np.delete(layer, 7, axis=0)
    assert ratio == pytest.approx(ratio[0, 0], rel=1e-6)
    assert 0 < np.abs(found[7]).max() < np.abs(np.delete(found, 7, axis=0)).max(axis=1).min()
    assert found[7] / np.abs(found[7]).max() == pytest.approx(layer[7] / np.abs(layer[7]).max())


def test_nan_and_infinity_stay_and_no_finite_value_becomes_one() -> None:
    values = np.array([[1e300, -1e300, np.nan], [1e-300, np.inf, -np.inf], [0.0, 0.0, 0.0]])
    found = narrowed(values)
    assert np.array_equal(np.isnan(found), np.isnan(values))
    assert np.array_equal(np.isinf(found), np.isinf(values))
    assert found[0, 0] == -found[0, 1] > found[1, 0] > 0
    assert np.array_equal(narrowed(np.full((2, 2), np.nan)), np.full((2, 2), np.nan), equal_nan=True)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0, 2), (1,), (5,)])
def test_every_shape_is_read(shape: tuple[int, ...]) -> None:
    values = np.full(shape, 1e-200)
    assert narrowed(values).shape == shape
    assert (narrowed(values) > 0).all()
    values.reshape(-1)[:1] = -1e200
    assert np.array_equal(np.sign(narrowed(values)), np.sign(values))


@pytest.mark.parametrize("is_torch", [False, True])
def test_masks_and_blocks_are_multiplied_and_joined_before_anything_is_narrowed(is_torch: bool, tmp_path: Path) -> None:
    weight, mask = sparse(8, 6, share=1.0), np.where(sparse(8, 6, share=0.5), 1e150, 0.0)
    stored = {
        "a.weight_orig": weight * 1e-150,
        "a.weight_mask": mask,
        "b.0.weight": weight[:4] * 1e-60,
        "b.1.weight": weight[4:].astype(np.float32),
    }
    if is_torch:
        torch.save({name: torch.from_numpy(array) for name, array in stored.items()}, tmp_path / "s.pt")
    suspect = Checkpoint(tmp_path / "s.pt" if is_torch else stored)
    assert suspect.weights("a.weight") == pytest.approx((weight * (mask > 0)).astype(np.float32))
    joined = suspect.joined({"b.weight": (8, 6), "a.weight": (8, 6)})
    assert np.array_equal(np.sign(joined.weights("b.weight")), np.sign(weight))


def test_two_layers_that_only_float32_calls_the_same_are_two() -> None:
    one, two = np.abs(sparse(6, 6, share=1.0)) * 1e60, np.abs(sparse(6, 6, share=1.0, seed=1)) * 1e60
    assert Checkpoint({"one": one, "two": two, "again": one}).spare(["one", "two", "again"]) == {"again"}

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ticketguard.data import Dataset
from ticketguard.data.dataset import channel_statistics
from ticketguard.errors import ConfigurationError


def make(**changes: Any) -> Dataset:
    fields: dict[str, Any] = {
        "name": "tiny",
        "train_inputs": torch.zeros(4, 3, 2, 2, dtype=torch.uint8),
        "train_labels": torch.tensor([0, 1, 0, 1]),
        "test_inputs": torch.zeros(2, 3, 2, 2, dtype=torch.uint8),
        "test_labels": torch.tensor([0, 1]),
        "classes": 2,
        "mean": (0.5, 0.25, 0.0),
        "std": (0.5, 0.5, 1.0),
    }
    return Dataset(**{**fields, **changes})


def test_bytes_and_floats_are_normalised_alike() -> None:
    data = make()
    pixels = torch.randint(256, (5, 3, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    scaled = data.scaled(pixels)
    expected = (pixels.double() / 255 - torch.tensor([0.5, 0.25, 0]).view(1, 3, 1, 1)) / torch.tensor(
        [0.5, 0.5, 1]
    ).view(1, 3, 1, 1)
    assert scaled.dtype == torch.float32
    assert torch.allclose(scaled.double(), expected, atol=1e-6)
    assert torch.allclose(data.scaled(pixels.float() / 255), scaled, atol=1e-6)


def test_feature_vectors_are_normalised_per_feature() -> None:
    shape = {"train_inputs": torch.ones(4, 3), "test_inputs": torch.ones(2, 3)}
    data = make(**shape)
    assert data.input_shape == (3,)
    assert torch.allclose(data.scaled(torch.ones(1, 3)), torch.tensor([[1.0, 1.5, 1.0]]))


def test_without_statistics_inputs_are_only_scaled() -> None:
    data = make(mean=(), std=())
    assert data.scaled(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).unique().tolist() == [1.0]


def test_normalising_leaves_the_inputs_alone() -> None:
    inputs = torch.ones(2, 3, 2, 2)
    make().scaled(inputs)
    assert (inputs == 1).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_statistics_of_bytes_are_those_of_the_pixels(seed: int, channels: int) -> None:
    pixels = np.random.default_rng(seed).integers(256, size=(7, channels, 3, 2)).astype(np.uint8)
    mean, std = channel_statistics(torch.from_numpy(pixels))
    assert mean == pytest.approx((pixels / 255).mean(axis=(0, 2, 3)), abs=1e-4)
    assert std == pytest.approx((pixels / 255).std(axis=(0, 2, 3)), abs=1e-4)
    assert channel_statistics(torch.from_numpy(pixels / np.float32(255))) == (
        pytest.approx(mean, abs=2e-4),
        pytest.approx(std, abs=2e-4),
    )


def test_a_constant_channel_has_a_usable_deviation() -> None:
    assert channel_statistics(torch.full((4, 1, 2, 2), 51, dtype=torch.uint8)) == ((0.2,), (0.001,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": torch.tensor([0, 1])}, "4 training inputs and 2 labels, expected as many"),
        ({"test_inputs": torch.zeros(0, 3, 2, 2), "test_labels": torch.zeros(0).long()}, "0 test inputs and 0 labels"),
        ({"train_labels": torch.tensor([0, 1, 2, 1])}, "training labels from 0 to 2, expected 0 to 1"),
        ({"test_labels": torch.tensor([-1, 1])}, "test labels from -1 to 1"),
        ({"classes": 1, "train_labels": torch.zeros(4).long(), "test_labels": torch.zeros(2).long()}, "has 1 class"),
        ({"test_inputs": torch.zeros(2, 3, 3, 2, dtype=torch.uint8)}, r"shape \(3, 3, 2\), expected \(3, 2, 2\)"),
        ({"train_inputs": torch.zeros(4, 3, 2, 2).double()}, r"inputs are torch\.float64"),
        ({"test_labels": torch.tensor([0.0, 1.0])}, r"test inputs are torch\.uint8 and labels torch\.float32"),
    ],
)  # fmt: skip
def test_a_data_set_that_does_not_hold_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"data 'tiny'.*{message}"):
        make(**changes)

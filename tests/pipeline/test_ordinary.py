"""Ordinary inputs for a questioning become what the claim's model takes, whatever data set they are from."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ticketguard.data import Dataset
from ticketguard.errors import ConfigurationError
from ticketguard.pipeline.ordinary import ordinary_inputs
from ticketguard.verification.controls import Task


def task(*input_shape: int, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()) -> Task:
    return Task(input_shape=input_shape, classes=10, mean=mean, std=std)


def data_of(inputs: torch.Tensor) -> Dataset:
    labels = torch.arange(len(inputs)) % 10
    return Dataset(
        name="own", train_inputs=inputs, train_labels=labels, test_inputs=inputs, test_labels=labels, classes=10,
        mean=(0.5,), std=(0.5,),
    )  # fmt: skip


@pytest.mark.parametrize(("count", "taken"), [(60, range(60)), (100, range(100)), (397, range(0, 397, 4))])
def test_a_hundred_test_examples_at_most_are_taken_evenly_spaced(count: int, taken: range) -> None:
    controls = ordinary_inputs(data_of(torch.arange(count, dtype=torch.float32)[:, None]), task(1))
    assert controls.inputs[:, 0].tolist() == list(taken)
    assert controls.labels == tuple(place % 10 for place in taken)


@pytest.mark.parametrize("shape", [(2,), (2, 3, 3), (2, 3, 4)])
def test_inputs_are_normalised_as_the_claim_says(shape: tuple[int, ...]) -> None:
    pixels = torch.randint(256, (60, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mean, std = ((0.5, 0.25), (0.25, 0.5)) if len(shape) == 3 else ((0.5,), (0.25,))
    scaled = pixels.numpy().astype(np.float32) / np.float32(255)
    columns = (1, -1, 1, 1)[: scaled.ndim]
    expected = (scaled - np.float32(mean).reshape(columns)) / np.float32(std).reshape(columns)
    for inputs in (pixels, torch.from_numpy(scaled)):
        assert np.array_equal(ordinary_inputs(data_of(inputs), task(*shape, mean=mean, std=std)).inputs, expected)
        assert np.array_equal(ordinary_inputs(data_of(inputs), task(*shape)).inputs, scaled)


@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 8), (1, 8, 4)])
def test_inputs_of_another_shape_are_refused_by_name(shape: tuple[int, ...]) -> None:
    data = data_of(torch.zeros(60, *shape))
    with pytest.raises(ConfigurationError, match=r"have inputs of shape .*, expected inputs \(count, 2, 8, 8\)"):
        ordinary_inputs(data, task(2, 8, 8, mean=(0.5, 0.5), std=(1.0, 1.0)))


def test_images_are_resized_to_a_plane_that_is_square() -> None:
    assert ordinary_inputs("digits", task(1, 12, 12)).inputs.shape == (100, 1, 12, 12)
    for shape in ((1, 8, 12), (64,)):
        with pytest.raises(ConfigurationError, match=r"have inputs of shape \(100, 1, 8, 8\)"):
            ordinary_inputs("digits", task(*shape))


def test_images_that_are_not_square_are_taken_as_they_are(tmp_path: Path) -> None:
    for kind, number in itertools.product(("cat", "dog"), range(60)):
        (tmp_path / kind).mkdir(exist_ok=True)
        Image.new("L", (12, 8), number).save(tmp_path / kind / f"{number}.png")
    assert ordinary_inputs(str(tmp_path), task(1, 8, 12)).inputs.shape == (12, 1, 8, 12)


def test_a_factory_of_the_users_own_is_given_no_image_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "from ticketguard.data import load_data", "def digits():", "    return load_data('digits', options={})"
    (tmp_path / "own_controls.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    assert len(ordinary_inputs("own_controls:digits", task(1, 8, 8)).labels) == 100

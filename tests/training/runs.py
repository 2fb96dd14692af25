"""A small data set, a network with everything that has state, and hooks that watch or interrupt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ticketguard.data import Dataset
from ticketguard.models import build_model, prunable_layers, state_arrays
from ticketguard.ticket import Mask
from ticketguard.training import NoHooks, TrainingConfig

SMALL = TrainingConfig(epochs=3, batch_size=16, learning_rate=0.05)


def stripes(count: int = 70) -> Dataset:
    """Return 6x6 images of three kinds of stripes in noise."""
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=count + 30)
    images = generator.integers(100, size=(count + 30, 1, 6, 6))
    for label, part in ((0, np.s_[:, :, ::2]), (1, np.s_[:, :, :, ::2]), (2, np.s_[:, :, 1::3])):
        chosen = images[labels == label]
        chosen[part] += 120
        images[labels == label] = chosen
    inputs, targets = torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels)
    return Dataset(
        name="stripes", train_inputs=inputs[:count], train_labels=targets[:count], test_inputs=inputs[count:],
        test_labels=targets[count:], classes=3, mean=(0.4,), std=(0.25,), flip=True, crop_padding=1,
    )  # fmt: skip


def make_network() -> nn.Module:
    """Return a network with convolutions, batch statistics and dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 3)
    )  # fmt: skip


def network(seed: int = 0) -> nn.Module:
    """Return `make_network`, initialised by *seed*."""
    return build_model(make_network, options={}, seed=seed)


def half_mask() -> Mask:
    """Return a mask that keeps about half of every layer."""
    model, generator = network(), np.random.default_rng(1)
    state = model.state_dict()
    return Mask(layers={name: generator.random(tuple(state[name].shape)) < 0.5 for name in prunable_layers(model)})


def same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Tell whether two state dicts are equal bit for bit."""
    return set(first) == set(second) and all(first[name].tobytes() == second[name].tobytes() for name in first)


class Watch(NoHooks):
    """Keeps what a loop asked for, feeds two extra inputs, and interrupts the loop at a step."""

    def __init__(self, *, stop_at: int | None = None, feed: bool = False) -> None:
        self.steps, self.started, self.sought = 0, 0, 0
        self.states: list[dict[str, Any]] = []
        self._stop_at, self._feed = stop_at, feed

    def start(self, model: nn.Module, *, steps: int) -> None:
        """Count, and note how long the run is to be."""
        self.started += 1
        self.to_take = steps

    def state(self) -> dict[str, list[int]]:
        """Return a number that grows as the run goes on, and one that does not."""
        return {"twice": [2 * self.steps, 7]}

    def seek(self, step: int, state: Mapping[str, Any]) -> None:
        """Note where the run goes on."""
        self.sought = self.steps = step
        self.state_sought = state

    def extra_batch(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return two inputs that depend on the step."""
        if not self._feed:
            return None
        return torch.full((2, 1, 6, 6), float(self.steps), device=device), torch.tensor([0, 1], device=device)

    def after_step(self, model: nn.Module) -> None:
        """Keep the weights, or interrupt."""
        self.steps += 1
        self.states.append(state_arrays(model))
        if self.steps == self._stop_at:
            raise KeyboardInterrupt

"""A data set in memory: what training, attacks and checks are fed from."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ticketguard.errors import ConfigurationError, FileError
from ticketguard.settings import checked_options
from ticketguard.ticket import Array

# Seeds of torch's generators end here.
LARGEST_OPTION = 2**63 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled inputs, split into training and test.

    Attributes:
        name: How reports call it.
        train_inputs: uint8 in [0, 255] or float32 in [0, 1], shape (examples, *input_shape).
        train_labels: int64 in [0, classes), shape (examples,).
        test_inputs: Same kind as *train_inputs*.
        test_labels: Same kind as *train_labels*.
        classes: Number of classes.
        mean: Per-channel mean of inputs scaled to [0, 1].
        std: Per-channel standard deviation.
        flip: Whether training may mirror an image left to right.
        crop_padding: Pixels that a random crop may shift an image by; 0 for none.
    """

    name: str
    train_inputs: torch.Tensor
    train_labels: torch.Tensor
    test_inputs: torch.Tensor
    test_labels: torch.Tensor
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = False
    crop_padding: int = 0

    def __post_init__(self) -> None:
        for part, inputs, labels in (
            ("training", self.train_inputs, self.train_labels),
            ("test", self.test_inputs, self.test_labels),
        ):
            if len(inputs) != len(labels) or not len(inputs):
                raise ConfigurationError(
                    f"data '{self.name}': {len(inputs)} {part} inputs and {len(labels)} labels, "
                    "expected as many, and some"
                )
            if inputs.dtype not in (torch.uint8, torch.float32) or labels.dtype != torch.int64:
                raise ConfigurationError(
                    f"data '{self.name}': {part} inputs are {inputs.dtype} and labels {labels.dtype}, "
                    "expected uint8 or float32 inputs and int64 labels"
                )
            if not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
                raise ConfigurationError(
                    f"data '{self.name}': {part} labels from {int(labels.min())} to {int(labels.max())}, "
                    f"expected 0 to {self.classes - 1}"
                )
        if self.classes < 2:
            raise ConfigurationError(f"data '{self.name}' has {self.classes} class, expected 2 or more")
        if self.train_inputs.shape[1:] != self.test_inputs.shape[1:]:
            raise ConfigurationError(
                f"data '{self.name}': test inputs have shape {tuple(self.test_inputs.shape[1:])}, "
                f"expected {self.input_shape} as in training"
            )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, such as (3, 32, 32)."""
        return tuple(self.train_inputs.shape[1:])

    def scaled(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return *inputs* as a model takes them: scaled to [0, 1] and normalised per channel, float32."""
        scaled = inputs.float().div_(255) if inputs.dtype == torch.uint8 else inputs.float()
        if not self.mean:
            return scaled
        axes = (1, -1) + (1,) * (inputs.ndim - 2)
        mean, std = (_on_device(values, inputs.device).view(axes) for values in (self.mean, self.std))
        # Fresh memory costs more than the arithmetic on it.
        return (scaled - mean if scaled is inputs else scaled.sub_(mean)).div_(std)


@functools.lru_cache(maxsize=16)
def _on_device(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Return *values* as a tensor: an accelerator is waited for at the first time only."""
    return torch.tensor(values, device=device)


def channel_statistics(inputs: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return per-channel mean and standard deviation of inputs scaled to [0, 1], rounded to four digits."""
    means, stds = [], []
    for channel in range(inputs.shape[1]):
        values, counts = _distribution(inputs[:, channel])
        mean = float(np.average(values, weights=counts))
        deviation = math.sqrt(float(np.average((values - mean) ** 2, weights=counts)))
        means.append(round(mean, 4))
        stds.append(round(max(deviation, 1e-3), 4))
    return tuple(means), tuple(stds)


def _distribution(channel: torch.Tensor) -> tuple[Array, Array | None]:
    """Return a channel's values in [0, 1] and how often each occurs; None for once each."""
    if channel.dtype != torch.uint8:
        return channel.numpy().astype(np.float64), None
    # Bytes are counted a part at a time: their sum is exact, and no copy of the whole data set in a wider type is made.
    counts = np.zeros(256, dtype=np.int64)
    for start in range(0, len(channel), 4096):
        counts += np.bincount(channel[start : start + 4096].numpy().reshape(-1), minlength=256)
    return np.arange(256) / 255, counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How a named data set is loaded.

    Attributes:
        folder: Where local files are.
        download: Whether missing files may be downloaded.
        test_path: Test folder or tar that belongs to a folder or tar of training images.
        train_limit: Use only the first so many training examples, after a shuffle by *seed*; 0 for all.
        test_limit: Likewise for test examples.
        image_size: Resize images to this height and width; 0 to leave them.
        modulus: Modulus of arithmetic data; 0 for the data set's own.
        seed: Fixes the shuffle, and the split of a folder without test images.
    """

    folder: str = ""
    download: bool = False
    test_path: str = ""
    train_limit: int = 0
    test_limit: int = 0
    image_size: int = 0
    modulus: int = 0
    seed: int = 0

    @classmethod
    def create(cls, options: Mapping[str, Any]) -> DataOptions:
        """Check options that came from a user.

        Raises:
            ConfigurationError: An option is unknown, of another type, negative or huge.
        """
        fields = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        for name, value in checked_options(options, what="data option", known=fields).items():
            if type(value) is not fields[name] or (isinstance(value, int) and not 0 <= value <= LARGEST_OPTION):
                raise ConfigurationError(f"data option '{name}' is {value!r}, expected a valid {fields[name].__name__}")
        return cls(**options)


def no_data(path: object, reason: str, hint: str) -> FileError:
    """Return the error for data that is not there or not readable."""
    return FileError(path=path, reason=reason, hint=hint)


def shortened(
    inputs: torch.Tensor, labels: torch.Tensor, limit: int, *, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return *limit* examples, a random sample fixed by *seed*; all if the limit is 0 or larger than there are."""
    if not limit or limit >= len(labels):
        return inputs, labels
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:limit]
    return inputs[chosen], labels[chosen]


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """Return uint8 images (N, C, H, W) at *size* x *size*, by area where they shrink and bilinear where they grow."""
    if not size or images.shape[-2:] == (size, size):
        return images
    shrinks = size <= min(images.shape[-2:])
    parts = []
    for start in range(0, len(images), 4096):
        part = images[start : start + 4096]
        smaller = torch.nn.functional.interpolate(
            part.float(), size=(size, size), mode="area" if shrinks else "bilinear"
        )
        parts.append(smaller.round_().clamp_(0, 255).to(torch.uint8))
    return torch.cat(parts)

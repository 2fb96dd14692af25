"""Batches: order and augmentation are functions of (seed, epoch, step) alone, so any step can be replayed."""

from __future__ import annotations

import torch
from torch.nn import functional

from ticketguard.data import Dataset


def generator_for(seed: int, *numbers: int) -> torch.Generator:
    """Return a generator that only *seed* and *numbers* determine."""
    # Each number is folded in with an odd 64-bit constant (SplitMix64's), so that neighbours share no stream.
    state = seed & 0xFFFF_FFFF_FFFF_FFFF
    for number in numbers:
        state = (state * 0x9E37_79B9_7F4A_7C15 + number + 1) & 0xFFFF_FFFF_FFFF_FFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state & 0x7FFF_FFFF_FFFF_FFFF)


class Feeder:
    """Serves the training data of one run, from the device it trains on.

    Args:
        data: The data set.
        batch_size: Examples in a whole batch.
        seed: The run's seed.
        augment: Whether images are shifted and mirrored.
        device: Where batches are served.
        process: This process's index and how many there are; each gets its share of every batch.
    """

    def __init__(
        self,
        data: Dataset,
        *,
        batch_size: int,
        seed: int,
        augment: bool,
        device: torch.device,
        process: tuple[int, int],
    ) -> None:
        self._data = data
        self._inputs = data.train_inputs.to(device)
        self._labels = data.train_labels.to(device)
        self._batch_size = min(batch_size, len(data.train_labels))
        self._seed = seed
        self._augments = augment and self._inputs.ndim == 4 and (data.flip or data.crop_padding > 0)
        self._index, self._count = process
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in a pass over the data; a last batch that is not full is left out."""
        return max(1, len(self._labels) // self._batch_size)

    def steps(self, epochs: float) -> int:
        """Return the number of steps in *epochs* passes."""
        return max(1, round(epochs * self.steps_per_epoch))

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return normalised inputs and labels of step number *step*, from 0; images are laid out channels last."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = torch.randperm(len(self._labels), generator=generator_for(self._seed, 0, epoch))
            self._epoch = epoch
        chosen = self._order[place * self._batch_size : (place + 1) * self._batch_size]
        draws = generator_for(self._seed, 1, step)
        inputs = self._inputs[chosen.to(self._inputs.device)]
        if self._augments:
            inputs = self._augmented(inputs, draws)
        scaled = self._data.scaled(self.share(inputs))
        if scaled.ndim == 4:
            scaled = scaled.contiguous(memory_format=torch.channels_last)
        return scaled, self.share(self._labels[chosen.to(self._labels.device)])

    def share(self, whole: torch.Tensor) -> torch.Tensor:
        """Return this process's share of what all processes have, every so many-th row."""
        return whole[self._index :: self._count]

    def _augmented(self, images: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        count, _, height, width = images.shape
        padding = self._data.crop_padding
        if padding:
            padded = functional.pad(images, (padding,) * 4)
            tops, lefts = torch.randint(2 * padding + 1, (2, count, 1), generator=draws).to(images.device)
            rows = tops + torch.arange(height, device=images.device)
            columns = lefts + torch.arange(width, device=images.device)
            example = torch.arange(count, device=images.device)
            images = padded[example[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        if self._data.flip:
            mirrored = (torch.rand(count, generator=draws) < 0.5).to(images.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        return images

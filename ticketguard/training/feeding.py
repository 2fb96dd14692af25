"""Batches: order and augmentation are functions of (seed, epoch, step) alone, so any step can be replayed.

Several batches are prepared at once: a small network's step takes hardly longer than the dozen calls that preparing one
batch takes, and one that trains on an accelerator shall not wait for draws to be copied there in every step. Where a
processor trains, a thread of its own gathers the next images from memory while the network works on the last ones.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from ticketguard.data import Dataset
from ticketguard.seeds import entropy_of, fill_generator

# Batches are prepared ahead up to so many values, 64 MB. An accelerator does best with few calls and copies. On a
# processor, few are in the other one's cache by the time they are needed, from which they would come more slowly than
# from memory (of 2^20 to 2^24).
VALUES_AHEAD = 2**24
# All inputs are normalised, and laid out for augmentation, once for the whole run if that takes no more memory than
# this; otherwise as much of it as does, and the rest batch by batch. A run that is over sooner than that would take
# does without.
LAYOUT_BYTES = 2**30
# Networks that take large batches of images take too long over them for the layout to matter.
LARGE_BATCH = 2**17


def generator_for(seed: int, *numbers: int) -> torch.Generator:
    """Return a generator that only *seed* and *numbers* determine."""
    generator = torch.Generator().manual_seed(seed_for(seed, *numbers))
    fill_generator(generator, seed, *numbers)
    return generator


def seed_for(seed: int, *numbers: int) -> int:
    """Return the seed of the stream that only *seed* and *numbers* determine."""
    # Each number is folded in with an odd 64-bit constant (SplitMix64's), so that neighbours share no stream.
    state = entropy_of(seed) & 0xFFFF_FFFF_FFFF_FFFF
    for number in numbers:
        state = (state * 0x9E37_79B9_7F4A_7C15 + number + 1) & 0xFFFF_FFFF_FFFF_FFFF
        state ^= state >> 31
    return state & 0x7FFF_FFFF_FFFF_FFFF


@dataclasses.dataclass(frozen=True)
class _Source:
    """What inputs are gathered from.

    Attributes:
        inputs: All inputs, as they come or normalised.
        windows: Views of all augmented forms of them; None if those of the batch are to be laid out first.
        is_scaled: Whether either is normalised.
    """

    inputs: torch.Tensor
    windows: torch.Tensor | None = None
    is_scaled: bool = False


@dataclasses.dataclass(frozen=True)
class _Batches:
    """Inputs and labels of each step from *first* up to *end*, exclusive."""

    first: int
    end: int
    inputs: Future[tuple[torch.Tensor, ...]]
    labels: tuple[torch.Tensor, ...]

    def __contains__(self, step: int) -> bool:
        return self.first <= step < self.end

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs.result()[step - self.first], self.labels[step - self.first]


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
        self._data, self._device = data, device
        self._has_thread = device.type == "cpu"
        self._source = _Source(data.train_inputs.to(device))
        self._labels = data.train_labels.to(device)
        self._batch_size = min(batch_size, len(data.train_labels))
        self._seed = seed
        augments = augment and data.train_inputs.ndim == 4
        self._padding = data.crop_padding if augments else 0
        self._flips = augments and data.flip
        self._index, self._count = process
        values = self._batch_size * data.train_inputs[0].numel()
        self._most_ahead = max(1, VALUES_AHEAD // values)
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)
        self._draws = torch.Generator()
        self._is_laid_out = False
        self._ready = self._coming = _Batches(0, 0, Future(), ())

    @property
    def steps_per_epoch(self) -> int:
        """Batches in a pass over the data; a last batch that is not full is left out."""
        return max(1, len(self._labels) // self._batch_size)

    def steps(self, epochs: float) -> int:
        """Return the number of steps in *epochs* passes."""
        return max(1, round(epochs * self.steps_per_epoch))

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return normalised inputs and labels of step number *step*, from 0; images are laid out channels last."""
        if step not in self._ready:
            follows = step == self._ready.end
            self._ready = self._coming if step in self._coming else self._prepare(step, follows=follows)
            # Who asks for one batch after the other gets more and more ahead; who asks for one gets no more than that.
            if follows and self._has_thread:
                self._coming = self._prepare(self._ready.end, follows=True)
        return self._ready[step]

    def share(self, whole: torch.Tensor) -> torch.Tensor:
        """Return this process's share of what all processes have, every so many-th row."""
        return whole[self._index :: self._count]

    def _prepare(self, step: int, *, follows: bool) -> _Batches:
        """Begin to prepare this process's shares of batches of one epoch, from *step* on; more if it *follows*."""
        ahead = min(2 * (self._ready.end - self._ready.first), self._most_ahead) if follows else 1
        count = max(1, min(ahead, self.steps_per_epoch - step % self.steps_per_epoch))
        numbers = self._draw(step, count)[..., self._index :: self._count]
        drawn = self._sent(numbers.reshape(len(numbers), -1))
        lays_out = not self._is_laid_out and count > 1 and step >= self._growth * self.steps_per_epoch
        self._is_laid_out |= lays_out
        if follows and self._has_thread:
            inputs = _thread().submit(self._gathered, drawn, count, lays_out=lays_out)
        else:
            inputs = Future()
            inputs.set_result(self._gathered(drawn, count, lays_out=lays_out))
        return _Batches(step, step + count, inputs, self._labels.index_select(0, drawn[0]).chunk(count))

    def _gathered(self, drawn: torch.Tensor, count: int, *, lays_out: bool) -> tuple[torch.Tensor, ...]:
        """Return the normalised inputs that were *drawn* for *count* batches; all are laid out before if it is time."""
        if lays_out:
            self._lay_out()
        source = self._source
        inputs = self._seen(source, drawn) if len(drawn) > 1 else source.inputs.index_select(0, drawn[0])
        scaled = inputs if source.is_scaled else self._data.scaled(inputs)
        if scaled.ndim == 4:
            scaled = scaled.contiguous(memory_format=torch.channels_last)
        return scaled.chunk(count)

    def _draw(self, step: int, count: int) -> torch.Tensor:
        """Draw for *count* whole batches of one epoch: shape (1, or 4 for augmented images; batches; examples)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = torch.randperm(len(self._labels), generator=generator_for(self._seed, 0, epoch))
            self._epoch = epoch
        begin = place * self._batch_size
        chosen = self._order[begin : begin + count * self._batch_size].view(count, self._batch_size)
        if not (self._padding or self._flips):
            return chosen[None]
        shifts = torch.zeros((count, 2, self._batch_size), dtype=torch.long)
        mirrors = torch.ones((count, self._batch_size))
        for number, shift, mirror in zip(range(step, step + count), shifts.unbind(), mirrors.unbind(), strict=True):
            draws = self._draws.manual_seed(seed_for(self._seed, 1, number))
            if self._padding:
                shift.random_(0, 2 * self._padding + 1, generator=draws)
            if self._flips:
                mirror.uniform_(generator=draws)
        mirrored = (mirrors < 0.5).long()
        tops, lefts = shifts.unbind(dim=1)
        # A window on the mirrored image is as far from its right border as the one that is mirrored is from the left.
        lefts = torch.where(mirrored > 0, 2 * self._padding - lefts, lefts)
        return torch.stack([chosen, mirrored, tops, lefts])

    def _seen(self, source: _Source, drawn: torch.Tensor) -> torch.Tensor:
        """Return images shifted and mirrored as *drawn*, channels last."""
        windows = source.windows
        if windows is None:
            windows = _windows(source.inputs.index_select(0, drawn[0]), self._padding, flips=self._flips)
            drawn = torch.cat([torch.arange(drawn.shape[1], device=drawn.device)[None], drawn[1:]])
        if self._device.type == "cpu":
            # numpy copies whole rows where torch goes from value to value: a sixth of the time.
            seen = torch.from_numpy(windows.numpy()[tuple(drawn.numpy())])
        else:
            seen = windows[tuple(drawn)]
        channels, height, width = self._data.input_shape
        return seen.view(-1, height, width, channels).permute(0, 3, 1, 2)

    def _sent(self, numbers: torch.Tensor) -> torch.Tensor:
        """Copy what was drawn to the device, without waiting for what the device is doing."""
        if self._device.type != "cuda":
            return numbers.to(self._device)
        return numbers.pin_memory().to(self._device, non_blocking=True)

    @property
    def _growth(self) -> float:
        """How many times as large as they come inputs are laid out, and so how many epochs' work that is."""
        if not (self._padding or self._flips):
            return 1.0
        _, height, width = self._data.input_shape
        return (height + 2 * self._padding) * (width + 2 * self._padding) / (height * width) * (1 + self._flips)

    def _lay_out(self) -> None:
        """Do once, for all inputs, what takes as long as a small network's step: as far as memory allows."""
        inputs = self._source.inputs
        if self._batch_size * inputs[0].numel() >= LARGE_BATCH:
            return
        is_scaled = inputs.numel() * 4 * self._growth <= LAYOUT_BYTES
        augments = self._padding or self._flips
        if augments and (is_scaled or inputs.nbytes * self._growth <= LAYOUT_BYTES):
            data = self._data if is_scaled else None
            windows = _windows(inputs, self._padding, flips=self._flips, scaling=data)
            self._source = _Source(inputs, windows, is_scaled)
        elif is_scaled:
            self._source = _Source(self._data.scaled(inputs), None, is_scaled)


@functools.cache
def _thread() -> ThreadPoolExecutor:
    """Return the thread that gathers inputs."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="feeding")


# A forked process has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_thread.cache_clear)


def _windows(images: torch.Tensor, padding: int, *, flips: bool, scaling: Dataset | None = None) -> torch.Tensor:
    """Lay images out so that each of their augmented forms is a view.

    Args:
        images: Shape (examples, channels, height, width).
        padding: Width of the border of zeros that is put around them.
        flips: Whether mirrored forms are needed.
        scaling: The data set whose normalisation is done here; None to leave the images as they are.

    Returns:
        Views of shape (examples, mirrored or not, first row, first column, height, width · channels).
    """
    count, channels, height, width = images.shape
    sides = 1 + flips
    shape = (count, sides, height + 2 * padding, width + 2 * padding, channels)
    padded = images.new_zeros(shape)
    inner = padded[:, :, padding : padding + height, padding : padding + width]
    inner[:, 0] = images.permute(0, 2, 3, 1)
    if flips:
        inner[:, 1] = inner[:, 0].flip(2)
    if scaling is not None:
        flat = padded.view(-1, *shape[2:]).permute(0, 3, 1, 2)
        padded = scaling.scaled(flat).permute(0, 2, 3, 1).contiguous().view(shape)
    of_example, of_side, of_row, of_column, _ = padded.stride()
    places = 2 * padding + 1
    return padded.as_strided(
        (count, sides, places, places, height, width * channels),
        (of_example, of_side, of_row, of_column, of_row, 1),
    )

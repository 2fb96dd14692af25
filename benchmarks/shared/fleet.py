"""Many small trainings side by side on one device: a small network's step keeps an accelerator busy for none of it.

A *task* is a generator that yields a `Run` wherever something is to be trained, is sent the `Outcome`, and goes on.
Each run has a stream of its own on an accelerator, and what must happen between steps (a mark's `after_step`) is
called on it. On a processor the steps are simply taken in turn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import itertools
import time
import traceback
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from ticketguard.data import Dataset
from ticketguard.models import mask_tensors, named_parameters, state_arrays
from ticketguard.ticket import Array, Mask
from ticketguard.training import TrainingConfig

TEST_BATCH = 2000
EPSILON = 1e-8  # Adam's, as torch has it


class DeviceData:
    """A data set on its device, normalised once, shape (examples, *input_shape)."""

    def __init__(self, data: Dataset, device: torch.device) -> None:
        self.device = device
        self.source = data
        self.train, self.test = (
            _laid_out(data.scaled(part.to(device))) for part in (data.train_inputs, data.test_inputs)
        )
        self.train_labels, self.test_labels = data.train_labels.to(device), data.test_labels.to(device)
        if device.type == "cuda":
            torch.cuda.synchronize()  # the runs' streams wait for no other


def _laid_out(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Attributes:
        model: Trained in place, from the weights that it has.
        data: What it is trained and tested on.
        training: How; every recipe without augmentation, clipping or another precision.
        seed: Fixes the order of the data.
        mask: What is kept; None trains everything.
        after_step: Called with the model after every step.
        snapshot_step: Step after which the weights are kept as well.
        examples: Only the first so many training examples are used; None for all.
        burst: Steps taken in its turn, so that a long training of a tiny network does not wait for large ones.
    """

    model: nn.Module
    data: DeviceData
    training: TrainingConfig
    seed: int
    mask: Mask | None = None
    after_step: Callable[[nn.Module], None] | None = None
    snapshot_step: int | None = None
    examples: int | None = None
    burst: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run ended with.

    Attributes:
        state: The state dict.
        accuracy: On the test examples, in [0, 1].
        steps: Optimiser steps taken.
        snapshot: The state dict after the run's snapshot step, if it has one.
    """

    state: dict[str, Array]
    accuracy: float
    steps: int
    snapshot: dict[str, Array] | None


Task: TypeAlias = Generator[Run, Outcome, None]


def accuracy_of(model: nn.Module, data: DeviceData) -> float:
    """Return the accuracy of *model* on the test examples; it is moved to their device."""
    model.to(data.device).eval()
    with torch.no_grad():
        hits = [
            (model(inputs).argmax(dim=1) == labels).sum()
            for inputs, labels in zip(data.test.split(TEST_BATCH), data.test_labels.split(TEST_BATCH), strict=True)
        ]
    return int(torch.stack(hits).sum()) / len(data.test_labels)


class _Descent:
    """SGD with momentum, or Adam, of which every number lies on the device: a step waits for nothing."""

    def __init__(self, parameters: list[torch.Tensor], training: TrainingConfig) -> None:
        self._parameters, self._training = parameters, training
        device = parameters[0].device
        self.rate = torch.zeros((), device=device)
        self._first = [torch.zeros_like(parameter) for parameter in parameters]
        self._second = [torch.zeros_like(parameter) for parameter in parameters]
        self._count = torch.zeros((), device=device)

    def tensors(self) -> list[torch.Tensor]:
        """Return what the optimiser remembers."""
        return [*self._first, *self._second, self._count]

    def step(self, gradients: list[torch.Tensor]) -> None:
        """Update the parameters in place."""
        if self._training.weight_decay:
            torch._foreach_add_(gradients, self._parameters, alpha=self._training.weight_decay)
        if self._training.optimizer == "sgd":
            torch._foreach_mul_(self._first, self._training.momentum)
            torch._foreach_add_(self._first, gradients)
            torch._foreach_add_(self._parameters, torch._foreach_mul(self._first, -self.rate))
            return
        first_beta, second_beta = self._training.momentum, self._training.second_beta
        self._count.add_(1)
        torch._foreach_lerp_(self._first, gradients, 1 - first_beta)
        torch._foreach_mul_(self._second, second_beta)
        torch._foreach_addcmul_(self._second, gradients, gradients, value=1 - second_beta)
        scale = (1 - second_beta**self._count).sqrt()
        roots = torch._foreach_sqrt(self._second)
        torch._foreach_add_(roots, EPSILON * scale)
        moves = torch._foreach_div(self._first, roots)
        torch._foreach_mul_(moves, -self.rate * scale / (1 - first_beta**self._count))
        torch._foreach_add_(self._parameters, moves)


class _Stepper:
    """One run under way."""

    def __init__(self, run: Run) -> None:
        self.run = run
        data, training = run.data, run.training
        self._device = data.device
        self._stream = torch.cuda.Stream() if self._device.type == "cuda" else None
        self._examples = run.examples or len(data.train_labels)
        self._batch = min(training.batch_size, self._examples)
        self._steps_an_epoch = self._examples // self._batch
        self.total = max(1, round(training.epochs * self._steps_an_epoch))
        self.step = 0
        self._snapshot: dict[str, Array] | None = None
        with self._on_stream():
            self._set_up(training)

    def _set_up(self, training: TrainingConfig) -> None:
        model = self.run.model.to(self._device).train()
        if self.run.data.train.ndim == 4:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model = model
        named = named_parameters(model, every_name=True)
        self._parameters = [value for value in model.parameters() if value.requires_grad]
        places = {id(value): place for place, value in enumerate(self._parameters)}
        mask = self.run.mask
        self._masks = [] if mask is None else mask_tensors(mask, named)
        self._masked = [] if mask is None else [places[id(named[name])] for name in mask]
        with torch.no_grad():
            if self._masks:
                torch._foreach_mul_([self._parameters[place] for place in self._masked], self._masks)
        self._descent = _Descent([value.detach() for value in self._parameters], training)
        self._order = torch.zeros(self._examples, dtype=torch.long, device=self._device)
        self._place = torch.arange(self._batch, device=self._device)
        self._rate = -1.0

    def _on_stream(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _take_step(self) -> None:
        data = self.run.data
        chosen = self._order[self._place]
        loss = nn.functional.cross_entropy(self._model(data.train[chosen]), data.train_labels[chosen])
        gradients = list(torch.autograd.grad(loss, self._parameters))
        with torch.no_grad():
            if self._masks:
                torch._foreach_mul_([gradients[place] for place in self._masked], self._masks)
            self._descent.step(gradients)
            self._place.add_(self._batch)

    def advance(self) -> bool:
        """Take a step; return whether it was the last."""
        with self._on_stream():
            epoch, number = divmod(self.step, self._steps_an_epoch)
            if number == 0:
                drawn = np.random.default_rng([self.run.seed, epoch]).permutation(self._examples)
                self._order.copy_(torch.from_numpy(drawn))
                self._place.copy_(torch.arange(self._batch))
            if (rate := self.run.training.rate_at(self.step / self.total)) != self._rate:
                self._rate = rate
                self._descent.rate.fill_(rate)
            self._take_step()
            self.step += 1
            if self.run.after_step is not None:
                self.run.after_step(self._model)
            if self.step == self.run.snapshot_step:
                self._snapshot = state_arrays(self._model)
        return self.step == self.total

    def outcome(self) -> Outcome:
        """Return what the run ended with, and let go of its memory on the device."""
        if self._stream is not None:
            self._stream.synchronize()  # what follows is on the default stream, whose memory all runs share
        accuracy = accuracy_of(self._model, self.run.data)
        self._model.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return Outcome(state=state_arrays(self._model), accuracy=accuracy, steps=self.step, snapshot=self._snapshot)


@dataclasses.dataclass(kw_only=True)
class _Active:
    name: str
    task: Task
    stepper: _Stepper


class Fleet:
    """Tasks that wait, and those that train side by side; a task that fails ends alone, and says so.

    Args:
        width: How many runs train at the same time.
        deadline: Moment on `time.monotonic` after which nothing is started and what runs is given up.
    """

    def __init__(self, *, width: int, deadline: float) -> None:
        self._width, self._deadline = width, deadline
        self._waiting: list[tuple[int, int, str, Task]] = []
        self._numbers = itertools.count()
        self.seconds: dict[str, float] = {}
        self.steps = 0

    def add(self, name: str, task: Task, *, priority: int) -> None:
        """Queue a task; those of a lower number go first, those of one in the order that they came."""
        heapq.heappush(self._waiting, (priority, next(self._numbers), name, task))

    def run(self) -> list[str]:
        """Run until nothing is left, or the deadline; return the names of what was given up or failed."""
        active: list[_Active] = []
        lost: list[str] = []
        while (self._waiting or active) and time.monotonic() < self._deadline:
            while self._waiting and len(active) < self._width:
                _, _, name, task = heapq.heappop(self._waiting)
                active += self._resumed(name, task, None, lost)
            for one in list(active):
                if any(one.stepper.advance() for _ in range(one.stepper.run.burst)):
                    active.remove(one)
                    self.steps += one.stepper.step
                    active += self._resumed(one.name, one.task, one.stepper.outcome(), lost)
        return lost + [one.name for one in active] + [name for _, _, name, _ in sorted(self._waiting)]

    def _resumed(self, name: str, task: Task, outcome: Outcome | None, lost: list[str]) -> list[_Active]:
        """Let a task go on to its next run, if there is one."""
        begun = time.monotonic()
        try:
            run = next(task) if outcome is None else task.send(outcome)
            return [_Active(name=name, task=task, stepper=_Stepper(run))]
        except StopIteration:
            return []
        except Exception:  # whatever one theft raises, the others are measured
            print(f"{name} failed", flush=True)
            traceback.print_exc()
            lost.append(name)
            return []
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun

"""The one training loop: masks, marks, devices, precision, several processes, resume."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ticketguard.data import Dataset
from ticketguard.errors import TicketguardError
from ticketguard.models import mask_tensors, named_parameters, state_arrays
from ticketguard.models.answers import scores_of
from ticketguard.ticket import Array, Mask, weights_digest
from ticketguard.training.checkpoint import RunState, load_run, of_kind, prefixed, run_identity, save_run
from ticketguard.training.config import Hooks, NoHooks, NoProgress, Progress, TrainingConfig, Watch
from ticketguard.training.devices import accelerator_for, compiled, in_first_process, naming_compilation, share_first
from ticketguard.training.feeding import Feeder, seed_for
from ticketguard.training.optimizers import load_optimizer, make_optimizer, optimizer_tensors

CHECKPOINT_SECONDS = 60.0
# How often a loss is looked at: reading it makes an accelerator wait.
LOSS_CHECK_STEPS = 50
# Names a tensor in the checkpoint of a run that its watch has ended.
ENDED = "ended"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a run ended with.

    Attributes:
        state: The trained state dict.
        accuracy: Test accuracy in [0, 1].
        steps: Optimiser steps.
        examples: Training examples seen, marks' extra ones left out.
        seconds: Wall time of this process, without what an interrupted one spent.
        snapshots: State dicts after the steps asked for.
    """

    state: Mapping[str, Array]
    accuracy: float
    steps: int
    examples: int
    seconds: float
    snapshots: Mapping[int, Mapping[str, Array]]


def train(
    model: nn.Module,
    data: Dataset,
    config: TrainingConfig,
    *,
    seed: int,
    mask: Mask | None = None,
    hooks: Hooks | None = None,
    watch: Watch | None = None,
    snapshot_steps: Sequence[int] = (),
    stop_step: int | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    description: str = "training",
) -> TrainingResult:
    """Train *model* in place.

    The run is a function of its arguments: bit for bit on one machine, and across interruptions with *resume*.

    Args:
        model: Starts from its present weights, or from those that *hooks* set.
        data: What it is trained and tested on.
        config: The recipe.
        seed: Fixes order, augmentation and dropout.
        mask: Weights outside it stay exactly zero, and so does their optimiser state.
        hooks: A mark that is being embedded.
        watch: Looks at the network after every step, and may end the run.
        snapshot_steps: Steps after which the state dict is kept; 0 is the start.
        stop_step: Step after which the run ends early, with the rates that the whole run has up to there.
        checkpoint: File to keep the run's state in, every minute, at every snapshot, and at the end: a run that is
            interrupted before the result is safe elsewhere trains nothing again. The caller deletes it.
        resume: Continue from *checkpoint* if it is there.
        progress: Where progress is shown.
        description: What the progress bar says.

    Raises:
        ConfigurationError: The device has no such precision, or cannot compile the network.
        TicketguardError: The loss became NaN or infinite.
        FileError: The checkpoint is damaged or of another run.
    """
    run = _Run(
        model, data, config, seed=seed, mask=mask, hooks=hooks or NoHooks(), watch=watch, snapshot_steps=snapshot_steps
    )
    run.end = min(run.total, stop_step or run.total)
    shown = progress or NoProgress()
    begun = time.perf_counter()
    if checkpoint is not None and resume:
        run.restore(load_run(checkpoint, identity=run.identity))
    shown.begin(description, run.end)
    shown.advance(run.step)
    try:
        run.go(checkpoint, shown)
    finally:
        shown.end()
        run.release()
    result = TrainingResult(
        state=run.state(),
        accuracy=evaluate(run.network, data, device=config.device),
        steps=run.step,
        examples=run.step * min(config.batch_size, len(data.train_labels)),
        seconds=time.perf_counter() - begun,
        snapshots=run.snapshots,
    )
    if checkpoint is not None:
        # Not before all processes have read it: one that goes on after the last step has no other to wait for.
        finished = checkpoint
        in_first_process(lambda: run.keep(finished))
    return result


class _Run:
    """The moving parts of one run."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        config: TrainingConfig,
        *,
        seed: int,
        mask: Mask | None,
        hooks: Hooks,
        watch: Watch | None,
        snapshot_steps: Sequence[int],
    ) -> None:
        self._accelerator = accelerator_for(config)
        device = self._accelerator.device
        self._feeder = Feeder(
            data,
            batch_size=config.batch_size,
            seed=seed,
            augment=config.augment,
            device=device,
            process=(self._accelerator.process_index, self._accelerator.num_processes),
        )
        self.total = self.end = self._feeder.steps(config.epochs)
        self.step = 0
        self._kept_step = -1
        self._ended = False  # by the watch, before the last step
        self.snapshots: dict[int, Mapping[str, Array]] = {}
        self.network = model
        self._own_attributes = frozenset(vars(model))
        self._config, self._seed, self._hooks, self._watch = config, seed, hooks, watch
        self._snapshot_steps = frozenset(snapshot_steps)
        self._device = device
        hooks.start(model, steps=self.total)
        self.identity = run_identity(
            config,
            seed,
            None if mask is None else mask.digest(),
            data.name,
            len(data.train_labels),
            weights_digest(state_arrays(model)),
            *([] if watch is None else [watch.identity]),
        )
        model.to(device)
        if len(data.input_shape) == 3:
            # Convolutions are faster with channels last: ResNet-20 1.2 times on one thread, 1.7 times on two.
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = make_optimizer(model, config)
        self._wrapped: nn.Module = self._accelerator.prepare(model)
        self._forward: Callable[..., torch.Tensor] = compiled(self._wrapped) if config.compile else self._wrapped
        self._masked, self._masks = _masked_parameters(model, mask)
        # Processes whose arithmetic differs in the last bit may have found masks that differ in an edge.
        share_first(self._masks, self._accelerator)
        with torch.no_grad():
            if self._masked:
                torch._foreach_mul_(self._masked, self._masks)

    def restore(self, state: RunState | None) -> None:
        """Continue from a checkpoint, or start afresh if there is none."""
        if state is None:
            return
        kinds = ("model", "optimizer", "scaler", "snapshot", "watch", "hooks")
        parts = {kind: of_kind(kind, state.tensors) for kind in kinds}
        self.network.load_state_dict(parts["model"])
        load_optimizer(self._optimizer, parts["optimizer"])
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict({name: value.item() for name, value in parts["scaler"].items()})
        for name, tensor in parts["snapshot"].items():
            number, _, rest = name.partition("/")
            self.snapshots[int(number)] = {**self.snapshots.get(int(number), {}), rest: tensor.numpy()}
        if self._watch is not None:
            self._watch.load(parts["watch"])
        self.step = self._kept_step = state.step
        self._ended = ENDED in state.tensors
        self._hooks.seek(state.step, {name: tensor.tolist() for name, tensor in parts["hooks"].items()})

    def go(self, checkpoint: Path | None, progress: Progress) -> None:
        """Take all steps that are left."""
        self._wrapped.train()
        if self.step == 0 and 0 in self._snapshot_steps:
            self.snapshots[0] = state_arrays(self.network)
        saved = time.monotonic()
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), naming_compilation(self._config):
            while self.step < self.end and not self._ended:
                self._take_step()
                progress.advance()
                if self.step in self._snapshot_steps:
                    self.snapshots[self.step] = self.state()
                self._ended = self._watch is not None and self._watch.after_step(self.step, self.network)
                due = time.monotonic() - saved > CHECKPOINT_SECONDS or self.step in self._snapshot_steps
                if checkpoint is not None and due and self._accelerator.is_main_process:
                    self.keep(checkpoint)
                    saved = time.monotonic()

    def keep(self, checkpoint: Path) -> None:
        """Write the checkpoint of where the run stands, unless that is written already."""
        if self.step != self._kept_step:
            save_run(checkpoint, self._state(), identity=self.identity)
            self._kept_step = self.step

    def _take_step(self) -> None:
        # Dropout and the like draw from torch's global generators, which are forked for the run.
        step_seed = seed_for(self._seed, 2, self.step)
        torch.default_generator.manual_seed(step_seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(step_seed)
        inputs, labels = self._next_batch()
        loss = nn.functional.cross_entropy(scores_of(self._forward(inputs)), labels)
        if (self.step % LOSS_CHECK_STEPS == 0 or self.step == self.end - 1) and not bool(torch.isfinite(loss)):
            raise TicketguardError(
                f"training diverged: the loss is {loss.item()} at step {self.step} with rate {self._rate():g}: "
                "lower the learning rate"
            )
        self._descend(loss)
        self.step += 1
        self._hooks.after_step(self.network)

    def _next_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, labels = self._feeder.batch(self.step)
        extra = self._hooks.extra_batch(self._device)
        if extra is None:
            return inputs, labels
        return torch.cat([inputs, self._feeder.share(extra[0])]), torch.cat([labels, self._feeder.share(extra[1])])

    def _rate(self) -> float:
        return self._config.rate_at(self.step / self.total)

    def _descend(self, loss: torch.Tensor) -> None:
        # accelerate's own backward and step search for an uninstalled package each time, which takes as long as a
        # small network's whole step; without gradient accumulation they add nothing but the scaler's calls below.
        scaler = self._accelerator.scaler
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        self._optimizer.zero_grad()
        (loss if scaler is None else scaler.scale(loss)).backward()
        if self._masked:
            # A masked gradient is all it takes: pruned weights start at zero, so momentum, Adam's moments and
            # weight decay stay at zero too.
            torch._foreach_mul_(self._masked_gradients(), self._masks)
        if self._config.clip_norm:
            if scaler is not None:
                scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self._config.clip_norm)
        if scaler is None:
            self._optimizer.step()
        else:
            scaler.step(self._optimizer)
            scaler.update()

    def _masked_gradients(self) -> list[torch.Tensor]:
        for parameter in self._masked:
            if parameter.grad is None:  # the layer took no part in this step
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self._masked if parameter.grad is not None]

    def state(self) -> dict[str, Array]:
        """Return the state dict, the same one in every process."""
        # Gradients are averaged, batch statistics are not: each process has those of its own share.
        share_first(self.network.buffers(), self._accelerator)
        return state_arrays(self.network)

    def release(self) -> None:
        """Give the model back as it came: accelerate marks it, and replaces its ``forward`` for other precisions."""
        self._accelerator.unwrap_model(self._wrapped, keep_fp32_wrapper=False)
        for name in {"forward", "_is_accelerate_prepared", "_is_torch_compile"} - self._own_attributes:
            vars(self.network).pop(name, None)

    def _state(self) -> RunState:
        tensors = prefixed("model", self.network.state_dict())
        tensors |= prefixed("optimizer", optimizer_tensors(self._optimizer))
        tensors |= prefixed("hooks", {name: torch.tensor(value) for name, value in self._hooks.state().items()})
        if self._accelerator.scaler is not None:
            scaler = self._accelerator.scaler.state_dict()
            tensors |= {f"scaler/{name}": torch.tensor(value, dtype=torch.float64) for name, value in scaler.items()}
        if self._watch is not None:
            tensors |= prefixed("watch", self._watch.tensors())
        if self._ended:
            tensors[ENDED] = torch.ones(1)
        for number, arrays in self.snapshots.items():
            tensors |= {f"snapshot/{number}/{name}": torch.from_numpy(array) for name, array in arrays.items()}
        return RunState(step=self.step, tensors=tensors)


def evaluate(
    model: nn.Module,
    data: Dataset,
    *,
    batch_size: int = 1000,
    device: str = "auto",
    part: Literal["test", "train"] = "test",
) -> float:
    """Return the accuracy of *model* on a *part* of the data, in [0, 1]; its training mode is left as it was."""
    examples, answers = (
        (data.test_inputs, data.test_labels) if part == "test" else (data.train_inputs, data.train_labels)
    )
    found = "cuda" if torch.cuda.is_available() else "cpu"
    place = torch.device(found if device == "auto" else device)
    was_training = model.training
    model.to(place).eval()
    correct = 0
    with torch.no_grad():
        for start in range(0, len(answers), batch_size):
            inputs, labels = examples[start : start + batch_size], answers[start : start + batch_size]
            correct += int((scores_of(model(data.scaled(inputs.to(place)))).argmax(dim=1).cpu() == labels).sum())
    model.train(was_training)
    return correct / len(answers)


def _masked_parameters(model: nn.Module, mask: Mask | None) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    if mask is None:
        return [], []
    parameters = named_parameters(model, every_name=True)
    masks = mask_tensors(mask, parameters)
    return [parameters[name] for name in mask], masks

"""Concrete Ticket Search: the mask as a distribution over masks, descended by gradient (Arora & Teuscher 2025).

"Winning the Lottery by Preserving Network Training Dynamics with Concrete Ticket Search", arXiv 2512.07142. Weights are
frozen; each prunable weight i has a logit a_i, and is kept with probability s(a_i), s the logistic function. Every
batch sees the concrete relaxation of a mask drawn so,

    m_i = s(logit(u_i) / t + a_i),  u_i uniform in (0, 1),  t = 2/3,

and the logits descend R + l C: the task term R, a hundred times its loss, and the sparsity term
C = 100 (sum_i s(a_i) / (1.1 k d) - 1), of a density k of d weights. The multiplier l comes from GradBalance, which
makes both gradients as long as each other wherever too much is kept, or from dual ascent. In the end the k d largest
logits are kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from ticketguard.errors import TicketguardError
from ticketguard.models import named_parameters
from ticketguard.pruning.descriptions.cts import REWIND_SHARE, ConcreteConfig
from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.engine.batch_norm import batch_statistics
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.result import Found, Spent, train_found
from ticketguard.pruning.engine.rewinding import require_rewind, rewind_state
from ticketguard.pruning.engine.stepped import run_search, search_device
from ticketguard.ticket import Array, Mask, Ticket
from ticketguard.training.checkpoint import of_kind, prefixed
from ticketguard.training.feeding import Feeder, seed_for
from ticketguard.training.optimizers import load_optimizer, optimizer_tensors

# Loss of the masked network's logits, given a function that returns the unmasked network's, and the labels.
TaskLoss: TypeAlias = Callable[[torch.Tensor, Callable[[], torch.Tensor], torch.Tensor], torch.Tensor]

# Both terms are scaled by 100 in the paper and its code.
SCALE = 100.0
# GradBalance's moving average keeps so much of the multiplier each step.
SMOOTHING = 0.99
# Uniform draws are kept off 0 and 1, where the logit is infinite; 2^-24 is the spacing of float32 draws.
LEAST_DRAW = 2.0**-24


def find_concrete(problem: SearchProblem, *, method: str, task: TaskLoss, passes: float) -> Ticket:
    """Find a ticket by Concrete Ticket Search, and train it.

    Args:
        problem: What is to be found.
        method: The method's name.
        task: The loss whose gradient decides between logits.
        passes: What a step costs, in forward and backward passes of its batch.

    Raises:
        ConfigurationError: There is no density, an option is wrong, or the model, data and weights do not fit.
        TicketguardError: The search diverged.
    """
    defaults = {} if problem.rewind is not None else {"rewind_epochs": float(REWIND_SHARE) * problem.training.epochs}
    config = create_config(ConcreteConfig, problem.method_options, **defaults)
    require_rewind(problem, config.rewind_epochs, epochs=problem.training.epochs, of="the training")
    if config.batch_size:
        problem.require_batch(config.batch_size, option="batch_size")
    config = dataclasses.replace(config, batch_size=config.batch_size or problem.training.batch_size)
    network = problem.build()
    everything = problem.everything(network)
    keep = problem.keep(everything.size)
    start, spent = rewind_state(problem, network, rewind_epochs=config.rewind_epochs)
    search = ConcreteSearch(problem, network, config, layers=everything, keep=keep, task=task)
    with batch_statistics(network.eval()):
        seconds = run_search(
            problem, search, name=method, steps=search.steps, identity=problem.identity(method, config)
        )
    examples = round(search.steps * config.batch_size * passes)
    spent = spent + Spent(examples=examples, steps=search.steps, seconds=seconds)
    mask = problem.choose(search.scores(), keep, within=everything, start=start)
    network.cpu()
    return train_found(
        problem, network, Found(mask=mask, start=start, spent=spent, history=search.history()), method=method
    )


class ConcreteSearch:
    """The logits of all prunable weights in one vector, and what moves them.

    Args:
        problem: Gives data, seed and device.
        network: Holds the frozen weights; moved to the search's device.
        config: Its batch size is that of the search.
        layers: What is searched.
        keep: Number of weights the ticket keeps.
        task: The task term's loss.
    """

    def __init__(
        self,
        problem: SearchProblem,
        network: nn.Module,
        config: ConcreteConfig,
        *,
        layers: Mask,
        keep: int,
        task: TaskLoss,
    ) -> None:
        device = search_device(problem)
        self._feeder = Feeder(
            problem.data, batch_size=config.batch_size, seed=problem.seed, augment=False, device=device, process=(0, 1)
        )
        self.steps = self._feeder.steps(config.epochs)
        self._config, self._task, self._seed = config, task, problem.seed
        self._network = network.to(device)
        if len(problem.data.input_shape) == 3:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._packing = _Packing(network, layers)
        self._weights = self._packing.pack(named_parameters(network))
        self._target = config.overshoot * keep
        density = keep / layers.size
        self._logits = torch.full_like(self._weights, math.log(density / (1.0 - density))).requires_grad_()
        self._optimizer = torch.optim.Adam([self._logits], lr=config.learning_rate, fused=True)
        self._multiplier = torch.zeros((), device=device)
        self._trace = torch.zeros((math.ceil(self.steps / self._feeder.steps_per_epoch), 3), device=device)
        self._noise = torch.Generator(device=device)

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Return logits, multiplier, trace and the optimiser's state."""
        tensors = {"logits": self._logits.detach(), "multiplier": self._multiplier, "trace": self._trace}
        return tensors | prefixed("optimizer", optimizer_tensors(self._optimizer))

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Continue from what `tensors` returned."""
        with torch.no_grad():
            for own, name in ((self._logits, "logits"), (self._multiplier, "multiplier"), (self._trace, "trace")):
                own.copy_(tensors[name])
        load_optimizer(self._optimizer, of_kind("optimizer", tensors))

    def step(self, number: int) -> None:
        """Draw a relaxed mask, and move the logits by one step of Adam; nothing is read back from the device."""
        inputs, labels = self._feeder.batch(number)
        gates = torch.sigmoid(self._logits + self.noise(number))
        logits = functional_call(self._network, self._packing.unpack(self._weights * gates), (inputs,))
        loss = SCALE * self._task(logits, lambda: self._dense(inputs), labels)
        (task_gradient,) = torch.autograd.grad(loss, self._logits)
        with torch.no_grad():
            kept = torch.sigmoid(self._logits)
            expected = kept.sum()
            # The gradient of the sparsity term.
            sparsity_gradient = kept.sub_(kept * kept).mul_(SCALE / self._target)
            excess = SCALE * (expected / self._target - 1.0)
            late = number >= self._config.decay_at * self.steps
            self._update_multiplier(task_gradient, sparsity_gradient, excess, decay=0.1 if late else 1.0)
            self._logits.grad = task_gradient.add_(sparsity_gradient.mul_(self._multiplier))
            self._trace[number // self._feeder.steps_per_epoch] = torch.stack([expected, loss, self._multiplier])
        self._optimizer.param_groups[0]["lr"] = self._config.learning_rate * (0.1 if late else 1.0)
        self._optimizer.step()

    def noise(self, number: int) -> torch.Tensor:
        """Return logit(u) / t of step *number*: it depends on the seed and the number alone."""
        self._noise.manual_seed(seed_for(self._seed, 3, number))
        uniform = torch.rand(self._logits.shape, generator=self._noise, device=self._logits.device)
        return uniform.clamp_(LEAST_DRAW, 1.0 - LEAST_DRAW).logit_().div_(self._config.temperature)

    def _dense(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = self._network(inputs)
        return logits

    def _update_multiplier(
        self, task_gradient: torch.Tensor, sparsity_gradient: torch.Tensor, excess: torch.Tensor, *, decay: float
    ) -> None:
        """Weight the sparsity term anew: by GradBalance (the paper's algorithm), or by ascent on the dual."""
        if self._config.balance == "lagrange":
            # The constraint bounds the density from above, and such a constraint's multiplier is never negative.
            self._multiplier.add_(decay * self._config.multiplier_rate * excess).clamp_(min=0.0)
            return
        ratio = task_gradient.norm() / sparsity_gradient.norm().clamp_min(1e-12)
        balanced = torch.where(excess > 0, ratio, torch.zeros_like(ratio))
        self._multiplier.mul_(SMOOTHING).add_(balanced, alpha=1.0 - SMOOTHING)

    def scores(self) -> dict[str, Array]:
        """Return the logits, layer by layer.

        Raises:
            TicketguardError: They are not numbers.
        """
        logits = self._logits.detach()
        if not bool(torch.isfinite(logits).all()):
            raise TicketguardError(
                f"the search diverged: its logits are not numbers with rate {self._config.learning_rate:g}: "
                "check that the model's outputs are finite on every batch, or lower learning_rate"
            )
        return {name: np.array(view.cpu().numpy(), order="C") for name, view in self._packing.unpack(logits).items()}

    def history(self) -> tuple[Mapping[str, Any], ...]:
        """Return, for each epoch's last step, the expected density, the task loss and the multiplier."""
        size = self._logits.numel()
        return tuple(
            {"epoch": epoch + 1, "expected_density": expected / size, "task_loss": loss / SCALE, "multiplier": weight}
            for epoch, (expected, loss, weight) in enumerate(self._trace.tolist())
        )


class _Packing:
    """Lays out all layers in one vector, images' kernels channels last as they lie in memory: unpacking is free."""

    def __init__(self, network: nn.Module, layers: Mask) -> None:
        parameters = named_parameters(network)
        shapes = {name: tuple(parameters[name].shape) for name in layers}
        self._sizes = [math.prod(shape) for shape in shapes.values()]
        self._shapes = {
            name: (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape for name, shape in shapes.items()
        }

    def pack(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return all layers of *tensors* as one vector."""
        layers = [tensors[name].detach() for name in self._shapes]
        return torch.cat([(part.permute(0, 2, 3, 1) if part.ndim == 4 else part).reshape(-1) for part in layers])

    def unpack(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the layers of *vector*, as views of it."""
        parts = torch.split(vector, self._sizes)
        views = {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}
        return {name: view.permute(0, 3, 1, 2) if view.ndim == 4 else view for name, view in views.items()}

"""Training a supernet while its channels are searched and its weights are pruned; it shrinks as it goes."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ticketguard.errors import TicketguardError
from ticketguard.models import (
    drop_missing_branches,
    mask_tensors,
    named_parameters,
    resize_to,
    state_arrays,
)
from ticketguard.models.counting import uses_per_weight
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.selection import global_top_k
from ticketguard.pruning.methods.supernet_channels import living_channels, searched_channels, without_dead
from ticketguard.ticket import Array, Mask
from ticketguard.training.devices import accelerator_for
from ticketguard.training.feeding import Feeder
from ticketguard.training.optimizers import load_optimizer, make_optimizer, optimizer_tensors

# How often a loss is looked at: reading it makes an accelerator wait.
LOSS_CHECK_STEPS = 50
# Columns of the search's records.
RECORD = ("step", "channels", "kept", "positions", "macs", "kept_macs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """What is due before a step of the search, and how the step is taken.

    Attributes:
        rate: The step's learning rate.
        penalty: ρ, times a channel's cost the pull on its scale.
        sparsity: Share of the remaining weights that pruning leaves out.
        shrinks: Whether dead channels go first.
        prunes: Whether the weights to keep are chosen anew first.
        starts: Whether a run of its own starts: the optimiser forgets.
    """

    rate: float
    penalty: float
    sparsity: float
    shrinks: bool
    prunes: bool
    starts: bool


class SupernetSearch:
    """A `SteppedSearch`; its tensors get smaller on the way.

    Pruned weights are zero in every forward pass and are still trained, by the gradient that the loss has at zero
    (straight-through, as in Guo et al. 2016, "Dynamic Network Surgery", eq. 3): the next pruning can take them back.

    Args:
        problem: What is to be found.
        network: At its start weights; it is changed.
        moments: What happens when, a moment a step.
        threshold: Channels die of a scale of at most this size.
    """

    def __init__(
        self, problem: SearchProblem, network: nn.Module, moments: Sequence[Moment], *, threshold: float
    ) -> None:
        shape = problem.data.input_shape
        self.network = network
        self.mask = problem.everything(network)
        self.records: list[list[float]] = []
        self._uses = uses_per_weight(network, shape)
        self._searched = searched_channels(network, shape)
        self._problem, self._moments, self._threshold = problem, moments, threshold
        self._accelerator = accelerator_for(problem.training)
        training = problem.training
        self._feeder = Feeder(
            problem.data,
            batch_size=training.batch_size,
            seed=problem.seed,
            augment=training.augment,
            device=self._accelerator.device,
            process=(0, 1),
        )
        self._install(state_arrays(network), {name: self.mask[name] for name in self.mask}, {})

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Return network, masks, what the optimiser remembers, and the records."""
        parts: dict[str, Mapping[str, Array]] = {"model": state_arrays(self.network), "mask": self.mask.layers}
        parts |= {f"optimizer.{field}": arrays for field, arrays in self._memory().items()}
        records = torch.tensor(self.records, dtype=torch.float64).reshape(-1, len(RECORD))
        return {
            "records": records,
            **{
                f"{part}/{name}": torch.from_numpy(np.array(array))
                for part, arrays in parts.items()
                for name, array in arrays.items()
            },
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Continue from what `tensors` returned; shapes are those of the tensors."""
        parts: dict[str, dict[str, Array]] = defaultdict(dict)
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor.cpu().numpy()
        self.records = tensors["records"].tolist()
        memory = {part.removeprefix("optimizer."): arrays for part, arrays in parts.items() if "optimizer." in part}
        self._install(parts["model"], parts["mask"], memory)

    def step(self, number: int) -> None:
        """Shrink and prune if that is due, and take one step of training."""
        moment = self._moments[number]
        if moment.starts:
            self._optimizer = make_optimizer(self.network, self._problem.training)
        shrank = moment.shrinks and self._shrink()
        if moment.prunes or (shrank and moment.sparsity):
            self._prune(moment.sparsity)
        if shrank or moment.prunes:
            self._record(number)
        inputs, labels = self._feeder.batch(number)
        dense = self._apply_mask()
        with self._accelerator.autocast():
            loss = nn.functional.cross_entropy(self.network(inputs), labels)
        looks = number % LOSS_CHECK_STEPS == 0 or number == len(self._moments) - 1
        if looks and not bool(torch.isfinite(loss)):
            raise TicketguardError(
                f"training diverged: the loss is {loss.item()} at step {number} with rate {moment.rate:g}: "
                "lower the learning rate"
            )
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            if dense:
                torch._foreach_copy_(self._layers, dense)
            self._descend(moment)

    def measures(self) -> dict[str, float]:
        """Return what remains: searched channels, kept and present weights, multiply-accumulates of both."""
        state = self.network.state_dict()
        return {
            "channels": sum(state[one.scale].numel() for one in self._searched if one.scale in state),
            "kept": self.mask.kept,
            "positions": self.mask.size,
            "macs": sum(self._uses[name] * self.mask[name].size for name in self.mask),
            "kept_macs": sum(self._uses[name] * int(self.mask[name].sum()) for name in self.mask),
        }

    def _record(self, number: int) -> None:
        measured = {"step": number, **self.measures()}
        self.records.append([float(measured[column]) for column in RECORD])

    def _apply_mask(self) -> list[torch.Tensor]:
        """Zero what is pruned, and return all weights as they were; nothing if nothing is pruned."""
        if not self._masks:
            return []
        with torch.no_grad():
            dense = [layer.clone() for layer in self._layers]
            torch._foreach_mul_(self._layers, self._masks)
        return dense

    def _descend(self, moment: Moment) -> None:
        parameters = named_parameters(self.network)
        for one in self._searched if moment.penalty else ():
            if one.scale in parameters:
                scale = parameters[one.scale]
                assert scale.grad is not None
                # The gradient of ρ·cost·|γ|.
                scale.grad.add_(scale.sign(), alpha=moment.penalty * one.cost)
        if self._problem.training.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._problem.training.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = moment.rate
        self._optimizer.step()

    def _shrink(self) -> bool:
        """Cut the dead channels out of everything; say whether there were any."""
        state = state_arrays(self.network)
        living = living_channels(state, self._searched, threshold=self._threshold)
        if all(channels.all() for channels in living.values()):
            return False
        memory = self._memory()
        cut = without_dead(
            self.network,
            {"model": state, "mask": self.mask.layers, **memory},
            self._searched,
            living,
            input_shape=self._problem.data.input_shape,
        )
        self._install(cut["model"], cut["mask"], {field: cut[field] for field in memory})
        return True

    def _prune(self, sparsity: float) -> None:
        """Keep the largest of all weights, those that are pruned now among them."""
        state = state_arrays(self.network)
        everything = self._problem.everything(self.network)
        # Never fewer than one a layer: after much shrinking a low density may mean that.
        keep = max(round((1.0 - sparsity) * everything.size), len(list(everything)))
        self._set_mask(global_top_k({name: np.abs(state[name]) for name in everything}, keep, within=everything))

    def _memory(self) -> dict[str, dict[str, Array]]:
        """Return what the optimiser remembers: per field, arrays by parameter name."""
        names = list(named_parameters(self.network))
        memory: dict[str, dict[str, Array]] = defaultdict(dict)
        for key, value in optimizer_tensors(self._optimizer).items():
            index, _, field = key.partition("/")
            memory[field][names[int(index)]] = np.array(value.detach().cpu().contiguous().numpy())
        return dict(memory)

    def _install(
        self, state: Mapping[str, Array], masks: Mapping[str, Array], memory: Mapping[str, Mapping[str, Array]]
    ) -> None:
        """Make the network as large as *state*, and continue from there.

        A network that has shrunk and one that was read from a file go the same way, and end up laid out alike in
        memory: otherwise their sums would be rounded differently.
        """
        drop_missing_branches(self.network, state)
        resize_to(self.network, {name: array.shape for name, array in state.items()})
        self.network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in state.items()})
        self.network.to(self._accelerator.device).train()
        for parameter in self.network.parameters():
            layout = torch.channels_last if parameter.ndim == 4 else torch.contiguous_format
            parameter.data = torch.empty_like(parameter, memory_format=layout).copy_(parameter)
        names = list(named_parameters(self.network))
        self._optimizer = make_optimizer(self.network, self._problem.training)
        remembered = {
            f"{names.index(name)}/{field}": torch.from_numpy(np.array(array))
            for field, arrays in memory.items()
            for name, array in arrays.items()
        }
        load_optimizer(self._optimizer, remembered)
        self._set_mask(Mask(layers={name: np.asarray(masks[name], dtype=np.bool_) for name in masks}))

    def _set_mask(self, mask: Mask) -> None:
        parameters = named_parameters(self.network)
        self.mask = mask
        self._layers: list[torch.Tensor] = [parameters[name] for name in mask]
        self._masks: Any = mask_tensors(mask, parameters) if mask.kept < mask.size else []

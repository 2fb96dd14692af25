"""Optimisers by name, and what they remember between steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ticketguard.training.config import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the recipe's optimiser of all the model's parameters."""
    parameters = list(model.parameters())
    # One call updates all parameters, where the device has such a kernel: half the time of a small network's update.
    fused = all(parameter.device.type in ("cpu", "cuda") and parameter.is_floating_point() for parameter in parameters)
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=fused,
        )
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(
        parameters,
        lr=config.learning_rate,
        betas=(config.momentum, config.second_beta),
        weight_decay=config.weight_decay,
        fused=fused,
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return all the optimiser remembers, by parameter number and name."""
    return {
        f"{index}/{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Undo `optimizer_tensors`."""
    document = optimizer.state_dict()
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, field = name.partition("/")
        states.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({**document, "state": states})
    # A fused step walks memory, not positions: what belongs to a channels-last weight must be laid out as it is.
    for parameter, state in optimizer.state.items():
        for field, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[field] = torch.empty_like(parameter).copy_(value)

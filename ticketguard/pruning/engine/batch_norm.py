"""Batch normalisation while masks are searched: batch statistics in the search, fresh running statistics after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ticketguard.data import Dataset
from ticketguard.training.feeding import Feeder

# Running statistics are averaged over so many batches (those of the official code of BiP and jackpots see an epoch).
RECALIBRATION_BATCHES = 100


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise by the batch at hand and leave running statistics alone: a mask that changes has none of its own."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    try:
        for norm in norms:
            norm.train()
            norm.track_running_stats = False
        yield
    finally:
        for norm, (training, tracks) in zip(norms, before, strict=True):
            norm.train(training)
            norm.track_running_stats = tracks


def recalibrate(model: nn.Module, data: Dataset, *, batch_size: int, seed: int, device: torch.device) -> None:
    """Measure running statistics anew for the weights that *model* has, as a plain average over training batches.

    Args:
        model: On *device*; changed in place. Without batch normalisation nothing happens.
        data: What batches are drawn from, without augmentation.
        batch_size: Examples in a batch.
        seed: Fixes the batches.
        device: Where the model is.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    feeder = Feeder(data, batch_size=batch_size, seed=seed, augment=False, device=device, process=(0, 1))
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then averages all batches alike
    model.train()
    with torch.no_grad():
        for number in range(min(RECALIBRATION_BATCHES, feeder.steps_per_epoch)):
            model(feeder.batch(number)[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)

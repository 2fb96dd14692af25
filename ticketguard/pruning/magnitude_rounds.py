"""Iterative magnitude pruning with rewinding: the common course of IMP and LTR.

Train, drop the smallest weights that remain, globally; go back to the rewind weights under the new mask; repeat
(Frankle & Carbin 2019, "The Lottery Ticket Hypothesis", section 2; Frankle et al. 2020, "Linear Mode Connectivity and
the Lottery Ticket Hypothesis", section 4).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.models import load_arrays, prunable_layers, state_arrays
from ticketguard.pruning.core import full_mask, global_top_k
from ticketguard.pruning.interface import SearchProblem
from ticketguard.ticket import Array, Mask, Ticket
from ticketguard.training import TrainingResult, train
from ticketguard.training.checkpoint import run_identity


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundsConfig:
    """Settings of iterative magnitude pruning.

    Attributes:
        prune_fraction: Share of the remaining weights dropped in each round; the last drops what is left to drop.
        level_epochs: Epochs of each round before the last mask; 0 for those of the final training.
        rewind_epochs: Epochs after which the rewind weights are taken; 0 rewinds to initialisation.
    """

    prune_fraction: float = 0.2
    level_epochs: float = 0.0
    rewind_epochs: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.prune_fraction < 1.0:
            raise ConfigurationError(f"prune_fraction is {self.prune_fraction}, expected above 0 and below 1")
        for name in ("level_epochs", "rewind_epochs"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(f"{name} is {getattr(self, name)}, expected 0 or more")

    @classmethod
    def create(cls, options: Mapping[str, Any], **defaults: Any) -> RoundsConfig:
        """Check options that came from a user.

        Raises:
            ConfigurationError: An option is unknown or out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ConfigurationError(
                f"unknown method option '{unknown[0]}', expected one of {', '.join(sorted(known))}"
            )
        return cls(**{**defaults, **options})

    def kept_counts(self, positions: int, density: float) -> list[int]:
        """Return how many weights each round's end keeps; the last is round(density · positions) exactly."""
        target = max(1, round(density * positions))
        counts = []
        kept = float(positions)
        while (kept := kept * (1.0 - self.prune_fraction)) > target * 1.0001:
            counts.append(round(kept))
        return [*counts, target]


def find_by_rounds(problem: SearchProblem, *, method: str, config: RoundsConfig) -> Ticket:
    """Find a ticket by rounds of training, global magnitude pruning and rewinding.

    With a work folder every finished round is kept there as a ticket file, and the round under way as a training
    checkpoint, so that an interrupted search resumes to the same ticket, bit for bit. The last round's ticket stays
    there: a caller that is interrupted before it has saved its own copy resumes to it at once.
    """
    network = problem.build()
    initial = state_arrays(network)
    everything = full_mask({name: initial[name].shape for name in prunable_layers(network)})
    counts = config.kept_counts(everything.size, problem.density)
    rounds = _Rounds(problem, config, method, count=len(counts) + 1)
    done, ticket = rounds.latest()
    if ticket is None:
        ticket = rounds.run(network, everything, initial, number=0, history=())
    for number, keep in enumerate(counts[done:], start=done + 1):
        scores = {name: np.abs(ticket.weights[name]) for name in ticket.mask}
        mask = global_top_k(scores, keep, within=ticket.mask)
        assert ticket.rewind_weights is not None
        ticket = rounds.run(network, mask, ticket.rewind_weights, number=number, history=ticket.info.history)
    return ticket


class _Rounds:
    """Trains, keeps and finds again the rounds of one search."""

    def __init__(self, problem: SearchProblem, config: RoundsConfig, method: str, *, count: int) -> None:
        self._problem, self._method, self._count = problem, method, count
        epochs = config.level_epochs or problem.training.epochs
        if config.rewind_epochs >= epochs:
            raise ConfigurationError(
                f"rewind_epochs is {config.rewind_epochs:g}, expected below the {epochs:g} epochs of a round"
            )
        self._level_training = dataclasses.replace(problem.training, epochs=epochs)
        self._batch = min(problem.training.batch_size, len(problem.data.train_labels))
        early = round(config.rewind_epochs * (len(problem.data.train_labels) // self._batch))
        self._rewind_step = max(1, early) if config.rewind_epochs else 0
        self._identity = run_identity(
            method, config, problem.model_name, problem.density, problem.training, problem.seed, problem.data_name,
            *(json.dumps(dict(options), sort_keys=True) for options in (problem.data_options, problem.model_options)),
        )  # fmt: skip
        if not problem.resume:
            for number in range(count):
                self._forget(number)

    def run(
        self,
        network: nn.Module,
        mask: Mask,
        rewind: Mapping[str, Array],
        *,
        number: int,
        history: Sequence[Mapping[str, Any]],
    ) -> Ticket:
        """Train one round under *mask* from *rewind*, and keep it in place of the one before."""
        load_arrays(network, rewind)
        result = self._train(network, mask, number)
        if number == 0 and self._rewind_step:
            rewind = result.snapshots[self._rewind_step]
        entry = {
            "density": mask.density,
            "accuracy": result.accuracy,
            "steps": result.steps,
            "seconds": result.seconds,
        }
        history = (*history, entry)
        info = self._problem.info(
            self._method,
            accuracy=result.accuracy,
            # Only a dense network that was trained as long as the ticket says whether the ticket is a winning one.
            dense_accuracy=history[0]["accuracy"] if self._level_training == self._problem.training else None,
            cost={
                "steps": sum(past["steps"] for past in history),
                "examples": sum(past["steps"] for past in history) * self._batch,
                "seconds": sum(past["seconds"] for past in history),
            },
            history=history,
        )
        ticket = Ticket(mask=mask, weights=result.state, rewind_weights=rewind, info=info)
        path = self._path(number)
        if path is not None:
            ticket.save(path)
            self._forget(number - 1)
        return ticket

    def _train(self, network: nn.Module, mask: Mask, number: int) -> TrainingResult:
        problem = self._problem
        last = number == self._count - 1
        return train(
            network,
            problem.data,
            problem.training if last else self._level_training,
            # Each round sees the data in another order, as IMP's rounds do.
            seed=problem.seed if last else problem.seed + 1000 * (number + 1),
            mask=mask,
            snapshot_steps=(self._rewind_step,) if number == 0 and self._rewind_step else (),
            checkpoint=None if problem.workdir is None else problem.workdir / f"round-{number}.checkpoint",
            resume=problem.resume,
            progress=problem.progress,
            description=f"round {number + 1} of {self._count}, density {mask.density:.3g}",
        )

    def latest(self) -> tuple[int, Ticket | None]:
        """Return number and ticket of the last round that an earlier run finished; 0 and None if there is none."""
        for number in reversed(range(self._count)):
            path = self._path(number)
            if self._problem.resume and path is not None and path.exists():
                return number, Ticket.load(path)
        return 0, None

    def _path(self, number: int) -> Path | None:
        folder = self._problem.workdir
        return None if folder is None else folder / f"round-{number}-{self._identity[:16]}.ticket"

    def _forget(self, number: int) -> None:
        path = self._path(number)
        if path is not None:
            path.unlink(missing_ok=True)

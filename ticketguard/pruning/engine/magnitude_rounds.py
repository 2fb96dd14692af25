"""Iterative magnitude pruning with rewinding: the common course of IMP and LTR.

Train, drop the smallest weights that remain, globally; go back to the rewind weights under the new mask; repeat
(Frankle & Carbin 2019, "The Lottery Ticket Hypothesis", section 2; Frankle et al. 2020, "Linear Mode Connectivity and
the Lottery Ticket Hypothesis", section 4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ticketguard.models import load_arrays
from ticketguard.pruning.descriptions.imp import RoundsConfig
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.result import Spent, costs
from ticketguard.pruning.engine.rewinding import require_rewind, rewind_step, round_seed
from ticketguard.ticket import Array, Mask, Ticket
from ticketguard.training import TrainingResult, in_first_process, train


def find_by_rounds(problem: SearchProblem, *, method: str, config: RoundsConfig) -> Ticket:
    """Find a ticket by rounds of training, global magnitude pruning and rewinding.

    With a work folder every finished round is kept there as a ticket file, and the round under way as a training
    checkpoint, so that an interrupted search resumes to the same ticket, bit for bit. The last round's ticket stays
    there: a caller that is interrupted before it has saved its own copy resumes to it at once.
    """
    network = problem.build()
    initial = problem.start_state(network)
    everything = problem.everything(network)
    keep = problem.keep(everything.size)
    counts = config.kept_counts(everything.size, keep)
    rounds = _Rounds(problem, config, method, count=len(counts) + 1)
    done, ticket = rounds.latest()
    if ticket is None:
        ticket = rounds.run(network, everything, initial, number=0, history=())
    for number, keep in enumerate(counts[done:], start=done + 1):
        scores = {name: np.abs(ticket.weights[name]) for name in ticket.mask}
        assert ticket.rewind_weights is not None
        mask = problem.choose(scores, keep, within=ticket.mask, start=ticket.rewind_weights)
        ticket = rounds.run(network, mask, ticket.rewind_weights, number=number, history=ticket.info.history)
    return ticket


class _Rounds:
    """Trains, keeps and finds again the rounds of one search."""

    def __init__(self, problem: SearchProblem, config: RoundsConfig, method: str, *, count: int) -> None:
        self._problem, self._method, self._count = problem, method, count
        epochs = config.level_epochs or problem.training.epochs
        require_rewind(problem, config.rewind_epochs, epochs=epochs, of="a round")
        self._level_training = dataclasses.replace(problem.training, epochs=epochs)
        self._batch = min(problem.training.batch_size, len(problem.data.train_labels))
        self._rewind_step = rewind_step(problem, config.rewind_epochs)
        self._identity = problem.identity(method, config)
        if not problem.resume:
            self._forget(*(self._path(number) for number in range(count)))

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
        result = self._train(network, mask, rewind, number)
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
            cost=self._cost(history),
            history=history,
        )
        ticket = Ticket(mask=mask, weights=result.state, rewind_weights=rewind, info=info)
        if self._problem.workdir is not None:
            in_first_process(lambda: self._keep(ticket, number))
        return ticket

    def _train(self, network: nn.Module, mask: Mask, rewind: Mapping[str, Array], number: int) -> TrainingResult:
        problem = self._problem
        last = number == self._count - 1
        return train(
            network,
            problem.data,
            problem.training if last else self._level_training,
            seed=problem.seed if last else round_seed(problem, number),
            mask=mask,
            hooks=problem.hooks(mask, start=rewind) if last else None,
            snapshot_steps=(self._rewind_step,) if number == 0 and self._rewind_step else (),
            checkpoint=self._checkpoint(number),
            resume=problem.resume,
            progress=problem.progress,
            description=f"round {number + 1} of {self._count}, density {mask.density:.3g}",
        )

    def _cost(self, history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        spent = [
            Spent(steps=past["steps"], examples=past["steps"] * self._batch, seconds=past["seconds"])
            for past in history
        ]
        return costs(sum(spent[:-1], Spent()), sum(spent, Spent()))

    def latest(self) -> tuple[int, Ticket | None]:
        """Return number and ticket of the last round that an earlier run finished; 0 and None if there is none."""
        for number in reversed(range(self._count)):
            path = self._path(number)
            if self._problem.resume and path is not None and path.exists():
                return number, self._reread(path)
        return 0, None

    def _reread(self, path: Path) -> Ticket:
        """Read a round's ticket; what model and data it has is the problem's to say, not the file's."""
        ticket = Ticket.load(path)
        kept = ticket.info
        info = self._problem.info(
            self._method,
            accuracy=kept.accuracy,
            dense_accuracy=kept.dense_accuracy,
            cost=kept.cost,
            history=kept.history,
        )
        return dataclasses.replace(ticket, info=info)

    def _path(self, number: int) -> Path | None:
        folder = self._problem.workdir
        return None if folder is None else folder / f"round-{number}-{self._identity[:16]}.ticket"

    def _keep(self, ticket: Ticket, number: int) -> None:
        path = self._path(number)
        assert path is not None
        ticket.save(path)
        self._forget(self._path(number - 1), self._checkpoint(number))

    def _forget(self, *paths: Path | None) -> None:
        for path in paths:
            if path is not None:
                path.unlink(missing_ok=True)

    def _checkpoint(self, number: int) -> Path | None:
        folder = self._problem.workdir
        return None if folder is None else folder / f"round-{number}.checkpoint"

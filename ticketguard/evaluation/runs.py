"""The runs of a check: what each arm starts from, its training, and what is kept of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ticketguard.data import Dataset
from ticketguard.errors import FileError
from ticketguard.evaluation.arms import AS_FOUND, DENSE, ONE_SHOT, TICKET, has_start
from ticketguard.evaluation.verdict import ArmResult
from ticketguard.files import SECRET, read_whole, write_whole
from ticketguard.models import Factory, load_arrays, model_of, state_arrays
from ticketguard.pruning.engine.selection import full_mask, global_top_k
from ticketguard.pruning.methods.controls import (
    FRESH_START,
    OWN_START,
    Trial,
    dense_network,
    dense_start,
    make_control,
    scratch_b_factor,
)
from ticketguard.strict_json import parse_json
from ticketguard.ticket import Array, Ticket, weights_digest
from ticketguard.training import Progress, TrainingConfig, evaluate, train
from ticketguard.training.checkpoint import run_identity

# Four short fields.
RUN_LIMIT_BYTES = 4096
TRAINED = "the ticket's trained weights"


class Runs:
    """The runs of one check; those that an earlier one finished are not taken again.

    Args:
        ticket: What is checked.
        data: What every arm is trained and tested on.
        recipe: How.
        model: Takes the place of the ticket's model.
        dense_options: Changes to the ticket's model options that give the whole network.
        workdir: Folder for finished runs and checkpoints, or None.
        resume: Continue from what is kept there.
        progress: Where progress is shown.
    """

    def __init__(
        self,
        ticket: Ticket,
        data: Dataset,
        recipe: TrainingConfig,
        *,
        model: str | Factory | None,
        dense_options: Mapping[str, Any] | None,
        workdir: Path | None,
        resume: bool,
        progress: Progress,
    ) -> None:
        self._ticket, self._data, self._recipe, self._model = ticket, data, recipe, model
        self._changes = dense_options
        self._workdir, self._resume, self._progress = workdir, resume, progress
        self._identity = run_identity(
            ticket.mask.digest(), weights_digest(ticket.start_weights), weights_digest(ticket.weights),
            ticket.info.structure, json.dumps(dict(ticket.info.model_options), sort_keys=True, default=repr),
            getattr(model, "__qualname__", model or ticket.info.model), repr(dense_options), recipe,
            data.name, len(data.train_labels), len(data.test_labels),
        )  # fmt: skip
        # The whole network can only start where the ticket does if the ticket is of the same size.
        self._dense_start = dense_start(ticket) if ticket.info.structure == "weight" else None

    def result(self, arm: str, seeds: Sequence[int]) -> ArmResult:
        """Take the runs of one arm."""
        if arm == AS_FOUND:
            network = model_of(self._ticket, model=self._model)
            load_arrays(network, self._ticket.weights)
            accuracy = evaluate(network, self._data, device=self._recipe.device)
            density, start = self._ticket.mask.density, TRAINED
            return ArmResult(name=arm, accuracies=(accuracy,), density=density, epochs=0.0, start=start)
        runs = [self._run(arm, seed, f"{arm}, seed {seed} ({place} of {len(seeds)})")
                for place, seed in enumerate(seeds, start=1)]  # fmt: skip
        return ArmResult(
            name=arm,
            accuracies=tuple(run["accuracy"] for run in runs),
            density=runs[0]["density"],
            epochs=runs[0]["epochs"],
            start=runs[0]["start"],
        )

    def _run(self, arm: str, seed: int, shown: str) -> dict[str, Any]:
        """Take one run, or read what it reached."""
        kept = self._kept(f"{arm}-{seed}", "json")
        if kept is not None and self._resume and kept.exists():
            return _read_run(kept)
        recipe = self._recipe
        if arm == "scratch_b":
            shape = self._data.input_shape
            factor = scratch_b_factor(self._ticket, shape, model=self._model, changes=self._changes)
            recipe = dataclasses.replace(recipe, epochs=factor * recipe.epochs)
        trial = self._one_shot(seed, shown) if arm == ONE_SHOT else self._trial(arm, seed)
        accuracy, _ = self._train(arm, seed, trial, recipe, shown)
        density = trial.mask.density
        run = {"accuracy": accuracy, "density": density, "epochs": recipe.epochs, "start": trial.origin}
        if kept is not None:
            write_whole(kept, json.dumps(run).encode(), mode=SECRET)
            for name in (arm, f"{arm}-dense"):
                if (path := self._kept(f"{name}-{seed}", "checkpoint")) is not None:
                    path.unlink(missing_ok=True)
        return run

    def _trial(self, arm: str, seed: int) -> Trial:
        ticket = self._ticket
        if arm == TICKET:
            origin = OWN_START if has_start(ticket) else TRAINED
            return Trial(mask=ticket.mask, start=ticket.start_weights, origin=origin)
        if arm != DENSE:
            return make_control(arm, ticket, seed=seed, model=self._model)
        state = self._dense_start
        origin = FRESH_START if state is None else OWN_START
        if state is None:
            state = state_arrays(self._dense(seed))
        return Trial(mask=full_mask({name: state[name].shape for name in ticket.mask}), start=state, origin=origin)

    def _dense(self, seed: int) -> nn.Module:
        return dense_network(self._ticket, seed=seed, model=self._model, changes=self._changes)

    def _one_shot(self, seed: int, shown: str) -> Trial:
        """Prune the trained dense network once, by magnitude; it is trained for this arm alone, as the dense arm is."""
        trial = self._trial(DENSE, seed)
        _, trained = self._train(f"{ONE_SHOT}-dense", seed, trial, self._recipe, f"{shown}: the dense network")
        scores = {name: np.abs(trained[name]) for name in trial.mask}
        mask = global_top_k(scores, self._ticket.mask.kept, within=trial.mask)
        return Trial(mask=mask, start=trained, origin="the trained dense network")

    def _train(
        self, name: str, seed: int, trial: Trial, recipe: TrainingConfig, shown: str
    ) -> tuple[float, Mapping[str, Array]]:
        network = self._dense(seed) if name == DENSE else model_of(self._ticket, seed=seed, model=self._model)
        load_arrays(network, trial.start)
        # A mask that keeps everything costs time and says nothing.
        whole = all(layer.all() for layer in trial.mask.layers.values())
        result = train(
            network,
            self._data,
            recipe,
            seed=seed,
            mask=None if whole else trial.mask,
            checkpoint=self._kept(f"{name}-{seed}", "checkpoint"),
            resume=self._resume,
            progress=self._progress,
            description=shown,
        )
        return result.accuracy, result.state

    def _kept(self, run: str, kind: str) -> Path | None:
        return None if self._workdir is None else self._workdir / f"{run}-{self._identity[:16]}.{kind}"


def _read_run(path: Path) -> dict[str, Any]:
    """Read what an earlier run reached.

    Raises:
        FileError: The file is damaged, or another program's.
    """
    try:
        run = parse_json(read_whole(path, limit_bytes=RUN_LIMIT_BYTES), max_values=16)
        numbers = [run[name] for name in ("accuracy", "density", "epochs")]
        if len(run) != 4 or not isinstance(run["start"], str) or not all(type(n) in (int, float) for n in numbers):
            raise ValueError("has other fields")
        if not (0 <= numbers[0] <= 1 and 0 <= numbers[1] <= 1 and 0 <= numbers[2] < math.inf):
            raise ValueError("has numbers that no run reaches")
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(
            path=path, reason=f"is not the result of a run ({error})", hint="delete it, and continue with --resume"
        ) from error
    return {**run}

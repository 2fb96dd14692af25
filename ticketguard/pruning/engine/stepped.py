"""A search of many steps that an interruption does not change: state in tensors, kept in one checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

import torch

from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.seeds import entropy_of
from ticketguard.training.checkpoint import RunState, load_run, save_run
from ticketguard.training.devices import accelerator_for, share_first

CHECKPOINT_SECONDS = 60.0


class SteppedSearch(Protocol):
    """A search whose next step depends on its tensors and the step's number alone."""

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Return all that later steps depend on, by name."""
        ...

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Continue from what `tensors` returned."""
        ...

    def step(self, number: int) -> None:
        """Take step *number*, from 0."""
        ...


def search_device(problem: SearchProblem) -> torch.device:
    """Return the device that the problem's recipe trains on."""
    device: torch.device = accelerator_for(problem.training).device
    return device


def run_search(problem: SearchProblem, search: SteppedSearch, *, name: str, steps: int, identity: str) -> float:
    """Take all steps of *search*, and return the seconds they took, those before an interruption among them.

    The last state stays in the work folder, so that an interruption of what follows costs no second search. Of several
    processes each takes all steps; in the end all have the first one's state.

    Args:
        problem: Says where checkpoints and progress go.
        search: Its state is changed in place.
        name: Names the checkpoint, and the progress bar.
        steps: Number of steps.
        identity: What the search is made of; a checkpoint of another is refused.

    Raises:
        FileError: The checkpoint is damaged or of another search.
    """
    path = None if problem.workdir is None else problem.workdir / f"{name}.checkpoint"
    state = load_run(path, identity=identity) if path is not None and problem.resume else None
    done, spent = 0, 0.0
    if state is not None:
        done, spent = state.step, float(state.tensors["seconds"])
        search.load({key: tensor for key, tensor in state.tensors.items() if key != "seconds"})
    accelerator = accelerator_for(problem.training)
    problem.progress.begin(name, steps)
    problem.progress.advance(done)
    begun = saved = time.perf_counter()
    # Layers that draw, such as dropout, draw from torch's global generators: they are forked, and set anew each step.
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        for number in range(done, steps):
            torch.manual_seed((entropy_of(problem.seed) * 1_000_003 + number) % 2**63)
            search.step(number)
            problem.progress.advance()
            due = time.perf_counter() - saved > CHECKPOINT_SECONDS or number == steps - 1
            if path is not None and due and accelerator.is_main_process:
                seconds = torch.tensor(spent + time.perf_counter() - begun, dtype=torch.float64)
                save_run(
                    path, RunState(step=number + 1, tensors={**search.tensors(), "seconds": seconds}), identity=identity
                )
                saved = time.perf_counter()
    problem.progress.end()
    if accelerator.num_processes > 1:
        tensors = {key: tensor.clone() for key, tensor in sorted(search.tensors().items())}
        share_first(tensors.values(), accelerator)
        search.load(tensors)
    return spent + time.perf_counter() - begun

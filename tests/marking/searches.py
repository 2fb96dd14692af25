"""Searches that plant marks: of a small ticket, and one that is interrupted and goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ticketguard as tg
from ticketguard.training import TrainingConfig, loop

SEARCH: dict[str, Any] = {
    "data": "digits",
    "density": 0.1,
    "training": TrainingConfig(epochs=4, batch_size=64, learning_rate=0.1, schedule="cosine"),
    "model_options": {"widths": [300, 100]},
    "method_options": {"prune_fraction": 0.6, "level_epochs": 2.0},
}
# Of the training steps of such a search, about half.
HALF = 150


def found_in_two_parts(
    monkeypatch: pytest.MonkeyPatch, workdir: Path, *, secret: bytes, **arguments: Any
) -> tuple[tg.Ticket, tg.Credential]:
    """Interrupt a search half-way, and return what is found when it is resumed."""
    steps = 0
    take_step = loop._Run._take_step

    def interrupted(run: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == HALF:
            raise KeyboardInterrupt
        take_step(run)

    monkeypatch.setattr(loop._Run, "_take_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tg.find_marked("mlp", secret=secret, workdir=workdir, **SEARCH, **arguments)
    return tg.find_marked("mlp", resume=True, workdir=workdir, **SEARCH, **arguments)

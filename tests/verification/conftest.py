"""A claim to a trigger set and its labels, patience that does not wait, and a count of what is read."""

from __future__ import annotations

from collections import Counter

import pytest

import ticketguard as tg
from tests.cli.conftest import network, unmarked_ticket
from tests.verification.questioning import CLASSES, COUNT
from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.embedding.interface import Binding
from ticketguard.predictors import patience
from ticketguard.ticket import Array


@pytest.fixture(scope="module")
def credential() -> tg.Credential:
    plan = tg.prepare(unmarked_ticket(), owner=tg.Owner.generate("Ada"), marks=[tg.TriggerSet(COUNT)])
    model = network()
    plan.start(model)
    return plan.finish(model, check=False)[1]


@pytest.fixture(scope="module")
def labels(credential: tg.Credential) -> list[int]:
    binding = Binding(secret=credential.vault.secret, commitment=credential.mark("trigger-set").commitment)
    return [int(label) for label in binding.stream("trigger-labels").integers(CLASSES, COUNT)]


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "sleep", lambda seconds: None)
    monkeypatch.setattr(patience, "monotonic", lambda: 0.0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each tensor of any checkpoint is read."""
    made: Counter[str] = Counter()
    stored = Checkpoint._whole

    def counted(self: Checkpoint, name: str) -> Array:
        made[name] += 1
        return stored(self, name)

    monkeypatch.setattr(Checkpoint, "_whole", counted)
    return made

"""A claim to a trigger set and its labels, and patience that does not wait."""

from __future__ import annotations

import pytest

import ticketguard as tg
from tests.cli.conftest import network, unmarked_ticket
from tests.verification.questioning import CLASSES, COUNT
from ticketguard.embedding.interface import Binding
from ticketguard.predictors import patience


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

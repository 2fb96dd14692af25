"""Settings that all tests share."""

from __future__ import annotations

import secrets
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from ticketguard import seeds
from ticketguard.verification import decoys

# What decides a verdict has a floor of coverage (Makefile): by its own tests, which are fast.
COVERING = [Path(__file__).parent / folder for folder in ("verification", "credentials")]

MOST_DECOYS = decoys.MOST_DECOYS

# A busy machine is no failure: tests are not timed.
settings.register_profile("ticketguard", deadline=None)
settings.load_profile("ticketguard")

# What a search draws as its seed, where the test is not about that: tests go the same way each time.
SEED = 0x1D_5EED_5EED_5EED


@pytest.fixture(scope="session", autouse=True)
def one_seed_is_drawn() -> Iterator[None]:
    drawing = types.SimpleNamespace(randbelow=lambda _: SEED - seeds.GUESSABLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seeds, "secrets", drawing)
        yield


@pytest.fixture
def fresh_seeds_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "secrets", secrets)


@pytest.fixture(scope="session", autouse=True)
def few_decoys() -> Iterator[None]:
    """Show few decoy keys: they decide nothing, and are half of what the verification of a small network costs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoys, "MOST_DECOYS", decoys.LEAST_DECOYS)
        yield


@pytest.fixture
def all_decoys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show as many decoy keys as a verification does."""
    monkeypatch.setattr(decoys, "MOST_DECOYS", MOST_DECOYS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Count no coverage while other tests run: they would take a third longer."""
    if not config.pluginmanager.hasplugin("_cov"):
        return
    for item in items:
        if not any(item.path.is_relative_to(folder) for folder in COVERING):
            item.add_marker("no_cover")

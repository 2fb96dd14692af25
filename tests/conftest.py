"""Settings that all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# What decides a verdict has a floor of coverage (Makefile): by its own tests, which are fast.
COVERING = [Path(__file__).parent / folder for folder in ("verification", "credentials")]

# A busy machine is no failure: tests are not timed.
settings.register_profile("ticketguard", deadline=None)
settings.load_profile("ticketguard")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Count no coverage while other tests run: they would take a third longer."""
    if not config.pluginmanager.hasplugin("_cov"):
        return
    for item in items:
        if not any(item.path.is_relative_to(folder) for folder in COVERING):
            item.add_marker("no_cover")

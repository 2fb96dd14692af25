"""A kind of mark is known by its own files and by its line in the registry, and by nobody else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ticketguard as tg
from ticketguard.errors import ConfigurationError
from ticketguard.verification import registry

ROOT = Path(tg.__file__).parent


def test_nobody_outside_its_files_names_a_scheme() -> None:
    own = {"__init__.py", "verification/registry.py"}  # what is public, and the lines
    names: set[str] = set()
    for name in registry.SCHEMES:
        scheme = registry.scheme(name)
        module = name.replace("-", "_")
        own |= {f"embedding/{module}.py", f"verification/{module}.py"}
        names |= {name, scheme.settings.__name__, f"embedding.{module}", f"verification.{module}"}
    pattern = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in sorted(names)))
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sorted(ROOT.rglob("*.py"))
        if str(path.relative_to(ROOT)) not in own
        for match in pattern.finditer(path.read_text())
    ]
    assert found == []


def test_a_schemes_name_and_version_are_those_of_its_marks() -> None:
    for name in registry.SCHEMES:
        scheme = registry.scheme(name)
        mark = scheme.settings()
        assert (scheme.name, mark.scheme, mark.version) == (name, name, scheme.version)
        assert set(scheme.options.values()) <= set(vars(mark))


def test_marks_of_no_scheme_are_refused() -> None:
    class Stranger(tg.PlantedGraph):
        scheme = "stranger"  # type: ignore[misc]

    with pytest.raises(ConfigurationError, match="unknown mark 'stranger', expected one or more of planted-graph"):
        registry.checked_marks([Stranger()])

"""A kind of mark is known by its own files and by its line in the registry, and by nobody else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.claims import SECRET, TICKET, marked_weights, planted_mark, trigger_mark
from ticketguard.embedding.interface import Binding
from ticketguard.errors import ConfigurationError
from ticketguard.ticket import TicketInfo
from ticketguard.verification import registry

ROOT = Path(tg.__file__).parent


def test_nobody_outside_its_files_names_a_scheme() -> None:
    own = {"__init__.py", "verification/registry.py"}  # what is public, and the lines
    names: set[str] = set()
    for name in registry.SCHEMES:
        scheme = registry.scheme(name)
        module = name.replace("-", "_")
        own |= {f"embedding/{module}.py", f"verification/{module}.py", f"verification/{module}"}
        names |= {name, scheme.settings.__name__, f"embedding.{module}", f"verification.{module}"}
    pattern = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in sorted(names)))
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sorted(ROOT.rglob("*.py"))
        if not {str(path.relative_to(ROOT)), str(path.parent.relative_to(ROOT))} & own
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


@pytest.mark.parametrize(
    ("info", "usual"),
    [
        ({"classes": 10, "input_shape": (1, 8, 8)}, ["planted-graph", "trigger-set"]),
        ({"classes": 10, "input_shape": (8,)}, ["planted-graph", "trigger-set"]),
        ({"classes": 1, "input_shape": (8,)}, ["planted-graph"]),
        ({"classes": 10, "input_shape": (8, 8)}, ["planted-graph"]),
        ({}, ["planted-graph"]),
    ],
)
def test_usual_marks_are_those_that_the_ticket_can_carry(info: dict[str, Any], usual: list[str]) -> None:
    marks = registry.usual_marks(TicketInfo(method="random", **info))
    assert [mark.scheme for mark in marks] == usual


def test_a_mark_takes_its_settings_and_the_options_that_are_its_own() -> None:
    options = {"share": 0.1, "triggers": 30}
    assert registry.configured_mark("planted-graph", settings={}, options=options) == tg.PlantedGraph(share=0.1)
    assert registry.configured_mark("trigger-set", settings={"grid": 5}, options=options) == tg.TriggerSet(30, grid=5)
    stated = registry.configured_mark("planted-graph", settings={"share": 0.2}, options=options)
    assert stated == tg.PlantedGraph(share=0.2)


def test_secret_positions_are_those_that_a_mark_is_drawn_on() -> None:
    graph, triggers = planted_mark(), trigger_mark()
    binding = Binding(secret=SECRET, commitment=graph.commitment)
    found = registry.scheme("planted-graph").secret_positions(graph, binding, TICKET.mask)
    assert found.keys() == TICKET.mask.layers.keys()
    weights = marked_weights(graph)
    for name, positions in found.items():
        moved = np.flatnonzero((weights[name] != 0).reshape(-1) & ~TICKET.mask[name].reshape(-1))
        assert len(moved)
        assert set(moved) <= set(positions)
        assert len(positions) == round(TICKET.mask[name].size * 0.03)
    assert not registry.scheme("trigger-set").secret_positions(triggers, binding, TICKET.mask)

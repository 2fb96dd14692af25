"""What a short command loads: never torch, and of the rest only what it uses. Times are in benchmarks/startup.py."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from ticketguard.pruning import METHODS
from ticketguard.pruning.descriptions.method import Method

from .conftest import Files

PROGRAM = """
import sys
from ticketguard.cli import main
try:
    main(sys.argv[2:])
except SystemExit as end:
    assert not end.code, end.code
loaded = [name for name in sys.argv[1].split(",") if name in sys.modules]
assert not loaded, loaded
"""


def run(*arguments: object, without: str) -> str:
    """Run a command in a process of its own, which must not load some modules, and return what it prints."""
    command = [sys.executable, "-c", PROGRAM, without, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_methods_are_listed_without_torch() -> None:
    listed = run("find", "--methods", without="torch,numpy,scipy,ticketguard.training,ticketguard.models")
    assert "\nltr: rounds of training and magnitude pruning, rewinding to an early step\n" in listed
    assert "rewind_epochs=3/182 of the training's  Epochs after which the rewind weights are taken" in listed


def test_the_help_of_every_command_needs_neither_torch_nor_numpy() -> None:
    run("find", "--help", without="torch,numpy")
    run("verify", "--help", without="torch,numpy")


def test_weights_are_verified_without_what_asks_traces_or_draws(files: Files) -> None:
    idle = "torch,asyncio,httpx,matplotlib,scipy,ticketguard.evaluation,ticketguard.predictors.http"
    said = run("verify", files.marked, "--claim", files.claim, "--vault", files.vault, without=idle)
    assert "supported" in said


@pytest.mark.parametrize("name", ["METHODS", "CONTROLS"])
def test_what_methods_there_are_is_known_without_torch(name: str) -> None:
    code = f"import sys; from ticketguard.pruning import {name}; assert {name} and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_method_has_its_search_where_it_says() -> None:
    for method in METHODS.values():
        assert isinstance(method, Method)
        module, function = method.search.split(":")
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("package", ["pipeline", "predictors", "pruning", "reporting"])
def test_what_is_loaded_on_use_is_there(package: str) -> None:
    module = importlib.import_module(f"ticketguard.{package}")
    assert all(getattr(module, name).__module__.startswith("ticketguard") for name in module.__all__ if name.islower())
    assert all(hasattr(module, name) for name in module.__all__)
    with pytest.raises(AttributeError, match=f"module 'ticketguard.{package}' has no attribute 'nothing'"):
        _ = module.nothing

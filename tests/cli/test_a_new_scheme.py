"""A new kind of mark is one file and one line: `tests/marking/toy_mark.py`, and the line that the fixture adds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from ticketguard.credentials.keys import Owner
from ticketguard.verification import registry

from .conftest import PASSPHRASE, Run, validate

FIND = ("find", "--model", "mlp", "--data", "digits", "--density", "0.25", "--method", "snip", "--epochs", 2)


@pytest.fixture(autouse=True)
def toy_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.SCHEMES, "toy-signs", "tests.marking.toy_mark:SCHEME")


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("owner") / "owner.key"
    Owner.generate("Ada").save(path, PASSPHRASE)
    return path


@pytest.fixture
def files(tmp_path: Path, owner: Path) -> Sequence[object]:
    return ("--owner", owner, "--claim", tmp_path / "claim.json", "--vault", tmp_path / "vault.age")


def judged(run: Run, suspect: Path, files: Sequence[object], code: int = 0) -> dict[str, float]:
    verdict = json.loads(run("verify", suspect, *files[2:], "--json", code=code).stdout)
    validate(verdict, "verdict")
    assert verdict["tests"] == len(verdict["evidence"])
    return {item["mark"]: item["log10_p"] for item in verdict["evidence"]}


def test_it_is_embedded_claimed_verified_inspected_and_shown(run: Run, tmp_path: Path, files: Sequence[object]) -> None:
    ticket, marked = tmp_path / "ticket.safetensors", tmp_path / "marked.safetensors"
    run(*FIND, "--out", ticket)
    setting = ("--mark-option", "toy-signs.count=120")
    run("embed", ticket, *files, "--out", marked, "--marks", "planted-graph,toy-signs", *setting, "--epochs", 1)
    found = judged(run, marked, files)
    assert found["toy-signs"] == pytest.approx(-120 * 0.30103, abs=1e-3)
    assert found["planted-graph"] < -20
    innocent = judged(run, ticket, files, code=1)
    assert min(innocent.values()) > -3
    claim = json.loads(run("inspect", tmp_path / "claim.json", "--json").stdout)["claim"]
    assert [mark["scheme"] for mark in claim["marks"]] == ["planted-graph", "toy-signs"]
    assert claim["marks"][1]["parameters"].items() >= {"count": 120, "tensor": "1.bias"}.items()
    shown = run("verify", marked, *files[2:]).stdout
    assert "toy-signs: supported" in shown
    assert "the smallest p of 2 tests, times 2" in shown
    picture = ("--picture", tmp_path / "mask.png")
    run("inspect", marked, *picture, *files[2:])
    assert (tmp_path / "mask.png").exists()


def test_it_is_in_a_ticket_that_is_found_with_its_marks(run: Run, tmp_path: Path, files: Sequence[object]) -> None:
    marked = tmp_path / "marked.safetensors"
    run(*FIND, *files, "--out", marked, "--marks", "toy-signs,planted-graph")
    found = judged(run, marked, files)
    assert found["toy-signs"] < -25
    assert found["planted-graph"] < -20


def test_a_setting_that_it_does_not_have_is_told(run: Run, tmp_path: Path, files: Sequence[object]) -> None:
    unknown = ("--marks", "toy-signs", "--mark-option", "toy-signs.size=3", "--out", tmp_path / "m.safetensors")
    result = run("embed", tmp_path / "ticket.safetensors", *files, *unknown, code=2)
    assert "unknown toy-signs setting 'size', expected one of count, tensor" in result.stderr
    other = ("--marks", "toy-signs", "--mark-option", "planted-graph.rate=1", "--out", tmp_path / "m.safetensors")
    result = run("embed", tmp_path / "ticket.safetensors", *files, *other, code=2)
    assert "expected MARK.NAME=VALUE with one of the marks toy-signs" in result.stderr


def test_a_release_without_it_judges_the_others_and_names_it(
    run: Run, tmp_path: Path, files: Sequence[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = tmp_path / "marked.safetensors"
    run(*FIND, *files, "--out", marked, "--marks", "planted-graph,toy-signs")
    monkeypatch.delitem(registry.SCHEMES, "toy-signs")
    verdict = json.loads(run("verify", marked, *files[2:], "--json").stdout)
    validate(verdict, "verdict")
    assert [item["mark"] for item in verdict["evidence"]] == ["planted-graph"]
    assert [item["mark"] for item in verdict["unchecked"]] == ["toy-signs"]
    assert verdict["tests"] == 2
    shown = run("verify", marked, *files[2:]).stdout
    assert "toy-signs: could not be checked" in shown
    assert "this release does not know this scheme" in shown

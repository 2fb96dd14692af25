"""The README's commands are run, in order, and their outputs compared: all but the numbers, which a new key changes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click.testing
import pytest

from ticketguard.cli import main

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```(console|python)\n(.*?)```", README.read_text(), flags=re.DOTALL)


def comparable(output: str) -> list[str]:
    """Put # for every number and digest, and one space for each run of padding and ruling."""
    text = re.sub(r"\b[0-9a-f]{64}\b|10\^-?[\d.]+|[+-]?\d[\d.]*(?:e-?\d+)?%?", "#", output)
    return [re.sub(r"[ -]+", " ", line).rstrip() for line in text.splitlines()]


def test_the_commands_and_outputs_are_the_real_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TICKETGUARD_PASSPHRASE", "six words are better than one")
    assert len(BLOCKS) >= 6
    for kind, block in BLOCKS:
        if kind == "python":
            exec(compile(block, str(README), "exec"), {})
            continue
        for part in block.split("$ ")[1:]:
            command, _, expected = part.partition("\n")
            program, *arguments = shlex.split(command)
            assert program == "ticketguard"
            result = click.testing.CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, result.stderr
            assert comparable(result.stdout) == comparable(expected), command

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import click.testing
import pytest

from ticketguard.errors import ConfigurationError, CredentialError

from .conftest import failing_with


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigurationError("unknown method 'x'"), 2, "ticketguard: unknown method 'x'\n"),
        (CredentialError("the claim is forged"), 3, "ticketguard: the claim is forged\n"),
        (click.UsageError("Give one suspect."), 2, "Error: Give one suspect.\n"),
        (click.FileError("x", hint="no such file"), 2, "no such file\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.bin"),
            3,
            "ticketguard: 'out.bin': No space left on device\n",
        ),
        (OSError("odd"), 3, "ticketguard: 'the system': odd\n"),
        (MemoryError(), 3, "ticketguard: out of memory"),
        (KeyboardInterrupt(), 3, "ticketguard: interrupted"),
        (ZeroDivisionError("division by zero"), 3, "unexpected ZeroDivisionError: division by zero (a bug"),
    ],
)
def test_every_error_is_a_line_and_never_exit_code_one(error: BaseException, code: int, message: str) -> None:
    result = failing_with(error)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_bug_shows_its_traceback_when_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETGUARD_DEBUG", "1")
    assert isinstance(failing_with(ZeroDivisionError()).exception, ZeroDivisionError)


def test_a_reader_that_leaves_early_sees_no_traceback(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [
        sys.executable,
        "-m",
        "ticketguard",
        "keygen",
        "--name",
        "Ada",
        "--out",
        str(tmp_path / "k"),
        "--no-passphrase",
    ]
    process = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write_end)
    assert process.returncode == 3
    assert process.stderr == ""

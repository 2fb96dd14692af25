"""Nothing foreign acts on the terminal: through the real command line, with names that try."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import click.testing
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

import ticketguard as tg
from ticketguard.cli.group import CommandGroup
from ticketguard.cli.progress import ProgressBar, _make_bar
from ticketguard.errors import PredictorError

from .conftest import Files, Run, failing_with, unmarked_ticket

EVIL = "\x1b[2K\r\x1b[32mSUPPORTED\nSUPPORTED\x9b\u202e [bold green]SUPPORTED[/]"
SHOWN = r"\x1b[2K\r\x1b[32mSUPPORTED\nSUPPORTED\x9b\u202e [bold green]SUPPORTED[/]"


def assert_harmless(text: str) -> None:
    assert all(line.isprintable() for line in text.split("\n")), text
    assert not any(line.startswith("SUPPORTED") for line in text.split("\n")), text


@pytest.fixture
def suspect(tmp_path: Path) -> Path:
    """A checkpoint whose every tensor has a name that tries."""
    path = tmp_path / "suspect.safetensors"
    weights = {f"{EVIL}{name}": np.where(array > 0.5, array, 0) for name, array in unmarked_ticket().weights.items()}
    safetensors.numpy.save_file(weights, path)
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The same with a value that makes every reader name the tensor."""
    path = tmp_path / "broken.safetensors"
    safetensors.numpy.save_file({EVIL: np.full((200, 64), np.nan, dtype=np.float32)}, path)
    return path


def test_names_of_tensors_do_not_act_in_what_is_printed(run: Run, files: Files, suspect: Path, tmp_path: Path) -> None:
    for arguments, code in (
        (("inspect", suspect), 0),
        (("verify", suspect, "--claim", files.claim, "--vault", files.vault), None),
        (("import", suspect, "--out", tmp_path / "t.safetensors"), 0),
        (("inspect", tmp_path / "t.safetensors", "--picture", tmp_path / "p.png"), 0),
    ):
        result = click.testing.CliRunner().invoke(tg_main(), [str(one) for one in arguments])
        assert code is None or result.exit_code == code, result.stderr
        assert_harmless(result.stderr)
        assert_harmless(result.stdout)
        if arguments[0] == "inspect":
            assert SHOWN in result.stdout
    with PIL.Image.open(tmp_path / "p.png") as image:
        image.verify()


def tg_main() -> click.Command:
    from ticketguard.cli import main

    return main


def test_names_of_tensors_do_not_act_in_errors(run: Run, files: Files, broken: Path, tmp_path: Path) -> None:
    for arguments in (
        ("verify", broken, "--claim", files.claim, "--vault", files.vault),
        ("import", broken, "--out", tmp_path / "t.safetensors"),
    ):
        result = run(*arguments, code=3)
        assert_harmless(result.stderr)
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""


def test_a_tickets_words_do_not_act(run: Run, tmp_path: Path) -> None:
    ticket = unmarked_ticket()
    info = dataclasses.replace(ticket.info, method=EVIL, model=EVIL, data=EVIL, model_options={EVIL: [EVIL]})
    path = tmp_path / "evil.safetensors"
    dataclasses.replace(ticket, info=info).save(path)
    shown = run("inspect", path).stdout
    assert_harmless(shown)
    assert SHOWN in shown
    document = run("inspect", path, "--json").stdout
    assert_harmless(document)
    assert json.loads(document)["ticket"]["info"]["method"] == EVIL
    for command in ("measure", "check-ticket"):
        refused = run(command, path, code=2)
        assert_harmless(refused.stderr)
        assert SHOWN in refused.stderr


@pytest.mark.parametrize(
    "error",
    [
        PredictorError(target="http://x", reason=f"answered 500 ({EVIL})", hint="ask its operator"),
        PredictorError(target="x.onnx", reason=f"does not run ({EVIL})", hint="use another"),
        click.UsageError(EVIL),
        click.BadParameter(EVIL, param_hint=EVIL),
        click.FileError(EVIL, hint=EVIL),
        OSError(2, EVIL, EVIL),
        ZeroDivisionError(EVIL),
    ],
)
def test_texts_of_servers_files_and_users_do_not_act_in_errors(error: Exception) -> None:
    result = failing_with(error)
    assert_harmless(result.stderr)
    assert SHOWN in result.stderr


def test_a_long_name_leaves_what_to_do_next() -> None:
    error = PredictorError(target="x" * 10**6, reason="does not answer", hint="start it first")
    shown = failing_with(error).stderr
    assert len(shown) < 2100
    assert shown.endswith("does not answer: start it first\n")


def test_wrong_usage_that_quotes_a_file_name_does_not_act(run: Run) -> None:
    for arguments in ((EVIL,), ("inspect", "--picture", EVIL, "x"), ("verify", "--timeout", EVIL), (f"--{EVIL}",)):
        refused = run(*arguments, code=2)
        assert_harmless(refused.stderr)


def test_warnings_do_not_act(recwarn: pytest.WarningsRecorder) -> None:
    import warnings

    from ticketguard.errors import TicketguardWarning

    for kind in (TicketguardWarning, UserWarning):
        group = CommandGroup(name="ticketguard")

        @click.command()
        def warning(kind: type[Warning] = kind) -> None:
            warnings.simplefilter("always")
            warnings.warn(EVIL, kind, stacklevel=1)

        group.get_command = lambda ctx, cmd_name, command=warning: command  # type: ignore[method-assign,misc]
        shown = click.testing.CliRunner().invoke(group, ["warning"]).stderr
        assert_harmless(shown)
        assert SHOWN in shown or kind is UserWarning


def test_a_progress_bar_shows_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    with bar:
        bar.begin(EVIL, 1)
        bar.end()
    assert_harmless(capsys.readouterr().err)
    progress = _make_bar()
    task = progress.add_task("[bold green]SUPPORTED[/]", total=1)
    column = progress.columns[0].render(progress.tasks[task])
    assert str(column) == "[bold green]SUPPORTED[/]"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_undecodable_file_name_is_shown_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xe2\x89\xa4.pt"
    Path(os.fsdecode(name)).write_bytes(b"nothing")
    source = Path(tg.__file__).parents[1]
    for options in ([], ["--json"]):
        result = subprocess.run(
            [os.fsencode(sys.executable), b"-m", b"ticketguard", b"inspect", name, *map(os.fsencode, options)],
            env={**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONPATH": str(source)},
            capture_output=True, check=False,
        )  # fmt: skip
        assert result.returncode == 3
        assert b"Traceback" not in result.stderr
        assert b"(a bug" not in result.stderr
        assert rb"\udcff" in result.stderr


def test_json_is_json_where_the_terminal_has_no_such_letters(files: Files, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + "/größer≤".encode() + b"\xff.safetensors"
    Path(os.fsdecode(name)).write_bytes(files.unmarked.read_bytes())
    source = Path(tg.__file__).parents[1]
    for encoding in ("latin-1", "ascii"):
        result = subprocess.run(
            [os.fsencode(sys.executable), b"-m", b"ticketguard", b"inspect", name, b"--json"],
            env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(source)},
            capture_output=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout.decode("ascii"))["file"] == os.fsdecode(name)


def test_titles_of_pictures_are_no_formulas_and_no_latex(run: Run, tmp_path: Path) -> None:
    import matplotlib

    ticket = unmarked_ticket()
    renamed = {f"$\\frac{{{name}$ 漢\n": array for name, array in ticket.weights.items()}
    mask = tg.Mask(layers={f"$\\frac{{{name}$ 漢\n": ticket.mask[name] for name in ticket.mask})
    path = tmp_path / "$x^$\\input{a}.safetensors"
    dataclasses.replace(ticket, weights=renamed, rewind_weights=None, mask=mask).save(path)
    with matplotlib.rc_context({"text.usetex": True}):  # as a matplotlibrc in the current folder would have it
        shown = run("inspect", path, "--picture", tmp_path / "p.png")
    assert_harmless(shown.stdout)
    with PIL.Image.open(tmp_path / "p.png") as image:
        image.verify()


def test_commands_print_through_one_module() -> None:
    folder = Path(tg.__file__).parent / "cli"
    for path in sorted(folder.glob("*.py")):
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        printing = calls & {"click.echo", "click.secho", "print", "sys.stdout.write", "sys.stderr.write", "echo"}
        assert printing <= ({"click.echo"} if path.name == "output.py" else set()), path

from __future__ import annotations

import subprocess
import sys

import click
import click.testing
import pytest

from ticketguard.cli import main
from ticketguard.cli.group import COMMANDS

CONTEXT = click.Context(main)
ALL_COMMANDS = {name: main.get_command(CONTEXT, name) for name in COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    command = ALL_COMMANDS[name]
    assert command is not None
    assert command.help
    assert command.get_short_help_str(limit=1000)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"
        else:
            assert str(parameter.human_readable_name).upper() in command.help, (
                f"{name} {parameter.name} is not explained"
            )


@pytest.mark.parametrize("name", COMMANDS)
def test_no_help_shows_an_escape(name: str) -> None:
    shown = click.testing.CliRunner().invoke(main, [name, "--help"]).output
    assert "\\b" not in shown
    assert "\b" not in shown


def test_the_help_of_find_says_where_the_seed_is() -> None:
    shown = " ".join(click.testing.CliRunner().invoke(main, ["find", "--help"]).output.split())
    assert "With --owner it follows from the vault's secret, and is neither printed nor in the ticket." in shown


def test_the_group_lists_every_command_with_its_purpose() -> None:
    result = click.testing.CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"  {name} " in result.output
    assert "..." not in result.output.split("Commands:")[1]


def test_help_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from ticketguard.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'rich', 'cryptography'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    # How long it takes is measured in benchmarks/: here the machine may be busy.
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_unknown_command_is_wrong_usage() -> None:
    result = click.testing.CliRunner().invoke(main, ["steal"])
    assert result.exit_code == 2
    assert "No such command 'steal'" in result.stderr


def test_the_version_is_the_packages() -> None:
    import ticketguard

    result = click.testing.CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"ticketguard {ticketguard.__version__}\n"

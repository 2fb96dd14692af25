"""The ``ticketguard`` command: finds its subcommands by name, and turns every error into a line and an exit code."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import click

import ticketguard
from ticketguard.cli.output import accept_all_characters, print_message
from ticketguard.errors import ConfigurationError, TicketguardError, TicketguardWarning
from ticketguard.printable import MESSAGE_LIMIT, printable

# Exit codes (DESIGN: the same everywhere).
SUPPORTED = DONE = 0
NOT_SUPPORTED = 1
USAGE = 2
NOT_CHECKED = 3

# Subcommands in the order a newcomer meets them; the module is imported when its command is asked for.
COMMANDS = {
    "demo": "demo",
    "keygen": "keygen",
    "find": "find",
    "import": "import_",
    "check-ticket": "check_ticket",
    "plan": "plan",
    "embed": "embed",
    "verify": "verify",
    "inspect": "inspect",
    "measure": "measure",
    "export": "export",
}


class CommandGroup(click.Group):
    """A group whose commands are imported on use, and whose errors never show a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names in the order of the story."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command; it holds a command of the name ``command``."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"ticketguard.cli.{COMMANDS[cmd_name]}").command
        return command

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command and exit with its code: 0 done, 1 not supported, 2 usage, 3 could not be checked."""
        extra["standalone_mode"] = False
        code = DONE
        accept_all_characters()
        try:
            with warnings.catch_warnings():
                warnings.showwarning = functools.partial(_show_warning, others=warnings.showwarning)
                # A command returns its exit code, or nothing if it is done.
                code = super().main(*args, **extra) or DONE
        except SystemExit:
            # click ends so, with 1 ("not supported" here), when the reader of our output has left.
            code = NOT_CHECKED
        except Exception as error:
            code = _report(error)
        sys.exit(code)


def _show_warning(
    message: Warning | str, category: type[Warning], *where: Any, others: Callable[..., None], **extra: Any
) -> None:
    """Show a warning of ours as a line, and those of other packages as Python does."""
    if issubclass(category, TicketguardWarning):
        print_message(f"warning: {message}")
    else:
        others(printable(message, limit=MESSAGE_LIMIT), category, *where, **extra)


def _report(error: Exception) -> int:
    """Say on standard error what is wrong, and return the exit code."""
    if isinstance(error, click.ClickException):
        if not isinstance(error, click.exceptions.NoArgsIsHelpError):  # that one's text is the whole help
            shown = printable(error.format_message(), limit=MESSAGE_LIMIT)
            error = click.UsageError(shown, ctx=getattr(error, "ctx", None))
        error.show()
        return USAGE
    if isinstance(error, ConfigurationError):
        return _say(str(error), USAGE)
    if isinstance(error, TicketguardError):
        return _say(str(error), NOT_CHECKED)
    # click turns Ctrl-C and the end of input at a prompt into Abort.
    if isinstance(error, click.Abort):
        return _say(
            "interrupted: no file is half-written; continue find, embed or check-ticket with --resume, verify with "
            "its journal",
            NOT_CHECKED,
        )
    if isinstance(error, OSError):
        return _say(f"'{error.filename or 'the system'}': {error.strerror or error}", NOT_CHECKED)
    if isinstance(error, MemoryError):
        return _say("out of memory: close other programs, or use a smaller model or batch", NOT_CHECKED)
    if os.environ.get("TICKETGUARD_DEBUG"):
        raise error
    reason = f"{type(error).__name__}: {error}"
    return _say(f"unexpected {reason} (a bug: set TICKETGUARD_DEBUG=1 for the traceback and report it)", NOT_CHECKED)


def _say(message: str, code: int) -> int:
    print_message(message)
    return code


@click.command(
    cls=CommandGroup,
    name="ticketguard",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(ticketguard.__version__, message="%(prog)s %(version)s", help="Show the version and exit.")
def main() -> None:
    """Find winning lottery tickets, write their owner's mark into them, and prove ownership of a stolen copy.

    Start with 'ticketguard demo'. Every command exits with 0 (supported, or done), 1 (not supported), 2 (wrong usage)
    or 3 (inconclusive, or could not be checked).
    """

"""The options of commands that write marks, and the credential that results."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ticketguard.cli.options import (
    PASSPHRASE_VARIABLE,
    AnyFunction,
    parse_assignments,
    passphrase_option,
    read_passphrase,
)
from ticketguard.errors import ConfigurationError
from ticketguard.verification.registry import SCHEMES, USUAL, USUAL_FROM_START

if TYPE_CHECKING:
    from ticketguard.credentials.credential import Credential
    from ticketguard.credentials.keys import Owner
    from ticketguard.embedding.interface import Mark
    from ticketguard.files import Output
    from ticketguard.ticket import Ticket

CLAIM, VAULT = "claim.json", "vault.age"
# Options that set up one mark.
OWN_OPTIONS = ("share", "triggers", "qr_text")
# The options below, as click names what they set.
MARKING_NAMES = (
    "claim",
    "vault",
    "marks",
    *OWN_OPTIONS,
    "mark_option",
    "level_bits",
    "no_rescale",
    "vault_recipient",
    "passphrase_file",
)


def _marks_option(usual: Sequence[str], note: str) -> Callable[[Any], Any]:
    help_text = (
        f"Marks, separated by commas, of {', '.join(SCHEMES)}. The trigger set is read from answers, the others from "
        "weights."
    )
    return click.option("--marks", default=",".join(usual), show_default=True, help=f"{help_text}{note}")


marks_option = _marks_option(USUAL, "")
start_marks_option = _marks_option(
    USUAL_FROM_START, f" Of a search that starts from weights that are given, the default is {','.join(USUAL)}."
)
setting_option = click.option(
    "--mark-option",
    multiple=True,
    metavar="MARK.NAME=VALUE",
    help=f"Another setting of a mark, such as {USUAL[0]}.rate=0.1; repeatable.",
)
level_option = click.option(
    "--level-bits",
    type=click.IntRange(1, 256),
    default=64,
    show_default=True,
    help="A verdict will need p ≤ 2^-BITS.",
)
survive_option = click.option(
    "--survive",
    multiple=True,
    metavar="THEFT",
    help="A theft that the marks are to survive, such as pruned-80, or several by one thief, joined by +; repeatable. "
    "A mark that has a size is then as small as that allows: 'ticketguard plan' shows the choice for the first of "
    "them, and its help the thefts.",
)
_FILES: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--claim", type=click.Path(path_type=Path), default=CLAIM, show_default=True, help="Signed claim, to publish."
    ),
    click.option(
        "--vault", type=click.Path(path_type=Path), default=VAULT, show_default=True, help="Encrypted vault, to keep."
    ),
)
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--share", type=float, default=0.05, show_default=True, help="Share of the edges that the planted graph takes."
    ),
    click.option("--triggers", type=int, default=100, show_default=True, help="Number of trigger inputs."),
    click.option(
        "--qr-text",
        default="",
        metavar="TEXT",
        help="Name or serial number that the QR code shows, for everybody to read.",
    ),
    setting_option,
    level_option,
    click.option(
        "--no-rescale",
        is_flag=True,
        help="Leave the weights before normalisations as they were trained. Otherwise they are made larger, so that "
        "fine-tuning removes less of the marks; the model's answers are the same.",
    ),
    click.option(
        "--vault-recipient", metavar="AGE1...", help="Seal the vault to this vault key instead of with the passphrase."
    ),
    passphrase_option,
)


def marking_options(function: AnyFunction) -> AnyFunction:
    """Add the options of marks and their credential, of a ticket that exists."""
    return _with((*_FILES, marks_option, *_OPTIONS), function)


def start_marking_options(function: AnyFunction) -> AnyFunction:
    """Add the options of marks and their credential, of a ticket that is yet to be found."""
    return _with((*_FILES, start_marks_option, *_OPTIONS), function)


def _with(options: Sequence[Callable[[Any], Any]], function: AnyFunction) -> AnyFunction:
    for option in reversed(options):
        function = option(function)
    return function


@dataclasses.dataclass(frozen=True, kw_only=True)
class Marking:
    """What was asked for.

    Attributes:
        marks: Kinds of marks.
        level_bits: A verdict will need p ≤ 2^-level_bits.
        rescale: Whether weights before normalisations are made larger in the end.
        claim: The file to write the claim to.
        vault: The file to write the vault to.
        recipient: The vault key that the vault is sealed to; None for the passphrase.
        passphrase_file: File that the passphrase is read from.
        are_usual: Whether no marks were named.
    """

    marks: list[Mark]
    level_bits: int
    rescale: bool
    claim: Path
    vault: Path
    recipient: str | None
    passphrase_file: Path | None
    are_usual: bool

    def passphrase(self) -> str | None:
        """Take the passphrase that opens the owner's key and seals the vault; None where neither is asked for."""
        if self.recipient is None or self.passphrase_file is not None or PASSPHRASE_VARIABLE in os.environ:
            return read_passphrase(self.passphrase_file, purpose="the vault and the owner's key", confirm=True)
        return None

    def outputs(self, credential: Credential, owner: Owner, passphrase: str | None) -> list[Output]:
        """Return vault and claim, ready to be written."""
        sealing: dict[str, str | None] = {"recipient": self.recipient} if self.recipient else {"passphrase": passphrase}
        return credential.outputs(self.claim, self.vault, owner, **sealing)


def take_marking(options: dict[str, Any], *, given_start: bool = False) -> Marking:
    """Move the marks' options out of a command's *options*.

    Args:
        options: What the command was called with.
        given_start: Whether a search starts from weights that were given: its usual marks are then fewer.

    Raises:
        ConfigurationError: A mark is unknown, its settings are out of range, or the recipient could not be sealed to.
    """
    if (recipient := options.pop("vault_recipient")) is not None:
        # Found out now rather than after a night's training.
        from ticketguard.credentials.vault_key import parse_recipient

        parse_recipient(recipient)
    names = options.pop("marks")
    are_usual = click.get_current_context().get_parameter_source("marks") is ParameterSource.DEFAULT
    if given_start and are_usual:
        names = ",".join(USUAL)
    own = {name: options.pop(name) for name in OWN_OPTIONS}
    marks = named_marks(names, options.pop("mark_option"), **own)
    _refuse_options_of_others([mark.scheme for mark in marks])
    return Marking(
        marks=marks,
        level_bits=options.pop("level_bits"),
        rescale=not options.pop("no_rescale"),
        claim=options.pop("claim"),
        vault=options.pop("vault"),
        recipient=recipient,
        passphrase_file=options.pop("passphrase_file"),
        are_usual=are_usual,
    )


def _refuse_options_of_others(chosen: Sequence[str]) -> None:
    """Refuse options that set up a mark which is not *chosen*.

    Raises:
        ConfigurationError: One was given.
    """
    from ticketguard.verification.registry import scheme

    context = click.get_current_context()
    taken = {option for name in chosen for option in scheme(name).options}
    for option in OWN_OPTIONS:
        if option not in taken and context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
            owners = " or ".join(name for name in SCHEMES if option in scheme(name).options)
            raise ConfigurationError(
                f"--{option.replace('_', '-')} sets up {owners}, which is not among --marks {','.join(chosen)}: "
                "add it there, or leave the option out"
            )


def named_marks(names: str, settings: tuple[str, ...], **options: Any) -> list[Mark]:
    """Return the marks of ``--marks`` with the settings of ``--mark-option``.

    Args:
        names: The schemes' names, separated by commas.
        settings: ``MARK.NAME=VALUE``, each.
        options: Values of marks' own options; those of other schemes are ignored.

    Raises:
        ConfigurationError: A mark is unknown, or its settings are out of range.
    """
    from ticketguard.verification.registry import configured_mark

    chosen = [name.strip() for name in names.split(",")]
    by_mark: dict[str, dict[str, Any]] = {name: {} for name in chosen}
    for path, value in parse_assignments(settings, option="--mark-option").items():
        name, _, field = path.partition(".")
        if name not in by_mark or not field:
            raise ConfigurationError(
                f"--mark-option is '{path}', expected MARK.NAME=VALUE with one of the marks {', '.join(chosen)}"
            )
        by_mark[name][field] = value
    return [configured_mark(name, settings=by_mark[name], options=options) for name in chosen]


def marks_that_survive(thefts: tuple[str, ...], ticket: Ticket, marking: Marking) -> Sequence[Mark]:
    """Return the marks that were asked for, those that have a size as large as it takes to survive *thefts*.

    Raises:
        ConfigurationError: No size does, or the size was given as well.
    """
    from ticketguard.marking import choosing

    given = click.get_current_context().get_parameter_source("share")
    if given is not ParameterSource.DEFAULT:
        raise click.UsageError("--survive chooses the share: leave out --share.")
    return choosing.marks_that_survive(ticket, survive=thefts, marks=marking.marks, level_bits=marking.level_bits)


def secrecy_note(ticket: Path) -> str:
    """Return what the owner of a marked ticket must know about the unmarked one."""
    note = f"keep '{ticket}' as secret as the vault, or delete it: anyone with the unmarked ticket can remove the mark"
    readable = ticket.exists() and ticket.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    return f"{note}; other users of this machine can read it now (chmod 600)" if readable else note

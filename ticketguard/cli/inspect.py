"""``ticketguard inspect``: what a file of ours, or a suspect, holds."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ticketguard.cli.options import (
    force_option,
    json_option,
    passphrase_option,
    read_unlocker,
    refuse_to_replace,
    vault_key_option,
)
from ticketguard.cli.output import print_document, print_message

if TYPE_CHECKING:
    from ticketguard.ticket import Array


@click.command(name="inspect", short_help="Say what a ticket, claim, vault, key or suspect holds.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--picture", type=click.Path(path_type=Path), help="Draw the masks into this PNG; not for claims, vaults and keys."
)
@click.option("--claim", type=click.Path(path_type=Path), help="With --vault: draw the owner's secret edges too.")
@click.option("--vault", type=click.Path(path_type=Path), help="With --claim: draw the owner's secret edges too.")
@click.option(
    "--pictures",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="With --claim and --vault: a new folder for what marks in FILE show to a person, such as a QR code.",
)
@passphrase_option
@vault_key_option
@force_option
@json_option
def command(
    file: Path,
    picture: Path | None,
    claim: Path | None,
    vault: Path | None,
    pictures: Path | None,
    passphrase_file: Path | None,
    vault_key: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Say what FILE holds: a ticket, claim, vault, public key, or a suspect's checkpoint.

    A vault is opened with its passphrase or vault key; its secret is not shown.
    """
    from ticketguard.reporting.documents import inspect_file, require_credential
    from ticketguard.reporting.pictures import require_empty_folder, require_folder

    if (claim is None) != (vault is None) or (claim is not None and picture is None and pictures is None):
        raise click.UsageError("--claim and --vault go together, with --picture or --pictures.")
    if pictures is not None and claim is None:
        raise click.UsageError("--pictures goes with --claim and --vault.")
    if picture is not None and picture.suffix.lower() != ".png":
        raise click.UsageError(f"--picture is '{picture}', expected a name that ends in .png.")
    if picture is not None:
        refuse_to_replace((picture,), force=force, inputs=(file, claim, vault, vault_key, passphrase_file))
    if claim is not None and vault is not None:
        require_credential(claim, vault)
    if pictures is not None and force:
        require_folder(pictures)
    elif pictures is not None:
        require_empty_folder(pictures, advice="name a new folder for the pictures, or write into it with --force")
    unlock = functools.cache(functools.partial(read_unlocker, passphrase_file, vault_key))
    document = inspect_file(file, unlock=unlock)
    if picture is not None:
        _draw(file, document["kind"], picture, claim=claim, vault=vault, unlock=unlock)
    if pictures is not None and claim is not None and vault is not None:
        document["pictures"] = _write_pictures(
            file, document["kind"], pictures, claim=claim, vault=vault, unlock=unlock
        )
    print_document(document, as_json=as_json)


def _write_pictures(
    file: Path, kind: str, pictures: Path, *, claim: Path, vault: Path, unlock: Callable[[], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Write what the marks of a ticket or suspect show, without a verdict; returns which, and what they decode to.

    Raises:
        ConfigurationError: The file has no weights to read.
    """
    from ticketguard.checkpoints.checkpoints import Checkpoint
    from ticketguard.cli.verify import pictures_note
    from ticketguard.credentials.credential import load_credential
    from ticketguard.errors import ConfigurationError
    from ticketguard.pipeline import verify
    from ticketguard.reporting.pictures import write_pictures

    if kind not in ("ticket", "suspect"):
        raise ConfigurationError(f"'{file}' is a {kind} and has no weights to read: name a ticket or a checkpoint")
    verdict = verify(Checkpoint(file), load_credential(claim, vault, **unlock()), note=print_message)
    shown = write_pictures(verdict, pictures)
    print_message(pictures_note(shown))
    return shown


def _draw(
    file: Path,
    kind: str,
    picture: Path,
    *,
    claim: Path | None,
    vault: Path | None,
    unlock: Callable[[], dict[str, Any]],
) -> None:
    """Draw the masks of a ticket or suspect.

    Raises:
        ConfigurationError: The file has no masks.
    """
    from ticketguard.errors import ConfigurationError
    from ticketguard.reporting.documents import binds_start, secret_positions
    from ticketguard.reporting.plots import draw_before_after, draw_mask
    from ticketguard.ticket import Ticket
    from ticketguard.zeros import read_zeros

    if kind not in ("ticket", "suspect"):
        raise ConfigurationError(f"'{file}' is a {kind} and has no masks to draw: name a ticket or a checkpoint")
    mask = Ticket.load(file).mask if kind == "ticket" else read_zeros(_layers(file)).mask
    if not len(mask):
        raise ConfigurationError(f"'{file}' has no zeros in its weights, so there is no mask to draw")
    if claim is None or vault is None:
        draw_mask(mask, picture, title=file.name)
        return
    from ticketguard.credentials.credential import load_credential

    credential = load_credential(claim, vault, **unlock())
    before = credential.reference.mask
    if {name: before.shape(name) for name in before} != {name: mask.shape(name) for name in mask}:
        raise ConfigurationError(
            f"'{file}' does not have the layers of the claim's ticket: draw it without --claim and --vault"
        )
    draw_before_after(
        before,
        mask,
        secret_positions(credential),
        picture,
        title=file.name,
        from_start=binds_start(credential),
    )


def _layers(file: Path) -> dict[str, Array]:
    """Read a suspect's tensors of two axes or more, including values that are not finite."""
    from ticketguard.checkpoints.checkpoints import Checkpoint

    suspect = Checkpoint(file)
    return {name: suspect.stored(name) for name in suspect.layer_names()}

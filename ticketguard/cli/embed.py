"""``ticketguard embed``: write the owner's marks, retrain, and write the marked ticket, the claim and the vault."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ticketguard.cli.options import (
    PASSPHRASE_VARIABLE,
    checkpoint_folder,
    data_options,
    force_option,
    json_option,
    passphrase_option,
    read_passphrase,
    refuse_to_replace,
    resume_option,
    seed_option,
    take_data_options,
    take_training,
    training_options,
)
from ticketguard.cli.output import print_document
from ticketguard.cli.progress import ProgressBar

if TYPE_CHECKING:
    from ticketguard.embedding.interface import Mark


@click.command(name="embed", short_help="Write the owner's marks into a ticket and retrain it.")
@click.argument("ticket", type=click.Path(path_type=Path))
@click.option("--owner", type=click.Path(path_type=Path), required=True, help="The owner's private key file.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="marked.safetensors",
    show_default=True,
    help="Marked ticket, for release.",
)
@click.option(
    "--claim",
    type=click.Path(path_type=Path),
    default="claim.json",
    show_default=True,
    help="Signed claim, to publish.",
)
@click.option(
    "--vault", type=click.Path(path_type=Path), default="vault.age", show_default=True, help="Encrypted vault, to keep."
)
@click.option(
    "--marks",
    default="planted-graph,trigger-set",
    show_default=True,
    help="Marks to embed, separated by commas; the planted graph is read from weights, the trigger set from answers.",
)
@click.option(
    "--share", type=float, default=0.05, show_default=True, help="Share of the edges that the planted graph moves."
)
@click.option("--triggers", type=int, default=100, show_default=True, help="Number of trigger inputs.")
@click.option(
    "--level-bits",
    type=click.IntRange(1, 256),
    default=64,
    show_default=True,
    help="A verdict will need p at most 2^-BITS.",
)
@click.option("--model", help="By default the model the ticket was found with.")
@click.option("--data", help="By default the data the ticket was found with.")
@data_options
@training_options
@seed_option
@click.option("--vault-recipient", metavar="AGE1...", help="Seal the vault to this vault key, not by the passphrase.")
@passphrase_option
@resume_option
@force_option
@json_option
def command(
    ticket: Path,
    owner: Path,
    out: Path,
    claim: Path,
    vault: Path,
    marks: str,
    share: float,
    triggers: int,
    level_bits: int,
    model: str | None,
    data: str | None,
    seed: int,
    vault_recipient: str | None,
    passphrase_file: Path | None,
    resume: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the owner's marks into TICKET and retrain it from its rewind weights.

    The marked ticket is for release, the claim is public, the vault and its passphrase stay with the owner. The
    passphrase seals the vault, and opens the owner's key if that is encrypted.
    """
    from ticketguard.credentials.keys import Owner
    from ticketguard.inspection import claim_document
    from ticketguard.pipeline import embed
    from ticketguard.ticket import Ticket

    chosen = _choose_marks(marks, share=share, triggers=triggers)
    refuse_to_replace((out, claim, vault), force=force, inputs=(ticket, owner, passphrase_file))
    workdir = checkpoint_folder(out, "embed", resume=resume, force=force)
    if vault_recipient is None or passphrase_file is not None or PASSPHRASE_VARIABLE in os.environ:
        passphrase = read_passphrase(passphrase_file, purpose="the vault and the owner's key", confirm=True)
    else:
        passphrase = None
    key = Owner.load(owner, passphrase)
    unmarked = Ticket.load(ticket)
    with ProgressBar() as progress:
        marked, credential = embed(
            unmarked,
            owner=key,
            marks=chosen,
            model=model,
            data=data,
            data_options=take_data_options(options),
            training=take_training(options),
            seed=seed,
            level_bits=level_bits,
            workdir=workdir,
            resume=resume,
            progress=progress,
        )
    if vault_recipient is None:
        credential.save(claim, vault, key, passphrase)
    else:
        credential.save(claim, vault, key, recipient=vault_recipient)
    marked.save(out)
    shutil.rmtree(workdir, ignore_errors=True)
    summary = {
        "ticket": str(out),
        "claim": str(claim),
        "vault": str(vault),
        "accuracy_before": unmarked.info.accuracy,
        "accuracy": marked.info.accuracy,
        "density": marked.mask.density,
    }
    print_document(
        {"version": "ticketguard.embed/1", **summary, **claim_document(credential.claim)},
        as_json=as_json,
        summary={**summary, "marks": [mark.scheme for mark in credential.claim.marks]},
    )


def _choose_marks(text: str, *, share: float, triggers: int) -> list[Mark]:
    """Read ``--marks``.

    Raises:
        ConfigurationError: A mark is unknown.
    """
    from ticketguard.embedding.planted_graph import PlantedGraph
    from ticketguard.embedding.trigger_set import TriggerSet
    from ticketguard.errors import ConfigurationError

    known: dict[str, Callable[[], Mark]] = {
        "planted-graph": lambda: PlantedGraph(share=share),
        "trigger-set": lambda: TriggerSet(triggers),
    }
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ConfigurationError(f"unknown mark '{name}', expected one or more of {', '.join(known)}")
    return [known[name]() for name in names]

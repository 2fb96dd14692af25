"""``ticketguard embed``: write the owner's marks, retrain, and write the marked ticket, the claim and the vault."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from ticketguard.cli.marking import marking_options, take_marking
from ticketguard.cli.options import (
    checkpoint_folder,
    data_options,
    force_option,
    json_option,
    refuse_to_replace,
    resume_option,
    seed_option,
    take_data_options,
    take_training,
    training_options,
)
from ticketguard.cli.output import print_document
from ticketguard.cli.progress import ProgressBar


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
@marking_options
@click.option("--model", help="By default the model the ticket was found with.")
@click.option("--data", help="By default the data the ticket was found with.")
@data_options
@training_options
@seed_option
@resume_option
@force_option
@json_option
def command(
    ticket: Path,
    owner: Path,
    out: Path,
    model: str | None,
    data: str | None,
    seed: int,
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
    from ticketguard.training import in_first_process

    marking = take_marking(options)
    outputs = (out, marking.claim, marking.vault)
    refuse_to_replace(outputs, force=force, inputs=(ticket, owner, marking.passphrase_file))
    workdir = checkpoint_folder(out, "embed", resume=resume, force=force)
    passphrase = marking.passphrase()
    key = Owner.load(owner, passphrase)
    unmarked = Ticket.load(ticket)
    with ProgressBar() as progress:
        marked, credential = embed(
            unmarked,
            owner=key,
            marks=marking.marks,
            model=model,
            data=data,
            data_options=take_data_options(options),
            training=take_training(options),
            seed=seed,
            level_bits=marking.level_bits,
            workdir=workdir,
            resume=resume,
            progress=progress,
        )

    def keep() -> None:
        marking.save(credential, key, passphrase)
        marked.save(out)
        shutil.rmtree(workdir, ignore_errors=True)

    # Of several processes that train together the first one writes and prints.
    if not in_first_process(keep):
        return
    summary = {
        "ticket": str(out),
        "claim": str(marking.claim),
        "vault": str(marking.vault),
        "accuracy_before": unmarked.info.accuracy,
        "accuracy": marked.info.accuracy,
        "density": marked.mask.density,
    }
    print_document(
        {"version": "ticketguard.embed/1", **summary, **claim_document(credential.claim)},
        as_json=as_json,
        summary={**summary, "marks": [mark.scheme for mark in credential.claim.marks]},
    )

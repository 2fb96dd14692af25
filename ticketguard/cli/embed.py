"""``ticketguard embed``: write the owner's marks, retrain, and write the marked ticket, the claim and the vault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ticketguard.cli.group import DONE
from ticketguard.cli.marking import marking_options, marks_that_survive, secrecy_note, survive_option, take_marking
from ticketguard.cli.options import (
    data_options,
    files_named,
    force_option,
    json_option,
    resume_option,
    seed_option,
    take_data_options,
    take_training,
    training_options,
    trust_option,
)
from ticketguard.cli.progress import ProgressBar
from ticketguard.cli.runs import Result, open_run


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
@survive_option
@click.option("--model", help="By default the model the ticket was found with.")
@click.option("--data", help="By default the data the ticket was found with.")
@trust_option
@data_options
@training_options
@seed_option("By default it follows from the secret.")
@resume_option
@force_option
@json_option
def command(
    ticket: Path,
    owner: Path,
    out: Path,
    model: str | None,
    data: str | None,
    trust_ticket_code: bool,
    seed: int | None,
    resume: bool,
    force: bool,
    as_json: bool,
    survive: tuple[str, ...],
    **options: Any,
) -> int:
    """Write the owner's marks into TICKET and retrain it from its rewind weights.

    The marked ticket is for release, the claim is public, the vault and its passphrase stay with the owner. The
    passphrase seals the vault, and opens the owner's key if that is encrypted. TICKET itself is as secret as the vault:
    anyone who has both tickets can see which edges are the mark, and remove it. Keep it with the vault, or delete it.
    """
    from ticketguard.credentials.keys import Owner
    from ticketguard.files import Output
    from ticketguard.pipeline import embed
    from ticketguard.reporting.documents import claim_document
    from ticketguard.reporting.text import document_lines
    from ticketguard.ticket import Ticket
    from ticketguard.training import in_first_process

    marking = take_marking(options)
    outputs = (out, marking.claim, marking.vault)
    given_data = take_data_options(options)
    inputs = (ticket, owner, marking.passphrase_file, *files_named(data, *given_data.values()))
    run = open_run("embed", outputs, resume=resume, force=force, inputs=inputs)
    if (code := run.finished(outputs, as_json=as_json)) is not None:
        return code
    passphrase = marking.passphrase()
    key = Owner.load(owner, passphrase)
    unmarked = Ticket.load(ticket, trust_code=trust_ticket_code)
    marks = marks_that_survive(survive, unmarked, marking) if survive else marking.marks
    with ProgressBar() as progress:
        marked, credential = embed(
            unmarked,
            owner=key,
            marks=marks,
            model=model,
            data=data,
            data_options=given_data,
            training=take_training(options),
            seed=seed,
            level_bits=marking.level_bits,
            rescale=marking.rescale,
            workdir=run.folder,
            resume=resume,
            progress=progress,
        )

    summary = {
        "ticket": str(out),
        "claim": str(marking.claim),
        "vault": str(marking.vault),
        "accuracy_before": unmarked.info.accuracy,
        "accuracy": marked.info.accuracy,
        "density": marked.mask.density,
    }
    result = Result(
        document={"version": "ticketguard.embed/1", **summary, **claim_document(credential.claim)},
        lines=document_lines({**summary, "marks": [mark.scheme for mark in credential.claim.marks]}),
        notes=[secrecy_note(ticket)],
    )

    def end() -> None:
        sealed = marking.outputs(credential, key, passphrase)
        run.finish([*sealed, Output(path=out, content=marked.to_bytes())], result, as_json=as_json)

    # Of several processes that train together the first one writes and prints.
    in_first_process(end)
    return DONE

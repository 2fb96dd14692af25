"""``ticketguard measure``: what a ticket costs to store and to run, compared with the dense network."""

from __future__ import annotations

from pathlib import Path

import click

from ticketguard.cli.options import json_option, trust_option
from ticketguard.cli.output import print_document


@click.command(name="measure", short_help="Compare a ticket's size and latency with the dense network's.")
@click.argument("ticket", type=click.Path(path_type=Path))
@click.option("--model", help="The ticket's model, if the ticket does not name it: a name or package.module:factory.")
@trust_option
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Inputs in a batch.")
@click.option(
    "--repeats", type=click.IntRange(min=1), default=30, show_default=True, help="Timed batches of each network."
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads that torch may use.")
@json_option
def command(
    ticket: Path, model: str | None, trust_ticket_code: bool, batch_size: int, repeats: int, threads: int, as_json: bool
) -> None:
    """Measure parameters, multiply-adds, file size and CPU latency of TICKET and of the dense network.

    A ticket whose blocks, filters or channels were removed is smaller and faster. One whose single weights were pruned
    is neither: its zeros are stored and multiplied like any other number.
    """
    from ticketguard.evaluation.measuring import measure
    from ticketguard.ticket import Ticket

    loaded = Ticket.load(ticket, trust_code=trust_ticket_code)
    found = measure(loaded, model=model, batch_size=batch_size, repeats=repeats, threads=threads)
    document = {"version": "ticketguard.measure/1", "file": str(ticket), **found.to_json()}
    rows = [
        {
            "network": name,
            "parameters": cost.parameters,
            "multiply_adds": cost.multiply_adds,
            "file_bytes": cost.file_bytes,
            "latency_ms": 1000 * cost.latency_seconds,
        }
        for name, cost in (("ticket", found.ticket), ("dense ", found.dense))
    ]
    print_document(
        document,
        as_json=as_json,
        summary={
            "costs": rows,
            "speedup": found.speedup,
            "batch": batch_size,
            "threads": threads,
            "note": found.note,
        },
    )

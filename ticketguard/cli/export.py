"""``ticketguard export``: the plain weights of a ticket, for deployment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ticketguard.cli.options import force_option, json_option, refuse_to_replace
from ticketguard.cli.output import print_document

if TYPE_CHECKING:
    from ticketguard.exporting import WeightsFormat


@click.command(name="export", short_help="Write the plain weights of a ticket, for deployment.")
@click.argument("ticket", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="File to write, such as weights.safetensors."
)
@click.option(
    "--format",
    "weights_format",
    type=click.Choice(["safetensors", "prune"]),
    default="safetensors",
    show_default=True,
    help="safetensors: zeros where pruned. prune: a .pt state dict with torch.nn.utils.prune's _orig and _mask pairs.",
)
@force_option
@json_option
def command(ticket: Path, out: Path, weights_format: WeightsFormat, force: bool, as_json: bool) -> None:
    """Write the plain weights of TICKET, without its rewind weights and how it was found."""
    from ticketguard.exporting import export_weights
    from ticketguard.ticket import Ticket

    refuse_to_replace((out,), force=force, inputs=(ticket,))
    loaded = Ticket.load(ticket)
    export_weights(loaded, out, format=weights_format)
    print_document(
        {
            "version": "ticketguard.export/1",
            "file": str(out),
            "format": weights_format,
            "tensors": len(loaded.weights),
            "density": loaded.mask.density,
        },
        as_json=as_json,
    )

"""``ticketguard export``: a ticket's plain weights or its network, for deployment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ticketguard.cli.options import force_option, json_option, refuse_to_replace, trust_option
from ticketguard.cli.output import print_document, print_message
from ticketguard.errors import ConfigurationError

if TYPE_CHECKING:
    from ticketguard.interchange.programs import ProgramFormat
    from ticketguard.interchange.weights import WeightsFormat


@click.command(name="export", short_help="Write the plain weights or the network of a ticket, for deployment.")
@click.argument("ticket", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="File to write, such as weights.safetensors."
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["safetensors", "prune", "onnx", "pt2"]),
    default="safetensors",
    show_default=True,
    help="safetensors: zeros where pruned. prune: a .pt state dict with torch.nn.utils.prune's _orig and _mask pairs. "
    "onnx: the network, for any ONNX runtime. pt2: the network, for torch.export.load.",
)
@click.option("--model", help="With onnx and pt2: the ticket's model, if the ticket does not name it.")
@trust_option
@force_option
@json_option
def command(
    ticket: Path,
    out: Path,
    file_format: str,
    model: str | None,
    trust_ticket_code: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write the plain weights or the network of TICKET, without its rewind weights or how it was found.

    Blocks, filters and channels that were pruned as a whole are not in the file; single pruned weights are zeros.
    Release only what is exported from a marked ticket: anyone who has the unmarked one can remove the mark.
    """
    from ticketguard.interchange.programs import export_program
    from ticketguard.interchange.weights import export_weights
    from ticketguard.ticket import Ticket

    meant = out.suffix.removeprefix(".")
    if meant in ("onnx", "pt2", "safetensors") and meant != file_format:
        raise ConfigurationError(
            f"'{out}' has the ending of {meant}, but the format is {file_format}: add --format {meant}"
        )
    refuse_to_replace((out,), force=force, inputs=(ticket,))
    loaded = Ticket.load(ticket, trust_code=trust_ticket_code)
    if file_format in ("onnx", "pt2"):
        export_program(loaded, out, format=cast("ProgramFormat", file_format), model=model)
    else:
        export_weights(loaded, out, format=cast("WeightsFormat", file_format))
    if loaded.rewind_weights is not None:  # a ticket that is made for release has none
        print_message(f"'{ticket}' is not marked: anyone who has '{out}' can remove a mark that is added later")
    print_document(
        {
            "version": "ticketguard.export/1",
            "file": str(out),
            "format": file_format,
            "bytes": out.stat().st_size,
            "tensors": len(loaded.weights),
            "density": loaded.mask.density,
        },
        as_json=as_json,
    )

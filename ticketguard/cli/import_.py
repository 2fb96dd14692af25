"""``ticketguard import``: a sparse checkpoint that was found elsewhere becomes a ticket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ticketguard.cli.options import (
    data_options,
    force_option,
    json_option,
    parse_assignments,
    refuse_to_replace,
    take_data_options,
    take_training,
    training_options,
)
from ticketguard.cli.output import print_document


@click.command(name="import", short_help="Turn a sparse checkpoint into a ticket: its zeros are the mask.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--rewind", type=click.Path(path_type=Path), help="Early checkpoint it was trained from, for retraining.")
@click.option("--model", help="What it belongs to, for embed: a name or an import path package.module:factory.")
@click.option(
    "--model-option", multiple=True, metavar="NAME=VALUE", help="Argument of the model's factory; repeatable."
)
@click.option("--data", help="What it was trained on, for embed: a name, folder, tar or import path.")
@data_options
@click.option(
    "--classes", type=click.IntRange(min=2), default=None, help="Number of classes, where --data does not say it."
)
@click.option("--input-shape", metavar="C,H,W", help="Shape of one input, where --data does not say it.")
@training_options
@click.option(
    "--out", type=click.Path(path_type=Path), default="ticket.safetensors", show_default=True, help="Ticket file."
)
@force_option
@json_option
def command(
    checkpoint: Path,
    rewind: Path | None,
    model: str | None,
    model_option: tuple[str, ...],
    data: str | None,
    classes: int | None,
    input_shape: str | None,
    out: Path,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn the sparse CHECKPOINT into a ticket: its zeros are the mask.

    CHECKPOINT is safetensors or a .pt/.pth state dict; torch.nn.utils.prune's _orig and _mask pairs are read too. With
    --model and --data the ticket can be given to embed; without them it can be marked from one's own training loop.
    """
    from ticketguard.exporting import import_checkpoint
    from ticketguard.inspection import ticket_document

    refuse_to_replace((out,), force=force, inputs=(checkpoint, rewind))
    ticket = import_checkpoint(
        checkpoint,
        rewind=rewind,
        model=model,
        model_options=parse_assignments(model_option, option="--model-option"),
        data=data,
        data_options=take_data_options(options),
        training=take_training(options),
        classes=classes or 0,
        input_shape=_parse_shape(input_shape),
    )
    ticket.save(out)
    print_document(
        {"version": "ticketguard.import/1", "file": str(out), **ticket_document(ticket)},
        as_json=as_json,
        summary={
            "ticket": out,
            "density": ticket.mask.density,
            "edges": ticket.mask.kept,
            "layers": len(ticket.mask),
            "rewind_weights": ticket.rewind_weights is not None,
            "accuracy": ticket.info.accuracy,
        },
    )


def _parse_shape(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    sizes = text.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise click.UsageError(f"--input-shape is '{text}', expected sizes separated by commas, such as 3,32,32.")
    return tuple(int(size) for size in sizes)

"""``ticketguard import``: turns a sparse checkpoint from elsewhere into a ticket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from ticketguard.cli.output import dense_summary, print_document

if TYPE_CHECKING:
    from ticketguard.checkpoints.checkpoints import Checkpoint


@click.command(name="import", short_help="Turn a sparse checkpoint into a ticket: its zeros are the mask.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--network",
    metavar="PREFIX",
    help="In a file that holds several networks, take the one whose names start with PREFIX, such as ema.; an empty "
    "PREFIX takes them all as one.",
)
@click.option(
    "--rewind", type=click.Path(path_type=Path), help="Early checkpoint that it was trained from, for retraining."
)
@click.option("--model", help="Its model, for embed: a name or an import path package.module:factory.")
@click.option(
    "--model-option", multiple=True, metavar="NAME=VALUE", help="Argument of the model's factory; repeatable."
)
@click.option("--data", help="Its training data, for embed: a name, folder, tar or import path.")
@data_options
@click.option(
    "--classes", type=click.IntRange(min=2), default=None, help="Number of classes, if --data does not give it."
)
@click.option("--input-shape", metavar="C,H,W", help="Shape of one input, if --data does not give it.")
@training_options
@click.option(
    "--out", type=click.Path(path_type=Path), default="ticket.safetensors", show_default=True, help="Ticket file."
)
@force_option
@json_option
def command(
    checkpoint: Path,
    network: str | None,
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

    CHECKPOINT is a safetensors file, a .pt/.pth state dict, or the *.index.json or folder of one in several files;
    pruning masks that are stored beside their weights are read too. With --model, only the model's parameters are
    layers. With --model and --data, the ticket can be given to embed; without them, it can be marked from your own
    training loop.
    """
    from ticketguard.interchange.importing import import_checkpoint
    from ticketguard.reporting.documents import ticket_document

    refuse_to_replace((out,), force=force, inputs=(checkpoint, rewind))
    left_out: dict[str, str] = {}
    ticket = import_checkpoint(
        _open(checkpoint, network),
        rewind=None if rewind is None else _open(rewind, network, everywhere=False),
        model=model,
        model_options=parse_assignments(model_option, option="--model-option"),
        data=data,
        data_options=take_data_options(options),
        training=take_training(options),
        classes=classes or 0,
        input_shape=_parse_shape(input_shape),
        explain=left_out.update,
    )
    ticket.save(out)
    document = ticket_document(ticket)
    reasons = [{"name": name, "reason": reason} for name, reason in left_out.items()]
    print_document(
        {"version": "ticketguard.import/1", "file": str(out), **document, "left_out": reasons},
        as_json=as_json,
        summary={
            "ticket": out,
            "density": ticket.mask.density,
            **dense_summary(document),
            "edges": ticket.mask.kept,
            "layers": len(ticket.mask),
            "rewind_weights": ticket.rewind_weights is not None,
            "accuracy": ticket.info.accuracy,
            **({"not_layers_though_they_have_zeros": reasons} if reasons else {}),
        },
    )


def _open(path: Path, network: str | None, *, everywhere: bool = True) -> Checkpoint:
    """Open a checkpoint, or one network in it; an early one may hold that network alone."""
    from ticketguard.checkpoints.checkpoints import Checkpoint

    opened = Checkpoint(path)
    return opened if network is None or not (everywhere or opened.networks()) else Checkpoint(path, network=network)


def _parse_shape(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    sizes = text.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise click.UsageError(f"--input-shape is '{text}', expected sizes separated by commas, such as 3,32,32.")
    return tuple(int(size) for size in sizes)

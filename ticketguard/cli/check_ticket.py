"""``ticketguard check-ticket``: is it a winning ticket?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ticketguard.cli.group import DONE, NOT_CHECKED, NOT_SUPPORTED
from ticketguard.cli.options import (
    data_options,
    force_option,
    json_option,
    parse_assignments,
    resume_option,
    seed_type,
    take_data_options,
    take_training,
    training_options,
    trust_option,
)
from ticketguard.cli.progress import ProgressBar
from ticketguard.cli.runs import Result, open_run
from ticketguard.files import Output


@click.command(name="check-ticket", short_help="Say whether a ticket is a winning one.")
@click.argument("ticket", type=click.Path(path_type=Path))
@click.option("--seeds", type=click.IntRange(min=2), default=3, show_default=True, help="Runs of each arm.")
@click.option(
    "--seed",
    type=seed_type,
    default=0,
    show_default=True,
    help="First seed; the others follow it. A seed fixes the order of the data and the controls' random draws.",
)
@click.option(
    "--arms",
    metavar="LIST",
    help="What to compare, separated by commas: dense, ticket, reinitialised, shuffled, random_like, inverted, "
    "scratch_e, scratch_b, as_found, one_shot. Default: those that decide for this kind of ticket.",
)
@click.option("--model", help="Name or import path to use instead of the ticket's own.")
@click.option(
    "--dense-option",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change to the ticket's model options that restores the dense network, for a ticket with removed blocks.",
)
@click.option("--data", help="Name, folder, tar or import path to use instead of the ticket's own.")
@trust_option
@data_options
@training_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="check-ticket.png",
    show_default=True,
    help="Picture of the arms' accuracies.",
)
@resume_option
@force_option
@json_option
def command(
    ticket: Path,
    seeds: int,
    seed: int,
    arms: str | None,
    model: str | None,
    dense_option: tuple[str, ...],
    data: str | None,
    trust_ticket_code: bool,
    out: Path,
    resume: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Say whether TICKET is a winning one: train it, the dense network and controls the same way, over several seeds.

    Matching: its mean accuracy is at most a point, or one standard deviation, below the dense network's. Winning: it
    matches, and beats its mask with fresh weights and its shuffled mask by more than two standard errors. Every arm is
    trained with the ticket's own recipe, as changed by the options.

    A ticket that was made for release holds no weights to train it from: of it, this cannot be told.

    Exits with 0 if it is winning or matching, 1 if it is neither, 3 if it cannot be told. Finished runs are kept beside
    the picture while the check runs, so that --resume can continue after an interruption.
    """
    from ticketguard.evaluation import check_ticket
    from ticketguard.ticket import Ticket

    if out.suffix.lower() != ".png":
        raise click.UsageError(f"--out is '{out}', expected a name that ends in .png.")
    run = open_run("check", (out,), resume=resume, force=force, inputs=(ticket,))
    if (code := run.finished((out,), as_json=as_json)) is not None:
        return code
    loaded = Ticket.load(ticket, trust_code=trust_ticket_code)
    with ProgressBar() as progress:
        check = check_ticket(
            loaded,
            seeds=range(seed, seed + seeds),
            arms=None if arms is None else [name.strip() for name in arms.split(",")],
            model=model,
            dense_options=parse_assignments(dense_option, option="--dense-option"),
            data=data,
            data_options=take_data_options(options),
            training=take_training(options),
            workdir=run.folder,
            resume=resume,
            progress=progress,
        )
    from ticketguard.reporting.ticket_check import check_lines, check_picture

    result = Result(
        document={**check.to_json(), "file": str(ticket), "picture": str(out)},
        lines=[*check_lines(check), f"picture: {out}"],
        code={"neither": NOT_SUPPORTED, "inconclusive": NOT_CHECKED}.get(check.verdict, DONE),
    )
    return run.finish([Output(path=out, content=check_picture(check, title=ticket.name))], result, as_json=as_json)

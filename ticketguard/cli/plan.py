"""``ticketguard plan``: what marks of which size prove ownership after which theft, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import click

from ticketguard.cli.group import DONE, NOT_SUPPORTED
from ticketguard.cli.marking import level_option, marks_option, named_marks, setting_option, survive_option
from ticketguard.cli.options import force_option, json_option, refuse_to_replace
from ticketguard.cli.output import print_json, print_lines


@click.command(name="plan", short_help="Choose the size of a ticket's mark from what it is to survive.")
@click.argument("ticket", type=click.Path(path_type=Path))
@level_option
@survive_option
@marks_option
@setting_option
@click.option(
    "--margin",
    type=click.FloatRange(min=1),
    help="Evidence that must be left, as a multiple of what the level needs; 1.5 by default.",
)
@click.option("--picture", type=click.Path(path_type=Path), help="Draw the trade into this PNG.")
@force_option
@json_option
def command(
    ticket: Path,
    level_bits: int,
    survive: tuple[str, ...],
    marks: str,
    mark_option: tuple[str, ...],
    margin: float | None,
    picture: Path | None,
    force: bool,
    as_json: bool,
) -> int:
    """Show what marks of every size would prove after thefts of TICKET, and choose the smallest that survives.

    Nothing is planted or trained. A smaller mark moves fewer edges; a larger one leaves more evidence. The numbers are
    foreseen for copies whose channels are found, and hold for 19 copies in 20.

    \b
    Thefts, each with a percentage N:
      pruned-N     the smallest N% of the edges are pruned
      regrown-N    N% as many edges as there are are added at random
      rewired-N    the weakest N% of the edges are replaced at random, and all are retrained
      channels-N   N% of the channels between layers are removed
      tuned-dense  fine-tuned without the mask
      untouched    nothing

    Without --survive they are pruned-80, regrown-100, channels-25 and tuned-dense, each alone. One thief may take
    several steps: pruned-50+regrown-20. Exits with 0 if a size survives all, 1 if none does.
    """  # noqa: D301 click knows a list that is not to be wrapped by the character, not by its escape
    from ticketguard.files import write_whole
    from ticketguard.marking.choosing import MARGIN, SURVIVE, choose_marks
    from ticketguard.marking.release import warn_if_released
    from ticketguard.reporting.mark_choice import choice_document, choice_lines, choice_picture
    from ticketguard.ticket import Ticket

    if picture is not None:
        if picture.suffix.lower() != ".png":
            raise click.UsageError(f"--picture is '{picture}', expected a name that ends in .png.")
        refuse_to_replace((picture,), force=force, inputs=(ticket,))
    loaded = Ticket.load(ticket)
    warn_if_released(loaded, stacklevel=1)
    choice = choose_marks(
        loaded,
        survive=survive or SURVIVE,
        marks=named_marks(marks, mark_option),
        level_bits=level_bits,
        margin=MARGIN if margin is None else margin,
    )
    if picture is not None and choice.sizes:
        write_whole(picture, choice_picture(choice, title=ticket.name))
    if as_json:
        print_json(choice_document(choice, file=str(ticket)))
    else:
        print_lines(choice_lines(choice, file=str(ticket)))
    return NOT_SUPPORTED if choice.chosen is None else DONE

"""``ticketguard demo``: the whole story on a small data set."""

from __future__ import annotations

from pathlib import Path

import click

from ticketguard.cli.group import DONE, NOT_CHECKED
from ticketguard.cli.options import json_option, seed_option
from ticketguard.cli.output import print_json, print_lines
from ticketguard.cli.progress import ProgressBar


@click.command(name="demo", short_help="The whole story on a small data set, in about a minute.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="ticketguard-demo",
    show_default=True,
    help="Folder for the ticket, claim, vault, suspects, verdicts and pictures; files from an earlier demo are "
    "replaced.",
)
@seed_option("By default one is drawn.")
@json_option
def command(out: Path, seed: int | None, as_json: bool) -> int:
    """Find a ticket, mark it, steal it three times, and tell the thefts from an innocent model.

    Three thefts (fine-tuned, pruned, dense-fine-tuned), an innocent model of the same task and a wrong owner are judged
    by their weights and their answers together. Takes about a minute on two cores and downloads nothing: the data are
    scikit-learn's handwritten digits.
    """
    from ticketguard.demo import run_demo, story_lines

    with ProgressBar() as progress:
        story = run_demo(out, seed=seed, progress=progress)
    if as_json:
        print_json(story.to_json())
    else:
        print_lines(story_lines(story))
    return DONE if story.as_expected else NOT_CHECKED

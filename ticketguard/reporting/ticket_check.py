"""A ticket's check as lines for a terminal, and as a picture."""

from __future__ import annotations

import os

from ticketguard.evaluation.arms import ARMS, DENSE, TICKET, WITHOUT_START
from ticketguard.evaluation.verdict import Comparison, TicketCheck
from ticketguard.files import write_whole
from ticketguard.reporting.plots import blank_figure, own_style, png_of, set_title
from ticketguard.reporting.text import table_lines

_MEANING = {
    "winning": "as good as the dense network, and better than its controls",
    "matching": "as good as the dense network, but not shown to be better than its controls",
    "neither": "worse than the dense network",
    "inconclusive": "cannot be told, the ticket holds no rewind weights to train it from",
}
_TICKET_COLOUR, _DENSE_COLOUR, _CONTROL_COLOUR = "#c8102e", "#3b4a5a", "#7f8c99"


def check_lines(check: TicketCheck) -> list[str]:
    """Return a check as lines: the verdict, what decided it, and every arm."""
    lines = [f"{check.verdict.upper()}: {_MEANING[check.verdict]}"]
    is_told = check.verdict != "inconclusive"
    lines += [f"  {comparison_line(comparison, is_told=is_told)}" for comparison in check.comparisons]
    meanings = ARMS if is_told else {**ARMS, TICKET: WITHOUT_START}
    rows = [
        [arm.name, f"{100 * arm.mean:.2f}", f"{100 * arm.standard_error:.2f}", f"{100 * arm.density:.3g}%",
         f"{arm.epochs:g}", meanings[arm.name]]
        for arm in check.arms
    ]  # fmt: skip
    lines += ["", *table_lines(("arm", "accuracy", "s.e.", "density", "epochs", "what it is"), rows), ""]
    starts = sorted({arm.start for arm in check.arms})
    lines += [f"from {start}: {', '.join(arm.name for arm in check.arms if arm.start == start)}" for start in starts]
    lines.append(f"seeds {', '.join(map(str, check.seeds))}")
    return [*lines, *(f"note: {note}" for note in check.notes)]


def comparison_line(comparison: Comparison, *, is_told: bool = True) -> str:
    """Return one comparison, in points of accuracy; without what was needed where that decides nothing."""
    difference, bound = 100 * comparison.difference, 100 * comparison.bound
    wanted = "at least" if comparison.arm == DENSE else "more than"
    answer = "yes" if comparison.holds else "no"
    if not is_told:
        return f"{difference:+.2f} points to {comparison.arm}"
    return f"{difference:+.2f} points to {comparison.arm}, {wanted} {bound:+.2f} needed: {answer}"


def draw_check(check: TicketCheck, path: str | os.PathLike[str], *, title: str = "") -> None:
    """Write `check_picture` into a PNG file.

    Raises:
        FileError: The file cannot be written.
    """
    write_whole(path, check_picture(check, title=title))


@own_style()
def check_picture(check: TicketCheck, *, title: str = "") -> bytes:
    """Draw every arm's runs, their mean with its standard error, and what the ticket had to reach, in a PNG.

    Args:
        check: What was found.
        title: A line above the picture; the verdict follows it.
    """
    figure = blank_figure(7.0, 0.42 * len(check.arms) + 1.5)
    axis = figure.subplots()
    for row, arm in enumerate(check.arms):
        colour = {TICKET: _TICKET_COLOUR, DENSE: _DENSE_COLOUR}.get(arm.name, _CONTROL_COLOUR)
        runs = [100 * accuracy for accuracy in arm.accuracies]
        axis.scatter(runs, [row] * len(runs), s=18, color=colour, alpha=0.45, linewidths=0, zorder=2)
        axis.errorbar(100 * arm.mean, row, xerr=100 * arm.standard_error, fmt="D", color=colour, capsize=4, zorder=3)
    if check.verdict != "inconclusive":
        needed = 100 * (check.arm(DENSE).mean + check.comparisons[0].bound)
        axis.axvline(needed, color=_DENSE_COLOUR, linestyle=":", linewidth=1.2, zorder=1)
        axis.annotate(
            "matching from here →", (needed, 1.0), xycoords=("data", "axes fraction"), xytext=(3, 2),
            textcoords="offset points", fontsize=8, color=_DENSE_COLOUR,
        )  # fmt: skip
    axis.set_yticks(range(len(check.arms)), [arm.name.replace("_", " ") for arm in check.arms])
    axis.invert_yaxis()
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel(f"test accuracy in percent: {len(check.seeds)} seeds, mean and standard error")
    set_title(figure, f"{title}: {check.verdict}" if title else check.verdict)
    return png_of(figure)

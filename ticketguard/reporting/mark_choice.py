"""A choice of marks as a document, as lines for a terminal, and as a picture."""

from __future__ import annotations

import dataclasses
import shlex
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ticketguard.marking.choosing import DECODED, MarkChoice, SizedMark
from ticketguard.reporting.plots import blank_figure, own_style, png_of, set_title
from ticketguard.reporting.text import log10_text, table_lines
from ticketguard.verification.registry import USUAL, scheme
from ticketguard.verification.sizing import Foresight
from ticketguard.verification.thefts import UNTOUCHED
from ticketguard.verification.verdict import DEFAULT_LEVEL_BITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLAN_VERSION = "ticketguard.plan/2"
_WIDTH = 110
# Rows of a terminal's table above the chosen one, or in all where none is chosen; the document has every size.
_SMALLER, _ROWS = 6, 10
_CHOSEN_COLOUR, _NEEDED_COLOUR, _OTHER_COLOUR = "#c8102e", "#3b4a5a", "#9aa5b1"
# Below what the picture shows: no evidence has no place on a logarithmic axis.
_LEAST = 0.1
# Of the axis, what a label of four digits takes.
_LABEL_WIDTH = 0.06
_LINES = (
    "#3b4a5a",
    "#1b7f79",
    "#e8a33d",
    "#7fb3d5",
    "#8e5ea2",
    "#5b8c2a",
    "#b0724a",
    "#3a6ea5",
    "#d1495b",
    "#66666e",
    "#c2b280",
)


def choice_document(choice: MarkChoice, *, file: str) -> dict[str, Any]:
    """Return a choice as the document that ``docs/schema/plan.json`` describes.

    Args:
        choice: What was found.
        file: The ticket's.
    """
    return {
        "version": PLAN_VERSION,
        "file": file,
        "mark": choice.scheme,
        "survive": [theft.name for theft in choice.survive],
        "level_bits": choice.level_bits,
        "tests": len(choice.wanted),
        "looks": choice.looks,
        "needed_log10_p": choice.needed_log10_p,
        "margin": choice.margin,
        "sizes": [_size_document(sized) for sized in choice.sizes],
        "chosen": None if choice.chosen is None else dict(choice.chosen.size.settings),
        "command": None if choice.chosen is None else command_line(choice, file=file),
        "measured": list(choice.measured),
        "beside": [{"mark": name, "foreseen": _foreseen_document(seen)} for name, seen in choice.beside.items()],
    }


def _size_document(sized: SizedMark) -> dict[str, Any]:
    return {
        "settings": dict(sized.size.settings),
        "moved_edges": sized.size.moved_edges,
        "layers_auc": sized.size.layers_auc,
        "keeps": sized.keeps,
        "foreseen": _foreseen_document(sized.foreseen),
    }


def _foreseen_document(foreseen: Sequence[Foresight]) -> list[dict[str, Any]]:
    return [
        {
            "theft": seen.theft.name,
            "log10_p": seen.log10_p,
            "unlucky_log10_p": seen.unlucky_log10_p,
            **({} if seen.decoded is None else {"decoded": seen.decoded}),
        }
        for seen in foreseen
    ]


def choice_lines(choice: MarkChoice, *, file: str) -> list[str]:
    """Return a choice as lines: what was chosen and how to embed it, and every size with what thieves leave of it.

    Args:
        choice: What was found.
        file: The ticket's, for the command line.
    """
    if choice.chosen is None:
        lines = [f"NOT CHOSEN: {choice.why_none()}"]
    else:
        survived = ", ".join(theft.name for theft in choice.survive) or UNTOUCHED
        lines = [
            f"CHOSEN: {choice.scheme} with {_settings(choice.chosen)}, the smallest that survives {survived}",
            f"  {command_line(choice, file=file)}",
        ]
    if choice.sizes:
        lines += ["", *_table(choice), ""]
        lines += textwrap.wrap(_legend(choice), _WIDTH)
    below = [f"Measured: {text}." for text in choice.measured]
    below += [_besides(name, seen) for name, seen in choice.beside.items()]
    return [*lines, *(line for text in below for line in textwrap.wrap(text, _WIDTH))]


def command_line(choice: MarkChoice, *, file: str) -> str:
    """Return the command that embeds the chosen mark.

    Args:
        choice: One that has a chosen size.
        file: The ticket's.
    """
    assert choice.chosen is not None
    named = {field: f"--{option.replace('_', '-')}" for option, field in scheme(choice.scheme).options.items()}
    words = ["ticketguard", "embed", shlex.quote(file), "--owner", "owner.key"]
    for name, value in {**choice.chosen.size.settings, **_other_settings(choice.chosen)}.items():
        words += (
            [named[name], _written(value)]
            if name in named
            else ["--mark-option", shlex.quote(f"{choice.scheme}.{name}={_written(value)}")]
        )
    wanted = tuple(mark.scheme for mark in choice.wanted)
    if wanted != USUAL:
        words += ["--marks", ",".join(wanted)]
    if choice.level_bits != DEFAULT_LEVEL_BITS:
        words += ["--level-bits", str(choice.level_bits)]
    return " ".join(words)


def _other_settings(sized: SizedMark) -> dict[str, Any]:
    """Return what the mark's owner has set besides its size."""
    mark: Any = sized.size.mark
    given = {field.name: getattr(mark, field.name) for field in dataclasses.fields(mark)}
    usual = type(mark)()
    return {
        name: value
        for name, value in given.items()
        if name not in sized.size.settings and value != getattr(usual, name) and value is not None
    }


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _besides(name: str, foreseen: Sequence[Foresight]) -> str:
    left = ", ".join(f"{seen.theft.name} {round(seen.unlucky_log10_p)}" for seen in foreseen)
    return (
        f"Beside it: a ticket like this one that is found with its owner (find --owner) carries {name}, which take "
        f"nothing from it; of those 19 copies in 20 would show, as log10 p: {left}."
    )


def _settings(sized: SizedMark) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in sized.size.settings.items())


def _table(choice: MarkChoice) -> list[str]:
    required = {theft.name for theft in choice.survive}
    first = choice.sizes[0]
    header = [
        "",
        *(name.replace("_", " ") for name in first.size.settings),
        "moved",
        "AUC",
        *(f"{seen.theft.name}{'*' * (seen.theft.name in required)}" for seen in first.foreseen),
    ]
    rows = [
        [
            ">" if sized is choice.chosen else "",
            *(f"{value:g}" for value in sized.size.settings.values()),
            str(sized.size.moved_edges),
            f"{sized.size.layers_auc:.2f}",
            *(_cell(choice, seen) for seen in sized.foreseen),
        ]
        for sized in _shown(choice)
    ]
    return table_lines(header, rows)


def _shown(choice: MarkChoice) -> Sequence[SizedMark]:
    if choice.chosen is None:
        return choice.sizes[-_ROWS:]
    return choice.sizes[max(0, choice.sizes.index(choice.chosen) - _SMALLER) :]


def _cell(choice: MarkChoice, seen: Foresight) -> str:
    exponent = f"{round(seen.unlucky_log10_p)}"
    if seen.decoded is not None:
        exponent += f" {seen.decoded:.0%}"
    return exponent if choice.keeps(seen) else f"({exponent})"


def _legend(choice: MarkChoice) -> str:
    shown = ""
    if choice.sizes[0].foreseen[0].decoded is not None:
        shown = f" In percent: copies whose picture is decoded, which has to be {DECODED:.0%}."
    tests = "1 mark" if len(choice.wanted) == 1 else f"{len(choice.wanted)} marks"
    return (
        f"Under each theft: log10 p, which 19 copies in 20 reach. {choice.looks} looks are paid for; at a level of "
        f"{choice.level_bits} bits for {tests}, p of each has to be {log10_text(choice.needed_log10_p)} or less. "
        f"(In brackets): less than {choice.margin:g} times that evidence{' or decoded too rarely' if shown else ''}."
        f"{shown} *: must be survived. Moved: edges that the "
        "mark takes. AUC: how well an edge's layer alone tells that it was moved; 0.5 is not at all. All of this is "
        "computed; nothing was trained."
    )


@own_style()
def choice_picture(choice: MarkChoice, *, title: str = "") -> bytes:
    """Draw the evidence that each theft leaves, and the cost, against the size of the mark, in a PNG.

    Args:
        choice: What was found; at least one size was looked at.
        title: A line above the picture.
    """
    figure = blank_figure(8.0, 7.6)
    evidence, moved, auc = figure.subplots(3, 1, sharex=True, height_ratios=(4, 1, 1))
    shares = [_place(sized) for sized in choice.sizes]
    _draw_evidence(evidence, choice, shares)
    _draw_cost(moved, shares, [sized.size.moved_edges for sized in choice.sizes], label="edges moved")
    moved.set_yscale("log")
    _draw_cost(auc, shares, [sized.size.layers_auc for sized in choice.sizes], label="AUC by layer")
    auc.set_ylim(bottom=0.5)
    auc.set_xscale("log")
    apart = _apart(shares)
    auc.set_xticks(apart, [f"{share:g}" for share in apart], fontsize=8)
    auc.minorticks_off()
    auc.set_xlabel(_along(choice.sizes[0]))
    if choice.chosen is not None:
        for axis in (evidence, moved, auc):
            axis.axvline(_place(choice.chosen), color=_CHOSEN_COLOUR, linewidth=6, alpha=0.18, zorder=0)
    if title:
        set_title(figure, title)
    return png_of(figure)


def _place(sized: SizedMark) -> float:
    """Return where a size is drawn: at its first setting in percent, if that is a share, or at the edges it moves."""
    first = next(iter(sized.size.settings.values()))
    return 100 * first if first < 1 else sized.size.moved_edges


def _apart(places: Sequence[float]) -> list[float]:
    """Return the places on a logarithmic axis whose labels do not run into the one before."""
    step = (max(places) / min(places)) ** _LABEL_WIDTH
    found: list[float] = []
    for place in sorted(places):
        if not found or place >= step * found[-1]:
            found.append(place)
    return found


def _along(sized: SizedMark) -> str:
    name, first = next(iter(sized.size.settings.items()))
    return f"{name.replace('_', ' ')} in percent" if first < 1 else "edges moved"


def _draw_evidence(axis: Axes, choice: MarkChoice, shares: Sequence[float]) -> None:
    required = {theft.name for theft in choice.survive}
    for index, first in enumerate(choice.sizes[0].foreseen):
        wanted = first.theft.name in required
        axis.plot(
            shares, [max(_LEAST, -sized.foreseen[index].unlucky_log10_p) for sized in choice.sizes],
            marker="o", markersize=4, linewidth=2.2 if wanted else 1.1, linestyle="-" if wanted else "--",
            color=_LINES[index % len(_LINES)], label=f"{first.theft.name}{' (must survive)' if wanted else ''}",
        )  # fmt: skip
    needed = -choice.needed_log10_p
    axis.axhline(needed, color=_NEEDED_COLOUR, linestyle=":", linewidth=1.4, label=f"needed: 10^-{needed:.1f}")
    axis.axhspan(
        _LEAST, needed * choice.margin, color=_OTHER_COLOUR, alpha=0.18, linewidth=0,
        label=f"less than {choice.margin:g} times that",
    )  # fmt: skip
    if choice.chosen is not None:
        # An empty entry: the band itself runs through all panels.
        axis.plot([], [], color=_CHOSEN_COLOUR, linewidth=6, alpha=0.18, label="chosen")
    axis.set_yscale("log")
    axis.set_ylim(bottom=1.0)
    axis.set_ylabel("evidence left: -log10 p, 19 in 20 copies")
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    _trim(axis)


def _draw_cost(axis: Axes, shares: Sequence[float], costs: Sequence[float], *, label: str) -> None:
    axis.plot(shares, costs, color=_NEEDED_COLOUR, marker="o", markersize=4)
    axis.set_ylabel(label)
    _trim(axis)


def _trim(axis: Axes) -> None:
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)

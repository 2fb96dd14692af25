"""What commands print: the one way to the terminal, on which nothing foreign acts.

A tensor's name, a server's answer or a path may hold what erases a line and paints another. So commands print lines,
each of which is one line whatever is in it, or one JSON document.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click

from ticketguard.printable import MESSAGE_LIMIT, printable, visible, visible_json


def accept_all_characters() -> None:
    """Let standard output and error escape what their encoding does not have, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_lines(lines: Iterable[str], *, err: bool = False) -> None:
    """Print lines on standard output, or error; what a terminal would act on is escaped."""
    for line in lines:
        click.echo(visible(line), err=err)


def print_message(message: object) -> None:
    """Print one line of ours on standard error, which may quote anything."""
    print_lines([f"ticketguard: {printable(message, limit=MESSAGE_LIMIT)}"], err=True)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document."""
    import json

    text = visible_json(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = visible_json(json.dumps(document, indent=2, allow_nan=False))
    click.echo(text)


def print_document(document: Mapping[str, Any], *, as_json: bool, summary: Mapping[str, Any] | None = None) -> None:
    """Print *document* as JSON, or its *summary* (by default all of it) as aligned lines."""
    if as_json:
        print_json(document)
        return
    from ticketguard.reporting.text import document_lines

    print_lines(document_lines(document if summary is None else summary))


def dense_summary(ticket: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lines that say what a ticket's density leaves out, if anything.

    Args:
        ticket: The ticket's document.
    """
    if not ticket["dense_weights"]:
        return {}
    return {
        "overall_density": ticket["overall_density"],
        "note": f"{ticket['dense_weights']} weights outside the pruned layers stay dense",
    }

"""Results on standard output: one JSON document, or the same as lines for a reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document."""
    import json

    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_document(document: Mapping[str, Any], *, as_json: bool, summary: Mapping[str, Any] | None = None) -> None:
    """Print *document* as JSON, or its *summary* (by default all of it) as aligned lines."""
    if as_json:
        print_json(document)
        return
    from ticketguard.reporting.text import document_lines

    for line in document_lines(document if summary is None else summary):
        click.echo(line)

"""Verdicts and documents as lines for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ticketguard.printable import printable
from ticketguard.verification.verdict import Evidence, Status, Verdict

STATUS_WORDS: Mapping[Status, str] = {
    "supported": "supported",
    "not_supported": "not supported",
    "inconclusive": "inconclusive",
}
_MEANING: Mapping[Status, str] = {
    "supported": "the suspect derives from the ticket that the claim marks, at the required level",
    "not_supported": "no more was found than chance explains, though an intact copy would have shown the mark",
    "inconclusive": (
        "the suspect could not be aligned to the ticket, too little could be read, the evidence is above chance but "
        "below the required level, or doubts remain"
    ),
}
# Fields of evidence whose names say too little on a terminal; JSON keeps the names.
_FIELD_WORDS: Mapping[str, str] = {
    "looks": "readings corrected for",
    "attainable_log10_p": "an intact copy would show",
}
_WIDTH = 100
# Of a longer list the rest is counted; --json has all of it.
_MOST_ITEMS = 50


def log10_text(log10_p: float) -> str:
    """Return a p-value that is given by its log10, such as ``10^-128.4`` or ``0.37``."""
    return f"10^{log10_p:.1f}" if log10_p < -3 else f"{10.0**log10_p:.2g}"


def verdict_lines(verdict: Verdict) -> list[str]:
    """Return a verdict with its evidence and what the evidence rests on."""
    lines = [
        f"{STATUS_WORDS[verdict.status].upper()}: {_MEANING[verdict.status]}",
        f"  suspect    {printable(verdict.suspect)}",
        f"  claimed by {printable(verdict.owner_name)}, key {verdict.owner_public_key}",
    ]
    asked = "the verdict needs"
    if verdict.tests > 1:
        paid = f"the smallest p of {verdict.tests} tests, times {verdict.tests}"
        lines.append(f"  p          {log10_text(verdict.log10_p)}: {paid}")
        asked = f"as one of {verdict.tests} tests it needs"
    for evidence in verdict.evidence:
        lines += ["", *_evidence_lines(evidence, asked)]
    for missing in verdict.unchecked:
        lines += ["", f"{missing.mark}: could not be checked", f"  {printable(missing.reason)}"]
    return lines


def _evidence_lines(evidence: Evidence, asked: str) -> list[str]:
    lines = [
        f"{evidence.mark}: {STATUS_WORDS[evidence.status]}",
        f"  {evidence.statistic}: {evidence.observed}, {evidence.expected:.1f} expected by chance",
        f"  p = {log10_text(evidence.log10_p)}, {asked} {log10_text(evidence.threshold_log10_p)}",
    ]
    lines += [f"  {line}" for line in document_lines(_worded(evidence.details))]
    lines.append("  this rests on:")
    for assumption in evidence.assumptions:
        lines += textwrap.wrap(assumption, _WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return lines


def _worded(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return evidence's *details* under the words that a terminal shows."""
    shown = {_FIELD_WORDS.get(name, name): value for name, value in details.items() if name != "attainable_is_bound"}
    attainable = details.get("attainable_log10_p")
    if isinstance(attainable, float):
        or_less = " or less" if details.get("attainable_is_bound") else ""
        shown[_FIELD_WORDS["attainable_log10_p"]] = f"p = {log10_text(attainable)}{or_less}"
    return shown


def document_lines(document: Mapping[str, Any]) -> list[str]:
    """Return a JSON document as aligned ``name value`` lines, nested ones indented; its version marker is left out."""
    shown = {name.replace("_", " "): value for name, value in document.items() if name != "version"}
    width = max((len(name) for name in shown), default=0)
    lines: list[str] = []
    for name, value in shown.items():
        if isinstance(value, Mapping) and value:
            lines += [printable(name), *(f"  {line}" for line in document_lines(value))]
        elif _is_table(value):
            lines += [printable(name), *(f"  {_row(row)}" for row in value)]
        else:
            lines.append(f"{printable(name):<{width}}  {_plain(value)}".rstrip())
    return lines


def _is_table(value: object) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _row(row: Mapping[str, Any]) -> str:
    return "  ".join(f"{printable(str(name)).replace('_', ' ')} {_plain(value)}" for name, value in row.items())


def _plain(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        more = [f"and {len(value) - _MOST_ITEMS} more"] if len(value) > _MOST_ITEMS else []
        return ", ".join([*(_plain(item) for item in value[:_MOST_ITEMS]), *more]) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(str(name))}={_plain(item)}" for name, item in value.items()) or "none"
    return printable(str(value)) or "none"


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table with aligned columns."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    ruled = [header, ["-" * width for width in widths], *rows]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in ruled]

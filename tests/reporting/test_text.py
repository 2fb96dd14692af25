from __future__ import annotations

import dataclasses

from ticketguard.reporting.text import document_lines, log10_text, printable, table_lines, verdict_lines
from ticketguard.verification.verdict import Evidence, Verdict


def verdict(**changes: object) -> Verdict:
    evidence = Evidence(
        mark="planted-graph",
        status="supported",
        statistic="edges inside the secret set",
        observed=668,
        expected=134.0,
        log10_p=-238.2,
        threshold_log10_p=-19.3,
        details={"aligned": False, "missing_layers": []},
        assumptions=("the key was drawn at random",),
    )
    fields = {
        "status": "supported",
        "suspect": "suspect.pt",
        "owner_name": "Ada",
        "owner_public_key": "ab" * 32,
        "evidence": (evidence,),
    }
    return Verdict(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_verdict_shows_its_numbers_and_what_they_rest_on() -> None:
    lines = verdict_lines(verdict())
    assert lines[0].startswith("SUPPORTED: ")
    assert "  edges inside the secret set: 668, 134.0 expected by chance" in lines
    assert "  p = 10^-238.2, the verdict needs 10^-19.3" in lines
    assert "  - the key was drawn at random" in lines
    assert "  missing layers  none" in lines


def test_what_is_only_bounded_is_said_to_be() -> None:
    details = {"attainable_log10_p": -30.0}
    for bound, told in (({}, "p = 10^-30.0"), ({"attainable_is_bound": True}, "p = 10^-30.0 or less")):
        (evidence,) = verdict().evidence
        shown = dataclasses.replace(evidence, details={**details, **bound})
        lines = verdict_lines(verdict(evidence=(shown,)))
        assert f"  an intact copy would show  {told}" in lines
        assert not [line for line in lines if "is bound" in line]


def test_a_strangers_text_cannot_drive_the_terminal() -> None:
    text = "\n".join(verdict_lines(verdict(suspect="x\x1b[2J", owner_name="Ada\nSUPPORTED")))
    assert "\x1b" not in text
    assert "claimed by Ada\\nSUPPORTED" in text
    assert printable("naïve ≤") == "naïve ≤"
    assert printable("\x07") == "\\x07"


def test_documents_are_aligned_and_nested() -> None:
    document = {
        "version": "v/1",
        "a": 1,
        "long_name": None,
        "nested": {"x": [1, 2], "y": ""},
        "rows": [{"n": "r", "f": 0.25}],
    }
    assert document_lines(document) == [
        "a          1",
        "long name  none",
        "nested",
        "  x  1, 2",
        "  y  none",
        "rows",
        "  n r  f 0.25",
    ]


def test_p_values_are_readable_at_every_size() -> None:
    assert log10_text(-238.21) == "10^-238.2"
    assert log10_text(0.0) == "1"
    assert log10_text(-1.0) == "0.1"


def test_tables_have_aligned_columns() -> None:
    assert table_lines(("name", "n"), [("longer", "1")]) == ["name    n", "------  -", "longer  1"]

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from ticketguard.errors import FileError
from ticketguard.evaluation import ArmResult, TicketCheck, judge
from ticketguard.reporting import check_lines, draw_check


def a_check(ticket: float = 0.87, *, has_start: bool = True) -> TicketCheck:
    means = {"dense": 0.86, "ticket": ticket, "reinitialised": 0.84, "shuffled": 0.83}
    arms = tuple(
        ArmResult(name=name, accuracies=(mean - 0.002, mean + 0.002), density=0.1, epochs=5, start="a place")
        for name, mean in means.items()
    )
    verdict, comparisons = judge(arms, has_start=has_start)
    return TicketCheck(
        verdict=verdict, comparisons=comparisons, arms=arms, seeds=(0, 1), training={}, notes=("one thing",)
    )


def test_a_check_tells_its_verdict_and_the_numbers_that_decided_it() -> None:
    lines = check_lines(a_check())
    assert lines[:3] == [
        "WINNING: as good as the dense network, and better than its controls",
        "  +1.00 points to dense, at least -1.00 needed: yes",
        "  +3.00 points to reinitialised, more than +0.57 needed: yes",
    ]
    assert any(line.split()[:4] == ["shuffled", "83.00", "0.20", "10%"] for line in lines)
    assert lines[-3:] == ["from a place: dense, ticket, reinitialised, shuffled", "seeds 0, 1", "note: one thing"]
    assert check_lines(a_check(0.8))[1] == "  -6.00 points to dense, at least -1.00 needed: no"


def test_a_check_of_a_ticket_without_its_start_tells_numbers_and_no_verdict(tmp_path: Path) -> None:
    for accuracy in (0.87, 0.8):
        check = a_check(accuracy, has_start=False)
        lines = check_lines(check)
        assert lines[0] == "INCONCLUSIVE: cannot be told, the ticket holds no rewind weights to train it from"
        assert lines[1] == f"  {100 * accuracy - 86:+.2f} points to dense"
        (row,) = [line for line in lines if line.startswith("ticket ")]
        assert row.endswith("the ticket, trained on from its trained weights")
    draw_check(check, tmp_path / "untold.png")
    draw_check(a_check(0.8), tmp_path / "told.png")
    assert (tmp_path / "untold.png").read_bytes() != (tmp_path / "told.png").read_bytes()


def test_a_check_is_drawn(tmp_path: Path) -> None:
    draw_check(a_check(), tmp_path / "check.png", title="a ticket")
    with PIL.Image.open(tmp_path / "check.png") as image:
        assert image.width > 600
        assert len(image.convert("RGB").getcolors(maxcolors=100_000)) > 10
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError, match="cannot be written"):
        draw_check(a_check(), tmp_path / "file" / "check.png")

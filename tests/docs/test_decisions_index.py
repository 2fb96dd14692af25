"""docs/decisions/README.md lists every decision, by its own title."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"
STATUS = r"(?:accepted|replaced|withdrawn)\b.*"
ROW = re.compile(rf"\| \[(\d{{4}})\]\(([^)]+)\) \| (.+) \| {STATUS} \| \d{{4}}-\d{{2}}-\d{{2}} \|")


def test_the_index_lists_every_decision_once_in_order_under_its_title() -> None:
    lines = (FOLDER / "README.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| [")]
    matches = [ROW.fullmatch(row) for row in rows]
    assert all(matches), [row for row, match in zip(rows, matches, strict=True) if not match]
    listed = [(match[1], match[2], match[3]) for match in matches if match]
    files = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
    assert listed == [
        (path.name[:4], path.name, path.read_text().partition("\n")[0].removeprefix("# ")) for path in files
    ]
    assert len({number for number, _, _ in listed}) == len(listed)


def test_the_links_between_decisions_lead_somewhere() -> None:
    for page in FOLDER.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+\.md)", page.read_text()):
            assert (FOLDER / target).is_file(), f"{page.name} links to {target}"

"""Pages lead to what is there; CONTRIBUTING, CITATION and the glossary say what is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import ticketguard

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "signatures/*.md", "benchmarks/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)
# Pages that say how things are today; a decision may name files of its time.
CURRENT = [page for page in PAGES if not page.startswith(("docs/decisions/0", "CHANGELOG"))]


def anchors_of(path: Path) -> set[str]:
    """Return the fragments of a page's headings, as hosts make them: lower case, hyphens, no other punctuation."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", path.read_text()):
        found = path.parent / target if target else path
        assert found.exists(), target
        assert not anchor or anchor in anchors_of(found), f"{target}#{anchor}"


@pytest.mark.parametrize("page", CURRENT)
def test_files_that_are_named_are_there(page: str) -> None:
    named = re.findall(r"`((?:ticketguard|tests|benchmarks|signatures|docs)/[\w./-]+)`", (ROOT / page).read_text())
    is_domain_tag = re.compile(r"ticketguard/[a-z-]+/v\d+").fullmatch
    assert [name for name in named if not is_domain_tag(name) and not (ROOT / name).exists()] == []


def test_what_contributing_says_a_file_defines_is_in_it() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    pairs = re.findall(r"`(\w+)`[^`.;]*?\(`([\w/]+\.py)`", text)
    pairs += [(name, path) for name, path in re.findall(r"`(\w+)` of\s+`([\w/]+\.py)`", text)]
    assert {"PruningMethod", "Scheme", "TensorSource", "Predictor", "Removal", "CASES"} <= {name for name, _ in pairs}
    for name, path in pairs:
        nodes = ast.parse((ROOT / path).read_text()).body
        defined = {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        for node in nodes:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            defined |= {target.id for target in targets if isinstance(target, ast.Name)}
        assert name in defined, f"{path} does not define {name}"


def test_the_citation_has_this_version() -> None:
    assert f"\nversion: {ticketguard.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_glossary_defines_each_word_once_in_a_line() -> None:
    entries = [line for line in (ROOT / "docs" / "glossary.md").read_text().splitlines() if line.startswith("* ")]
    words = [match[1] for entry in entries if (match := re.match(r"\* \*\*([a-z -]+)\*\*: ", entry))]
    assert len(words) == len(entries) == len(set(words))
    verdict = {"suspect", "evidence", "verdict", "reading", "decoy", "reference", "level"}
    verdict |= {"readings corrected for", "an intact copy would show"}
    assert verdict | {"ticket", "mask", "edge", "planted graph", "trigger set", "claim", "vault"} <= set(words)

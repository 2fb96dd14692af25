"""The tables of signatures/README.md list every version and domain tag that the program has, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from ticketguard.verification import registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "signatures" / "README.md").read_text()
MARKER = re.compile(r"(?:urn:)?ticketguard[.:/][a-z][a-z0-9./:-]*[/:]v?\d+")


def texts_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            yield node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value


def test_every_version_in_the_program_is_in_the_table_and_nothing_else() -> None:
    files = sorted((ROOT / "ticketguard").rglob("*.py"))
    used = {marker for path in files for text in texts_of(path) for marker in MARKER.findall(text)}
    listed = re.findall(r"^\| `([^`]+)` \|", PAGE, flags=re.MULTILINE)
    assert all(MARKER.fullmatch(marker) for marker in listed)
    assert len(set(listed)) == len(listed)
    assert set(listed) == used


def test_every_scheme_is_listed_with_its_version() -> None:
    for name in registry.SCHEMES:
        assert f"`{name}` {registry.scheme(name).version}" in PAGE


def test_every_document_has_the_schema_that_the_table_names() -> None:
    for version, schema in re.findall(r"^\| `([^`]+)` \|.*\(\.\./docs/schema/([a-z-]+\.json)\)", PAGE, re.MULTILINE):
        text = (ROOT / "docs" / "schema" / schema).read_text()
        if version not in text:  # the verdict's is shared with other documents
            assert version in (ROOT / "docs" / "schema" / "definitions.json").read_text()
            assert "definitions.json" in text


def test_every_page_is_listed() -> None:
    pages = {path.name for path in (ROOT / "signatures").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"^\| \[([a-z-]+\.md)\]", PAGE, re.MULTILINE))

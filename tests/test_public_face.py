from __future__ import annotations

import ast
import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import ticketguard


def test_every_public_name_is_there() -> None:
    for name in ticketguard.__all__:
        assert getattr(ticketguard, name) is not None
        assert name in dir(ticketguard)


def test_what_type_checkers_see_is_what_runs() -> None:
    tree = ast.parse(Path(str(ticketguard.__file__)).read_text())
    declared = {
        alias.name: node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    del declared["annotations"], declared["TYPE_CHECKING"], declared["loader"]
    assert declared == ticketguard._HOMES
    assert sorted({*declared, "__version__"}) == sorted(ticketguard.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ticketguard' has no attribute 'steal'"):
        _ = ticketguard.steal  # type: ignore[attr-defined]


def test_the_docstrings_example_runs() -> None:
    result = doctest.testmod(ticketguard, raise_on_error=False)
    assert result.attempted >= 6
    assert result.failed == 0


@pytest.mark.parametrize(
    "code",
    [
        "import ticketguard; ticketguard.Owner; ticketguard.Ticket; ticketguard.load_credential",
        "import ticketguard; ticketguard.verify; ticketguard.prepare; ticketguard.HttpPredictor",
        "import ticketguard.reporting.documents, ticketguard.reporting",
    ],
)
def test_what_a_verifier_needs_never_imports_torch(code: str) -> None:
    check = "import sys; heavy = {'torch', 'torchvision', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", f"{code}; {check}"], check=True)

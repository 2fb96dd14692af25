from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from ticketguard.errors import ConfigurationError
from ticketguard.import_paths import is_import_path, load_object


@pytest.mark.parametrize("text", ["package:name", "package.module:Class.method", "_a:b"])
def test_package_colon_name_is_an_import_path(text: str) -> None:
    assert is_import_path(text)


@pytest.mark.parametrize("text", ["resnet20", "a/b:c", "C:\\data", "package:", ":name", "a:b:c", "a b:c"])
def test_names_and_file_paths_are_no_import_paths(text: str) -> None:
    assert not is_import_path(text)


def test_nested_attributes_are_found() -> None:
    assert load_object("pathlib:Path.cwd") == Path.cwd


def test_modules_in_the_current_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_of_a_user.py").write_text("answer = 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    assert load_object("module_of_a_user:answer") == 42


def test_what_lies_beside_a_users_module_is_found_by_it_and_its_own_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = "import importlib\ndef later():\n    return importlib.import_module('fourth_of_a_user').answer\n"
    (tmp_path / "first_of_a_user.py").write_text(f"from second_of_a_user import answer\n{later}")
    (tmp_path / "second_of_a_user.py").write_text("from third_of_a_user import answer\n")
    for name in ("third", "fourth", "fifth"):
        (tmp_path / f"{name}_of_a_user.py").write_text("answer = 42\n")
    monkeypatch.chdir(tmp_path)
    assert load_object("first_of_a_user:answer") == 42
    monkeypatch.chdir("/")
    later_on = load_object("first_of_a_user:later")
    assert callable(later_on)
    assert later_on() == 42
    with pytest.raises(ModuleNotFoundError, match="fifth_of_a_user"):
        importlib.import_module("fifth_of_a_user")


def test_a_part_that_an_installed_package_lacks_is_not_taken_from_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asks_for_a_part.py").write_text("import json.speedups_of_none\n")
    (tmp_path / "speedups_of_none.py").write_text("raise AssertionError('ran')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="No module named 'json.speedups_of_none'"):
        load_object("asks_for_a_part:f")


def test_another_form_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'nets' is not an import path, expected package\.module:name"):
        load_object("nets")


def test_a_missing_module_is_named() -> None:
    with pytest.raises(ConfigurationError, match="module 'no_such_module' of 'no_such_module:net' cannot be imported"):
        load_object("no_such_module:net")


def test_a_missing_attribute_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'pathlib' has no 'Pth', which 'pathlib:Pth' names"):
        load_object("pathlib:Pth")


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        ("raise ValueError('no')", r"ValueError \(no\)"),
        ("import sys; sys.exit(0)", r"SystemExit \(0\)"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_module_that_fails_is_not_called_a_bug_of_ours(
    code: str, raised: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_module_of_a_user.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    with pytest.raises(ConfigurationError, match=f"module 'failing_module_of_a_user' of .* raised {raised}"):
        load_object("failing_module_of_a_user:f")

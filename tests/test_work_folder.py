from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ticketguard.errors import ConfigurationError, FileError, TicketguardWarning
from ticketguard.work_folder import LOCK_FILE, RECORD_FILE, delete, hold, is_spent, keeps_nothing

LAST = ["embed.secret", LOCK_FILE, RECORD_FILE]
STATE = ["a.checkpoint", "z.ticket", "embed.created", "x-1-0123456789abcdef.json", ".0123.part"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (*STATE, *LAST):
        (folder / name).write_bytes(b"x")
    return folder


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names in the order they are deleted in."""
    names: list[str] = []
    unlink = Path.unlink

    def note(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        names.append(path.name)

    monkeypatch.setattr(Path, "unlink", note)
    return names


def test_secrets_outlive_what_was_made_with_them_and_the_record_goes_last(folder: Path, gone: list[str]) -> None:
    (folder / "zz").mkdir()
    delete(folder)
    assert sorted(gone[:-3]) == sorted(STATE)
    assert gone[-3:] == LAST
    assert not folder.exists()


def test_a_run_started_anew_deletes_in_that_order_too_and_nothing_of_others(folder: Path, gone: list[str]) -> None:
    (folder / "notes.txt").write_bytes(b"mine")
    with hold(folder):
        pass
    assert gone == []
    with hold(folder, anew=True):
        assert sorted(gone[:-2]) == sorted(STATE)
        assert gone[-2:] == ["embed.secret", RECORD_FILE]
        assert sorted(os.listdir(folder)) == ["notes.txt", LOCK_FILE]  # noqa: PTH208


def test_a_folder_that_no_run_used_is_left_as_it_is(folder: Path, gone: list[str]) -> None:
    (folder / LOCK_FILE).unlink()
    gone.clear()
    with hold(folder, anew=True):
        assert gone == []


def test_one_run_holds_a_folder_and_another_deletes_nothing_in_it(folder: Path, gone: list[str]) -> None:
    with (
        hold(folder),
        pytest.raises(ConfigurationError, match="another run is using"),
        hold(folder, anew=True),
    ):
        pass
    assert gone == []
    with hold(folder):
        pass


def test_a_new_folder_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with hold(tmp_path / "new"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / LOCK_FILE).stat().st_mode) == 0o600


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="cannot be written to"), hold(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_what_holds_no_run(tmp_path: Path, folder: Path) -> None:
    assert is_spent(tmp_path / "nowhere")
    assert not is_spent(folder)
    delete(folder)
    delete(folder)
    folder.mkdir()
    assert is_spent(folder)


def test_a_folder_that_cannot_be_deleted_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", denied)
    with pytest.warns(TicketguardWarning, match=r"could not be deleted \(Permission denied\) and may hold"):
        delete(folder)
    assert (folder / RECORD_FILE).exists()


def test_what_is_linked_to_stays(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_bytes(b"x")
    (folder / "link").symlink_to(tmp_path / "other")
    delete(folder)
    assert (tmp_path / "other" / "file").exists()


def test_a_failed_run_leaves_no_folder_that_it_made_for_nothing(tmp_path: Path) -> None:
    def fail(folder: Path, *, keeping: bool = False) -> None:
        with hold(folder):
            if keeping:
                (folder / "embed.secret").write_bytes(b"x")
            raise KeyboardInterrupt

    (tmp_path / "given").mkdir()
    for name in ("new", "used", "given"):
        with pytest.raises(KeyboardInterrupt):
            fail(tmp_path / name, keeping=name == "used")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "used"]
    assert (tmp_path / "used" / "embed.secret").read_bytes() == b"x"


def test_nothing_is_kept_in_a_folder_of_a_lock_alone(folder: Path, tmp_path: Path) -> None:
    assert keeps_nothing(tmp_path / "nowhere")
    assert not keeps_nothing(folder)
    for path in folder.iterdir():
        if path.name != LOCK_FILE:
            path.unlink()
    assert keeps_nothing(folder)
    (folder / LOCK_FILE).unlink()
    assert keeps_nothing(folder)

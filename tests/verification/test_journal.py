from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from ticketguard.errors import FileError, UnknownVersionError
from ticketguard.verification import journal as journals
from ticketguard.verification.journal import Answer, Questioned, open_journal

OURS = Questioned(commitment="ab" * 32, trigger_root="cd" * 32, suspect="http://host/v2/models/m")


def write(path: Path, answers: list[Answer]) -> None:
    with open_journal(path, OURS, classes=10) as journal:
        for answer in answers:
            journal.add_trigger(answer)


def read(path: Path | None, questioned: Questioned = OURS, *, classes: int = 10) -> list[Answer]:
    with open_journal(path, questioned, classes=classes) as journal:
        return list(journal.triggers)


def test_answers_are_there_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "new" / "journal.jsonl"
    write(path, [3, None, 9])
    with open_journal(path, OURS, classes=10) as journal:
        assert (journal.triggers, journal.resumed) == ([3, None, 9], 3)
        journal.add_trigger(0)
        journal.add_control("ef" * 32, 7)
        assert journal.resumed == 3
    with open_journal(path, OURS, classes=10) as journal:
        assert (journal.triggers, journal.controls) == ([3, None, 9, 0], {"ef" * 32: 7})


def test_a_journal_without_answers_leaves_nothing_even_if_somebody_was_faster(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, [])
    assert not path.exists()
    with open_journal(path, OURS, classes=10):
        path.unlink()


def test_each_answer_is_on_disk_before_the_next_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    path = tmp_path / "journal.jsonl"
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(path.read_bytes()))
    with open_journal(path, OURS, classes=10) as journal:
        journal.add_trigger(3)
        journal.add_trigger(4)
    assert [content.count(b"\n") for content in synced] == [1, 2, 3]
    assert synced[-1] == path.read_bytes()


def test_a_journal_is_private_and_holds_neither_inputs_nor_secrets(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    mask = os.umask(0)
    try:
        write(path, [3])
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first, second = map(json.loads, path.read_text().splitlines())
    assert set(first) == {"version", "commitment", "trigger_root", "suspect", "check"}
    assert set(second) == {"trigger", "answer", "check"}


def test_nothing_is_left_where_nothing_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, [])
    assert not path.exists()
    write(path, [None, None])  # perhaps asked in a wrong way: not final
    assert not path.exists()


def test_unusable_answers_are_final_once_there_is_a_usable_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, [None, None, 4, None])
    assert read(path) == [None, None, 4, None]


def test_without_a_file_answers_are_kept_for_the_run(tmp_path: Path) -> None:
    with open_journal(None, OURS, classes=10) as journal:
        journal.add_trigger(3)
        assert journal.triggers == [3]


@pytest.mark.parametrize("lost", [1, 20, 60])
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, [3, 4, 5])
    path.write_bytes(path.read_bytes()[: -min(lost, len(path.read_bytes().splitlines()[-1]))])
    assert read(path) == [3, 4]
    write(path, [6])
    assert read(path) == [3, 4, 6]


def test_a_torn_first_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, [3])
    path.write_bytes(path.read_bytes()[:40])
    write(path, [5])
    assert read(path) == [5]


@pytest.mark.parametrize(
    "other",
    [
        Questioned(commitment="00" * 32, trigger_root=OURS.trigger_root, suspect=OURS.suspect),
        Questioned(commitment=OURS.commitment, trigger_root="00" * 32, suspect=OURS.suspect),
        Questioned(commitment=OURS.commitment, trigger_root=OURS.trigger_root, suspect="http://other/v2/models/m"),
    ],
)
def test_a_journal_is_of_one_claim_and_one_suspect(tmp_path: Path, other: Questioned) -> None:
    write(tmp_path / "journal.jsonl", [3])
    before = (tmp_path / "journal.jsonl").read_bytes()
    what = "claim" if other.suspect == OURS.suspect else f"suspect '{OURS.suspect}'"
    with pytest.raises(FileError, match=rf"is the journal of another verification \(of another {what}\)"):
        read(tmp_path / "journal.jsonl", other)
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [*lines[:2], lines[2].replace(b'"answer": 4', b'"answer": 5'), *lines[3:]],
        lambda lines: [*lines[:2], *lines[3:]],
        lambda lines: [*lines[:2], lines[3], lines[2]],
        lambda lines: [*lines, lines[3]],
        lambda lines: [*lines, b"\xff\n"],
        lambda lines: [*lines, b"[1]\n"],
        lambda lines: [*lines, b"[" * 100_000 + b"\n"],
        lambda lines: [*lines, b"9" * 100_000 + b"\n"],
        lambda lines: [*lines, b"\n"],
    ],
)
def test_a_changed_journal_is_refused_and_left_alone(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, [3, 4, 5])
    path.write_bytes(b"".join(damage(lines_of(path))))  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(FileError, match=r"line [345] is damaged or was changed"):
        read(path)
    assert path.read_bytes() == before


def test_an_answer_that_the_claim_has_no_class_for_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "journal.jsonl", [3, 9])
    with pytest.raises(FileError, match="line 3 is damaged"):
        read(tmp_path / "journal.jsonl", classes=9)


@pytest.mark.parametrize(
    "body",
    [
        {"trigger": 1, "answer": True},
        {"trigger": 1, "answer": 1.0},
        {"trigger": 1, "answer": "1"},
        {"trigger": 1, "answer": -1},
        {"trigger": 1},
        {"trigger": 2, "answer": 1},
        {"trigger": 1, "answer": 1, "more": 1},
        {"control": "ab", "answer": 10},
        {"control": "ab", "answer": 1, "more": 1},
        {"control": 3, "answer": 1},
        {"answer": 1},
    ],
)
def test_a_line_that_was_forged_with_its_digest_is_read_as_strictly(tmp_path: Path, body: dict[str, object]) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, [3])
    previous = json.loads(lines_of(path)[-1])["check"]
    line = {**body, "check": journals._next_check(previous, body)}
    path.write_bytes(path.read_bytes() + json.dumps(line).encode() + b"\n")
    with pytest.raises(FileError, match="line 3 is damaged or was changed"):
        read(path)


def test_a_journal_is_read_up_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, [3])
    monkeypatch.setattr(journals, "MAX_JOURNAL_BYTES", path.stat().st_size)
    assert read(path) == [3]
    monkeypatch.setattr(journals, "MAX_JOURNAL_BYTES", path.stat().st_size - 1)
    with pytest.raises(FileError, match=r"has \d+ bytes, expected a journal"):
        read(path)


def test_answers_to_ordinary_inputs_alone_are_kept_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path, OURS, classes=10) as journal:
        journal.add_control("ab", 3)
    with open_journal(path, OURS, classes=10) as journal:
        assert journal.controls == {"ab": 3}


@pytest.mark.parametrize("content", [b"notes", b"notes\n", b"[]\n", b'{"a": 1}\n', b"\0" * 10, b"\0\n"])
def test_somebodys_own_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(FileError, match="is not a journal"):
        read(path)
    assert path.read_bytes() == content


def test_a_newer_journal_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "VERSION", "ticketguard.journal/9")
    write(tmp_path / "journal.jsonl", [3])
    monkeypatch.undo()
    with pytest.raises(UnknownVersionError, match=r"ticketguard\.journal/9"):
        read(tmp_path / "journal.jsonl")


def test_two_verifications_do_not_share_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with (
        open_journal(path, OURS, classes=10),
        pytest.raises(FileError, match="is in use by another verification"),
        open_journal(path, OURS, classes=10),
    ):
        pass


def test_links_pipes_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("link", ".", "pipe"):
        with pytest.raises(FileError, match="cannot be opened as a journal|is not a file"):
            read(tmp_path / name)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_full_disk_keeps_the_answer_for_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    whole = os.write
    with open_journal(path, OURS, classes=10) as journal:
        journal.add_trigger(3)
        monkeypatch.setattr(os, "write", lambda handle, line: whole(handle, line[:7]))
        with pytest.raises(FileError, match="cannot be written"):
            journal.add_trigger(4)
        assert journal.triggers == [3, 4]
    monkeypatch.undo()
    assert read(path) == [3]

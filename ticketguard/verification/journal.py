"""The journal of a questioning: answers that a suspect gave, each on disk before the next question is put.

A file of JSON lines. The first one says which claim and which suspect the others belong to; each of the others is one
answer. Every line carries a digest of all lines so far: a line that was lost, moved or changed is detected. Questions
are put in one order and an answer that was recorded is final: a later run can neither choose nor repeat.

A journal is only as trustworthy as its writer, like anybody's notes: it is not signed. Together with the vault it shows
which class the suspect gave to which trigger, so it is as private as the vault is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ticketguard.errors import FileError, UnknownVersionError

VERSION = "ticketguard.journal/1"
# A hundred thousand triggers take a twelfth of it.
MAX_JOURNAL_BYTES = 2**27
CHECK_HEX = 16

Answer = int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questioned:
    """What a journal belongs to.

    Attributes:
        commitment: The claim's commitment of the trigger set, hex.
        trigger_root: The claim's Merkle root of the triggers, hex.
        suspect: What was asked, as verdicts name it.
    """

    commitment: str
    trigger_root: str
    suspect: str


class Journal:
    """The answers so far, and the file that keeps them if there is one.

    Attributes:
        triggers: Answers to the triggers in order; None for one that is not a prediction.
        controls: Answers to ordinary inputs, by the SHA-256 of the input, hex.
        resumed: How many answers to triggers the file held when it was opened.
    """

    def __init__(self) -> None:
        self.triggers: list[Answer] = []
        self.controls: dict[str, Answer] = {}
        self.resumed = 0
        self._path: Path | None = None
        self._handle = -1
        self._check = ""
        self._written = 0

    def add_trigger(self, answer: Answer) -> None:
        """Record the answer to the next trigger.

        Unusable answers wait for the first usable one: until then they may be the fault of how the suspect is asked.

        Raises:
            FileError: It cannot be written; the answer counts all the same.
        """
        self.triggers.append(answer)
        if not self.has_usable:
            return
        for index in range(self._written, len(self.triggers)):
            self._append({"trigger": index, "answer": self.triggers[index]})
            self._written += 1

    def add_control(self, digest: str, answer: Answer) -> None:
        """Record the answer to an ordinary input.

        Raises:
            FileError: It cannot be written; the answer counts all the same.
        """
        self.controls[digest] = answer
        self._append({"control": digest, "answer": answer})

    @property
    def has_usable(self) -> bool:
        """Whether a trigger was answered with a class."""
        return any(answer is not None for answer in self.triggers)

    def _append(self, body: dict[str, Any]) -> None:
        if self._path is None:
            return
        self._check = _next_check(self._check, body)
        line = json.dumps({**body, "check": self._check}).encode() + b"\n"
        try:
            if os.write(self._handle, line) != len(line):
                raise OSError(0, "no space left")
            os.fsync(self._handle)
        except OSError as error:
            # What is torn is cut off when the file is next opened.
            raise FileError(
                path=self._path, reason=f"cannot be written ({error.strerror})", hint="free some space and run again"
            ) from error


@contextlib.contextmanager
def open_journal(path: Path | None, questioned: Questioned, *, classes: int) -> Iterator[Journal]:
    """Open the journal at *path*, new or begun; without a path, one in memory.

    Args:
        path: The file; a new one is created for its owner alone (0600), and removed again if nothing was answered.
        questioned: The claim and suspect that it must belong to.
        classes: Answers are below this.

    Raises:
        FileError: The file belongs to another claim or suspect, is damaged, in use, or cannot be written.
        UnknownVersionError: It was written by a newer release.
    """
    journal = Journal()
    if path is None:
        yield journal
        return
    handle = _open(path)
    try:
        _read_into(journal, path, handle, questioned, classes=classes)
        yield journal
    finally:
        if journal._path is not None and not journal._written and not journal.controls:
            path.unlink(missing_ok=True)
        os.close(handle)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not blocking: a named pipe would wait for its other end. Never through a link.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(path, flags, 0o600)
    except OSError as error:
        raise FileError(
            path=path, reason=f"cannot be opened as a journal ({error.strerror})", hint="name a file in your own folder"
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise FileError(path=path, reason="is not a file", hint="name a file in your own folder")
        _lock(path, handle)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _lock(path: Path, handle: int) -> None:
    """Keep a second verification out for as long as the file is open."""
    import fcntl  # only where there is a journal: not every system has it

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise FileError(
            path=path, reason="is in use by another verification", hint="wait for it, or name another journal"
        ) from error


def _read_into(journal: Journal, path: Path, handle: int, questioned: Questioned, *, classes: int) -> None:
    size = os.fstat(handle).st_size
    if size > MAX_JOURNAL_BYTES:
        raise FileError(path=path, reason=f"has {size} bytes, expected a journal", hint="name another file")
    content = os.pread(handle, size, 0)
    whole, newline, torn = content.rpartition(b"\n")
    lines = whole.split(b"\n") if newline else []
    if not lines and not _is_torn_header(torn):
        raise FileError(path=path, reason="is not a journal of a verification", hint="name another file")
    for number, line in enumerate(lines, start=1):
        body = _read_line(path, line, number, previous=journal._check)
        journal._check = _next_check(journal._check, body)
        if number == 1:
            _check_header(path, body, questioned)
        else:
            _take(journal, path, body, number, classes=classes)
    # A kill in the middle of a line leaves it torn; the question is put again.
    os.ftruncate(handle, len(content) - len(torn))
    journal._path, journal._handle = path, handle
    journal.resumed = journal._written = len(journal.triggers)
    if not lines:
        journal._append({"version": VERSION, **dataclasses.asdict(questioned)})


def _is_torn_header(torn: bytes) -> bool:
    start = b'{"version": "ticketguard.journal/'
    return torn[: len(start)] == start[: len(torn)]


def _next_check(previous: str, body: dict[str, Any]) -> str:
    content = previous + json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:CHECK_HEX]


def _read_line(path: Path, line: bytes, number: int, *, previous: str) -> dict[str, Any]:
    try:
        body = json.loads(line)
        check = body.pop("check")
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        raise _damaged(path, number) from error
    if number == 1 and body.get("version") != VERSION:
        raise UnknownVersionError(what=f"journal '{path}'", found=str(body.get("version"))[:60], known=(VERSION,))
    if check != _next_check(previous, body):
        raise _damaged(path, number)
    return dict(body)


def _check_header(path: Path, body: dict[str, Any], questioned: Questioned) -> None:
    if body == {"version": VERSION, **dataclasses.asdict(questioned)}:
        return
    other = f"suspect {body.get('suspect')!r}" if body.get("suspect") != questioned.suspect else "claim"
    raise FileError(
        path=path,
        reason=f"is the journal of another verification (of another {other}), expected one of {questioned.suspect!r}",
        hint="name another file",
    )


def _take(journal: Journal, path: Path, body: dict[str, Any], number: int, *, classes: int) -> None:
    answer = body.get("answer", -1)
    usable = answer is None or (type(answer) is int and 0 <= answer < classes)
    if usable and body == {"trigger": len(journal.triggers), "answer": answer}:
        journal.triggers.append(answer)
    elif usable and isinstance(body.get("control"), str) and body == {"control": body["control"], "answer": answer}:
        journal.controls[body["control"]] = answer
    else:
        raise _damaged(path, number)


def _damaged(path: Path, number: int) -> FileError:
    if number == 1:
        return FileError(path=path, reason="is not a journal of a verification", hint="name another file")
    return FileError(
        path=path,
        reason=f"line {number} is damaged or was changed",
        hint="its answers cannot be used: move it away to ask again",
    )

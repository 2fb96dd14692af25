"""A long command's run: what it may replace, its folder, and its end, which may be cut short anywhere and resumed.

A run ends in this order: note what will be written, write all of it, print, delete the folder. A run that is resumed
after the writing finds files that are its own, and prints what it would have printed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ticketguard.cli.group import DONE
from ticketguard.cli.options import refuse_to_replace
from ticketguard.cli.output import print_json, print_lines, print_message
from ticketguard.errors import ConfigurationError, FileError
from ticketguard.files import SECRET, Output, write_together, write_whole
from ticketguard.work_folder import RECORD_FILE, delete, hold, is_spent, keeps_nothing

VERSION = "ticketguard.run/1"
LONGEST_NAME_BYTES = 255


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a command prints in the end.

    Attributes:
        document: For --json.
        lines: For a reader.
        notes: For standard error, with both.
        code: The exit code.
    """

    document: Mapping[str, Any]
    lines: Sequence[str]
    notes: Sequence[str] = ()
    code: int = DONE

    def show(self, *, as_json: bool) -> int:
        """Print it, and return the exit code."""
        if as_json:
            print_json(self.document)
        else:
            print_lines(self.lines)
        for note in self.notes:
            print_message(note)
        return self.code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run of a long command.

    Attributes:
        folder: Where it keeps its state while it lasts.
        force: Whether it may replace files that it did not write.
        written: What runs kept in this folder have put under which name, as digests.
        result: What the run was to print, if it came so far.
    """

    folder: Path
    force: bool
    written: Mapping[str, Sequence[str]]
    result: Result | None

    def finished(self, outputs: Sequence[Path], *, as_json: bool) -> int | None:
        """End a run that had written all of its *outputs*; its exit code, or None if there is more to do."""
        if self.result is None or not all(self._is_own(path) for path in outputs):
            return None
        with hold(self.folder):
            code = self.result.show(as_json=as_json)
            delete(self.folder)
        return code

    def finish(self, outputs: Sequence[Output], result: Result, *, as_json: bool) -> int:
        """Write the *outputs*, print the *result*, and delete the folder, which is kept if either cannot be done.

        Raises:
            FileError: A file cannot be written.
            OutputExistsError: One is there now and was not when the run began.
        """
        own = [dataclasses.replace(one, replace=self.force or self._is_own(one.path)) for one in outputs]
        with hold(self.folder):
            try:
                self._note(own, result)
                write_together(own)
            except FileError as error:
                hint = f"{error.hint}; nothing is lost: continue with --resume"
                raise type(error)(path=error.path, reason=error.reason, hint=hint) from error
            code = result.show(as_json=as_json)
            delete(self.folder)
        return code

    def _note(self, outputs: Sequence[Output], result: Result) -> None:
        written = {name: list(digests) for name, digests in self.written.items()}
        for output in outputs:
            written.setdefault(_name(output.path), []).append(hashlib.sha256(output.content).hexdigest())
        document = {"version": VERSION, "written": written, "result": dataclasses.asdict(result)}
        write_whole(self.folder / RECORD_FILE, json.dumps(document).encode(), mode=SECRET)

    def _is_own(self, path: Path) -> bool:
        digests = self.written.get(_name(path), ())
        return bool(digests) and _digest(path) in digests


def open_run(
    command: str,
    outputs: tuple[Path, ...],
    *,
    resume: bool,
    force: bool,
    inputs: tuple[Path | None, ...],
) -> Run:
    """Return the run of *command* that writes *outputs*, the first of which its folder is named after.

    Raises:
        ConfigurationError: Outputs that the run did not write exist and *force* is not set, they are inputs, or neither
            --resume nor --force says what to do with an earlier run.
        FileError: An output is a folder or device, or its folder cannot be written to.
    """
    folder = _folder_of(outputs[0], command)
    _require_own(folder)
    if resume:
        _require_run(folder, outputs)
    run = _read(folder, force=force) if resume else Run(folder=folder, force=force, written={}, result=None)
    own = tuple(path for path in outputs if run._is_own(path))
    refuse_to_replace(outputs, force=force, inputs=inputs, own=own)
    if not (resume or force or keeps_nothing(folder)):
        raise ConfigurationError(
            f"'{folder}' holds an interrupted run: continue with --resume, or start again with --force"
        )
    return run


def _require_run(folder: Path, outputs: Sequence[Path]) -> None:
    """Check that there is a run to resume.

    Raises:
        ConfigurationError: There is none, or it has finished: its folder was emptied, and not yet removed.
    """
    there = [path for path in outputs if path.exists()]
    if not folder.exists():
        raise ConfigurationError(f"'{folder}' does not exist: there is no run to resume; start one without --resume")
    if is_spent(folder) and len(there) == len(outputs):
        written = ", ".join(f"'{path}'" for path in there)
        raise ConfigurationError(
            f"'{folder}' is empty: the run has finished and wrote {written}; delete the folder, or begin anew with "
            "--force and without --resume"
        )
    if is_spent(folder) and there:
        raise ConfigurationError(f"'{folder}' is empty: there is no run to resume; start one without --resume")


def _require_own(folder: Path) -> None:
    """Check that a run's folder, if it is there, is the user's, and keep others out of it.

    Raises:
        ConfigurationError: It is a link, or somebody else's, who could put another secret into it.
    """
    if not os.path.lexists(folder):
        return
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "geteuid") and os.geteuid() not in (0, found.st_uid)):
        raise ConfigurationError(
            f"'{folder}' is not a folder of yours, and the run would keep its secret there: move it away, or choose "
            "another name for the output"
        )
    folder.chmod(0o700)  # earlier releases made it as the umask said


def _folder_of(out: Path, command: str) -> Path:
    name = f"{out.name}.{command}-run"
    if len(name.encode(errors="surrogateescape")) > LONGEST_NAME_BYTES:
        name = f"{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()}.{command}-run"
    return out.with_name(name)


def _read(folder: Path, *, force: bool) -> Run:
    """Read what an interrupted run noted of its end; a note that is missing or not ours says nothing."""
    try:
        document = json.loads((folder / RECORD_FILE).read_bytes())
        if document["version"] != VERSION:
            raise ValueError(document["version"])
        return Run(folder=folder, force=force, written=document["written"], result=Result(**document["result"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Run(folder=folder, force=force, written={}, result=None)


def _name(path: Path) -> str:
    return str(path.absolute())


def _digest(path: Path) -> str:
    """Return a file's digest; one that no file has for what cannot be read, or is a link."""
    if path.is_symlink():
        return ""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""

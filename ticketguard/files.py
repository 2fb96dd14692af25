"""Files appear whole or not at all: the one way anything here is written."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from ticketguard.errors import FileError

PIECE_BYTES = 1024 * 1024


def write_whole(path: str | os.PathLike[str], content: bytes, *, mode: int = 0o644) -> None:
    """Write *content* to *path* through a temporary file in the same folder and an atomic rename.

    Args:
        path: The file to create or replace; missing parent folders are created.
        content: Its whole content.
        mode: Permission bits; secrets use 0o600.

    Raises:
        FileError: The folder cannot be written to, or *path* is a folder or device.
    """
    target = Path(path)
    _require_replaceable(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise FileError(
            path=path, reason=f"cannot be written ({error.strerror})", hint="choose a folder you can write to"
        ) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise FileError(
                path=path,
                reason=f"cannot be written ({error.strerror})",
                hint="free some space or choose another folder",
            ) from error
        raise


def require_writable(path: str | os.PathLike[str]) -> None:
    """Find out, before long work starts, whether `write_whole` could write *path*; nothing is left behind.

    Raises:
        FileError: It is a folder or device, or its folder cannot be written to.
    """
    target = Path(path)
    _require_replaceable(target)
    # Permission bits do not tell (root, read-only mounts, /proc), so a nameless file is written and dropped.
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FileError(
            path=path, reason=f"cannot be written ({error.strerror})", hint="choose a folder you can write to"
        ) from error


def _require_replaceable(target: Path) -> None:
    # A rename would put a file in the place of a device such as /dev/null.
    if target.exists() and not target.is_file():
        kind = "folder" if target.is_dir() else "device or pipe"
        raise FileError(path=target, reason=f"is a {kind}, expected a file to write", hint="choose another name")


def read_whole(path: str | os.PathLike[str], *, limit_bytes: int) -> bytes:
    """Read a file that must not be larger than *limit_bytes*; memory is taken for what is there, not for the limit.

    A pipe is read to its end, and one that nobody writes to is not waited for.

    Raises:
        FileError: The file is missing, unreadable or too large, or a pipe without a writer.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as stream:
            found = os.fstat(stream.fileno())
            # One byte more than allowed tells, also where a size is not known beforehand (a pipe, a device).
            pieces = [stream.read(min(found.st_size, limit_bytes) + 1)]
            while pieces[-1] and (rest := limit_bytes + 1 - sum(map(len, pieces))) > 0:
                pieces.append(stream.read(min(rest, PIECE_BYTES)))
            content = b"".join(pieces)
    except MemoryError as error:
        raise FileError(
            path=path, reason="is larger than the memory there is", hint="check that it is the file you meant"
        ) from error
    except OSError as error:
        raise FileError(
            path=path, reason=f"cannot be read ({error.strerror})", hint="check its name and permissions"
        ) from error
    if len(content) > limit_bytes:
        raise FileError(
            path=path,
            reason=f"has more than {limit_bytes} bytes",
            hint="check that it is the file you meant",
        )
    if not content and stat.S_ISFIFO(found.st_mode):
        raise FileError(path=path, reason="is a pipe that nobody writes to", hint="start its writer first")
    return content


def _open_at_once(path: str, flags: int) -> int:
    # Opening a pipe otherwise waits for a writer, for ever if none comes; reading one that has none ends at once.
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if hasattr(os, "set_blocking"):
        os.set_blocking(descriptor, True)
    return descriptor

"""Files appear whole or not at all, and are on disk when a call returns: the one way anything here is written."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from ticketguard.errors import FileError, OutputExistsError
from ticketguard.staging import forget_dead_writer, is_there, open_temporary, temporary_name

PIECE_BYTES = 1024 * 1024
# Permission bits before the process's umask takes its part: files for everybody, and secrets.
PUBLIC, SECRET = 0o666, 0o600
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """A file to be written.

    Attributes:
        path: Its name; missing parent folders are created.
        content: Its whole content.
        mode: Permission bits, less what the umask takes; secrets are `SECRET` from their first byte.
        replace: Whether it may take the place of a file; of a symbolic link, the link is replaced, not its target.
    """

    path: Path
    content: bytes = dataclasses.field(repr=False)
    mode: int = PUBLIC
    replace: bool = True


def write_whole(path: str | os.PathLike[str], content: bytes, *, mode: int = PUBLIC) -> None:
    """Write *content* to *path* through a temporary file in the same folder and an atomic rename.

    Args:
        path: The file to create or replace; missing parent folders are created.
        content: Its whole content.
        mode: Permission bits, less what the umask takes; secrets use `SECRET`.

    Raises:
        FileError: The folder cannot be written to or is full, or *path* is a folder or device.
    """
    write_together([Output(path=Path(path), content=content, mode=mode)])


def write_together(outputs: Sequence[Output]) -> None:
    """Write files that belong together: no name is touched before the content of all is on disk.

    They appear in the order given; when the call returns, their names are on disk too.

    Raises:
        FileError: As `write_whole`.
        OutputExistsError: A file that must not be replaced exists.
    """
    for output in outputs:
        _require_replaceable(output.path)
        forget_dead_writer(temporary_name(output.path))
        if not output.replace and os.path.lexists(output.path):
            raise _exists(output.path)
    new = [output for output in outputs if not os.path.lexists(output.path)]
    with contextlib.ExitStack() as staged:
        ready = [(output, *staged.enter_context(_staged(output))) for output in outputs]
        try:
            for output, temporary, _ in ready:
                with _naming(output.path):
                    _publish(output, temporary)
            for folder in {output.path.absolute().parent: None for output in outputs}:
                with _naming(folder):
                    _sync_folder(folder)
        except BaseException:
            # A second attempt must not find new files in the way whose companions could not be written.
            for output, _, descriptor in ready:
                if output in new and is_there(output.path, descriptor):
                    with contextlib.suppress(OSError):
                        output.path.unlink()
            raise


def require_writable(path: str | os.PathLike[str]) -> None:
    """Find out, before long work starts, whether `write_whole` could write *path*; nothing is left behind.

    What a writer that was killed left beside *path* is removed.

    Raises:
        FileError: It is a folder or device, or its folder cannot be written to.
    """
    target = Path(path)
    require_room({target: 0})
    forget_dead_writer(temporary_name(target))


def require_new(path: str | os.PathLike[str]) -> None:
    """Find out, before anything is asked for, whether *path* is there, which a new file must not replace.

    Raises:
        OutputExistsError: It is.
    """
    if os.path.lexists(path):
        raise _exists(Path(path))


def require_room(sizes: Mapping[Path, int]) -> None:
    """Find out, before long work starts, whether files of these sizes, in bytes, have room beside each other.

    The room is taken and given back, so quotas and limits on a file's size count like a full disk.

    Raises:
        FileError: One has no room, or cannot be written at all.
    """
    with contextlib.ExitStack() as taken:
        for target, size in sizes.items():
            _require_replaceable(target)
            # Permission bits do not tell (root, read-only mounts, /proc), so a nameless file is written and dropped.
            folder = next(parent for parent in target.absolute().parents if parent.exists())
            with _naming(target, needs=size):
                file = taken.enter_context(tempfile.TemporaryFile(dir=folder))
                _allocate(file.fileno(), size)


def _allocate(descriptor: int, size: int) -> None:
    if not size or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODEV):
            raise


def _require_replaceable(target: Path) -> None:
    """Refuse what a rename must not, or will not, take the place of."""
    with _naming(target):
        try:
            found = target.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return  # the latter is reported when its folder is written to
        # A rename would put a file in the place of a device such as /dev/null.
        if target.exists() and not target.is_file():
            kind = "folder" if target.is_dir() else "device or pipe"
            raise FileError(path=target, reason=f"is a {kind}, expected a file to write", hint="choose another name")
        folder = target.absolute().parent.stat()
    mine = not hasattr(os, "geteuid") or os.geteuid() in (0, found.st_uid, folder.st_uid)
    if folder.st_mode & stat.S_ISVTX and not mine:
        raise FileError(path=target, reason="belongs to somebody else", hint="choose another name or folder")


def _exists(path: Path) -> OutputExistsError:
    return OutputExistsError(path=path, reason="exists already", hint="choose another name, or move that file away")


@contextlib.contextmanager
def _naming(path: Path, *, needs: int = 0) -> Iterator[None]:
    """Turn the system's errors into ours about *path*."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            hint = f"raise the limit on a file's size (ulimit -f){f' above {needs} bytes' if needs else ''}"
        elif error.errno in _FULL:
            room = f"free some space ({needs} bytes are needed)" if needs else "free some space"
            hint = f"{room} or choose another folder"
        elif error.errno == errno.ENAMETOOLONG:
            hint = "choose a shorter name"
        else:
            hint = "choose a folder you can write to"
        raise FileError(path=path, reason=f"cannot be written ({error.strerror})", hint=hint) from error


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise whatever keeps a file from being opened or read as an error that names it.

    Raises:
        FileError: It cannot be opened or read, or is larger than the available memory.
    """
    try:
        yield
    except MemoryError as error:
        raise FileError(
            path=path, reason="is larger than the available memory", hint="check that it is the file you meant"
        ) from error
    except OSError as error:
        raise FileError(
            path=path, reason=f"cannot be read ({error.strerror})", hint="check its name and permissions"
        ) from error


class Pieces:
    """A file that is read in order, of which no more is read than a limit.

    Args:
        stream: The file.
        path: Its name.
        limit_bytes: How many bytes it may have.
    """

    def __init__(self, stream: BinaryIO, path: str | os.PathLike[str], limit_bytes: int) -> None:
        self._stream, self._path, self._limit_bytes, self._seen = stream, path, limit_bytes, 0
        self._found = os.fstat(stream.fileno())

    @property
    def size(self) -> int:
        """How many bytes it says it has: 0 of a pipe or device."""
        return self._found.st_size

    def read(self, size: int, /) -> bytes:
        """Return the next *size* bytes; fewer at the end alone, and then nothing.

        Raises:
            FileError: It has more bytes than it may have, or is a pipe that nothing writes to.
        """
        # One byte more than allowed is enough to know, even where the size is not known beforehand (a pipe, a device).
        piece = self._stream.read(min(size, self._limit_bytes + 1 - self._seen))
        self._seen += len(piece)
        if self._seen > self._limit_bytes:
            raise _too_large(self._path, self._limit_bytes)
        if not self._seen and size and stat.S_ISFIFO(self._found.st_mode):
            raise FileError(path=self._path, reason="is a pipe that nothing writes to", hint="start its writer first")
        return piece


@contextlib.contextmanager
def open_to_read(path: str | os.PathLike[str], *, limit_bytes: int) -> Iterator[Pieces]:
    """Open a file that must not be larger than *limit_bytes*, to be read a piece at a time.

    A pipe is read to its end, and one that nobody writes to is not waited for. Of a device only what is small is read,
    such as a passphrase from a terminal.

    Raises:
        FileError: The file is missing, unreadable or too large, or a device.
    """
    opener = open_finite if limit_bytes > PIECE_BYTES else open_at_once
    with reading(path), open(path, "rb", opener=opener) as stream:
        pieces = Pieces(stream, path, limit_bytes)
        if pieces.size > limit_bytes:
            raise _too_large(path, limit_bytes)  # before memory is taken for it
        yield pieces


def read_whole(path: str | os.PathLike[str], *, limit_bytes: int) -> bytes:
    """Read a file that must not be larger than *limit_bytes*; memory is taken for what is there, not for the limit.

    Raises:
        FileError: As `open_to_read`, or it is a pipe without a writer.
    """
    with open_to_read(path, limit_bytes=limit_bytes) as file:
        content = file.read(file.size + 1)
        return content + b"".join(iter(lambda: file.read(PIECE_BYTES), b""))


def _too_large(path: str | os.PathLike[str], limit_bytes: int) -> FileError:
    return FileError(path=path, reason=f"has more than {limit_bytes} bytes", hint="check that it is the file you meant")


def open_at_once(path: str, flags: int) -> int:
    """Open a file, as ``open(..., opener=)`` asks for it, without waiting for a pipe's writer, who may never come.

    Reading a pipe that has no writer ends at once.
    """
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if hasattr(os, "set_blocking"):
        os.set_blocking(descriptor, True)
    return descriptor


def open_finite(path: str, flags: int) -> int:
    """Open a file as `open_at_once` does, but no device, which may never end.

    Raises:
        OSError: It is one, or cannot be opened.
    """
    descriptor = open_at_once(path, flags)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "a device, expected a file", path)
    return descriptor


@contextlib.contextmanager
def _staged(output: Output) -> Iterator[tuple[Path, int]]:
    """Put the content on disk under a temporary name, and remove that name in the end if it is still there."""
    with _naming(output.path):
        make_folder(output.path.parent)
        temporary, descriptor = open_temporary(output.path, output.mode)
    try:
        with _naming(output.path, needs=len(output.content)):
            rest = memoryview(output.content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        yield temporary, descriptor
    finally:
        with contextlib.suppress(OSError):
            if is_there(temporary, descriptor):  # once renamed, the name may be another writer's
                temporary.unlink()
        os.close(descriptor)


def _publish(output: Output, temporary: Path) -> None:
    if output.replace:
        os.replace(temporary, output.path)
        return
    try:
        os.link(temporary, output.path)
    except FileExistsError as error:
        raise _exists(output.path) from error
    except OSError as error:
        # A file system without hard links: there is a moment between the look and the rename.
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        if os.path.lexists(output.path):
            raise _exists(output.path) from error
        os.replace(temporary, output.path)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and put their names on disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Put a folder's names on disk, where the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return  # a folder that can be written to, but not listed
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(descriptor)

"""A file that is opened once and read by range: what was checked and what is read are the same bytes.

A file that is replaced while it is open is read on as it was; one that is written to is refused. Nothing is mapped:
mapped pages count as the process' memory until they are let go, and end the process when the file shrinks.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import weakref
from pathlib import Path

import numpy as np

from ticketguard.errors import FileError
from ticketguard.files import open_at_once, reading
from ticketguard.ticket import Array


class SteadyFile:
    """A regular file, read by range through one descriptor, which is closed with the object.

    Args:
        path: The file; a symbolic link is followed.

    Attributes:
        path: The file, as it was given.
        size: Its length in bytes when it was opened.

    Raises:
        FileError: It cannot be opened, or is a folder, pipe, socket or device.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with reading(self.path):
            if self.path.is_dir():
                raise FileError(
                    path=path,
                    reason="is a folder, expected a file",
                    hint="name the checkpoint file in it, or the *.index.json of one in several files",
                )
            self._stream = io.FileIO(os.fspath(path), opener=open_at_once)
            self._finalizer = weakref.finalize(self, self._stream.close)
            status = os.fstat(self._stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileError(
                path=path, reason="is a pipe or device, expected a file", hint="save what it delivers as a file first"
            )
        self.size = status.st_size
        self._stamp = (status.st_size, status.st_mtime_ns)
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range; fewer where the file ends before it does.

        Raises:
            FileError: The file cannot be read, or has changed since it was opened.
        """
        content = np.empty(max(0, min(length, self.size - offset)), dtype=np.uint8)
        self.fill(content, offset=offset)
        return content.tobytes()

    def fill(self, array: Array, *, offset: int) -> None:
        """Read a contiguous array's bytes from the file, from *offset* on, in the machine's memory layout.

        Raises:
            FileError: The file cannot be read, or has changed since it was opened.
        """
        if not array.size:
            return
        view = memoryview(array.reshape(-1).view(np.uint8).data)
        with reading(self.path):
            while view and (count := self._read_at(offset, view)):
                view, offset = view[count:], offset + count
            status = os.fstat(self._stream.fileno())
        if view or (status.st_size, status.st_mtime_ns) != self._stamp:
            raise FileError(
                path=self.path, reason="changed while it was read", hint="use a copy that nothing is writing to"
            )

    def _read_at(self, offset: int, view: memoryview) -> int:
        if hasattr(os, "preadv"):
            # Leaves alone the position in the file, which threads and forked processes share.
            return os.preadv(self._stream.fileno(), [view], offset)
        with self._lock:
            self._stream.seek(offset)
            return self._stream.readinto(view) or 0

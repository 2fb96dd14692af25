"""Faults at the calls that change what is on disk: the process is killed there, or the disk is full from there on."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
from collections.abc import Callable, Iterator
from typing import Any

# What takes room, and what only gives it back. Of open and write, those that make files and those to regular files.
TAKING = ("open", "write", "fsync", "link", "replace", "rename", "mkdir")
GIVING = ("unlink", "rmdir")


@contextlib.contextmanager
def watched(visit: Callable[[str, bool], None]) -> Iterator[None]:
    """Call *visit* with each such call's name before it (False) and after it (True)."""
    originals = {name: getattr(os, name) for name in (*TAKING, *GIVING)}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if not _changes_the_disk(name, arguments):
                return originals[name](*arguments, **named)
            visit(name, False)
            result = originals[name](*arguments, **named)
            visit(name, True)
            return result

        return call

    for name in originals:
        setattr(os, name, wrapped(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def _changes_the_disk(name: str, arguments: tuple[Any, ...]) -> bool:
    if name == "open":
        return bool(arguments[1] & os.O_CREAT)
    if name == "write":
        return stat.S_ISREG(os.fstat(arguments[0]).st_mode)
    return True


class Counter:
    """Counts the moments before and after every call; at moment *at* it does what its subclass says."""

    def __init__(self, at: int = -1) -> None:
        self.at, self.count = at, 0
        self.names: list[str] = []

    def __call__(self, name: str, done: bool) -> None:
        """Take part in `watched`."""
        self.names.append(f"{'after' if done else 'before'} {name}")
        self.count += 1


class Kill(Counter):
    """Kills this process at a moment."""

    def __call__(self, name: str, done: bool) -> None:
        """Kill, if this is the moment."""
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        super().__call__(name, done)


class FullDisk(Counter):
    """Has every call that takes room fail, from number *at* on."""

    def __call__(self, name: str, done: bool) -> None:
        """Fail, if the disk is full by now."""
        if done or name not in TAKING:
            return
        super().__call__(name, done)
        if 0 <= self.at < self.count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

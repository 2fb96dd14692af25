"""Temporary files, one name for each target: the next writer removes what a killed one left, not a live one's."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl

# Flags that not every system has.
_NOFOLLOW, _NONBLOCK = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)


def temporary_name(target: Path) -> Path:
    """Return the name beside *target* that it is written under first; short, whatever the target's own."""
    return target.with_name(f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.part")


def open_temporary(target: Path, mode: int) -> tuple[Path, int]:
    """Create a temporary file for *target* that nobody else writes; return its name and its descriptor.

    Raises:
        OSError: The folder cannot be written to.
    """
    temporary = temporary_name(target)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | getattr(os, "O_BINARY", 0)
    while True:
        try:
            descriptor = os.open(temporary, flags, mode)
        except FileExistsError:
            if not forget_dead_writer(temporary):
                # A live writer of the same file, or a name that somebody else took in a shared folder.
                temporary = temporary_name(target).with_suffix(f".{secrets.token_hex(8)}.part")
            continue
        # Between its creation and its lock it looked like a dead writer's.
        if lock(descriptor) and is_there(temporary, descriptor):
            return temporary, descriptor
        os.close(descriptor)


def forget_dead_writer(temporary: Path) -> bool:
    """Remove a temporary file of ours that no living process writes; return whether its name is free now."""
    try:
        found = temporary.lstat()
        if not stat.S_ISREG(found.st_mode) or (hasattr(os, "geteuid") and found.st_uid != os.geteuid()):
            return False
        descriptor = os.open(temporary, os.O_RDONLY | _NOFOLLOW | _NONBLOCK)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if not lock(descriptor):
            return False
        if is_there(temporary, descriptor):
            temporary.unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def is_there(path: Path, descriptor: int) -> bool:
    """Tell whether *path* is the name of the open file."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def lock(descriptor: int) -> bool:
    """Lock an open file until it is closed; return whether nobody else holds it."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True

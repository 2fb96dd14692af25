"""The folder of a long run: private, one run at a time, and deleted in an order that may be cut short."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

from ticketguard.errors import ConfigurationError, FileError, TicketguardWarning
from ticketguard.files import SECRET, make_folder
from ticketguard.staging import lock

# Marks a folder as a run's, and is locked while one is under way.
LOCK_FILE = "run.lock"
# What a search is made of; alone it is nothing to resume.
SEARCH_FILE = "find.identity"
# What a run draws from; alone it is nothing to resume either.
SEED_FILE = "run.seed"
# What the command that started the run has written. It is deleted last: a folder that is left empty has done its work.
RECORD_FILE = "run.outputs"
# What runs keep in their folders: a folder that the user chose may have other files in it.
_STATE = re.compile(
    r".+\.(checkpoint|ticket)|(embed|find)\.\w+|run\.(outputs|seed)|.+-\d+-[0-9a-f]{16}\.json|\.[0-9a-f.]+\.part"
)


@contextlib.contextmanager
def hold(folder: Path, *, anew: bool = False) -> Iterator[None]:
    """Keep *folder* to this run; it is made if need be, for its owner's eyes only.

    A folder that it made is gone again if the run fails with nothing kept: a wrong option leaves no run to resume.

    Args:
        folder: The folder; one that exists keeps its permission bits.
        anew: Delete what an earlier run kept in it: a resumed run must find nothing of another's.

    Raises:
        ConfigurationError: A run in progress holds it.
        FileError: It cannot be written to.
    """
    with _naming(folder):
        make_folder(folder.parent)
        made = not folder.exists()
        folder.mkdir(mode=0o700, exist_ok=True)
        known = (folder / LOCK_FILE).exists()
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), SECRET)
    try:
        if not lock(descriptor):
            raise ConfigurationError(f"another run is using '{folder}': wait for it to end, or choose another name")
        if anew and known:
            with _naming(folder):
                for path in _in_order(folder):
                    if _STATE.fullmatch(path.name):
                        path.unlink()
        yield
    except BaseException:
        if made and keeps_nothing(folder):
            delete(folder)
        raise
    finally:
        os.close(descriptor)


def is_spent(folder: Path) -> bool:
    """Whether a folder does not hold a run: it does not exist, or all but itself was deleted."""
    return not folder.exists() or not any(folder.iterdir())


def keeps_nothing(folder: Path) -> bool:
    """Whether nothing would be lost with a folder: it is spent, or its run ended before it kept any work."""
    return not folder.exists() or all(path.name in (LOCK_FILE, SEARCH_FILE, SEED_FILE) for path in folder.iterdir())


def delete(folder: Path) -> None:
    """Delete a run's folder once its results are safe elsewhere; the record of them goes last.

    Warns:
        TicketguardWarning: It cannot be deleted; it may hold the owner's secret.
    """
    try:
        for path in _in_order(folder):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        warnings.warn(
            f"'{folder}' could not be deleted ({error.strerror}) and may hold the owner's secret: delete it",
            TicketguardWarning,
            stacklevel=2,
        )


def _in_order(folder: Path) -> list[Path]:
    """Return what is in a folder in the order to delete it in: secrets outlive what was made with them."""
    last = {"embed.secret": 1, SEED_FILE: 1, LOCK_FILE: 2, RECORD_FILE: 3}
    return sorted(folder.iterdir(), key=lambda path: (last.get(path.name, 0), path.name))


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(
            path=folder,
            reason=f"cannot be written to ({error.strerror})",
            hint="free some space, or choose a folder you can write to",
        ) from error

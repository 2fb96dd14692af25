"""What find and embed need alike: a recipe, a folder to work in, and a secret that survives an interruption."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketguard.errors import ConfigurationError, FileError
from ticketguard.files import SECRET, read_whole, require_room, write_whole
from ticketguard.keyed import SECRET_BYTES, checked_secret
from ticketguard.settings import checked_seed
from ticketguard.work_folder import SEARCH_FILE, SEED_FILE

if TYPE_CHECKING:
    import torch

    from ticketguard.training import Progress, TrainingConfig

# What a run that writes marks keeps in its folder, beside the checkpoints, until the folder is deleted.
SECRET_FILE, IDENTITY_FILE, CREATED_FILE = "embed.secret", "embed.identity", "embed.created"
MOMENT_BYTES = 64
SEED_BYTES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where long work keeps its state, and shows how far it is.

    Attributes:
        workdir: Folder for checkpoints; without it the run cannot be resumed.
        resume: Continue from what is kept in *workdir*.
        progress: Where progress is shown.
    """

    workdir: Path | None = None
    resume: bool = False
    progress: Progress | None = None


def recipe(given: TrainingConfig | Mapping[str, Any] | None, default: TrainingConfig) -> TrainingConfig:
    """Return the recipe that was given, or *default* with the changes that were.

    Raises:
        ConfigurationError: They change something that is not a field, or make it something that it cannot be.
    """
    from ticketguard.training import TrainingConfig

    return given if isinstance(given, TrainingConfig) else default.changed(given)


def secret_of_run(secret: bytes | None, workdir: Path | None, *, resume: bool) -> bytes:
    """Return the secret that an interrupted embedding began with, which gives it the same draws, or a new one.

    Raises:
        ConfigurationError: The run to continue has another secret than the one given.
        FileError: The secret that is kept is damaged.
    """
    key = _kept_secret(workdir) if workdir is not None and resume else None
    if key is None:
        return checked_secret(secret)
    if secret not in (None, key):
        raise ConfigurationError(
            f"the run kept in '{workdir}' does not have the secret that was given: resume without a secret, or start "
            f"again"
        )
    return key


def seed_of_run(
    seed: int | None, workdir: Path | None, *, resume: bool, draw: Callable[[], int], config: TrainingConfig
) -> int:
    """Return the seed that was given, or that an interrupted run began with, or else what *draw* returns.

    All processes of a run return the same.

    Raises:
        ConfigurationError: The seed that was given cannot be one.
        FileError: The seed that is kept is damaged.
    """
    from ticketguard.training import drawn_once

    if seed is not None:
        return checked_seed(seed)

    def choose() -> bytes:
        kept = _kept_seed(workdir) if workdir is not None and resume else None
        return (draw() if kept is None else kept).to_bytes(SEED_BYTES, "little")

    return int.from_bytes(drawn_once(choose, length=SEED_BYTES, config=config), "little")


@contextlib.contextmanager
def in_work_folder(
    workdir: Path | None,
    *,
    resume: bool,
    seed: int | None = None,
    secret: bytes | None = None,
    search: str | None = None,
) -> Iterator[None]:
    """Keep a run's folder to this run while it lasts, with its secret on disk before anything depends on it.

    Args:
        workdir: The folder; None for a run that keeps nothing.
        resume: Continue from what is in it.
        seed: What the run draws from, beside its secret.
        secret: The owner's, if the run makes marks.
        search: What a search is made of: its rounds are of no use to another, which would delete them when it ends.

    Raises:
        ConfigurationError: Another run holds the folder, or was started anew in it since, or another search's is kept.
        FileError: The folder cannot be written to.
    """
    from ticketguard.training import held_by_first_process, in_first_process

    def keep_secret() -> None:
        if workdir is None or secret is None:
            return
        kept = _kept_secret(workdir)
        if kept is None or not resume:
            write_whole(workdir / SECRET_FILE, secret, mode=SECRET)
        elif kept != secret:
            raise ConfigurationError(f"another run was started in '{workdir}': choose another name for this one")

    def keep_search() -> None:
        if workdir is not None:
            _keep_search(workdir, seed, search, resume=resume)

    with held_by_first_process(workdir, anew=not resume):
        in_first_process(keep_search)
        in_first_process(keep_secret)
        yield


def require_room_to_end(
    workdir: Path | None, network: torch.nn.Module, training: TrainingConfig, *, resume: bool, states: int = 1
) -> None:
    """Refuse a run whose last checkpoint and ticket have no room: what it is certain to write, beside each other.

    Args:
        workdir: The run's folder; the ticket is taken to go to the same disk.
        network: What is trained.
        training: Its recipe: an optimiser remembers as much again, or twice.
        resume: Whether the checkpoint may be there already.
        states: How many state dicts the ticket holds.

    Raises:
        FileError: There is too little room, or the file-size limit is too low.
    """
    if workdir is None:
        return
    state = sum(tensor.nbytes for tensor in network.state_dict().values())
    learned = sum(parameter.nbytes for parameter in network.parameters())
    moments = 2 if training.optimizer in ("adam", "adamw") else int(training.momentum > 0)
    sizes = {workdir / "ticket": states * state}
    if not resume:
        sizes[workdir / "checkpoint"] = state + moments * learned
    require_room(sizes)


def moment_of_run(workdir: Path | None) -> datetime.datetime:
    """Return when the run's claim says it was made: now, or when an interrupted end of this run first said so.

    So a run that is resumed after its claim was written writes the same claim again, byte for byte.

    Raises:
        FileError: What is kept of it is damaged, or cannot be written.
    """
    from ticketguard.training import in_first_process

    moments = [datetime.datetime.now(datetime.UTC)]
    path = None if workdir is None else workdir / CREATED_FILE

    def keep() -> None:
        if path is None:
            return
        if not path.exists():
            write_whole(path, moments[0].isoformat().encode(), mode=SECRET)
            return
        try:
            moments.append(datetime.datetime.fromisoformat(read_whole(path, limit_bytes=MOMENT_BYTES).decode()))
        except ValueError as error:
            raise FileError(path=path, reason="does not hold a date", hint="delete it, and resume") from error

    in_first_process(keep)
    return moments[-1]


def _keep_search(workdir: Path, seed: int | None, search: str | None, *, resume: bool) -> None:
    path = workdir / SEARCH_FILE
    if search is not None and resume and path.exists() and path.read_bytes() != search.encode():
        raise ConfigurationError(
            f"the run kept in '{workdir}' is another search, of other settings, data or marks: resume with those "
            "it was started with, or start again"
        )
    # The seed first: a search of another one is another search.
    for name, text in ((SEED_FILE, None if seed is None else str(seed)), (SEARCH_FILE, search)):
        if text is not None:
            write_whole(workdir / name, text.encode(), mode=SECRET)


def _kept_seed(workdir: Path) -> int | None:
    path = workdir / SEED_FILE
    if not path.exists():
        return None
    try:
        return checked_seed(int(read_whole(path, limit_bytes=MOMENT_BYTES)))
    except (ValueError, ConfigurationError) as error:
        raise FileError(path=path, reason="does not hold a seed", hint="use a copy of it, or start again") from error


def _kept_secret(workdir: Path) -> bytes | None:
    path = workdir / SECRET_FILE
    if not path.exists():
        return None
    key = read_whole(path, limit_bytes=SECRET_BYTES)
    if len(key) != SECRET_BYTES:
        raise FileError(
            path=path, reason=f"has {len(key)} bytes, expected {SECRET_BYTES}", hint="use a copy of it, or start again"
        )
    return key

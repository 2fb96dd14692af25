"""What find and embed need alike: a recipe, and a secret that survives an interruption."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketguard.errors import ConfigurationError
from ticketguard.files import read_whole
from ticketguard.keyed import SECRET_BYTES

if TYPE_CHECKING:
    from ticketguard.training import TrainingConfig

# What a run that writes marks keeps in its folder, beside the checkpoints.
SECRET_FILE, IDENTITY_FILE = "embed.secret", "embed.identity"


def recipe(given: TrainingConfig | Mapping[str, Any] | None, default: TrainingConfig) -> TrainingConfig:
    """Return the recipe that was given, or *default* with the changes that were."""
    if given is None or isinstance(given, Mapping):
        return dataclasses.replace(default, **(given or {}))
    return given


def secret_of_run(secret: bytes | None, workdir: Path | None, *, resume: bool) -> bytes:
    """Return the secret that an interrupted embedding began with, so that it goes on with the same draws, or a new one.

    Raises:
        ConfigurationError: The run to go on with has another secret than the one given.
    """
    kept = None if workdir is None else workdir / SECRET_FILE
    if kept is not None and resume and kept.exists():
        key = read_whole(kept, limit_bytes=SECRET_BYTES)
        if secret not in (None, key):
            raise ConfigurationError(
                f"the run kept in '{workdir}' has another secret than the one given: resume without one, or start anew"
            )
        return key
    return os.urandom(SECRET_BYTES) if secret is None else secret

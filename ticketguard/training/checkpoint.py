"""A run's checkpoint: one safetensors file with model, optimiser and step, whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from ticketguard.errors import FileError, UnknownVersionError
from ticketguard.files import SECRET, write_whole

VERSION = "ticketguard.training-checkpoint/1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands.

    Attributes:
        step: Finished steps.
        tensors: Model, optimiser and snapshot tensors by prefixed name.
    """

    step: int
    tensors: Mapping[str, torch.Tensor]


def run_identity(*parts: object) -> str:
    """Return a digest of what a run is made of, so that a checkpoint of another run is not continued."""
    return hashlib.sha256(json.dumps([repr(part) for part in parts]).encode()).hexdigest()


def prefixed(kind: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return *tensors* under names that say of which *kind* they are."""
    return {f"{kind}/{name}": tensor for name, tensor in tensors.items()}


def of_kind(kind: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Undo `prefixed`, for the tensors of one *kind* among others."""
    return {name.removeprefix(f"{kind}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{kind}/")}


def save_run(path: Path, state: RunState, *, identity: str) -> None:
    """Write a checkpoint, for its owner's eyes only: who has the weights under way can tell marks from the rest.

    Raises:
        FileError: It cannot be written; the one before it is whole.
    """
    metadata = {"version": VERSION, "step": str(state.step), "identity": identity}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    try:
        write_whole(path, safetensors.torch.save(tensors, metadata=metadata), mode=SECRET)
    except FileError as error:
        hint = f"{error.hint}, then continue with --resume (resume=True): what was saved before is intact"
        raise FileError(path=path, reason=error.reason, hint=hint) from error


def load_run(path: Path, *, identity: str) -> RunState | None:
    """Read a checkpoint; None if there is none.

    Raises:
        FileError: It is damaged, or belongs to a run with other settings.
        UnknownVersionError: Another release wrote it.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata: dict[str, Any] = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise FileError(
            path=path, reason=f"is not a whole checkpoint ({error})", hint="delete it to start again"
        ) from error
    if metadata.get("version") != VERSION:
        raise UnknownVersionError(what=f"checkpoint '{path}'", found=metadata.get("version"), known=(VERSION,))
    if metadata.get("identity") != identity:
        raise FileError(
            path=path,
            reason="belongs to a run with other settings",
            hint="resume with the settings it was started with, or delete it to start again",
        )
    return RunState(step=int(metadata["step"]), tensors=tensors)

"""What `benchmarks.fuzz` feeds with damaged files: every parser of bytes that somebody else may have written."""

from __future__ import annotations

import importlib

from benchmarks.fuzzing.target import Scratch, Target

# Each a module here with a function `targets`; imported when asked for, since a parser's process forks the faster the
# less it holds.
GROUPS = ("checkpoints", "credentials", "data", "endpoints", "onnx_models")


def targets_of(group: str, scratch: Scratch) -> dict[str, Target]:
    """Return a group's targets by "group: name"; inputs that go through a file go through one in *scratch*."""
    module = importlib.import_module(f"benchmarks.fuzzing.{group}")
    return {f"{group}: {target.name}": target for target in module.targets(scratch)}


__all__ = ["GROUPS", "Scratch", "Target", "targets_of"]

"""What `benchmarks.fuzz` feeds with damaged files: every parser of bytes that somebody else may have written."""

from __future__ import annotations

from benchmarks.fuzzing.checkpoints import checkpoint_targets
from benchmarks.fuzzing.credentials import credential_targets
from benchmarks.fuzzing.data import data_targets
from benchmarks.fuzzing.suspects import suspect_targets
from benchmarks.fuzzing.target import Scratch, Target


def all_targets(scratch: Scratch) -> dict[str, Target]:
    """Return every target by name; inputs that go through a file go through one in *scratch*."""
    targets = (
        *checkpoint_targets(scratch),
        *credential_targets(scratch),
        *data_targets(scratch),
        *suspect_targets(scratch),
    )
    return {target.name: target for target in targets}


__all__ = ["Scratch", "Target", "all_targets"]

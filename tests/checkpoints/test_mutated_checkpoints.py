"""Whatever bytes a checkpoint is made of, reading it gives arrays or an error of ours."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ticketguard.checkpoints import Checkpoint
from ticketguard.checkpoints.stored_tensors import MIN_BUDGET_BYTES
from ticketguard.errors import TicketguardError

BASE = torch.arange(24.0).reshape(4, 6)
STATE = {"a.weight": BASE, "tied": BASE, "b": BASE.bfloat16(), "t": BASE.t()[1:], "steps": torch.tensor(3)}
NASTY_NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]


def saved(kind: str) -> bytes:
    if kind == "safetensors":
        return safetensors.torch.save({name: tensor.clone().contiguous() for name, tensor in STATE.items()})
    buffer = io.BytesIO()
    torch.save({"model": STATE, "epoch": 3}, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


SEEDS = {kind: saved(kind) for kind in ("safetensors", "zip", "legacy")}


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Change a few places: single bytes, numbers, pieces cut out, doubled or put elsewhere."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.sampled_from([1, 1, 2, 4, 8, 30]))
        piece = content[start : start + length]
        rest = content[start + length :]
        match draw(st.sampled_from(["byte", "number", "cut", "double", "move", "end"])):
            case "byte":
                content = content[:start] + draw(st.binary(min_size=1, max_size=1)) + content[start + 1 :]
            case "number":
                number = draw(st.sampled_from(NASTY_NUMBERS)).to_bytes(8, "little")[: min(length, 8)]
                content = content[:start] + number + content[start + len(number) :]
            case "cut":
                content = content[:start] + rest
            case "double":
                content = content[: start + length] + piece + rest
            case "move":
                content = content[:start] + rest
                place = draw(st.integers(0, len(content)))
                content = content[:place] + piece + content[place:]
            case _:
                content = content[: start + 1]
    return content


@pytest.mark.parametrize("kind", SEEDS)
def test_the_unchanged_file_is_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(SEEDS[kind])
    state = Checkpoint(tmp_path / "s").state()
    assert set(state) == set(STATE)
    np.testing.assert_array_equal(state["t"], STATE["t"].numpy())


@pytest.mark.parametrize("kind", SEEDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_changed_bytes_give_arrays_or_our_errors(kind: str, data: st.DataObject) -> None:
    content = data.draw(mutated(SEEDS[kind]))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "s").write_bytes(content)
        with contextlib.suppress(TicketguardError):
            state = Checkpoint(Path(folder) / "s").state()
            assert sum(values.nbytes for values in state.values()) <= MIN_BUDGET_BYTES

"""Files that a stranger made to run code or to exhaust the machine, given to the command line."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from ticketguard.reporting.documents import inspect_file

from .conftest import Files, Run


class TouchesAFile:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return shutil.copyfile, (__file__, str(self.witness))


@pytest.fixture(params=["inspect", "import", "verify"])
def on(request: pytest.FixtureRequest, run: Run, files: Files, tmp_path: Path) -> Callable[[Path], str]:
    """Give a file to a command that must refuse it, and return what it says."""

    def call(path: Path) -> str:
        more: dict[str, tuple[object, ...]] = {
            "inspect": (),
            "import": ("--out", tmp_path / "made.ticket"),
            "verify": ("--claim", files.claim, "--vault", files.vault),
        }
        return str(run(request.param, path, *more[request.param], code=3).stderr)

    return call


def test_code_is_not_run_whatever_torch_was_told_to_trust(on: Callable[[Path], str], tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, 2), "x": TouchesAFile(tmp_path / "witness")}, tmp_path / "s.pt")
    with torch.serialization.safe_globals([shutil.copyfile]):
        assert "holds more than tensors ('shutil.copyfile'); its code was not run" in on(tmp_path / "s.pt")
    assert not (tmp_path / "witness").exists()


def test_two_megabytes_under_three_thousand_names_are_refused(on: Callable[[Path], str], tmp_path: Path) -> None:
    base = torch.ones(2**19)
    torch.save({f"w{index}": base[index:].reshape(1, -1) for index in range(3000)}, tmp_path / "s.pt")
    assert "has 3000 tensors that take" in on(tmp_path / "s.pt")


def test_a_pipe_is_refused_without_waiting(on: Callable[[Path], str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    assert "pipe or device" in on(tmp_path / "pipe.pt")


def test_headers_that_would_fill_the_memory_are_refused(on: Callable[[Path], str], tmp_path: Path) -> None:
    header = b'{"w":[' + b"[]," * 5_000_000 + b"[]]}"
    (tmp_path / "s.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    tracemalloc.start()
    try:
        assert "values" in on(tmp_path / "s.safetensors")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(header)


def test_a_petabyte_that_a_header_claims_is_refused(on: Callable[[Path], str], tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F32","shape":[1000000000,250000],"data_offsets":[0,1000000000000000]}}'
    (tmp_path / "s.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    (line,) = on(tmp_path / "s.safetensors").strip().splitlines()
    assert "is not a whole safetensors file" in line


def test_more_tensors_than_any_network_has_are_refused(on: Callable[[Path], str], tmp_path: Path) -> None:
    tensor = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + b",".join(b'"%d":%s' % (index, tensor) for index in range(60_000)) + b"}"
    (tmp_path / "s.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (line,) = on(tmp_path / "s.safetensors").strip().splitlines()
    assert "has 60000 tensors, expected at most 50000" in line


@pytest.mark.parametrize("name", ["s.pt", "s.safetensors"])
def test_inspect_holds_one_tensor_at_a_time(name: str, tmp_path: Path) -> None:
    state = {f"{index}.weight": torch.ones(256, 512) for index in range(12)}
    if name == "s.pt":
        torch.save(state, tmp_path / name)
    else:
        safetensors.torch.save_file(state, tmp_path / name)
    layer_bytes = 4 * 256 * 512
    tracemalloc.start()
    try:
        document = inspect_file(tmp_path / name, unlock=dict)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [tensor["nonzero"] for tensor in document["suspect"]["tensors"]] == 12 * [256 * 512]
    assert peak < 4 * layer_bytes


def test_a_copy_in_any_container_is_supported_and_read_alike(run: Run, files: Files, tmp_path: Path) -> None:
    import ticketguard as tg

    weights = {name: torch.from_numpy(np.array(value)) for name, value in tg.Ticket.load(files.marked).weights.items()}
    torch.save(weights, tmp_path / "zip.pt")
    torch.save(weights, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(weights, tmp_path / "five.pt", pickle_protocol=5)
    safetensors.torch.save_file(weights, tmp_path / "s.safetensors")
    verdicts = {
        run("verify", path, "--claim", files.claim, "--vault", files.vault).stdout.replace(path.name, "")
        for path in sorted(tmp_path.iterdir())
    }
    assert len(verdicts) == 1
    assert "SUPPORTED" in verdicts.pop()

from __future__ import annotations

import concurrent.futures
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from ticketguard.checkpoints import Checkpoint
from ticketguard.checkpoints.steady_file import SteadyFile
from ticketguard.errors import FileError

ONES = {"w": np.ones((2, 3), np.float32)}


def save(path: Path, value: float, kind: str) -> Path:
    if kind == "safetensors":
        safetensors.numpy.save_file({"w": np.full((2, 3), value, np.float32)}, path)
    else:
        torch.save({"w": torch.full((2, 3), value)}, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.fixture(params=["safetensors", "zip", "legacy"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(FileError, match="is a pipe or device, expected a file"):
        Checkpoint(tmp_path / "pipe.pt")


def test_devices_and_sockets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileError, match="is a pipe or device"):
        Checkpoint("/dev/zero")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.pt")
        with pytest.raises(FileError, match="cannot be read"):
            Checkpoint("s.pt")


def test_links_are_followed(kind: str, tmp_path: Path) -> None:
    path = save(tmp_path / "s", 1.0, kind)
    (tmp_path / "soft").symlink_to(path)
    (tmp_path / "hard").hardlink_to(path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for name in ("soft", "hard"):
        np.testing.assert_array_equal(Checkpoint(tmp_path / name).read("w"), ONES["w"])
    for name in ("nowhere", "round"):
        with pytest.raises(FileError, match="cannot be read"):
            Checkpoint(tmp_path / name)


def test_a_file_that_is_replaced_or_deleted_is_read_as_it_was(kind: str, tmp_path: Path) -> None:
    suspect = Checkpoint(save(tmp_path / "s", 1.0, kind))
    save(tmp_path / "other", 2.0, kind).replace(tmp_path / "s")
    np.testing.assert_array_equal(suspect.read("w"), ONES["w"])
    np.testing.assert_array_equal(Checkpoint(tmp_path / "s").read("w"), 2 * ONES["w"])
    (tmp_path / "s").unlink()
    np.testing.assert_array_equal(suspect.read("w"), ONES["w"])


@pytest.mark.parametrize("change", ["grow", "shrink", "overwrite"])
def test_a_file_that_is_written_to_while_it_is_open_is_refused(kind: str, change: str, tmp_path: Path) -> None:
    path = save(tmp_path / "s", 1.0, kind)
    suspect, content = Checkpoint(path), path.read_bytes()
    if change == "grow":
        path.write_bytes(content + b"more")
    elif change == "shrink":
        path.write_bytes(content[:-40])
    else:
        path.write_bytes(content.replace(ONES["w"].tobytes(), (2 * ONES["w"]).tobytes()))
        os.utime(path, ns=(0, 1))  # as a clock does that has moved on
    with pytest.raises(FileError, match="changed while it was read: use a copy that nothing is writing to"):
        suspect.read("w")


def test_the_file_is_closed_with_the_suspect(kind: str, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    suspect = Checkpoint(save(tmp_path / "s", 1.0, kind))
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
    del suspect
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_refused_file_is_closed_too(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"nothing of ours")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileError):
        Checkpoint(tmp_path / "s")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("at_once", [True, False])
def test_threads_that_share_a_file_read_what_they_asked_for(
    at_once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not at_once:  # as on Windows
        monkeypatch.delattr(os, "preadv")
    values = np.arange(2**16, dtype=np.uint32)
    (tmp_path / "s").write_bytes(values.tobytes())
    file = SteadyFile(tmp_path / "s")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda place: file.read(4 * place, 4), range(2000)))
    assert b"".join(read) == values[:2000].tobytes()


def test_an_empty_file_and_reads_past_the_end(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"")
    with pytest.raises(FileError, match="is not a whole safetensors file"):
        Checkpoint(tmp_path / "s")
    (tmp_path / "s").write_bytes(b"abc")
    file = SteadyFile(tmp_path / "s")
    assert (file.read(1, 10), file.read(3, 1), file.read(2**62, 2**62)) == (b"bc", b"", b"")


def test_a_range_that_the_file_does_not_have_is_never_filled_with_what_lay_in_memory(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"abc")
    file = SteadyFile(tmp_path / "s")
    for offset in (1, 3, 100):
        with pytest.raises(FileError, match="changed while it was read"):
            file.fill(np.zeros(3, np.uint8), offset=offset)

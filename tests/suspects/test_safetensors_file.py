from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from ticketguard.errors import FileError, TensorError
from ticketguard.suspects.safetensors_file import MAX_HEADER_BYTES, SafetensorsFile


def write(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_every_floating_type_widens_as_torch_does(dtype: torch.dtype, tmp_path: Path) -> None:
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    by_size = {1: torch.arange(256, dtype=torch.uint8).view(dtype) if dtype.itemsize == 1 else None, 2: None}
    values = by_size.get(dtype.itemsize)
    if values is None:
        values = bits.view(dtype) if dtype.itemsize == 2 else torch.linspace(-3, 3, 100, dtype=dtype)
    safetensors.torch.save_file({"w": values}, tmp_path / "s")
    read = SafetensorsFile(tmp_path / "s").read("w")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values.float().numpy())


def test_scalars_and_empty_tensors_read(tmp_path: Path) -> None:
    safetensors.torch.save_file({"step": torch.tensor(3.0), "none": torch.zeros(0, 4)}, tmp_path / "s")
    source = SafetensorsFile(tmp_path / "s")
    assert source.read("step").shape == ()
    assert source.read("none").shape == (0, 4)


def test_an_unknown_type_is_refused_by_name(tmp_path: Path) -> None:
    header = {"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}
    source = SafetensorsFile(write(tmp_path / "s", header, bytes(8)))
    with pytest.raises(TensorError, match="'w' has type C64"):
        source.read("w")


def test_a_huge_declared_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "s", b"{}", length=2**30)
    os.truncate(path, 2**31)  # sparse: takes no room on the disk
    with pytest.raises(FileError, match=f"declares a header of {2**30} bytes, expected at most {MAX_HEADER_BYTES}"):
        SafetensorsFile(path)


def test_a_file_of_another_kind_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "claim.json").write_text('{"payload":"..."}')
    with pytest.raises(FileError, match="is neither a safetensors nor a torch file"):
        SafetensorsFile(tmp_path / "claim.json")


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
        {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "vw"},
        {"w": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}},
        {"w": 3},
        [],
        b"not json",
        b"[" * 100_000,
    ],
)
def test_headers_that_lie_are_refused(header: Any, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is not a whole safetensors file"):
        SafetensorsFile(write(tmp_path / "s", header, bytes(8)))


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    entry = b'"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    with pytest.raises(FileError, match="is not a whole safetensors file"):
        SafetensorsFile(write(tmp_path / "s", b"{" + entry + b"," + entry + b"}", bytes(8)))


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"w": torch.ones(100)}, tmp_path / "s")
    source = SafetensorsFile(tmp_path / "s")
    (tmp_path / "s").write_bytes((tmp_path / "s").read_bytes()[:-40])
    with pytest.raises(FileError, match="changed while it was read"):
        source.read("w")

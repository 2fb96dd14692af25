from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ticketguard.checkpoints.safetensors_file import MAX_HEADER_BYTES, MAX_HEADER_VALUES, SafetensorsFile
from ticketguard.errors import FileError, TensorError, TicketguardError


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
    assert read.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    np.testing.assert_array_equal(read, (values if dtype == torch.float64 else values.float()).numpy())


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


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"w": {**ENTRY, "shape": [2.0]}}, "the shape of tensor 'w' is not a list of sizes"),
        ({"w": {**ENTRY, "shape": [True, 2]}}, "the shape of tensor 'w' is not a list of sizes"),
        ({"w": {**ENTRY, "shape": [-1, -2]}}, "the shape of tensor 'w' is not a list of sizes"),
        ({"w": {**ENTRY, "shape": [2**64, 0]}}, "the shape of tensor 'w' is not a list of sizes"),
        ({"w": {**ENTRY, "shape": "2"}}, "the shape of tensor 'w' is not a list of sizes"),
        ({"w": {**ENTRY, "shape": {"2": 2}}}, "the shape of tensor 'w' is not a list of sizes"),
        ({"w": {**ENTRY, "data_offsets": [0, 8.0]}}, "does not start and end at two offsets"),
        ({"w": {**ENTRY, "data_offsets": [False, 8]}}, "does not start and end at two offsets"),
        ({"w": {**ENTRY, "data_offsets": [0, 8, 8]}}, "does not start and end at two offsets"),
        ({"w": {**ENTRY, "data_offsets": [8, 0]}}, "does not start and end at two offsets"),
        ({"w": {**ENTRY, "data_offsets": None}}, "does not start and end at two offsets"),
        ({"w": {**ENTRY, "dtype": ["F32"]}}, "tensor 'w' has the unknown type"),
        ({"w": {**ENTRY, "more": 1}}, "does not have the fields dtype, shape, data_offsets"),
        ({"w": {"dtype": "F32", "shape": [2]}}, "does not have the fields dtype, shape, data_offsets"),
        ({"w": {**ENTRY, "shape": [1]}}, "has 8 bytes, which do not fit its shape and type"),
        ({"w": {**ENTRY, "dtype": "F4"}}, "has 8 bytes, which do not fit its shape and type"),
        ({"w": {**ENTRY, "data_offsets": [1, 9]}}, "starts at byte 1 of the values, expected 0"),
        ({"v": ENTRY, "w": {**ENTRY, "data_offsets": [4, 12]}}, "starts at byte 4 of the values, expected 8"),
        ({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, "bytes, expected"),
        ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, "bytes, expected"),
        ({"w": ENTRY, "__metadata__": {"a": 1}}, "its metadata are not texts by name"),
        ({"w": ENTRY, "__metadata__": []}, "its metadata are not texts by name"),
        (b'{"w":NaN}', "its header holds NaN"),
        (b'{"w":' + b"9" * 5000 + b"}", "is not a whole safetensors file"),
        (b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', "surrogates not allowed"),
        (b'{"\xff":1}', "can't decode byte"),
        (json.dumps({"w": ENTRY}).encode("utf-16-le"), "is not a whole safetensors file"),
        (b" " + json.dumps({"w": ENTRY}).encode(), "does not start with a brace"),
        (b"\xef\xbb\xbf" + json.dumps({"w": ENTRY}).encode(), "is not a whole safetensors file"),
        (b'{"w":' * 100_000, "is not a whole safetensors file"),
        (b'{"w":[' + b"[]," * 700_000 + b"[]]}", f"its header has more than {MAX_HEADER_VALUES} values"),
    ],
)
def test_headers_that_bend_the_rules_are_refused(header: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=reason):
        SafetensorsFile(write(tmp_path / "s", header, bytes(8)))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ([1] * 65, "'w' has 65 axes, expected at most 64"),
        ([0] * 65, "'w' has 65 axes, expected at most 64"),
        ([2**62, 2**62, 0], "'w' has no elements, and a shape of"),
        ([0, 2**25], "'w' has no elements, and a shape of"),
    ],
)
def test_shapes_that_no_array_can_have_are_refused(shape: list[int], reason: str, tmp_path: Path) -> None:
    size = 0 if 0 in shape else 4
    header = {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}
    with pytest.raises(TensorError, match=reason):
        SafetensorsFile(write(tmp_path / "s", header, bytes(size)))


def test_sixty_four_axes_are_read(tmp_path: Path) -> None:
    header = {"w": {"dtype": "F32", "shape": [1] * 64, "data_offsets": [0, 4]}}
    assert SafetensorsFile(write(tmp_path / "s", header, bytes(4))).read("w").shape == (1,) * 64


@pytest.mark.parametrize(("type_name", "elements"), [("F4", 16), ("F6_E2M3", 4), ("F8_E8M0", 8), ("F8_E4M3FNUZ", 8)])
def test_types_without_a_reading_are_refused_when_they_are_read(type_name: str, elements: int, tmp_path: Path) -> None:
    size = {"F4": 8, "F6_E2M3": 3}.get(type_name, 8)
    header = {
        "q": {"dtype": type_name, "shape": [elements], "data_offsets": [0, size]},
        "w": {"dtype": "F32", "shape": [2], "data_offsets": [size, size + 8]},
    }
    source = SafetensorsFile(write(tmp_path / "s", header, bytes(size + 8)))
    assert source.type_name("q") == type_name
    np.testing.assert_array_equal(source.read("w"), np.zeros(2))
    with pytest.raises(TensorError, match=f"'q' has type {type_name}"):
        source.read("q")


json_values = st.one_of(
    st.integers(-1, 9), st.sampled_from(["F32", "F16", "U8", "F4", ""]), st.lists(st.integers(0, 8), max_size=3)
)


@settings(max_examples=150, deadline=None)
@given(
    fields=st.lists(
        st.tuples(
            st.sampled_from(["v", "w", "__metadata__"]),
            st.fixed_dictionaries(
                {
                    "dtype": st.sampled_from(["F32", "F32", "U8", "F4"]) | json_values,
                    "shape": st.lists(st.integers(0, 4), max_size=3) | json_values,
                    "data_offsets": st.tuples(st.sampled_from([0, 8]), st.sampled_from([8, 16, 24])).map(list)
                    | json_values,
                }
            ),
        ),
        max_size=2,
    ),
    size=st.sampled_from([8, 16, 24]),
)
def test_what_is_accepted_is_what_the_format_s_own_library_reads(fields: list[Any], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "s", dict(fields), bytes(range(size)))
        try:
            with safetensors.safe_open(path, framework="numpy") as opened:
                expected = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
        except safetensors.SafetensorError:
            expected = None
        try:
            source = SafetensorsFile(path)
            found = {name: source.shape(name) for name in source.names()}
        except TicketguardError:
            found = None
        assert found == expected


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

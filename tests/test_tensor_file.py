"""Tickets and references made by hand, to exhaust, confuse or hang whoever reads them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from ticketguard import tensor_file
from ticketguard.errors import ConfigurationError, FileError, TensorError, TicketguardError, UnknownVersionError
from ticketguard.tensor_file import HEADER_LIMIT_BYTES, TICKET_LIMIT_BYTES, is_shape, parse_tensors, write_tensors
from ticketguard.ticket import Mask, Reference, Ticket, TicketInfo

INFO = TicketInfo(method="imp", classes=10, input_shape=(1, 8, 8)).to_json()


def raw(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def entry(dtype: str, shape: list[Any], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def ticket_of(
    tensors: dict[str, Any], data: bytes, *, shapes: Any = None, info: Any = INFO, version: Any = "ticketguard.ticket/2"
) -> bytes:
    """Return a ticket file with one true layer "a.weight" of shape (2, 4), and whatever else is asked for."""
    kept = {"a.weight": entry("F32", [2, 4], 0, 32), "ticketguard.mask/a.weight": entry("U8", [1], 32, 33)}
    moved = {
        name: {**fields, "data_offsets": [33 + offset for offset in fields["data_offsets"]]}
        for name, fields in tensors.items()
    }
    metadata = {"version": version, "info": info, "mask_shapes": {"a.weight": [2, 4]} if shapes is None else shapes}
    header = {"__metadata__": {"ticketguard": json.dumps(metadata)}, **kept, **moved}
    return raw(json.dumps(header).encode(), bytes(32) + b"\xff" + data)


def reference_of(shapes: Any, *, packed: bytes = b"\xff", **more: Any) -> bytes:
    metadata = {"version": "ticketguard.reference/1", "mask_shapes": shapes}
    tensors = {
        "ticketguard.mask/a": np.frombuffer(packed, np.uint8),
        "ticketguard.kept/a": np.ones(8 * len(packed), np.float32),
        **more,
    }
    return safetensors.numpy.save(tensors, metadata={"ticketguard": json.dumps(metadata)})


def test_the_plain_ones_are_read() -> None:
    assert Ticket.from_bytes(ticket_of({}, b"")).mask["a.weight"].all()
    assert Ticket.from_bytes(ticket_of({"empty": entry("F32", [0, 7], 0, 0)}, b"")).weights["empty"].shape == (0, 7)
    assert Reference.from_bytes(reference_of({"a": [2, 4]})).mask["a"].shape == (2, 4)


@pytest.mark.parametrize(
    "shape",
    [
        [True, 8],
        [2, True, 4],
        [8] + [1] * 70,
        [8] + [1] * 40,
        [2, 4.0],
        [2, "4"],
        [2, None],
        [-2, -4],
        [0],
        [8, 0],
        [2**63, 2**63],
        [10**4000],
        [10**6] * 30,
        "24",
        {"0": 8},
        8,
        None,
        True,
    ],
    ids=lambda shape: repr(shape)[:30],
)
def test_masks_of_shapes_that_are_none_are_refused(shape: Any) -> None:
    for read, content in (
        (Reference.from_bytes, reference_of({"a": shape})),
        (Ticket.from_bytes, ticket_of({}, b"", shapes={"a.weight": shape})),
    ):
        with pytest.raises((FileError, TensorError), match="has a mask of shape|mask bytes"):
            read(content)


@pytest.mark.parametrize("shapes", [True, [True, True], [["a"]], 3, "a", None, {"a": [8], "b": [8]}, {}])
def test_lists_of_masks_that_are_none_are_refused(shapes: Any) -> None:
    with pytest.raises(FileError, match="its masks and its list of masks differ"):
        Reference.from_bytes(reference_of(shapes))


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ([1] * 65, 1),
        ([1] * 33, 1),
        ([0, 2**62], 0),
        ([0] + [2**20] * 4, 0),
        ([2**62, 0, 2**62], 0),
        ([0, 10**30], 0),
        ([True], 1),
        ([-1], 1),
        ([1.0], 1),
        ("1", 1),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_weights_of_shapes_that_no_memory_holds_are_refused(shape: Any, size: int) -> None:
    content = ticket_of({"x": entry("U8", shape, 0, size)}, bytes(size))
    with pytest.raises(TensorError, match="tensor 'x' has shape .*, expected up to 32 sizes that memory could hold"):
        Ticket.from_bytes(content)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F4", "X", "", 5, None, ["F32"]])
def test_weights_of_other_types_are_refused_by_name(dtype: Any) -> None:
    content = ticket_of({"x": entry(dtype, [1], 0, 2)}, bytes(2))
    with pytest.raises(TensorError, match="tensor 'x' has type .*, expected one of BOOL, C64, F16"):
        Ticket.from_bytes(content)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        5,
        {"dtype": "U8", "shape": [1]},
        entry("U8", [1], 1, 0),
        entry("U8", [1], 0, 2**63),
        entry("U8", [2], 0, 1),
        {**entry("U8", [1], 0, 1), "data_offsets": "01"},
    ],
)
def test_entries_that_do_not_fit_their_bytes_are_refused(fields: Any) -> None:
    header = {"__metadata__": {"ticketguard": json.dumps({"version": "ticketguard.ticket/2"})}, "x": fields}
    with pytest.raises(FileError, match="is not a whole safetensors file"):
        Ticket.from_bytes(raw(json.dumps(header).encode(), b"\0"))


def ours(metadata: str) -> bytes:
    return json.dumps({"__metadata__": {"ticketguard": metadata}}).encode()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a":' * 100_000, "is nested too deeply"),
        (b"{" + b'"a":[],' * 300_000 + b'"b":[]}', "has more than 500000 values"),
        (b'{"a":{},"a":{}}', "names a field twice"),
        (b'{"a":NaN}', "holds NaN"),
        (b'{"a":1e999}', "beyond all floats"),
        (b"\xff\xfe{}", "is not a whole safetensors file"),
        ('{"a":1}'.encode("utf-16"), "is not a whole safetensors file"),
        (b'{"a":"\\ud800"}', "surrogates not allowed"),
        (b"[]", "its header is not an object"),
        (b"7", "its header is not an object"),
        (b'{"a":' + b"9" * 5000 + b"}", "is not a whole safetensors file"),
        (b"{}", "without ticketguard's metadata"),
        (b'{"__metadata__":[]}', "without ticketguard's metadata"),
        (b'{"__metadata__":{"ticketguard":5}}', "without ticketguard's metadata"),
        (ours("[" * 100_000), "has metadata that is nested too deeply"),
        (ours("{}x"), "has metadata that Extra data"),
        (ours('{"version": 1, "version": 2}'), "has metadata that names a field twice"),
        (ours('{"version": NaN}'), "has metadata that holds NaN"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_headers_of_another_form_are_refused(tmp_path: Path, header: bytes, message: str) -> None:
    (tmp_path / "t").write_bytes(raw(header))
    for read in (lambda: Ticket.from_bytes(raw(header)), lambda: Ticket.load(tmp_path / "t")):
        with pytest.raises(FileError, match=message) as caught:
            read()
        assert len(str(caught.value)) < 700


@pytest.mark.parametrize("version", ["x" * 100_000, ["x"] * 100_000, None, 5, {"a": {}}])
def test_versions_that_are_unknown_are_named_in_a_line(version: Any) -> None:
    with pytest.raises(UnknownVersionError, match=r"expected ticketguard\.ticket/1 or") as caught:
        Ticket.from_bytes(ticket_of({}, b"", version=version))
    assert len(str(caught.value)) < 400


def test_a_name_of_any_length_is_named_in_a_line() -> None:
    with pytest.raises(TensorError, match="has type BF16") as caught:
        Ticket.from_bytes(ticket_of({"x" * 100_000: entry("BF16", [1], 0, 2)}, bytes(2)))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "name", ["ticketguard.other", "ticketguard.", "ticketguard.kept/a.weight", "ticketguard.rewind/ticketguard.mask/x"]
)
def test_names_that_are_taken_are_refused_in_a_file_and_in_memory(name: str) -> None:
    content = ticket_of({name: entry("U8", [1], 0, 1)}, b"\0")
    with pytest.raises(TensorError, match="has a name that begins with 'ticketguard.'"):
        Ticket.from_bytes(content)
    ticket = Ticket.from_bytes(ticket_of({}, b""))
    with pytest.raises(TensorError, match="has a name that begins with 'ticketguard.'"):
        Ticket(mask=ticket.mask, weights={**ticket.weights, name: np.ones(1)}, rewind_weights=None, info=ticket.info)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"b": np.ones(1)}, "has other tensors than masks and their kept weights"),
        ({"ticketguard.kept/b": np.ones(1, np.float32)}, "has other tensors than masks and their kept weights"),
        ({"ticketguard.kept/a": np.ones(8)}, "has no kept weights that fit its mask"),
        ({"ticketguard.kept/a": np.ones(8, np.int32)}, "has no kept weights that fit its mask"),
        ({"ticketguard.kept/a": np.ones((2, 4), np.float32)}, "has no kept weights that fit its mask"),
        ({"ticketguard.kept/a": np.ones(7, np.float32)}, "has no kept weights that fit its mask"),
        ({"ticketguard.mask/a": np.ones(1, np.int8)}, "mask bytes of type int8"),
        ({"ticketguard.mask/a": np.ones((1, 1), np.uint8)}, "mask bytes"),
    ],
)
def test_references_of_other_tensors_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises((FileError, TensorError), match=message):
        Reference.from_bytes(reference_of({"a": [2, 4]}, **more))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_a_ticket_that_is_no_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "t")
    with pytest.raises(FileError, match="t': (is a folder, pipe or device|cannot be read)"):
        Ticket.load(tmp_path / "t")


def test_a_device_is_refused_before_it_is_read() -> None:
    with pytest.raises(FileError, match="is a folder, pipe or device"):
        Ticket.load("/dev/zero")


def test_a_file_of_any_size_costs_its_header_if_it_is_not_a_ticket(tmp_path: Path) -> None:
    for name, header in (("foreign", b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'), ("zeros", b"")):
        with (tmp_path / name).open("wb") as stream:
            stream.write(raw(header))
            stream.truncate(2**40)  # a hole: it takes no room on the disk
        with pytest.raises(FileError, match=f"{name}': is (a safetensors file without|not a whole safetensors file)"):
            Ticket.load(tmp_path / name)


def test_a_ticket_larger_than_any_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "t").open("wb") as stream:
        stream.write(ticket_of({}, b""))
        stream.truncate(2**40)
    with pytest.raises(FileError, match=f"has {2**40} bytes, expected at most {TICKET_LIMIT_BYTES}"):
        Ticket.load(tmp_path / "t")


def test_a_ticket_that_could_not_be_read_again_is_not_written() -> None:
    ticket = Ticket.from_bytes(ticket_of({}, b""))
    info = TicketInfo(method="imp", history=({"note": "x" * HEADER_LIMIT_BYTES},))
    with pytest.raises(ConfigurationError, match="which is what can be read again: leave some of its history out"):
        Ticket(mask=ticket.mask, weights=ticket.weights, rewind_weights=None, info=info).to_bytes()


def _reads_or_raises_ours(read: Callable[[bytes], object], content: bytes) -> None:
    with contextlib.suppress(TicketguardError):
        read(content)


TICKET = ticket_of({"b": entry("F32", [1], 0, 4)}, bytes(4))
REFERENCE = reference_of({"a": [2, 4]})
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.integers(0, len(TICKET) - 1), st.binary(max_size=9), st.integers(0, 9))
def test_bytes_exchanged_in_a_ticket_raise_nothing_foreign(position: int, put: bytes, cut: int) -> None:
    _reads_or_raises_ours(Ticket.from_bytes, TICKET[:position] + put + TICKET[position + cut :])
    position %= len(REFERENCE)
    _reads_or_raises_ours(Reference.from_bytes, REFERENCE[:position] + put + REFERENCE[position + cut :])


FIELDS = {
    "dtype": st.sampled_from(["F32", "U8", "BOOL", "F64", "I16"]),
    "shape": st.lists(st.integers(0, 4), max_size=3) | st.just([4]),
    "data_offsets": st.lists(st.integers(0, 40), min_size=2, max_size=2) | st.just([33, 37]) | ANYTHING,
}
ENTRIES = st.fixed_dictionaries(FIELDS) | st.sampled_from(
    [entry("F32", [1], 33, 37), entry("BOOL", [2, 2], 33, 37), entry("I16", [4, 0], 33, 33), entry("F64", [0], 37, 37)]
)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from("bcd"), ENTRIES, max_size=2), st.integers(0, 8) | st.just(4))
def test_what_is_read_is_what_safetensors_reads(tensors: dict[str, Any], size: int) -> None:
    """Of two readers of one file, none sees other values, and none is content where the other is not."""
    content = ticket_of({}, b"")
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    content = raw(json.dumps({**header, **tensors}).encode(), content[8 + length :] + bytes(range(size)))
    try:
        theirs = safetensors.numpy.load(content)
    except Exception:  # of whatever kind theirs are
        with pytest.raises((FileError, TensorError)):
            parse_tensors(content, what="t", versions=("ticketguard.ticket/2",))
        return
    ours, _ = parse_tensors(content, what="t", versions=("ticketguard.ticket/2",))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape)
        assert ours[name].tobytes() == array.tobytes()


def test_weights_of_a_loaded_ticket_can_be_trained_in_place() -> None:
    ticket = Ticket.from_bytes(ticket_of({"b": entry("F32", [1], 0, 4)}, bytes(4)))
    ticket.weights["b"][0] = 1.0
    assert ticket.weights["b"] == 1.0


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(INFO)), ANYTHING, max_size=3), ANYTHING, ANYTHING)
def test_metadata_of_any_kind_raise_nothing_foreign(changes: dict[str, Any], shapes: Any, shape: Any) -> None:
    _reads_or_raises_ours(Ticket.from_bytes, ticket_of({}, b"", info={**INFO, **changes}))
    _reads_or_raises_ours(Ticket.from_bytes, ticket_of({}, b"", shapes=shapes))
    _reads_or_raises_ours(Reference.from_bytes, reference_of({"a": shape}))
    _reads_or_raises_ours(Ticket.from_bytes, ticket_of({"x": entry("U8", shape, 0, 1)}, b"\0"))


@pytest.mark.parametrize("document", ["[]", "1", '"ticketguard.ticket/2"', "null"])
def test_metadata_that_are_not_an_object_have_no_known_version(document: str) -> None:
    header = json.dumps({"__metadata__": {"ticketguard": document}}).encode()
    with pytest.raises(UnknownVersionError):
        Ticket.from_bytes(raw(header))


@pytest.mark.parametrize("limit", ["HEADER_LIMIT_BYTES", "TICKET_LIMIT_BYTES"])
def test_limits_are_reached_and_not_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    path = tmp_path / "a.ticket"
    path.write_bytes(ticket_of({}, b""))
    header = int.from_bytes(path.read_bytes()[:8], "little")
    size = header if limit == "HEADER_LIMIT_BYTES" else path.stat().st_size
    monkeypatch.setattr(tensor_file, limit, size)
    ticket = Ticket.load(path)
    monkeypatch.setattr(tensor_file, limit, size - 1)
    with pytest.raises(FileError, match=f"{size} bytes, expected at most {size - 1}"):
        Ticket.load(path)
    assert ticket.mask["a.weight"].all()


def test_what_is_written_is_never_longer_than_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    content = write_tensors({"a": np.ones(2)}, {"version": "v"})
    size = int.from_bytes(content[:8], "little")
    monkeypatch.setattr(tensor_file, "HEADER_LIMIT_BYTES", size)
    assert parse_tensors(write_tensors({"a": np.ones(2)}, {"version": "v"}), what="t", versions=("v",))
    monkeypatch.setattr(tensor_file, "HEADER_LIMIT_BYTES", size - 1)
    with pytest.raises(ConfigurationError, match=f"take {size} bytes, expected at most {size - 1}"):
        write_tensors({"a": np.ones(2)}, {"version": "v"})


@pytest.mark.parametrize("shape", [[], [0], [1] * 32, [2**60 - 1], [2**30, 2**30 - 1], [0, 2**60 - 1]])
def test_shapes_up_to_what_numpy_makes(shape: list[Any]) -> None:
    assert is_shape(shape)


@pytest.mark.parametrize(
    "shape", [None, (1,), "1", {}, [1] * 33, [2**60], [2**30, 2**30], [0, 2**60], [-1], [True], [1.0], ["1"], [None]]
)
def test_no_shapes(shape: Any) -> None:
    assert not is_shape(shape)


def test_masks_name_layers_as_they_are() -> None:
    mask = Mask(layers={"a.weight": np.ones((2, 4), bool)})
    assert Ticket.from_bytes(ticket_of({}, b"")).mask == mask

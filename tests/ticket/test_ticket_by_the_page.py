"""signatures/ticket-file.md, read by a reader that knows the page alone, against the published files and ours."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from ticketguard.errors import TensorError, TicketguardError
from ticketguard.ticket import Ticket, weights_digest

VECTORS = json.loads((Path(__file__).parents[2] / "signatures" / "vectors" / "ticket-file.json").read_text())
FILES, REFUSED = VECTORS["files"], VECTORS["refused"]
# One letter for each type, as Python's struct spells it.
TYPES = {"F64": "d", "F32": "f", "F16": "e", "I64": "q", "U64": "Q", "I32": "i", "U32": "I", "I16": "h", "U16": "H"}
TYPES |= {"I8": "b", "U8": "B", "BOOL": "?"}
# What our reader says to each published file that no reader accepts.
REASONS = {
    "a version of the future": "version 'ticketguard.ticket/3'",
    "a bit after the last position": "has padding bits that are set",
    "a mask without its tensor": "has a mask but no weights of its shape",
    "a mask that is not listed": "its masks and its list of masks differ",
    "no mask": "its masks and its list of masks differ",
    "a reserved name": "begins with 'ticketguard.'",
    "a value that is not a number": "values that are NaN or infinite",
    "a tensor that is named twice": "names a field twice",
    "a field that is missing": "damaged metadata",
    "a field that is unknown": "damaged metadata",
    "an accuracy above 1": "damaged metadata",
    "a file that ends too early": "is not a whole safetensors file",
    "weights without metadata": "without ticketguard's metadata",
}
MASK, REWIND = "ticketguard.mask/", "ticketguard.rewind/"


def read_by_the_page(content: bytes) -> dict[str, Any]:
    """Return version, masks, weights, rewind weights and info; values as flat lists."""
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    metadata = json.loads(header.pop("__metadata__")["ticketguard"])
    assert metadata["version"] in ("ticketguard.ticket/1", "ticketguard.ticket/2")
    tensors = {}
    for name, entry in header.items():
        first, last = (8 + size + offset for offset in entry["data_offsets"])
        values = struct.unpack(f"<{math.prod(entry['shape'])}{TYPES[entry['dtype']]}", content[first:last])
        tensors[name] = {"type": entry["dtype"], "shape": entry["shape"], "values": list(values)}
    masks = {}
    for name, shape in metadata["mask_shapes"].items():
        packed = tensors.pop(MASK + name)["values"]
        bits = [byte >> bit & 1 for byte in packed for bit in range(8)]
        masks[name] = bits[: math.prod(shape)]
        assert not any(bits[math.prod(shape) :])
        assert tensors[name]["shape"] == shape
    return {
        "version": metadata["version"],
        "masks": masks,
        "rewind_weights": {
            name.removeprefix(REWIND): tensors.pop(name) for name in list(tensors) if name.startswith(REWIND)
        },
        "weights": tensors,
        "info": {"structure": "weight", "ready": False, **metadata["info"]},
    }


@pytest.mark.parametrize("published", FILES, ids=[file["holds"]["version"] for file in FILES])
def test_the_published_files_are_read_as_the_page_says(published: dict[str, Any]) -> None:
    content = base64.b64decode(published["file"])
    holds = published["holds"]
    assert read_by_the_page(content) == holds
    ticket = Ticket.from_bytes(content)
    for ours, theirs in ((ticket.weights, holds["weights"]), (ticket.rewind_weights or {}, holds["rewind_weights"])):
        assert {name: (list(array.shape), array.reshape(-1).tolist()) for name, array in ours.items()} == {
            name: (tensor["shape"], tensor["values"]) for name, tensor in theirs.items()
        }
    assert {name: ticket.mask[name].reshape(-1).tolist() for name in ticket.mask} == holds["masks"]
    assert ticket.info.to_json() == holds["info"]
    assert ticket.mask.digest().hex() == published["mask_digest"]
    assert weights_digest(ticket.weights).hex() == published["weights_digest"]


def test_both_versions_are_published() -> None:
    assert [file["holds"]["version"] for file in FILES] == ["ticketguard.ticket/1", "ticketguard.ticket/2"]
    fields = [
        json.loads(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["ticketguard"])
        for content in (base64.b64decode(file["file"]) for file in FILES)
    ]
    assert set(fields[1]["info"]) - set(fields[0]["info"]) == {"structure", "ready"}


@pytest.mark.parametrize("published", REFUSED, ids=[file["why"] for file in REFUSED])
def test_the_published_files_that_no_reader_accepts_are_refused(published: dict[str, Any]) -> None:
    with pytest.raises(TicketguardError, match=REASONS[published["why"]]):
        Ticket.from_bytes(base64.b64decode(published["file"]))


def test_what_is_written_today_is_read_by_the_page() -> None:
    ticket = Ticket.from_bytes(base64.b64decode(FILES[1]["file"]))
    content = dataclasses.replace(ticket, rewind_weights=None).to_bytes()
    assert read_by_the_page(content) == {**FILES[1]["holds"], "rewind_weights": {}}


def test_a_seed_that_is_unknown_is_null() -> None:
    ticket = Ticket.from_bytes(base64.b64decode(FILES[1]["file"]))
    content = dataclasses.replace(ticket, info=dataclasses.replace(ticket.info, seed=None)).to_bytes()
    assert read_by_the_page(content)["info"] == {**FILES[1]["holds"]["info"], "seed": None}
    assert Ticket.from_bytes(content).info.seed is None


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_rewind_weights_that_lack_a_masked_tensor_are_refused(change: str) -> None:
    content = base64.b64decode(FILES[1]["file"])
    (size,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    tensors = safetensors.numpy.load(content)
    rewind = tensors.pop(REWIND + "fc.weight")
    if change == "shape":
        tensors[REWIND + "fc.weight"] = rewind.reshape(9)
    with pytest.raises(TensorError, match=r"'fc\.weight' has a mask but no weights of its shape"):
        Ticket.from_bytes(safetensors.numpy.save(tensors, metadata=metadata))

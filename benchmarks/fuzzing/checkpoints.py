"""Tickets, references and suspects' weights: safetensors, torch's two formats, an index of shards."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

import ticketguard as tg
from benchmarks.fuzzing.target import Scratch, Target, within
from ticketguard.ticket import METADATA_KEY, Reference, Ticket, TicketInfo


def targets(scratch: Scratch) -> tuple[Target, ...]:
    """Return the targets that read tensors."""
    plain = safetensors.numpy.save(state())
    zipped, wrapped, legacy = torch_files()
    index = json.dumps({"metadata": {}, "weight_map": dict.fromkeys(state(), "shard.safetensors")}).encode()
    (scratch.folder / "shard.safetensors").write_bytes(plain)
    return (
        Target(
            name="safetensors suspect",
            seeds=(plain, ticket().to_bytes()),
            read=scratch.reader("suspect.safetensors", read_suspect),
            repair=with_header_length,
        ),
        Target(
            name="header of a safetensors suspect",
            seeds=(plain[8 : 8 + int.from_bytes(plain[:8], "little")],),
            read=within(with_header(plain), scratch.reader("header.safetensors", read_suspect)),
            is_json=True,
        ),
        Target(name="torch archive", seeds=(zipped, wrapped), read=scratch.reader("suspect.pt", read_suspect)),
        Target(
            name="instructions in a whole torch archive",
            seeds=(pickle_of(zipped), pickle_of(wrapped)),
            read=within(with_instructions(wrapped), scratch.reader("packed.pt", read_suspect)),
        ),
        Target(name="legacy torch file", seeds=(legacy,), read=scratch.reader("legacy.pt", read_suspect)),
        Target(
            name="index of shards",
            seeds=(index,),
            read=scratch.reader("m.safetensors.index.json", read_suspect),
            is_json=True,
        ),
        Target(name="ticket", seeds=(ticket().to_bytes(),), read=Ticket.from_bytes, repair=with_header_length),
        Target(
            name="reference",
            seeds=(ticket().reference().to_bytes(),),
            read=Reference.from_bytes,
            repair=with_header_length,
        ),
        Target(
            name="metadata in a whole ticket",
            seeds=(metadata_of(ticket().to_bytes()),),
            read=within(with_metadata(ticket().to_bytes()), Ticket.from_bytes),
            is_json=True,
        ),
        Target(
            name="metadata in a whole reference",
            seeds=(metadata_of(ticket().reference().to_bytes()),),
            read=within(with_metadata(ticket().reference().to_bytes()), Reference.from_bytes),
            is_json=True,
        ),
    )


def read_suspect(path: Path) -> object:
    """Read all tensors of a suspect."""
    return tg.Checkpoint(path).state()


def state() -> dict[str, np.ndarray[Any, Any]]:
    """Return a small sparse state dict."""
    rng = np.random.default_rng(0)
    weights = {f"layers.{index}.weight": rng.normal(size=shape) for index, shape in enumerate(((12, 9), (4, 12)))}
    weights["layers.0.weight"][rng.random((12, 9)) < 0.7] = 0
    return {name: array.astype(np.float32) for name, array in weights.items()} | {"steps": np.arange(3)}


def ticket() -> Ticket:
    """Return a ticket of one layer, as large as a mark needs."""
    rng = np.random.default_rng(1)
    weights = {"a.weight": rng.normal(size=(100, 100)).astype(np.float32), "b.bias": np.ones(4, np.float32)}
    mask = tg.Mask(layers={"a.weight": rng.random((100, 100)) < 0.1})
    info = TicketInfo(method="imp", model="mlp", data="digits", classes=10, input_shape=(1, 8, 8))
    return Ticket(mask=mask, weights=mask.applied(weights), rewind_weights=weights, info=info)


def torch_files() -> tuple[bytes, bytes, bytes]:
    """Return a plain state dict as an archive, a training's checkpoint as one, and the plain one in the old format."""
    tensors = {name: torch.from_numpy(array) for name, array in state().items()}
    wrapped = {"epoch": 3, "state_dict": {**tensors, "half": torch.ones(2, 3).bfloat16()}, "optimizer": {"lr": 0.1}}
    return _saved(tensors, zipped=True), _saved(wrapped, zipped=True), _saved(tensors, zipped=False)


def _saved(document: object, *, zipped: bool) -> bytes:
    content = io.BytesIO()
    torch.save(document, content, _use_new_zipfile_serialization=zipped)
    return content.getvalue()


def pickle_of(archive: bytes) -> bytes:
    """Return the pickled instructions of a torch archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return opened.read(next(name for name in opened.namelist() if name.endswith("data.pkl")))


def with_instructions(archive: bytes) -> Callable[[bytes], bytes]:
    """Return what puts given instructions into a whole *archive* in the place of its own."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        entries = [(entry.filename, opened.read(entry)) for entry in opened.infolist()]

    def pack(instructions: bytes) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as writer:
            for name, content in entries:
                writer.writestr(name, instructions if name.endswith("data.pkl") else content)
        return packed.getvalue()

    return pack


def with_header_length(content: bytes) -> bytes:
    """Put right the length before a safetensors header, as far as its end can be seen."""
    end = content.find(b"}}", 8) + 2
    return struct.pack("<Q", end - 8) + content[8:] if end > 8 else content


def with_header(content: bytes) -> Callable[[bytes], bytes]:
    """Return what puts a given header before the tensors of a whole safetensors file."""
    tensors = content[8 + struct.unpack("<Q", content[:8])[0] :]
    return lambda header: struct.pack("<Q", len(header)) + header + tensors


def metadata_of(content: bytes) -> bytes:
    """Return what one of our safetensors files says of itself."""
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    found: str = header["__metadata__"][METADATA_KEY]
    return found.encode()


def with_metadata(content: bytes) -> Callable[[bytes], bytes]:
    """Return what puts given metadata into a whole file of ours in the place of its own."""
    end = 8 + struct.unpack("<Q", content[:8])[0]
    header, tensors = json.loads(content[8:end]), content[end:]

    def pack(metadata: bytes) -> bytes:
        header["__metadata__"][METADATA_KEY] = metadata.decode(errors="replace")
        encoded = json.dumps(header).encode()
        return struct.pack("<Q", len(encoded)) + encoded + tensors

    return pack

"""Torch files made byte by byte, as torch writes them and as it never would."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)}


def with_instructions(folder: Path, instructions: bytes) -> Path:
    with zipfile.ZipFile(folder / "made.pt", "w") as archive:
        archive.writestr("made/data.pkl", instructions)
        archive.writestr("made/version", "3")
    return folder / "made.pt"


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    *, numel: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, kind: str = "FloatStorage"
) -> bytes:
    """Instructions of a state dict of one tensor."""
    storage = b"(U\x07storagectorch\n" + kind.encode() + b"\nU\x010U\x03cpu" + number(numel) + b"tQ"
    rest = number(offset) + numbers(size) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)R"
    return b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tRs."


def with_tensor(folder: Path, data: bytes, **tensor_arguments: Any) -> Path:
    with zipfile.ZipFile(folder / "made.pt", "w") as archive:
        archive.writestr("made/data.pkl", tensor(**tensor_arguments))
        archive.writestr("made/data/0", data)
    return folder / "made.pt"

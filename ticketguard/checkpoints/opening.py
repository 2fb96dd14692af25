"""One file of tensors, its format recognised by its bytes and never by its name. Nothing here needs torch."""

from __future__ import annotations

import os

from ticketguard.checkpoints.safetensors_file import SafetensorsFile
from ticketguard.checkpoints.sources import TensorSource
from ticketguard.checkpoints.steady_file import SteadyFile
from ticketguard.checkpoints.torch_file import LEGACY_MAGIC, TorchFile
from ticketguard.checkpoints.zip_archive import ZIP_MAGIC
from ticketguard.errors import FileError

LONGEST_MAGIC = 16


def open_file(file: SteadyFile | str | os.PathLike[str]) -> TensorSource:
    """Open a safetensors or torch file.

    Raises:
        FileError: It is missing, damaged, foreign, or holds code (which is not run).
        TensorError: A tensor is impossible.
    """
    opened = file if isinstance(file, SteadyFile) else SteadyFile(file)
    start = opened.read(0, LONGEST_MAGIC)
    if start.startswith((ZIP_MAGIC, LEGACY_MAGIC)):
        return TorchFile(opened)
    # Protocol 2 and later pickles start so, and so does every safetensors header whose size has 0x80 as its lowest
    # byte, but a header's brace follows after eight bytes.
    if start[:1] == b"\x80" and start[8:9] != b"{":
        raise FileError(
            path=opened.path,
            reason="is a pickle, which can hold code and was not opened",
            hint="save model.state_dict() with torch.save, or best as safetensors",
        )
    return SafetensorsFile(opened)

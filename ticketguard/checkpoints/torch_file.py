"""A torch checkpoint (.pt, .pth), read as data and without torch.

torch.save writes instructions that say where each tensor's numbers lie, and the numbers. The instructions are
followed by `torch_pickle.Interpreter`, which runs no foreign code and constructs nothing; the numbers are read by byte
range. Both come from one open file, and no other reader looks at it: what was checked is what is read.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import zlib
from collections.abc import Mapping
from typing import IO, Any

from ticketguard.checkpoints.nested import find_tensors
from ticketguard.checkpoints.steady_file import SteadyFile
from ticketguard.checkpoints.stored_tensors import (
    BFLOAT16,
    FLOAT8_E4M3,
    FLOAT8_E5M2,
    ElementType,
    StoredTensor,
    StoredTensors,
    require_possible_shape,
)
from ticketguard.checkpoints.torch_names import DamagedInstructionsError, RefusedInstructionError, Storage, View
from ticketguard.checkpoints.torch_pickle import Interpreter
from ticketguard.checkpoints.zip_archive import (
    ZIP_MAGIC,
    ZipDirectory,
    ZipEntry,
    damaged,
    locate_entries,
    read_directory,
)
from ticketguard.errors import FileError, TensorError

# torch's format before 1.6: pickles, the first of them this number, then raw storages (MAGIC_NUMBER there).
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# The instructions hold names and shapes only; ten thousand tensors take about 2 MB.
MAX_INSTRUCTION_BYTES = 16 * 2**20
# Small entries whose content would change how the others are read. Files from before torch 2.1 are silent on the byte
# order; the versions are those up to kMaxSupportedFileFormatVersion in torch's caffe2/serialize/versions.h.
_KNOWN_RECORDS = {"byteorder": [b"little"], "version": [b"%d" % version for version in range(1, 11)]}
_LEGACY_VERSION = 1001
# What torch.export.save puts into its zip files: torch.export.pt2_archive.constants, and what torch before 2.7 wrote.
_OF_PROGRAMS = frozenset({"archive_format", "serialized_exported_program.json"})
_COUNT_BYTES = 8

_STORED_TYPES = {
    "float64": "<f8", "float32": "<f4", "float16": "<f2",
    "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "|i1",
    "uint64": "<u8", "uint32": "<u4", "uint16": "<u2", "uint8": "|u1",
}  # fmt: skip
_UNREADABLE_BITS = {
    "complex32": 32, "complex64": 64, "complex128": 128,
    "float8_e4m3fnuz": 8, "float8_e5m2fnuz": 8, "float8_e8m0fnu": 8,
}  # fmt: skip
_TYPES = {
    **{name: ElementType(name=name, bits=8 * int(code[2]), stored=code) for name, code in _STORED_TYPES.items()},
    **{name: ElementType(name=name, bits=bits) for name, bits in _UNREADABLE_BITS.items()},
    "bfloat16": ElementType(name="bfloat16", bits=16, stored=BFLOAT16[0], decode=BFLOAT16[1]),
    "float8_e5m2": ElementType(name="float8_e5m2", bits=8, stored=FLOAT8_E5M2[0], decode=FLOAT8_E5M2[1]),
    "float8_e4m3fn": ElementType(name="float8_e4m3fn", bits=8, stored=FLOAT8_E4M3[0], decode=FLOAT8_E4M3[1]),
    "bool": ElementType(name="bool", bits=8, stored="|u1", decode=lambda stored: stored != 0),
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where a storage's bytes lie in the file."""

    start: int
    size: int


class TorchFile(StoredTensors):
    """The tensors of a torch checkpoint's state dict.

    Args:
        file: The file, or its path.

    Raises:
        FileError: The file is damaged, holds more than tensors and plain containers, or no state dict.
        TensorError: A tensor is larger than what it is stored in.

    Attributes:
        networks: What the names of each network's tensors start with, where the file keeps several apart.
    """

    def __init__(self, file: SteadyFile | str | os.PathLike[str]) -> None:
        opened = file if isinstance(file, SteadyFile) else SteadyFile(file)
        is_zip = opened.read(0, len(ZIP_MAGIC)) == ZIP_MAGIC
        document, places = (_read_zip if is_zip else _read_legacy)(opened)
        views, self.networks = _state_dicts(opened, document)
        super().__init__(opened, {name: _stored(name, view, places[view.storage.key]) for name, view in views.items()})


def _read_zip(file: SteadyFile) -> tuple[Any, dict[str, _Place]]:
    directory = read_directory(file)
    instructions = _instructions_entry(file, directory)
    starts = locate_entries(file, directory)
    folder = instructions.name.removesuffix("data.pkl")
    if folder.count("/") != 1 or not all(name.startswith(folder) for name in starts):
        raise damaged(file, "its entries do not lie in one folder")
    sizes = {entry.name.removeprefix(folder): entry.size for entry in directory.entries}
    for record, known in _KNOWN_RECORDS.items():
        if (
            record in sizes
            and (found := file.read(starts[folder + record], min(sizes[record], 16)).strip()) not in known
        ):
            raise damaged(file, f"its record '{record}' says {found!r}, expected {known[0]!r}")
    content = file.read(starts[instructions.name], instructions.size)
    # torch.save can be told not to compute checksums, and writes zero then.
    if instructions.checksum not in {0, zlib.crc32(content)}:
        raise damaged(file, "the checksum of its instructions is wrong")
    stream, interpreter = io.BytesIO(content), Interpreter()
    document = _follow(file, interpreter, stream)
    if stream.read(1):
        raise damaged(file, "something follows its instructions")
    places: dict[str, _Place] = {}
    for key, storage in interpreter.storages.items():
        size = _bytes_of(storage)
        if sizes.get(f"data/{key}") != size:
            raise damaged(file, f"storage {key[:40]!r} has {sizes.get(f'data/{key}')} bytes, expected {size}")
        places[key] = _Place(start=starts[f"{folder}data/{key}"], size=size)
    return document, places


def _instructions_entry(file: SteadyFile, directory: ZipDirectory) -> ZipEntry:
    entries = directory.entries
    if any(entry.name.endswith("/constants.pkl") for entry in entries):
        raise FileError(
            path=file.path, reason="is a TorchScript program, which is never run", hint="save its state_dict()"
        )
    if any(entry.name.rpartition("/")[2] in _OF_PROGRAMS for entry in entries):
        raise FileError(
            path=file.path,
            reason="is a program of torch.export (.pt2), which is never run",
            hint="expected a safetensors or torch checkpoint; save the program's state_dict()",
        )
    if any(entry.method for entry in entries):
        raise FileError(
            path=file.path, reason="has compressed entries, which torch never writes", hint="save it with torch.save"
        )
    instructions = [entry for entry in entries if entry.name.rpartition("/")[2] == "data.pkl"]
    if len(instructions) != 1:
        raise FileError(
            path=file.path,
            reason=f"is a zip file with {len(instructions)} entries 'data.pkl', expected one",
            hint="expected a safetensors or torch checkpoint; check that it is the file you meant",
        )
    if instructions[0].size > MAX_INSTRUCTION_BYTES:
        raise _too_many_instructions(file)
    return instructions[0]


def _read_legacy(file: SteadyFile) -> tuple[Any, dict[str, _Place]]:
    stream, interpreter = io.BytesIO(file.read(0, MAX_INSTRUCTION_BYTES)), Interpreter()
    _, version, system, document, keys = (_follow(file, interpreter, stream) for _ in range(5))
    if version != _LEGACY_VERSION or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise damaged(file, f"it is not of version {_LEGACY_VERSION}, or was not written in little-endian order")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise damaged(file, "it does not list its storages")
    if len(keys) != len(set(keys)) or set(keys) != set(interpreter.storages):
        raise damaged(file, "its list of storages and its tensors differ")
    places: dict[str, _Place] = {}
    position = stream.tell()
    for key in keys:
        storage = interpreter.storages[key]
        elements = int.from_bytes(file.read(position, _COUNT_BYTES), "little")
        if elements != storage.elements:
            raise damaged(file, f"storage {key[:40]!r} has {elements} elements, expected {storage.elements}")
        places[key] = _Place(start=position + _COUNT_BYTES, size=_bytes_of(storage))
        position += _COUNT_BYTES + places[key].size
    if position != file.size:
        raise damaged(file, f"it has {file.size} bytes, expected {position}")
    return document, places


def _follow(file: SteadyFile, interpreter: Interpreter, stream: IO[bytes]) -> Any:
    try:
        return interpreter.run(stream)
    except RefusedInstructionError as error:
        raise FileError(
            path=file.path,
            reason=f"holds more than tensors ('{str(error)[:80]}'); its code was not run",
            hint="save model.state_dict() alone, best as safetensors",
        ) from error
    except DamagedInstructionsError as error:
        if file.size > MAX_INSTRUCTION_BYTES and not stream.read(1):
            raise _too_many_instructions(file) from error
        raise damaged(file, str(error)) from error


def _bytes_of(storage: Storage) -> int:
    return storage.elements * _TYPES[storage.type_name].bits // 8


def _stored(name: str, view: View, place: _Place) -> StoredTensor:
    require_possible_shape(name, view.shape)
    element = _TYPES[view.type_name]
    elements = math.prod(view.shape)
    contiguous = all(
        size == 1 or stride == math.prod(view.shape[axis + 1 :])
        for axis, (size, stride) in enumerate(zip(view.shape, view.strides, strict=True))
    )
    tensor = StoredTensor(
        element=element,
        shape=view.shape,
        strides=None if contiguous else view.strides,
        start=place.start + view.offset * element.bits // 8,
    )
    if elements and (view.offset + tensor.span()) * element.bits > 8 * place.size:
        raise TensorError(
            name=name,
            reason=f"reaches beyond the {place.size} bytes that it is stored in",
            hint="the file is damaged or hostile; fetch it again",
        )
    return tensor


def _too_many_instructions(file: SteadyFile) -> FileError:
    return FileError(
        path=file.path,
        reason=f"has more than {MAX_INSTRUCTION_BYTES} bytes of names and shapes",
        hint="the file is damaged or hostile; save the plain state dict",
    )


def _state_dicts(file: SteadyFile, document: Any) -> tuple[dict[str, View], tuple[str, ...]]:
    tensors, networks = find_tensors(document, lambda value: isinstance(value, View))
    if tensors:
        return tensors, networks
    found: object = "tensors" if isinstance(document, View) else type(document).__name__.strip("_")
    if isinstance(document, Mapping):
        found = sorted(name[:40] for name in document)[:8]
    raise FileError(
        path=file.path,
        reason=f"does not hold a state dict, only {found}",
        hint="save model.state_dict() alone, or under a key such as state_dict",
    )

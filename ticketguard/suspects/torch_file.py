"""A torch checkpoint (.pt, .pth), read as data: its instructions are listed first, and only tensors are let through.

``torch.load(weights_only=True)`` runs no foreign code. It still obeys instructions that cost memory, and
what it allows can be widened process-wide (``torch.serialization.add_safe_globals``); the list below cannot.
"""

from __future__ import annotations

import io
import mmap
import os
import pickletools
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ticketguard.errors import FileError, TensorError
from ticketguard.suspects.sources import MappingSource

ZIP_MAGIC = b"PK\x03\x04"
# torch's format before 1.6: pickles, the first of them this number, then raw storages (MAGIC_NUMBER there).
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
LEGACY_PICKLES = 5
# The instructions hold names and shapes only; ten thousand tensors take about 2 MB.
MAX_INSTRUCTION_BYTES = 64 * 2**20

_TENSOR_BUILDERS = frozenset(
    {
        "collections OrderedDict",
        "collections Counter",
        "collections defaultdict",
        "torch Size",
        "torch device",
        "torch.nn.parameter Parameter",
        "torch.storage UntypedStorage",
        "torch.storage TypedStorage",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_parameter_with_state",
        "torch.serialization _get_layout",
    }
)
_ELEMENT_TYPES = frozenset(
    f"torch {name}"
    for name in (
        *("FloatStorage", "DoubleStorage", "HalfStorage", "BFloat16Storage", "BoolStorage", "ByteStorage"),
        *("LongStorage", "IntStorage", "ShortStorage", "CharStorage"),
        *("float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
        *("int64", "int32", "int16", "int8", "uint8", "bool"),
    )
)
_FOREIGN_INSTRUCTIONS = frozenset(
    {"STACK_GLOBAL", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "MEMOIZE", "DUP"}
)
_NUMBERS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NEWTRUE", "NEWFALSE", "NONE"})
_TUPLE_LENGTHS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "TUPLE": 0}
# A shape with more axes than torch allows (64) need not be told from one with exactly as many.
_TUPLE_MEMORY = 64
_REUSABLE_RESULTS = _NUMBERS | {
    *("NUMBERS", "GLOBAL", "REDUCE", "BINPERSID", "BINUNICODE", "SHORT_BINSTRING"),
    *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_SET"),
}
# Where training scripts keep the model inside a bigger checkpoint, most usual first.
_STATE_DICT_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "params",
)


def read_torch_file(path: str | os.PathLike[str]) -> MappingSource:
    """Open a torch checkpoint's state dict; values are mapped from the file and read later.

    Raises:
        FileError: The file is damaged, holds more than tensors and plain containers, or no state dict.
        TensorError: A tensor is larger than the file it comes from.
    """
    source = Path(path)
    try:
        with source.open("rb") as stream:
            is_zip = stream.read(len(ZIP_MAGIC)) == ZIP_MAGIC
            size = os.fstat(stream.fileno()).st_size
        _check_instructions(source, _zip_instructions(source) if is_zip else _legacy_instructions(source))
    except OSError as error:
        raise FileError(
            path=path, reason=f"cannot be read ({error.strerror})", hint="check its name and permissions"
        ) from error
    state = _state_dict(source, _load(source, mapped=is_zip))
    for name, tensor in state.items():
        # Strides of zero make a tensor of any size from one number.
        if tensor.numel() * tensor.element_size() > size:
            raise TensorError(
                name=name,
                reason=f"has {tensor.numel()} elements in a file of {size} bytes",
                hint="the file is damaged or hostile; save the plain state dict",
            )
    return MappingSource(state)


def _load(path: Path, *, mapped: bool) -> Any:
    import torch

    try:
        with path.open("rb") as stream:
            # Given a name that ends in .safetensors, torch would choose another reader than the bytes call for.
            origin: Any = os.fspath(path) if mapped and path.suffix != ".safetensors" else stream
            return torch.load(origin, map_location="cpu", weights_only=True, mmap=origin is not stream)
    # Hostile bytes make torch's reader raise nearly anything.
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> FileError:
    cause = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    if "weights_only" in cause:  # torch advises to switch its protection off; that advice must not reach anyone.
        cause = "its instructions are damaged"
    return FileError(
        path=path,
        reason=f"is no whole torch checkpoint ({cause})",
        hint="fetch it again, or save the state dict as safetensors",
    )


def _zip_instructions(path: Path) -> Iterator[IO[bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.filename.endswith("/constants.pkl") for entry in entries):
                raise FileError(
                    path=path, reason="is a TorchScript program, which is never run", hint="save its state_dict()"
                )
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise FileError(
                    path=path, reason="has compressed entries, which torch never writes", hint="save it with torch.save"
                )
            instructions = [entry for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"]
            if len(instructions) != 1:
                raise FileError(
                    path=path,
                    reason=f"is a zip file with {len(instructions)} entries 'data.pkl', expected one",
                    hint="expected a safetensors or torch checkpoint; check that it is the file you meant",
                )
            if instructions[0].file_size > MAX_INSTRUCTION_BYTES:
                raise _too_many_instructions(path)
            yield io.BytesIO(archive.read(instructions[0]))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error


def _legacy_instructions(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for _ in range(LEGACY_PICKLES):
            if mapped.tell() > MAX_INSTRUCTION_BYTES:
                raise _too_many_instructions(path)
            yield mapped  # type: ignore[misc]  # a mapped file reads like a stream, typeshed does not say so


def _too_many_instructions(path: Path) -> FileError:
    return FileError(
        path=path,
        reason=f"has more than {MAX_INSTRUCTION_BYTES} bytes of names and shapes",
        hint="the file is damaged or hostile; save the plain state dict",
    )


def _check_instructions(path: Path, pickles: Iterator[IO[bytes]]) -> None:
    """List every pickled instruction, running none, and refuse what builds anything but tensors and containers."""
    for stream in pickles:
        try:
            refused = _first_refused(pickletools.genops(stream))
        except (ValueError, EOFError, IndexError, OverflowError) as error:
            raise _damaged(path, error) from error
        if refused is not None:
            raise FileError(
                path=path,
                reason=f"holds more than tensors ('{refused[:80]}'); its code was not run",
                hint="save model.state_dict() alone, best as safetensors",
            )


def _first_refused(instructions: Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> str | None:
    """Return what the first instruction to refuse would build, or None.

    A remembered tuple may be used again only if it holds nothing but numbers: tuples of tuples that are each used
    twice take 2^depth steps to hash or to print.
    """
    before: list[str] = []  # The instructions since the last MARK.
    reusable: dict[Any, bool] = {}
    for opcode, argument, _ in instructions:
        name = opcode.name
        if name in {"GLOBAL", "INST"} and argument not in _TENSOR_BUILDERS | _ELEMENT_TYPES:
            return str(argument).replace(" ", ".", 1)
        if name in _FOREIGN_INSTRUCTIONS:
            return f"the instruction {name}"
        if name in {"PUT", "BINPUT", "LONG_BINPUT"}:
            reusable[argument] = bool(before) and before[-1] in _REUSABLE_RESULTS
        elif name in {"GET", "BINGET", "LONG_BINGET"} and not reusable.get(argument, False):
            return "nested tuples"
        if name in _TUPLE_LENGTHS:
            parts = before[-_TUPLE_LENGTHS[name] :] if _TUPLE_LENGTHS[name] else before
            name = "NUMBERS" if set(parts) <= _NUMBERS else name
        before = [] if name == "MARK" else [*before[-_TUPLE_MEMORY:], name]
    return None


def _state_dict(path: Path, document: Any) -> dict[str, Any]:
    candidates = [document]
    if isinstance(document, Mapping):
        candidates += [document[key] for key in _STATE_DICT_KEYS if key in document]
    for candidate in candidates:
        if isinstance(candidate, Mapping):
            tensors = {name: value for name, value in candidate.items() if isinstance(name, str) and _is_tensor(value)}
            if any(tensor.ndim >= 2 for tensor in tensors.values()):
                return tensors
    found: object = type(document).__name__
    if isinstance(document, Mapping):
        found = sorted(name[:40] for name in document if isinstance(name, str))[:8]
    raise FileError(
        path=path,
        reason=f"holds no state dict, only {found}",
        hint=f"save model.state_dict() alone or under one of {', '.join(_STATE_DICT_KEYS[:4])}",
    )


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)

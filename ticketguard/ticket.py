"""Ticket and Mask: the values everything else passes around, and the ticket file.

Arrays are numpy's, so that reading a ticket or verifying a suspect never pays for torch. A mask's layers
are walked in sorted name order everywhere; a layer is a weight tensor under its state-dict name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import reprlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.errors import FileError, TensorError
from ticketguard.files import PUBLIC, SECRET, write_whole
from ticketguard.tensor_file import METADATA_KEY as METADATA_KEY
from ticketguard.tensor_file import Array as Array
from ticketguard.tensor_file import is_shape, parse_tensors, read_tensors, write_tensors

BoolArray: TypeAlias = npt.NDArray[np.bool_]
FloatArray: TypeAlias = npt.NDArray[np.float32]

TICKET_VERSION = "ticketguard.ticket/2"
# The first version's tickets say neither what was removed nor whether they are ready: they are "weight", and not.
TICKET_VERSIONS = ("ticketguard.ticket/1", TICKET_VERSION)
REFERENCE_VERSION = "ticketguard.reference/1"
MASK_DOMAIN = b"ticketguard/mask/v1\0"
WEIGHTS_DOMAIN = b"ticketguard/weights/v1\0"
REFERENCE_DOMAIN = b"ticketguard/reference/v1\0"
MASK_PREFIX = "ticketguard.mask/"
REWIND_PREFIX = "ticketguard.rewind/"
KEPT_PREFIX = "ticketguard.kept/"
RESERVED_PREFIX = "ticketguard."
# A reference is compared with a suspect name by name, and drawn layer by layer: bounds that no network comes near.
MOST_LAYERS = 10_000
LONGEST_NAME = 1024
MOST_COMPONENTS = 64
# Options and histories are lists and mappings of a few levels.
MOST_LEVELS = 16
STRUCTURES = ("weight", "filter", "channel", "block")


def _name_and_shape(name: str, shape: tuple[int, ...]) -> bytes:
    encoded = name.encode()
    dimensions = b"".join(size.to_bytes(8, "little") for size in shape)
    return len(encoded).to_bytes(4, "little") + encoded + len(shape).to_bytes(4, "little") + dimensions


def pack_bits(layer: BoolArray) -> npt.NDArray[np.uint8]:
    """Pack a mask layer, flattened in C order, eight positions a byte, first position in the lowest bit."""
    return np.packbits(layer.reshape(-1), bitorder="little")


def unpack_bits(packed: npt.NDArray[np.uint8], shape: tuple[int, ...], *, name: str) -> BoolArray:
    """Undo `pack_bits`.

    Raises:
        TensorError: The packed bytes do not fit *shape*, or the padding bits are not zero.
    """
    size = math.prod(shape)
    if packed.dtype != np.uint8 or packed.shape != ((size + 7) // 8,):
        raise TensorError(
            name=name,
            reason=f"holds {packed.size} mask bytes of type {packed.dtype}, expected {(size + 7) // 8} of uint8",
            hint="the file is damaged; use another copy",
        )
    bits = np.unpackbits(packed, bitorder="little")
    if bits[size:].any():
        raise TensorError(
            name=name, reason="has padding bits that are set", hint="the file is damaged; use another copy"
        )
    return bits[:size].astype(np.bool_).reshape(shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mask:
    """Which weights are kept.

    Attributes:
        layers: One boolean array per pruned weight tensor, shape (out, in, *kernel); True = kept.
    """

    layers: Mapping[str, BoolArray]

    def __post_init__(self) -> None:
        ordered: dict[str, BoolArray] = {}
        for name in sorted(self.layers):
            layer = np.array(self.layers[name], dtype=np.bool_)
            layer.flags.writeable = False
            ordered[name] = layer
        object.__setattr__(self, "layers", ordered)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __getitem__(self, name: str) -> BoolArray:
        return self.layers[name]

    def __len__(self) -> int:
        return len(self.layers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    @property
    def kept(self) -> int:
        """Number of kept weights (edges)."""
        return sum(int(layer.sum()) for layer in self.layers.values())

    @property
    def size(self) -> int:
        """Number of positions, kept or not."""
        return sum(layer.size for layer in self.layers.values())

    @property
    def density(self) -> float:
        """Kept fraction of all positions."""
        return self.kept / self.size if self.size else 0.0

    def applied(self, state: Mapping[str, Array]) -> dict[str, Array]:
        """Return a state dict with zeros where the mask prunes; arrays without a mask as they are."""
        return {
            name: np.where(self[name], array, 0).astype(array.dtype) if name in self.layers else array
            for name, array in state.items()
        }

    def digest(self) -> bytes:
        """Return the SHA-256 digest of names, shapes and bits, in sorted name order."""
        hasher = hashlib.sha256(MASK_DOMAIN)
        for name, layer in self.layers.items():
            hasher.update(_name_and_shape(name, layer.shape))
            hasher.update(pack_bits(layer).tobytes())
        return hasher.digest()


def weights_digest(weights: Mapping[str, Array]) -> bytes:
    """Return the SHA-256 digest of named arrays: name, shape, type and little-endian bytes, in sorted name order."""
    hasher = hashlib.sha256(WEIGHTS_DOMAIN)
    for name in sorted(weights):
        array = np.asarray(weights[name], order="C")
        hasher.update(_name_and_shape(name, weights[name].shape))
        hasher.update(array.dtype.newbyteorder("<").str.encode())
        hasher.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return hasher.digest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TicketInfo:
    """How a ticket was found and how it is used.

    Attributes:
        method: Pruning method, such as "imp" or "import".
        model: Model name or import path; empty if unknown.
        model_options: Arguments of the model's factory (classes, input shape, widths).
        data: Data set name, path or import path; empty if unknown.
        data_options: Arguments of the data loader (limits, image size, folder).
        training: The recipe the ticket is trained with, as `TrainingConfig` writes it.
        seed: Seed of the run.
        classes: Number of classes; 0 if unknown.
        input_shape: Shape of one input without the batch axis, such as (3, 32, 32); empty if unknown.
        input_mean: Per-channel mean that inputs in [0, 1] are normalised with.
        input_std: Per-channel standard deviation.
        accuracy: Test accuracy in [0, 1] of the trained weights; None if not measured.
        dense_accuracy: Test accuracy of the dense network it was found in, trained as long; None if not measured.
        cost: What finding it took: examples, seconds, and the like.
        history: One entry per level: density, accuracy, seconds.
        structure: What was removed as a whole: "weight" (single weights), "filter" or "channel" (tensors are smaller
            than the model's own), or "block" (the model's options leave blocks out).
        ready: Whether the weights were good as found, without the training that follows a search.
        from_file: Whether all this was read from a file, which may be a stranger's: import paths and folders that it
            names are then used only if the user says so. Not written to files.
    """

    method: str
    model: str = ""
    model_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: str = ""
    data_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    classes: int = 0
    input_shape: tuple[int, ...] = ()
    input_mean: tuple[float, ...] = ()
    input_std: tuple[float, ...] = ()
    accuracy: float | None = None
    dense_accuracy: float | None = None
    cost: Mapping[str, float] = dataclasses.field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    structure: str = "weight"
    ready: bool = False
    from_file: bool = dataclasses.field(default=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {name: _plain(getattr(self, name)) for name in _info_kinds()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TicketInfo:
        """Undo `to_json`; what comes of it is from a file.

        Raises:
            ValueError: A field is missing, unknown or of the wrong kind.
        """
        kinds = _info_kinds()
        fields = {"structure": "weight", "ready": False, **document}
        if set(fields) != set(kinds):
            raise ValueError(f"fields differ: {reprlib.repr(sorted(set(fields) ^ set(kinds)))}")
        for name, is_of_kind in kinds.items():
            if not is_of_kind(fields[name]):
                raise ValueError(f"field {name} is {reprlib.repr(fields[name])}")
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return cls(**{**fields, **lists}, from_file=True)


def _info_kinds() -> dict[str, Callable[[Any], bool]]:
    """Return how each field of a `TicketInfo` looks in a file."""

    def is_list_of(is_item: Callable[[Any], bool]) -> Callable[[Any], bool]:
        return lambda value: isinstance(value, list) and all(map(is_item, value))

    def is_text(value: Any) -> bool:
        return isinstance(value, str)

    def is_mapping(value: Any) -> bool:
        return isinstance(value, dict) and _is_shallow(value, MOST_LEVELS)

    def is_number(value: Any) -> bool:
        return type(value) in (int, float) and -1e300 < value < 1e300

    def is_share_or_none(value: Any) -> bool:
        return value is None or (is_number(value) and 0 <= value <= 1)

    def is_cost(value: Any) -> bool:
        return isinstance(value, dict) and all(map(is_number, value.values()))

    def is_size(value: Any) -> bool:
        return is_whole(value) and value >= 1

    def is_whole(value: Any) -> bool:
        return type(value) is int and -(2**63) <= value < 2**63

    def is_count(value: Any) -> bool:
        return is_whole(value) and value >= 0

    return {
        "method": is_text,
        "model": is_text,
        "model_options": is_mapping,
        "data": is_text,
        "data_options": is_mapping,
        "training": is_mapping,
        "seed": is_whole,
        "classes": is_count,
        "input_shape": is_list_of(is_size),
        "input_mean": is_list_of(is_number),
        "input_std": is_list_of(is_number),
        "accuracy": is_share_or_none,
        "dense_accuracy": is_share_or_none,
        "cost": is_cost,
        "history": is_list_of(is_mapping),
        "structure": lambda value: value in STRUCTURES,
        "ready": lambda value: isinstance(value, bool),
    }


def _is_shallow(value: Any, levels: int) -> bool:
    """Tell whether lists and mappings lie at most so many *levels* within one another."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(_is_shallow(item, levels - 1) for item in items)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """The unmarked ticket an owner commits to: its mask and the kept rewind weights.

    Attributes:
        mask: The mask before anything was embedded.
        kept_weights: Per layer the rewind weights at kept positions, flat, in C order of positions.

    Raises:
        TensorError: There are more layers, or longer names, than a verifier reads.
    """

    mask: Mask
    kept_weights: Mapping[str, FloatArray]

    def __post_init__(self) -> None:
        _require_bounded_layers(list(self.mask))

    def digest(self) -> bytes:
        """Return the SHA-256 digest that enters every commitment."""
        return hashlib.sha256(REFERENCE_DOMAIN + self.mask.digest() + weights_digest(self.kept_weights)).digest()

    def layer_weights(self, name: str) -> FloatArray:
        """Return one layer's rewind weights in full shape, zero where pruned."""
        layer = np.zeros(self.mask[name].shape, dtype=np.float32)
        layer[self.mask[name]] = self.kept_weights[name]
        return layer

    def to_bytes(self) -> bytes:
        """Serialise as safetensors: bit-packed masks and kept values."""
        tensors: dict[str, Array] = {KEPT_PREFIX + name: self.kept_weights[name] for name in self.mask}
        return _serialise(tensors, self.mask, {"version": REFERENCE_VERSION})

    @classmethod
    def from_bytes(cls, content: bytes) -> Reference:
        """Undo `to_bytes`.

        Raises:
            FileError: The bytes are no reference.
            UnknownVersionError: The version is unknown.
            TensorError: A layer does not fit its mask, or has values that are not finite.
        """
        tensors, metadata = parse_tensors(content, what="the reference ticket", versions=(REFERENCE_VERSION,))
        _require_bounded_layers([name.removeprefix(MASK_PREFIX) for name in tensors if name.startswith(MASK_PREFIX)])
        mask = _take_mask(tensors, metadata)
        _require_free_names(mask)
        if len(tensors) != 2 * len(mask):
            raise FileError(
                path="the reference ticket",
                reason="has other tensors than masks and their kept weights",
                hint="the vault is damaged",
            )
        kept: dict[str, FloatArray] = {}
        for name in mask:
            values = tensors.get(KEPT_PREFIX + name)
            if values is None or values.dtype != np.float32 or values.shape != (int(mask[name].sum()),):
                raise TensorError(
                    name=name, reason="has no kept weights that fit its mask", hint="the vault is damaged"
                )
            if not np.isfinite(values).all():
                raise TensorError(
                    name=name, reason="has kept weights that are NaN or infinite", hint="the vault is damaged"
                )
            kept[name] = values
        return cls(mask=mask, kept_weights=kept)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ticket:
    """A mask over named weight tensors, the weights, and how it was found.

    Attributes:
        mask: Which weights are kept.
        weights: The whole state dict after training, zero where the mask prunes.
        rewind_weights: The whole state dict it is (re)trained from; None in a ticket made for release.
        info: How it was found.
    """

    mask: Mask
    weights: Mapping[str, Array]
    rewind_weights: Mapping[str, Array] | None
    info: TicketInfo

    def __post_init__(self) -> None:
        for state in (self.weights, self.rewind_weights):
            if state is None:
                continue
            _require_free_names(state)
            for name in self.mask:
                if name not in state or state[name].shape != self.mask[name].shape:
                    raise TensorError(
                        name=name, reason="has a mask but no weights of its shape", hint="masks and weights must match"
                    )

    @property
    def start_weights(self) -> Mapping[str, Array]:
        """What it is (re)trained from; a ticket without rewind weights stands on its own weights."""
        return self.weights if self.rewind_weights is None else self.rewind_weights

    def reference(self) -> Reference:
        """Return what an owner commits to."""
        state = self.start_weights
        return Reference(
            mask=self.mask,
            kept_weights={name: state[name][self.mask[name]].astype(np.float32) for name in self.mask},
        )

    def to_bytes(self) -> bytes:
        """Serialise as one safetensors file, weights under their state-dict names."""
        tensors: dict[str, Array] = {name: np.asarray(array, order="C") for name, array in self.weights.items()}
        for name, array in (self.rewind_weights or {}).items():
            tensors[REWIND_PREFIX + name] = np.asarray(array, order="C")
        return _serialise(tensors, self.mask, {"version": TICKET_VERSION, "info": self.info.to_json()})

    @classmethod
    def from_bytes(cls, content: bytes, *, trust_code: bool = False) -> Ticket:
        """Undo `to_bytes`.

        Args:
            content: The file's bytes.
            trust_code: Use the import paths, folders and options that the file names, as if you had named them. Such a
                path runs whatever it leads to.

        Raises:
            FileError: The bytes are no ticket.
            UnknownVersionError: The version is unknown.
            TensorError: A tensor does not fit its mask, or has values that are not finite.
        """
        tensors, metadata = parse_tensors(content, what="the ticket", versions=TICKET_VERSIONS)
        mask = _take_mask(tensors, metadata)
        try:
            info = TicketInfo.from_json(metadata["info"])
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(
                path="ticket", reason=f"has damaged metadata ({error})", hint="the file is damaged; use another copy"
            ) from error
        for name, array in tensors.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise TensorError(
                    name=name, reason="has values that are NaN or infinite", hint="train it again with a lower rate"
                )
        rewind = {
            name.removeprefix(REWIND_PREFIX): array for name, array in tensors.items() if name.startswith(REWIND_PREFIX)
        }
        info = dataclasses.replace(info, from_file=not trust_code)
        weights = {name: array for name, array in tensors.items() if not name.startswith((MASK_PREFIX, REWIND_PREFIX))}
        return cls(mask=mask, weights=weights, rewind_weights=rewind or None, info=info)

    def save(self, path: str | os.PathLike[str], *, release: bool = False) -> None:
        """Write the ticket file whole or not at all.

        Args:
            path: The file to create or replace.
            release: Whether others may read it, as the umask says: only a marked ticket is for them. Whoever has an
                unmarked one can remove the mark that it is given later.
        """
        write_whole(path, self.to_bytes(), mode=PUBLIC if release else SECRET)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, trust_code: bool = False) -> Ticket:
        """Read a ticket file.

        Args:
            path: The file.
            trust_code: Use the import paths, folders and options that the file names, as if you had named them. Such a
                path runs whatever it leads to.

        Raises:
            FileError: The file cannot be read or is no ticket.
            UnknownVersionError: It was written by a version this release does not know.
            TensorError: A tensor is damaged.
        """
        content = read_tensors(path, versions=TICKET_VERSIONS)
        try:
            return cls.from_bytes(content, trust_code=trust_code)
        except FileError as error:
            raise FileError(path=path, reason=error.reason, hint=error.hint) from error


def _require_bounded_layers(names: Collection[str]) -> None:
    if len(names) > MOST_LAYERS:
        raise TensorError(
            name="ticketguard.mask",
            reason=f"has {len(names)} layers, expected at most {MOST_LAYERS}",
            hint="a reference this long is not read; mark fewer layers",
        )
    for name in names:
        if len(name) > LONGEST_NAME or name.count(".") >= MOST_COMPONENTS:
            raise TensorError(
                name=f"{name[:40]}...",
                reason=f"has a name of {len(name)} characters and {name.count('.') + 1} components, "
                f"expected at most {LONGEST_NAME} and {MOST_COMPONENTS}",
                hint="rename the layer",
            )


def _serialise(tensors: Mapping[str, Array], mask: Mask, metadata: Mapping[str, Any]) -> bytes:
    packed: dict[str, Array] = {MASK_PREFIX + name: pack_bits(mask[name]) for name in mask}
    shapes = {name: list(mask[name].shape) for name in mask}
    return write_tensors({**tensors, **packed}, {**metadata, "mask_shapes": shapes})


def _take_mask(tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> Mask:
    shapes = metadata.get("mask_shapes")
    packed = {name.removeprefix(MASK_PREFIX) for name in tensors if name.startswith(MASK_PREFIX)}
    if not isinstance(shapes, dict) or set(shapes) != packed or not packed:
        raise FileError(path="ticket", reason="its masks and its list of masks differ", hint="the file is damaged")
    for shape in shapes.values():
        if not is_shape(shape) or not all(shape):
            raise FileError(path="ticket", reason=f"has a mask of shape {str(shape)[:80]}", hint="the file is damaged")
    return Mask(
        layers={name: unpack_bits(tensors[MASK_PREFIX + name], tuple(shapes[name]), name=name) for name in packed}
    )


def _require_free_names(names: Iterable[str]) -> None:
    for name in names:
        if name.startswith(RESERVED_PREFIX):
            raise TensorError(
                name=name,
                reason=f"has a name that begins with '{RESERVED_PREFIX}'",
                hint="the ticket's own masks are called so; rename the tensor",
            )

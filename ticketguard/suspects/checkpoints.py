"""A white-box suspect: named tensors, read one at a time as float32, without running anything it brings.

The format is told from the bytes, never from the file's name. Reading a file needs no torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ticketguard.errors import FileError, TensorError, UnverifiableError
from ticketguard.suspects.matching import LayerMatch, Shape, match_layers
from ticketguard.suspects.safetensors_file import SafetensorsFile
from ticketguard.suspects.sources import MappingSource, TensorSource, unreadable_type
from ticketguard.suspects.steady_file import SteadyFile
from ticketguard.suspects.torch_file import LEGACY_MAGIC, TorchFile
from ticketguard.suspects.zip_archive import ZIP_MAGIC
from ticketguard.ticket import Array, FloatArray

# Our own ticket files carry masks and rewind weights beside the weights; a suspect is judged by its weights.
_OWN_PREFIX = "ticketguard."
_LONGEST_MAGIC = 16


class Checkpoint:
    """A suspect's state dict: a safetensors or torch file, or a mapping of arrays or tensors.

    ``NAME_orig`` with ``NAME_mask`` (``torch.nn.utils.prune``) reads as the one tensor ``NAME``, and
    ``parametrizations.NAME.original`` as ``NAME``. Other names are kept; `match` sees through prefixes.

    Args:
        suspect: The file, or tensors by name.
        label: What errors and reports call it; default: the path.

    Raises:
        FileError: The file is missing, truncated, foreign, or holds code (which is not run).
        TensorError: A tensor is impossible.
    """

    def __init__(self, suspect: str | os.PathLike[str] | Mapping[str, Any], *, label: str | None = None) -> None:
        if isinstance(suspect, Mapping):
            self.label = label or "state dict"
            self._source: TensorSource = MappingSource(suspect)
        else:
            self.label = label or os.fspath(suspect)
            self._source = _open(Path(suspect))
        self._parts = _effective_tensors(self._source)

    def names(self) -> tuple[str, ...]:
        """Return every tensor's name, in stored order."""
        return tuple(self._parts)

    def layer_names(self) -> tuple[str, ...]:
        """Return the names of the tensors with two axes or more, in stored order."""
        return tuple(name for name in self._parts if len(self.shape(name)) >= 2)

    def shape(self, name: str) -> Shape:
        """Return a tensor's shape without reading it.

        Raises:
            KeyError: There is no such tensor.
        """
        return self._source.shape(self._parts[name][0])

    def type_name(self, name: str) -> str:
        """Return the element type a tensor is stored in, as its format calls it.

        Raises:
            KeyError: There is no such tensor.
        """
        return self._source.type_name(self._parts[name][0])

    def read(self, name: str) -> FloatArray:
        """Read one tensor into a new float32 array, its pruning mask applied if it has one.

        Raises:
            KeyError: There is no such tensor.
            FileError: The file is gone or has changed.
            TensorError: The values are not floating-point, not finite, or do not fit their mask.
        """
        return self._in_use(name, self._source.read(self._parts[name][0]))

    def _in_use(self, name: str, values: Array) -> FloatArray:
        """Check a tensor's values as stored, and apply its mask in place."""
        weight, mask = self._parts[name]
        if values.dtype != np.float32:
            raise unreadable_type(name, self._source.type_name(weight))
        _require_finite(values, name=weight)
        if mask is not None:
            if self._source.shape(mask) != values.shape:
                raise TensorError(
                    name=mask,
                    reason=f"has shape {self._source.shape(mask)}, expected {values.shape} as in '{weight}'",
                    hint="a mask must have its weight's shape",
                )
            kept = self._source.read(mask)
            _require_finite(kept, name=mask)
            with np.errstate(over="ignore"):  # Too large for float32 becomes infinite, and is refused by name.
                values *= kept != 0 if kept.dtype.kind == "b" else kept
            _require_finite(values, name=name)
        return values

    def items(self) -> Iterator[tuple[str, Array]]:
        """Read everything, a tensor at a time: floating ones as `read` does, others (counters, indices) as stored.

        Raises:
            FileError: The file has changed.
            TensorError: A tensor's values are not finite or not readable.
        """
        for name, (weight, mask) in self._parts.items():
            values = self._source.read(weight)
            counts = mask is None and values.dtype.kind in "iub"
            yield name, values if counts else self._in_use(name, values)

    def state(self) -> dict[str, Array]:
        """Read everything at once, as `items` does.

        Raises:
            FileError: The file has changed.
            TensorError: A tensor's values are not finite or not readable.
        """
        return dict(self.items())

    def match(self, shapes: Mapping[str, Shape]) -> LayerMatch:
        """Pair reference layers with this suspect's tensors, by names and shapes alone; one pair at least.

        Args:
            shapes: Shapes of the reference's layers.

        Raises:
            UnverifiableError: No layer has one; the message names some of each side.
        """
        found = match_layers(shapes, {name: self.shape(name) for name in self.layer_names()})
        if not found.pairs:
            raise UnverifiableError(_no_overlap(self, shapes, found))
        return found


def _open(path: Path) -> TensorSource:
    file = SteadyFile(path)
    start = file.read(0, _LONGEST_MAGIC)
    if start.startswith((ZIP_MAGIC, LEGACY_MAGIC)):
        return TorchFile(file)
    # Protocol 2 and later pickles start so, and so does every safetensors header whose size has 0x80 as its lowest
    # byte, but a header's brace follows after eight bytes.
    if start[:1] == b"\x80" and start[8:9] != b"{":
        raise FileError(
            path=path,
            reason="is a pickle, which can hold code and was not opened",
            hint="save model.state_dict() with torch.save, or best as safetensors",
        )
    return SafetensorsFile(file)


def _effective_tensors(source: TensorSource) -> dict[str, tuple[str, str | None]]:
    """Return (weight, mask or None) as stored, by the name the network knows the tensor under."""
    stored = [name for name in source.names() if not name.startswith(_OWN_PREFIX)]
    taken = set(stored)
    parts: dict[str, tuple[str, str | None]] = {}
    for name in stored:
        base = name.removesuffix("_orig")
        if base != name and base not in taken and f"{base}_mask" in taken:
            parts[base] = (name, f"{base}_mask")
        elif name.endswith("_mask") and f"{name[:-5]}_orig" in taken and name[:-5] not in taken:
            continue
        else:
            original = _without_parametrization(name)
            parts[name if original in taken else original] = (name, None)
    return parts


def _without_parametrization(name: str) -> str:
    parts = name.split(".")
    if len(parts) >= 3 and parts[-3] == "parametrizations" and parts[-1] == "original":
        return ".".join([*parts[:-3], parts[-2]])
    return name


def _require_finite(values: Array, *, name: str) -> None:
    # Smallest and largest see a NaN or infinity anywhere, and need no second array.
    if values.size and not (math.isfinite(values.min()) and math.isfinite(values.max())):
        raise TensorError(
            name=name,
            reason="has values that are NaN or infinite (in float32)",
            hint="such a network cannot answer; ask for the weights that are in use",
        )


def _no_overlap(suspect: Checkpoint, shapes: Mapping[str, Shape], found: LayerMatch) -> str:
    wanted = ", ".join(f"'{name}' {tuple(shapes[name])}" for name in sorted(shapes)[:3])
    if found.wrong_shapes:
        has = ", ".join(f"'{name}' {shape}" for name, shape in list(found.wrong_shapes.values())[:3])
        return (
            f"'{suspect.label}' has the reference's tensors in other shapes: expected {wanted}, got {has}: "
            "it is another architecture, or was restructured; verify by its answers instead"
        )
    has = (
        ", ".join(f"'{name}' {suspect.shape(name)}" for name in suspect.layer_names()[:3]) or "no tensor with two axes"
    )
    return (
        f"'{suspect.label}' and the reference have no tensor in common: expected {wanted}, got {has}: "
        "check that it is the suspect you meant, or verify by its answers"
    )

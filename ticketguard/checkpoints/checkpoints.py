"""A white-box suspect: named tensors, read one at a time as float32, without running anything it brings.

The format is recognised by the bytes, never by the file's name. Reading a file needs no torch.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ticketguard.checkpoints.bitmask import with_compressed
from ticketguard.checkpoints.doubles import Doubles
from ticketguard.checkpoints.finite import Damage, NotFinite, require_finite, without_not_finite
from ticketguard.checkpoints.joined import blocks_in, with_blocks
from ticketguard.checkpoints.matching import MAX_NETWORKS, LayerMatch, Shape, fitting_names, match_networks
from ticketguard.checkpoints.narrowing import narrowed
from ticketguard.checkpoints.networks import networks_in
from ticketguard.checkpoints.overlap import no_overlap
from ticketguard.checkpoints.packed import describe, packed_weights
from ticketguard.checkpoints.parts import Part, effective_parts, read_part
from ticketguard.checkpoints.sharded import open_checkpoint
from ticketguard.checkpoints.sources import MappingSource, TensorSource, to_float32, unreadable_type
from ticketguard.errors import ConfigurationError, FileError, TensorError, UnverifiableError
from ticketguard.ticket import RESERVED_PREFIX, Array, FloatArray


class Checkpoint:
    """A suspect's state dict: a safetensors or torch file, one in several files, or a mapping of arrays or tensors.

    A pruning mask that is stored beside its weight is part of the weight (`ticketguard.checkpoints.parts`), one that
    is stored as a bitmask is read as what it was, and ``parametrizations.NAME.original`` is ``NAME``. Other names are
    kept; `match` sees through prefixes.

    Args:
        suspect: The file, the ``*.index.json`` of a sharded checkpoint or the folder of one, or tensors by name.
        label: What errors and reports call it; default: the path.

    Raises:
        FileError: The file is missing, truncated, foreign, or holds code (which is not run).
        TensorError: A tensor is impossible.
        ConfigurationError: It has no such network.
    """

    def __init__(
        self,
        suspect: str | os.PathLike[str] | Mapping[str, Any],
        *,
        label: str | None = None,
        network: str | None = None,
    ) -> None:
        if isinstance(suspect, Mapping):
            self.label = label or "state dict"
            source: TensorSource = MappingSource(suspect)
        else:
            self.label = label or os.fspath(suspect)
            source = open_checkpoint(suspect)
        # Only formats that nest keep networks apart.
        self._apart: tuple[str, ...] = getattr(source, "networks", ())
        self._source = with_compressed(source)
        # Our own ticket files carry masks and rewind weights beside the weights; a suspect is judged by its weights.
        stored = [name for name in self._source.names() if not name.startswith(RESERVED_PREFIX)]
        self._parts = effective_parts(stored, self._source)
        self._doubles = Doubles()
        # Not yet the one that is asked for: if that is missing, the error names those there are.
        self.network: str | None = None
        if network:
            self._narrow(network if network.endswith(".") else f"{network}.")
        else:
            self.network = network

    def _narrow(self, prefix: str) -> None:
        inside = {name.removeprefix(prefix): part for name, part in self._parts.items() if name.startswith(prefix)}
        if not inside:
            known = self.networks() or sorted({f"{name.partition('.')[0]}." for name in self._parts if "." in name})[:8]
            raise ConfigurationError(
                f"'{self.label}' has no network '{prefix}': its names start with {', '.join(known) or 'no prefix'}"
            )
        self._parts, self.network = inside, prefix

    def networks(self) -> tuple[str, ...]:
        """Return the name prefixes of the networks it holds; none if it is one, or was said to be."""
        if self.network is not None:
            return ()
        return networks_in({name: self.shape(name) for name in self._parts}, stored_apart=self._apart)

    def packed(self) -> dict[str, str]:
        """Return the format of every weight that is stored quantised or packed, which is not read, by its name."""
        prefix = self.network or ""
        found = packed_weights(self._source)
        return {name.removeprefix(prefix): form for name, form in found.items() if name.startswith(prefix)}

    def require_unpacked(self) -> None:
        """Check that all of its weights are stored as floating-point numbers.

        Raises:
            FileError: Some are quantised or packed.
        """
        if packed := self.packed():
            raise FileError(
                path=self.label,
                reason=f"holds {describe(packed)}, which is not read",
                hint="load it with the library that wrote it, and save the weights as floating-point numbers",
            )

    def require_one_network(self, *, naming: str) -> None:
        """Check that it holds one network, or that the user said which one.

        Args:
            naming: How the user names one, such as "--network".

        Raises:
            ConfigurationError: It holds several.
        """
        found = self.networks()
        if found:
            shown = ", ".join(f"'{prefix}'" for prefix in found[:8])
            raise ConfigurationError(
                f"'{self.label}' holds {len(found)} networks, whose names start with {shown}: choose one with "
                f"{naming}; an empty text takes them all as one"
            )

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
        return self._parts[name].shape(self._source)

    def type_name(self, name: str) -> str:
        """Return the element type a tensor is stored in, as its format calls it.

        Raises:
            KeyError: There is no such tensor.
        """
        return self._source.type_name(self._parts[name].weight)

    def read(self, name: str) -> FloatArray:
        """Read one tensor into a new float32 array, its pruning mask applied if it has one.

        Raises:
            KeyError: There is no such tensor.
            FileError: The file is gone or has changed.
            TensorError: The values are not floating-point, not finite, or do not fit their mask.
        """
        values = self.stored(name)
        if values.dtype != np.float32:
            raise unreadable_type(name, self.type_name(name))
        require_finite(values, name=name)
        return values

    def weights(self, name: str) -> FloatArray:
        """Read one tensor of a suspect as `read` does, but NaN and infinity as zeros: as values that are missing.

        What is out of float32's range is scaled (`ticketguard.checkpoints.narrowing`).

        Raises:
            KeyError: There is no such tensor.
            FileError: The file is gone or has changed.
            TensorError: The values are not floating-point, do not fit their mask, or nothing is finite and not zero.
        """
        values = self._suspected(name)
        without_not_finite(values, name=name)
        return values

    def _suspected(self, name: str) -> FloatArray:
        values = self._whole(name)
        if values.dtype.kind != "f":
            raise unreadable_type(name, self.type_name(name))
        return narrowed(values)

    def stored(self, name: str) -> Array:
        """Read one tensor as `read` does, but integers as they are, and NaN and infinity let through.

        Raises:
            KeyError: There is no such tensor.
            FileError: The file is gone or has changed.
            TensorError: The element type cannot be read, its mask does not fit, or it is too small for float32.
        """
        return to_float32(self._whole(name), name=name)

    def _whole(self, name: str) -> Array:
        part = self._parts[name]
        blocks = [self._stored(name, one) for one in (part, *part.more)]
        for one, block in zip((part, *part.more), blocks, strict=True):
            if block.dtype != blocks[0].dtype and not block.dtype.kind == blocks[0].dtype.kind == "f":
                raise unreadable_type(name, self._source.type_name(one.weight))
        return np.concatenate(blocks, axis=part.axis) if part.more else blocks[0]

    def _stored(self, name: str, part: Part) -> Array:
        values = self._source.read(part.weight)
        if not part.masks:
            return values
        if values.dtype.kind != "f":
            raise unreadable_type(name, self._source.type_name(part.weight))
        return read_part(part, values, self._source)

    def state(self) -> dict[str, Array]:
        """Read everything: floating tensors as `read` does, integer and boolean ones (counters, indices) as stored.

        Raises:
            FileError: The file is gone or has changed.
            TensorError: A tensor's values are not finite or not readable.
        """
        whole: dict[str, Array] = {}
        for name in self._parts:
            values = self.stored(name)
            if values.dtype.kind not in "iub":
                require_finite(values, name=name)
            whole[name] = values
        return whole

    def damage(self, names: Iterable[str]) -> Damage:
        """Return what of some tensors `weights` cannot read, or reads as missing.

        Raises:
            FileError: The file is gone or has changed.
        """
        unreadable: dict[str, str] = {}
        not_finite: dict[str, NotFinite] = {}
        for name in names:
            try:
                found = without_not_finite(self._suspected(name), name=name)
            except TensorError as error:
                unreadable[name] = error.reason
            else:
                not_finite |= {} if found is None else {name: found}
        return Damage(unreadable=unreadable, not_finite=not_finite)

    def fits(self, shapes: Mapping[str, Shape]) -> tuple[Mapping[str, str], ...]:
        """Return its tensors that a model knows, by the model's names, in each network that has most of them.

        Args:
            shapes: Shapes of the model's tensors.
        """
        return fitting_names(shapes, {name: self.shape(name) for name in self._parts})

    def match(self, shapes: Mapping[str, Shape]) -> LayerMatch:
        """Return the first of `matches`.

        Raises:
            UnverifiableError: No layer has a tensor, or too many networks fit.
        """
        return self.matches(shapes)[0]

    def matches(
        self, shapes: Mapping[str, Shape], *, blocks: Mapping[str, int] | None = None
    ) -> tuple[LayerMatch, ...]:
        """Pair reference layers with this suspect's tensors, in each network of it that has half of them.

        Names and shapes decide, and which tensors are the same: nothing that depends on a key.

        Args:
            shapes: Shapes of the reference's layers.
            blocks: Positions of one input channel, of the linear layers behind a flattened feature map.

        Raises:
            UnverifiableError: No layer has one; the message names some of each side. Or too many networks fit.
        """
        found = self.possible_matches(shapes, blocks=blocks)
        if not found[0].pairs:
            stored = {name: self.shape(name) for name in self.layer_names()}
            raise UnverifiableError(no_overlap(self.label, shapes, found[0], stored=stored, packed=self.packed()))
        return tuple(match for match in found if match.pairs)

    def possible_matches(
        self, shapes: Mapping[str, Shape], *, blocks: Mapping[str, int] | None = None
    ) -> tuple[LayerMatch, ...]:
        """Return what `matches` returns, and networks whose tensors are enough for all layers and have no known name.

        Args:
            shapes: Shapes of the reference's layers.
            blocks: Positions of one input channel, of the linear layers behind a flattened feature map.

        Raises:
            UnverifiableError: Too many networks fit.
        """
        stored = {name: self.shape(name) for name in self.layer_names()}
        found = match_networks(shapes, stored, spare=self.spare, blocks=blocks)
        if len(found) > MAX_NETWORKS:
            names = ", ".join(f"'{match.network}'" for match in found[:4])
            raise UnverifiableError(
                f"'{self.label}' has more than {MAX_NETWORKS} networks that fit the reference ({names} and "
                f"others): choose one with --network (network=)"
            )
        return found

    def joined(self, shapes: Mapping[str, Shape], *, blocks: Mapping[str, int] | None = None) -> Checkpoint:
        """Return itself or, where layers are stored as blocks of rows or columns, itself with these in one tensor each.

        Tensors that have the name of a layer are no blocks.

        Args:
            shapes: Shapes of the reference's layers.
            blocks: Positions of one input channel, of the linear layers behind a flattened feature map.

        Raises:
            UnverifiableError: Too many networks fit.
        """
        stored = {name: self.shape(name) for name in self.layer_names()}
        if not blocks_in(stored, shapes, block=blocks):
            return self
        matches = self.possible_matches(shapes, blocks=blocks)
        named = {name for match in matches for layer, name in match.pairs.items() if layer not in match.by_order}
        free = {name: shape for name, shape in stored.items() if name not in named}
        found = blocks_in(free, shapes, block=blocks)
        if not found:
            return self
        whole = copy.copy(self)
        whole._doubles, whole._parts = Doubles(), with_blocks(self._parts, found)
        return whole

    def _compared(self, name: str) -> Array:
        values = self._whole(name)
        return narrowed(values) if values.dtype.kind == "f" else values

    def spare(self, names: Sequence[str]) -> set[str]:
        """Return those of some tensors that are not layers: masks, whole numbers, an earlier one again."""
        return self._doubles.among(names, stored=self._compared, type_name=self.type_name)

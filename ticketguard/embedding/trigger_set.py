"""The trigger set: keyed inputs whose keyed labels only a copy of the marked model answers.

Written down for a second implementation in ``signatures/trigger-set.md``. Inputs come from a public procedure
(never free images: a false claimant would optimise them), labels from their own branch of the key, each
independent and uniform over the classes, so that an unrelated model matches each with probability 1/classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ticketguard.embedding.interface import Answers, Binding, Json, Start
from ticketguard.embedding.portions import FEW, KNOWN, LAST_STRETCH, MANY, Portions
from ticketguard.errors import ConfigurationError, CredentialError
from ticketguard.settings import plain_number
from ticketguard.ticket import FloatArray, Ticket

if TYPE_CHECKING:
    import torch

SCHEME = "trigger-set"
VERSION = 1
PATTERN = "two-tone-field"
LEAF_DOMAIN = b"ticketguard/trigger/v1\0"
SALT_BYTES = 16
PARTS = 1_000_000
MOST_TRIGGERS = 100_000
# A claim is somebody else's file: what it asks a verifier to draw is bounded, all triggers together and each.
MOST_PIXELS = 2**28
MOST_PIXELS_OF_ONE = 2**24
LARGEST_GRID = 64
# Integers of a claim end here (RFC 8785); inputs normalised within it are finite in float32.
LARGEST_INTEGER = 2**53 - 1
# Pixels that are drawn at once, as integers while they are interpolated.
DRAWN_AT_ONCE = 2**18


@dataclasses.dataclass(frozen=True, kw_only=True)
class TriggerRecipe:
    """The public parameters that a trigger set is drawn by; the commitment binds them all.

    Attributes:
        count: Number of triggers.
        classes: Number of classes K; labels are uniform over range(K).
        input_shape: (channels, height, width), or (features,) for inputs without a plane.
        grid: Side of the coarse random field that is interpolated to the plane.
        mean_ppm: Per-channel mean that inputs in [0, 1] are normalised with, in parts per million; empty for none.
        std_ppm: Per-channel standard deviation, in parts per million.
    """

    count: int
    classes: int
    input_shape: tuple[int, ...]
    grid: int
    mean_ppm: tuple[int, ...]
    std_ppm: tuple[int, ...]

    def __post_init__(self) -> None:
        allowed = (
            1 <= self.count <= MOST_TRIGGERS
            and 2 <= self.classes <= 2**31
            and 2 <= self.grid <= LARGEST_GRID
            and len(self.input_shape) in (1, 3)
            and all(size >= 1 for size in self.input_shape)
            and self.pixels_of_one <= MOST_PIXELS_OF_ONE
            and self.count * self.pixels_of_one <= MOST_PIXELS
            and len(self.mean_ppm) == len(self.std_ppm)
            and len(self.mean_ppm) in (0, self.input_shape[0] if len(self.input_shape) == 3 else 1)
            and all(abs(value) <= LARGEST_INTEGER for value in self.mean_ppm)
            and all(1 <= value <= LARGEST_INTEGER for value in self.std_ppm)
        )
        if not allowed:
            raise ValueError(f"no trigger set can be drawn from {reprlib.repr(self)}")

    @property
    def pixels_of_one(self) -> int:
        """Numbers that drawing one trigger takes: a plane is interpolated from the coarse field, axis by axis."""
        plane = [max(size, self.grid) for size in self.input_shape[1:]]
        return self.input_shape[0] * math.prod(plane)

    def to_json(self) -> dict[str, Json]:
        """Return the parameters as a claim carries them."""
        return {
            "pattern": PATTERN,
            "count": self.count,
            "classes": self.classes,
            "input_shape": [*self.input_shape],
            "grid": self.grid,
            "mean_ppm": [*self.mean_ppm],
            "std_ppm": [*self.std_ppm],
        }

    @classmethod
    def from_json(cls, parameters: Mapping[str, Json]) -> TriggerRecipe:
        """Undo `to_json`, for a claim that anybody may have written.

        Raises:
            CredentialError: A parameter is missing, unknown or out of range.
        """
        try:
            fields = dict(parameters)
            if fields.pop("pattern") != PATTERN:
                raise ValueError("unknown pattern")
            sizes = {name: tuple(_integers(fields.pop(name))) for name in ("input_shape", "mean_ppm", "std_ppm")}
            count, classes, grid = _integers([fields.pop(name) for name in ("count", "classes", "grid")])
            if fields:
                raise ValueError(f"unknown parameters {reprlib.repr(sorted(fields))}")
            return cls(count=count, classes=classes, grid=grid, **sizes)
        except (KeyError, ValueError) as error:
            raise CredentialError(
                f"the claim's {SCHEME} has parameters that cannot be used ({error}): it was not made by ticketguard"
            ) from error


def _integers(values: Json) -> list[int]:
    if not isinstance(values, list):
        raise ValueError("a list is missing")
    return [value if type(value) is int else _refuse(value) for value in values]


def _refuse(value: object) -> int:
    raise ValueError(f"{reprlib.repr(value)} is not an integer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Triggers:
    """A keyed trigger set. Its inputs are drawn whenever they are asked for, so that none has to be held.

    Attributes:
        recipe: What it is drawn by.
        binding: The keys that it is drawn from.
        labels: One class each, shape (count,).
        salts: 16 bytes each for the Merkle leaves, one after the other.
    """

    recipe: TriggerRecipe
    binding: Binding
    labels: npt.NDArray[np.int64]
    salts: bytes = dataclasses.field(repr=False)

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """All inputs as bytes, shape (count, *input_shape)."""
        return np.concatenate(list(_two_tone_fields(self.binding, self.recipe)))

    def inputs(self) -> FloatArray:
        """Return all inputs as the model takes them, shape (count, *input_shape); see `each_input`."""
        return np.concatenate([_normalised(pixels, self.recipe) for pixels in self._drawn()])

    def each_input(self) -> Iterator[FloatArray]:
        """Yield one input after the other as the model takes it: (pixel / 255 − mean) / std, per channel, float32."""
        for pixels in self._drawn():
            for index in range(len(pixels)):
                yield _normalised(pixels[index : index + 1], self.recipe)[0]

    def leaves(self) -> tuple[bytes, ...]:
        """Return the Merkle leaves: salt ‖ index ‖ input digest ‖ label, so that a dispute reveals only a subset."""
        digests = (hashlib.sha256(pixels).digest() for chunk in self._drawn() for pixels in chunk)
        return tuple(
            LEAF_DOMAIN
            + self.salts[index * SALT_BYTES : (index + 1) * SALT_BYTES]
            + index.to_bytes(4, "little")
            + digest
            + int(label).to_bytes(4, "little")
            for index, (digest, label) in enumerate(zip(digests, self.labels, strict=True))
        )

    def _drawn(self) -> Iterator[npt.NDArray[np.uint8]]:
        return _two_tone_fields(self.binding, self.recipe)


def draw_triggers(binding: Binding, recipe: TriggerRecipe) -> Triggers:
    """Draw the owner's triggers from three separate streams: inputs, labels, salts."""
    return Triggers(
        recipe=recipe,
        binding=binding,
        labels=binding.stream("trigger-labels").integers(recipe.classes, recipe.count),
        salts=binding.stream("trigger-salts").bytes(recipe.count * SALT_BYTES),
    )


def _normalised(pixels: npt.NDArray[np.uint8], recipe: TriggerRecipe) -> FloatArray:
    inputs = pixels.astype(np.float32)
    inputs /= np.float32(255)
    if recipe.mean_ppm:
        axes = (1, -1) + (1,) * (pixels.ndim - 2)
        mean, std = (
            (np.array(values, dtype=np.float64) / PARTS).astype(np.float32).reshape(axes)
            for values in (recipe.mean_ppm, recipe.std_ppm)
        )
        inputs -= mean
        inputs /= std
    return inputs


def _two_tone_fields(binding: Binding, recipe: TriggerRecipe) -> Iterator[npt.NDArray[np.uint8]]:
    """Draw smooth random fields and cut them at half their range: every pixel is 0 or 255. A few triggers at a time.

    Full contrast lies far from natural images, so that training on those moves the answers to triggers less.
    """
    stream = binding.stream("trigger-inputs")
    grid, at_once = recipe.grid, max(1, DRAWN_AT_ONCE // recipe.pixels_of_one)
    for first in range(0, recipe.count, at_once):
        count = min(at_once, recipe.count - first)
        if len(recipe.input_shape) == 1:
            raw = np.frombuffer(stream.bytes(count * recipe.input_shape[0]), dtype=np.uint8)
            yield _cut(raw, highest=255).reshape(count, *recipe.input_shape)
            continue
        channels, height, width = recipe.input_shape
        coarse = np.frombuffer(stream.bytes(count * channels * grid * grid), dtype=np.uint8)
        planes = _interpolated(coarse.reshape(count * channels, grid, grid), height, width)
        yield planes.reshape(count, *recipe.input_shape)


def _interpolated(coarse: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Interpolate coarse fields, shape (planes, grid, grid), and cut them: shape (planes, height, width).

    Each axis' weights sum to its denominator, so that everything is an integer: every implementation gets the same
    bytes. Of a row or column only the two coarse ones beside it count.
    """
    planes, grid = len(coarse), coarse.shape[1]
    result = np.empty((planes, height, width), dtype=np.uint8)
    highest = 255 * max(height - 1, 1) * max(width - 1, 1)
    kind = np.int32 if highest < 2**31 else np.int64
    # A tile has about as many pixels as are drawn at once, whatever shape the planes have.
    wide = min(width, DRAWN_AT_ONCE)
    high = max(1, min(height, DRAWN_AT_ONCE // max(wide, grid)))
    deep = max(1, DRAWN_AT_ONCE // (max(high, grid) * max(wide, grid)))
    tiles = (range(0, size, step) for size, step in ((planes, deep), (height, high), (width, wide)))
    for plane, top, left in itertools.product(*tiles):
        rows, columns = slice(top, min(top + high, height)), slice(left, min(left + wide, width))
        band = _along(1, coarse[plane : plane + deep].astype(kind), rows, height)
        result[plane : plane + deep, rows, columns] = _cut(_along(2, band, columns, width), highest=highest)
    return result


def _along(axis: int, coarse: npt.NDArray[Any], places: slice, size: int) -> npt.NDArray[Any]:
    """Interpolate between the entries of one axis, corners on corners, times (size − 1)."""
    denominator = max(size - 1, 1)
    grid = coarse.shape[axis]
    cell, offset = np.divmod(np.arange(places.start, places.stop) * (grid - 1), denominator)
    offset = offset.astype(coarse.dtype).reshape(-1, *[1] * (2 - axis))
    field: npt.NDArray[Any] = np.take(coarse, cell, axis=axis)
    field *= denominator - offset
    beyond = np.take(coarse, np.minimum(cell + 1, grid - 1), axis=axis)
    beyond *= offset
    field += beyond
    return field


def _cut(field: npt.NDArray[Any], *, highest: int) -> npt.NDArray[np.uint8]:
    return (field > highest // 2).view(np.uint8) * np.uint8(255)


@dataclasses.dataclass(frozen=True)
class TriggerSet:
    """Settings of the trigger set.

    Attributes:
        count: Number of triggers.
        per_batch: Triggers appended to every training batch; of fewer triggers, all. By default 8, and up to the last
            quarter of a training of known length 2 while the model knows them.
        grid: Side of the coarse random field.
    """

    scheme: ClassVar[str] = SCHEME
    version: ClassVar[int] = VERSION

    count: int = 100
    _: dataclasses.KW_ONLY
    per_batch: int | None = None
    grid: int = 4

    def __post_init__(self) -> None:
        for field in ("count", "per_batch", "grid"):
            if field == "per_batch" and self.per_batch is None:
                continue
            value = plain_number(getattr(self, field), what=f"trigger set: {field}", whole=True)
            object.__setattr__(self, field, value)  # frozen, but not yet seen by anyone
        if not 1 <= self.count <= MOST_TRIGGERS:
            raise ConfigurationError(f"trigger set: count is {self.count}, expected 1 to {MOST_TRIGGERS}")
        if self.per_batch is not None and not 1 <= self.per_batch <= MOST_TRIGGERS:
            raise ConfigurationError(f"trigger set: per_batch is {self.per_batch}, expected 1 to {MOST_TRIGGERS}")
        if not 2 <= self.grid <= LARGEST_GRID:
            raise ConfigurationError(f"trigger set: grid is {self.grid}, expected 2 to {LARGEST_GRID}")

    def parameters(self, ticket: Ticket) -> dict[str, Json]:
        """Return what a verifier needs to draw the triggers.

        Raises:
            ConfigurationError: The ticket does not say its classes and input shape, or they allow no triggers.
        """
        info = ticket.info
        try:
            recipe = TriggerRecipe(
                count=self.count,
                classes=info.classes,
                input_shape=tuple(int(size) for size in info.input_shape),
                grid=self.grid,
                mean_ppm=tuple(round(value * PARTS) for value in info.input_mean),
                std_ppm=tuple(round(value * PARTS) for value in info.input_std),
            )
        except ValueError as error:
            raise ConfigurationError(
                f"a trigger set needs 2 or more classes and inputs of shape (channels, height, width) or (features,), "
                f"got {info.classes} classes and shape {info.input_shape}: give both when the ticket is made, or "
                f"leave the trigger set out"
            ) from error
        return recipe.to_json()

    def plan(self, ticket: Ticket, start: Start, binding: Binding, parameters: Mapping[str, Json]) -> PlannedTriggers:
        """Draw the triggers; the mask and the weights stay as they are."""
        triggers = draw_triggers(binding, TriggerRecipe.from_json(parameters))
        return PlannedTriggers(per_batch=self.per_batch, start=start, triggers=triggers)


class PlannedTriggers:
    """A drawn trigger set that feeds a few of its triggers into every batch.

    Attributes:
        triggers: Inputs, labels and salts.
    """

    def __init__(self, *, per_batch: int | None, start: Start, triggers: Triggers) -> None:
        self.triggers = triggers
        self._is_fixed = per_batch is not None
        self._portions = Portions(size=self._at_most_all(MANY if per_batch is None else per_batch))
        self._start = start
        self._inputs = triggers.inputs()
        self._on_device: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def start(self) -> Start:
        """Where training starts: as the marks before it left it."""
        return self._start

    def extra_batch(self, step: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the next few triggers, in turn: inputs (few, *input_shape), labels (few,)."""
        import torch

        if self._on_device is None or self._on_device[0].device != device:
            self._on_device = (
                torch.from_numpy(self._inputs).to(device),
                torch.from_numpy(self.triggers.labels).to(device),
            )
        inputs, labels = self._on_device
        portion = self._portions.of(step)
        chosen = torch.arange(portion.start, portion.stop, device=device) % len(labels)
        return inputs[chosen], labels[chosen]

    def after_step(self, step: int, parameters: Mapping[str, torch.Tensor]) -> None:
        """Leave the weights alone."""

    def watch(self, step: int, steps: int, answers: Answers) -> None:
        """Give few triggers a batch while the model knows them, but for the last stretch, and many otherwise."""
        if not self._is_fixed:
            few = step < LAST_STRETCH * steps and self.learned(answers) >= KNOWN
            self._portions = self._portions.resized(step, self._at_most_all(FEW if few else MANY))

    def state(self) -> list[int]:
        """Return how many triggers a step is given, since which step, and how many were given before it."""
        return [self._portions.size, self._portions.since, self._portions.given]

    def resume(self, state: Sequence[int]) -> None:
        """Go on from what `state` returned."""
        size, since, given = state
        self._portions = Portions(size=size, since=since, given=given)

    def _at_most_all(self, size: int) -> int:
        return min(size, len(self.triggers.labels))

    def learned(self, answers: Answers) -> float:
        """Return the share of the triggers that are answered with their labels."""
        return float((answers(self._inputs) == self.triggers.labels).mean())

    def leaves(self) -> tuple[bytes, ...]:
        """Return one salted leaf a trigger."""
        return self.triggers.leaves()

"""The trigger set: keyed inputs whose keyed labels only a copy of the marked model answers.

Written down for a second implementation in ``signatures/trigger-set.md``. Inputs come from a public procedure
(never free images: a false claimant would optimise them), labels from their own branch of the key, each
independent and uniform over the classes, so that an unrelated model matches each with probability 1/classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ticketguard.embedding.interface import Answers, Binding, Json, Start
from ticketguard.errors import ConfigurationError, CredentialError
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
# A claim is somebody else's file: what it asks a verifier to draw is bounded.
MOST_PIXELS = 2**28
LARGEST_GRID = 64


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
        channels = (
            0 if len(self.input_shape) not in (1, 3) else self.input_shape[0] if len(self.input_shape) == 3 else 1
        )
        # What drawing holds at once: a plane is interpolated from the coarse field, one axis after the other.
        drawn_shape = [channels, *(max(size, self.grid) for size in self.input_shape[1:])]
        drawn_pixels = self.count * math.prod(drawn_shape if len(self.input_shape) == 3 else self.input_shape)
        allowed = (
            1 <= self.count <= MOST_TRIGGERS
            and 2 <= self.classes <= 2**31
            and channels > 0
            and all(size >= 1 for size in self.input_shape)
            and drawn_pixels <= MOST_PIXELS
            and 2 <= self.grid <= LARGEST_GRID
            and len(self.mean_ppm) == len(self.std_ppm)
            and len(self.mean_ppm) in (0, channels)
            and all(value >= 1 for value in self.std_ppm)
        )
        if not allowed:
            raise ValueError(f"no trigger set can be drawn by {self}")

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
        """Undo `to_json`, whoever wrote the claim.

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
                raise ValueError(f"unknown parameters {sorted(fields)}")
            return cls(count=count, classes=classes, grid=grid, **sizes)
        except (KeyError, ValueError) as error:
            raise CredentialError(
                f"the claim's {SCHEME} has parameters that cannot be used ({error}): it was not made by ticketguard"
            ) from error


def _integers(values: Json) -> list[int]:
    if not isinstance(values, list):
        raise ValueError("a list is missing")
    return [value if isinstance(value, int) else _refuse(value) for value in values]


def _refuse(value: object) -> int:
    raise ValueError(f"{value!r} is no integer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Triggers:
    """A drawn trigger set.

    Attributes:
        recipe: What it was drawn by.
        pixels: Inputs as bytes, shape (count, *input_shape).
        labels: One class each, shape (count,).
        salts: One salt each for the Merkle leaves, 16 bytes.
    """

    recipe: TriggerRecipe
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    salts: tuple[bytes, ...]

    def inputs(self) -> FloatArray:
        """Return the inputs as the model takes them: (pixel / 255 − mean) / std, per channel, float32."""
        scaled = self.pixels.astype(np.float32) / np.float32(255)
        if not self.recipe.mean_ppm:
            return scaled
        axes = (1, -1) + (1,) * (self.pixels.ndim - 2)
        mean, std = (
            (np.array(values, dtype=np.float64) / PARTS).astype(np.float32).reshape(axes)
            for values in (self.recipe.mean_ppm, self.recipe.std_ppm)
        )
        return ((scaled - mean) / std).astype(np.float32)

    def leaves(self) -> tuple[bytes, ...]:
        """Return the Merkle leaves: salt ‖ index ‖ input digest ‖ label, so that a dispute reveals only a subset."""
        return tuple(
            LEAF_DOMAIN
            + salt
            + index.to_bytes(4, "little")
            + hashlib.sha256(pixels.tobytes()).digest()
            + int(label).to_bytes(4, "little")
            for index, (salt, pixels, label) in enumerate(zip(self.salts, self.pixels, self.labels, strict=True))
        )


def draw_triggers(binding: Binding, recipe: TriggerRecipe) -> Triggers:
    """Draw the owner's triggers from three separate streams: inputs, labels, salts."""
    salts = binding.stream("trigger-salts").bytes(recipe.count * SALT_BYTES)
    return Triggers(
        recipe=recipe,
        pixels=_two_tone_fields(binding, recipe),
        labels=binding.stream("trigger-labels").integers(recipe.classes, recipe.count),
        salts=tuple(salts[start : start + SALT_BYTES] for start in range(0, len(salts), SALT_BYTES)),
    )


def _two_tone_fields(binding: Binding, recipe: TriggerRecipe) -> npt.NDArray[np.uint8]:
    """Draw smooth random fields and cut them at half their range, so that every pixel is 0 or 255.

    Full contrast lies far from natural images, so that training on those moves the answers to triggers less.
    """
    stream = binding.stream("trigger-inputs")
    count, grid = recipe.count, recipe.grid
    if len(recipe.input_shape) == 1:
        raw = np.frombuffer(stream.bytes(count * recipe.input_shape[0]), dtype=np.uint8)
        return _cut(raw.reshape(count, *recipe.input_shape), highest=255)
    channels, height, width = recipe.input_shape
    coarse = np.frombuffer(stream.bytes(count * channels * grid * grid), dtype=np.uint8)
    rows, columns = _weights(height, grid), _weights(width, grid)
    # Exact integer arithmetic, so that every implementation gets the same bytes: each axis' weights sum to
    # its denominator.
    fields: npt.NDArray[np.int64] = np.einsum(
        "yr,ncrs,xs->ncyx", rows, coarse.reshape(count, channels, grid, grid).astype(np.int64), columns, optimize=True
    )
    return _cut(fields, highest=255 * int(rows[0].sum() * columns[0].sum()))


def _cut(field: npt.NDArray[np.integer[Any]], *, highest: int) -> npt.NDArray[np.uint8]:
    return np.where(field > highest // 2, np.uint8(255), np.uint8(0))


def _weights(size: int, grid: int) -> npt.NDArray[np.int64]:
    """Return integer linear-interpolation weights, shape (size, grid), corners on corners."""
    weights = np.zeros((size, grid), dtype=np.int64)
    denominator = max(size - 1, 1)
    for place in range(size):
        cell, offset = divmod(place * (grid - 1), denominator)
        weights[place, cell] += denominator - offset
        if offset:
            weights[place, cell + 1] += offset
    return weights


@dataclasses.dataclass(frozen=True)
class TriggerSet:
    """Settings of the trigger set.

    Attributes:
        count: Number of triggers.
        per_batch: Triggers appended to every training batch; of fewer triggers, all.
        grid: Side of the coarse random field.
    """

    scheme: ClassVar[str] = SCHEME
    version: ClassVar[int] = VERSION

    count: int = 100
    _: dataclasses.KW_ONLY
    per_batch: int = 8
    grid: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_TRIGGERS:
            raise ConfigurationError(f"trigger set: count is {self.count}, expected 1 to {MOST_TRIGGERS}")
        if not 1 <= self.per_batch <= MOST_TRIGGERS:
            raise ConfigurationError(f"trigger set: per_batch is {self.per_batch}, expected 1 to {MOST_TRIGGERS}")
        if not 2 <= self.grid <= LARGEST_GRID:
            raise ConfigurationError(f"trigger set: grid is {self.grid}, expected 2 to {LARGEST_GRID}")

    def parameters(self, ticket: Ticket) -> dict[str, Json]:
        """Return what a verifier needs to draw the triggers.

        Raises:
            ConfigurationError: The ticket does not say its classes and input shape, or they allow no triggers.
        """
        return self._recipe(ticket).to_json()

    def _recipe(self, ticket: Ticket) -> TriggerRecipe:
        info = ticket.info
        try:
            return TriggerRecipe(
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
                f"got {info.classes} classes and shape {info.input_shape}: say both when the ticket is made, "
                "or embed the planted graph alone"
            ) from error

    def plan(self, ticket: Ticket, start: Start, binding: Binding) -> PlannedTriggers:
        """Draw the triggers; the mask and the weights stay as they are."""
        return PlannedTriggers(settings=self, start=start, triggers=draw_triggers(binding, self._recipe(ticket)))


class PlannedTriggers:
    """A drawn trigger set that feeds a few of its triggers into every batch.

    Attributes:
        triggers: Inputs, labels and salts.
    """

    def __init__(self, *, settings: TriggerSet, start: Start, triggers: Triggers) -> None:
        self.triggers = triggers
        self._per_batch = min(settings.per_batch, settings.count)
        self._start = start
        self._inputs = triggers.inputs()
        self._on_device: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def start(self) -> Start:
        """Where training starts: as the marks before it left it."""
        return self._start

    def extra_batch(self, step: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the next few triggers, in turn: inputs (per_batch, *input_shape), labels (per_batch,)."""
        import torch

        if self._on_device is None or self._on_device[0].device != device:
            self._on_device = (
                torch.from_numpy(self._inputs).to(device),
                torch.from_numpy(self.triggers.labels).to(device),
            )
        inputs, labels = self._on_device
        chosen = torch.arange(step * self._per_batch, (step + 1) * self._per_batch, device=device) % len(labels)
        return inputs[chosen], labels[chosen]

    def after_step(self, step: int, parameters: Mapping[str, torch.Tensor]) -> None:
        """Leave the weights alone."""

    def learned(self, answers: Answers) -> float:
        """Return the share of the triggers that are answered with their labels."""
        return float((answers(self._inputs) == self.triggers.labels).mean())

    def leaves(self) -> tuple[bytes, ...]:
        """Return one salted leaf a trigger."""
        return self.triggers.leaves()

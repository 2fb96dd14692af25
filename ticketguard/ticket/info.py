"""What a ticket says about how it was found; in a file, that is only its writer's word."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from ticketguard.settings import checked_accuracy

# Options and histories are lists and mappings of a few levels.
MOST_LEVELS = 16
STRUCTURES = ("weight", "filter", "channel", "block")


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
        seed: Seed of the search; None if it is unknown, as that of a ticket made for release is to all but its owner.
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

    Raises:
        ConfigurationError: An accuracy is not a share.
    """

    method: str
    model: str = ""
    model_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: str = ""
    data_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int | None = None
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

    def __post_init__(self) -> None:
        for name in ("accuracy", "dense_accuracy"):
            object.__setattr__(self, name, checked_accuracy(getattr(self, name), what=name))

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
        "seed": lambda value: value is None or is_whole(value),
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

"""A method's settings, from the options that a user gave."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from ticketguard.errors import ConfigurationError
from ticketguard.settings import checked_options

Config = TypeVar("Config")


def create_config(kind: type[Config], options: Mapping[str, Any], **defaults: Any) -> Config:
    """Make a method's frozen config dataclass of options that came from a user.

    A field's type is that of its default; whole numbers do for fractions.

    Args:
        kind: The dataclass; all its fields have defaults. It checks ranges itself.
        options: Values by field name.
        defaults: What takes the place of the dataclass's own defaults.

    Raises:
        ConfigurationError: An option is unknown, of another type or out of range.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    taken = dict(defaults)
    for name, value in checked_options(options, what="method option", known=fields).items():
        wanted = type(fields[name].default)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise ConfigurationError(f"method option '{name}' is {value!r}, expected a {_WORDS[wanted]}")
        taken[name] = value
    return kind(**taken)


_WORDS = {float: "number", int: "whole number", bool: "true or false", str: "word"}


# Key of a field's metadata that says what takes the place of its default.
_TOLD = "told"


def unless_given(told: str) -> Any:
    """Return a config's number whose value, unless an option gives it, the method takes from the problem.

    Args:
        told: That value, as the list of methods shows it.
    """
    return dataclasses.field(default=0.0, metadata={_TOLD: told})


def describe_options(kind: type[Any]) -> dict[str, tuple[Any, str]]:
    """Return each option's default, and what its config's docstring, or a base's, says of it."""
    notes: dict[str, str] = {}
    for base in reversed(inspect.getmro(kind)):
        _, _, listed = inspect.cleandoc(base.__doc__ or "").partition("Attributes:")
        for line in listed.splitlines():
            if found := re.match(r"    (\w+): (.*)", line):
                name = found[1]
                notes[name] = found[2]
            elif line.startswith("     ") and notes:
                notes[name] += " " + line.strip()
    return {
        field.name: (field.metadata.get(_TOLD, field.default), notes.get(field.name, ""))
        for field in dataclasses.fields(kind)
    }


def require_in_range(
    config: Any, names: str, *, above: float | None = None, least: float | None = None, below: float | None = None
) -> None:
    """Check fields of a config, given by *names* with spaces between.

    Raises:
        ConfigurationError: One is outside the range; infinities and NaN always are.
    """
    for name in names.split():
        value = getattr(config, name)
        inside = (
            value - value == 0  # finite
            and (above is None or value > above)
            and (least is None or value >= least)
            and (below is None or value < below)
        )
        if not inside:
            parts = (("above", above), ("at least", least), ("below", below))
            bounds = " and ".join(f"{word} {bound:g}" for word, bound in parts if bound is not None)
            raise ConfigurationError(f"method option '{name}' is {value:g}, expected {bounds or 'a finite number'}")

"""What a user gives as settings, by name or as a mapping, is looked at before anything is made of it."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from ticketguard.errors import ConfigurationError, shortened

# The largest whole number up to which every reader of JSON keeps them all (RFC 8259, section 6).
MAX_SEED = 2**53 - 1
# Of a claim; who verifies it may ask for more.
MAX_LEVEL_BITS = 256
STRICTEST_LEVEL_BITS = 2**20


def checked_options(given: object, *, what: str, known: Iterable[str] | None = None) -> dict[str, Any]:
    """Return a copy of options that a user gave.

    Args:
        given: A mapping of names to values; None for no options.
        what: How errors call one of them, such as "data option".
        known: The names that are taken; None where that is for others to say.

    Raises:
        ConfigurationError: It is not a mapping, or a name is not a word or not known.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"{what}s are {shortened(given)}, expected names and values, such as {{'name': value}}"
        )
    names = None if known is None else tuple(known)
    for name in given:
        if names is not None and name not in names:
            raise unknown_name(what, name, names)
        if not isinstance(name, str):
            raise ConfigurationError(f"{what} {shortened(name)} has no name, expected a word")
    return dict(given)


def require_kind(given: object, kind: type, *, what: str, hint: str) -> None:
    """Refuse an argument of another class than it has to be.

    Args:
        given: The argument.
        kind: The class.
        what: How errors call it, such as "the owner".
        hint: Where one gets one.

    Raises:
        ConfigurationError: It is of another class.
    """
    if not isinstance(given, kind):
        raise ConfigurationError(f"{what} is of type {type(given).__name__}, expected {kind.__name__}: {hint}")


def unknown_name(what: str, name: object, known: Iterable[str]) -> ConfigurationError:
    """Return the error for a name that is not one of the *known*, with the one that was probably meant."""
    names = sorted(known)
    if not names:
        return ConfigurationError(f"unknown {what} '{name}', expected none: leave it out")
    close = difflib.get_close_matches(str(name), names, n=1)
    meant = f": did you mean '{close[0]}'?" if close else ""
    return ConfigurationError(f"unknown {what} '{name}', expected one of {', '.join(names)}{meant}")


def checked_level(level_bits: object, *, most: int = MAX_LEVEL_BITS) -> int:
    """Return the level that a user asks for, in bits.

    Raises:
        ConfigurationError: It is not a whole number from 1 to *most*.
    """
    bits: int = plain_number(level_bits, what="level_bits", whole=True)
    if not 1 <= bits <= most:
        raise ConfigurationError(f"level is 2^-{shortened(bits)}, expected 1 to {most} bits")
    return bits


def checked_accuracy(accuracy: object, *, what: str = "accuracy") -> float | None:
    """Return an accuracy that a user gives, as Python's own number; None if it was not measured.

    Raises:
        ConfigurationError: It is not a number from 0 to 1.
    """
    if accuracy is None:
        return None
    share: float = plain_number(accuracy, what=what)
    if not 0 <= share <= 1:
        raise ConfigurationError(f"{what} is {shortened(share)}, expected a share from 0 to 1, or None")
    return share


def plain_number(value: object, *, what: str, whole: bool = False) -> Any:
    """Return a number of any package's kind as Python's own, for files and digests.

    Args:
        value: What was given for it.
        what: How errors call it.
        whole: Whether fractions are refused.

    Raises:
        ConfigurationError: It is not a number.
    """
    if type(value) is not bool:  # which is a number to Python
        if isinstance(value, numbers.Integral):
            return int(value)
        if isinstance(value, numbers.Real) and not whole:
            return float(value)
    raise ConfigurationError(f"{what} is {shortened(value)}, expected a {'whole ' if whole else ''}number")


def plain_count(value: object, *, what: str) -> int:
    """Return a whole number of 1 or more as Python's own.

    Args:
        value: What was given for it.
        what: How errors call it.

    Raises:
        ConfigurationError: It is none.
    """
    count: int = plain_number(value, what=what, whole=True)
    if count < 1:
        raise ConfigurationError(f"{what} is {count}, expected 1 or more")
    return count


def checked_seed(seed: object) -> int:
    """Return *seed* if it can be one.

    Raises:
        ConfigurationError: It is not a whole number, below 0 or above `MAX_SEED`.
    """
    number = int(seed) if isinstance(seed, numbers.Integral) else -1
    if not 0 <= number <= MAX_SEED:
        raise ConfigurationError(f"seed is {shortened(seed)}, expected a whole number from 0 to {MAX_SEED}")
    return number

"""Canonical JSON (RFC 8785), written and read so strictly that one value has exactly one encoding."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import rfc8785

Json: TypeAlias = "str | int | list[Json] | dict[str, Json]"
MAX_DEPTH = 32
# A second's work: the one encoding is written value by value, whatever their size.
MAX_VALUES = 250_000
MAX_INTEGER = 2**53 - 1
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
WHITE_SPACE = b" \t\r\n"


def canonical_json(value: Any) -> bytes:
    """Encode *value* as canonical JSON.

    Only strings, integers, lists and objects are allowed: floats print differently from one language to the
    next, so that shares are given as integers (parts per million).

    Raises:
        ValueError: *value* holds anything else, an integer beyond ±(2^53 - 1), more values than `MAX_VALUES`, or is
            nested too deeply.
    """
    _check_kinds(value, depth=0, rest=MAX_VALUES)
    return rfc8785.dumps(value)


def parse_canonical(content: bytes, *, max_values: int = MAX_VALUES) -> Json:
    """Decode canonical JSON and refuse every other encoding of the same value.

    Duplicate keys, spaces, other escapes or another order of keys all fail the comparison with the one
    canonical encoding.

    Args:
        content: The bytes; the caller bounds their number.
        max_values: How many strings, integers, lists and objects there may be.

    Raises:
        ValueError: The bytes are not canonical JSON.
    """
    try:
        value = json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError(f"is nested more than {MAX_DEPTH} deep") from error
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from error
    _check_kinds(value, depth=0, rest=max_values)
    if rfc8785.dumps(value) != content:
        raise ValueError("is not canonical JSON (RFC 8785)")
    plain: Json = value
    return plain


def as_written(content: bytes) -> bytes:
    """Drop what editors and mailers put around a line of JSON: a byte order mark in front, white space at its end."""
    return content.removeprefix(BYTE_ORDER_MARK).rstrip(WHITE_SPACE)


def _check_kinds(value: object, *, depth: int, rest: int) -> int:
    """Check one value and those inside; return how many of the *rest* values allowed are left."""
    if depth > MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} deep")
    if rest <= 0:
        raise ValueError("holds more values than any file of ours")
    rest -= 1
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"has the key {key!r}, expected strings only")
            rest = _check_kinds(item, depth=depth + 1, rest=rest)
    elif isinstance(value, list):
        for item in value:
            rest = _check_kinds(item, depth=depth + 1, rest=rest)
    elif isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"holds a {type(value).__name__}, expected strings, integers, lists and objects only")
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValueError("holds an integer beyond ±(2^53 − 1), which other languages round")
    return rest

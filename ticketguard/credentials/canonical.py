"""Canonical JSON (RFC 8785), written and read so strictly that one value has exactly one encoding."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import rfc8785

Json: TypeAlias = "str | int | list[Json] | dict[str, Json]"
MAX_DEPTH = 32
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
WHITE_SPACE = b" \t\r\n"


def canonical_json(value: Any) -> bytes:
    """Encode *value* as canonical JSON.

    Only strings, integers, lists and objects are allowed: floats print differently from one language to the
    next, so that shares are given as integers (parts per million).

    Raises:
        ValueError: *value* holds anything else, an integer beyond ±(2^53 - 1), or is nested too deeply.
    """
    _check_kinds(value, depth=0)
    return rfc8785.dumps(value)


def parse_canonical(content: bytes) -> Json:
    """Decode canonical JSON and refuse every other encoding of the same value.

    Duplicate keys, spaces, other escapes or another order of keys all fail the comparison with the one
    canonical encoding.

    Raises:
        ValueError: The bytes are no canonical JSON.
    """
    try:
        value = json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError(f"is nested more than {MAX_DEPTH} deep") from error
    except ValueError as error:
        raise ValueError(f"is no JSON ({error})") from error
    if canonical_json(value) != content:
        raise ValueError("is no canonical JSON (RFC 8785)")
    plain: Json = value
    return plain


def as_written(content: bytes) -> bytes:
    """Drop what editors and mailers put around a line of JSON: a byte order mark in front, white space at its end."""
    return content.removeprefix(BYTE_ORDER_MARK).rstrip(WHITE_SPACE)


def _check_kinds(value: object, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"has the key {key!r}, expected strings only")
            _check_kinds(item, depth=depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_kinds(item, depth=depth + 1)
    elif isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"holds a {type(value).__name__}, expected strings, integers, lists and objects only")

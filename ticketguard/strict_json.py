"""JSON from strangers: read in one way only, and bounded by its number of values before any is made."""

from __future__ import annotations

import json
from typing import Any


def parse_json(content: bytes, *, max_values: int) -> Any:
    """Decode JSON in UTF-8 whose objects name nothing twice, and whose numbers are finite.

    Args:
        content: The bytes; the caller bounds their number.
        max_values: How many values there may be, counted by commas and brackets. They, rather than the text's length,
            decide how much memory JSON takes.

    Raises:
        ValueError: It is not such JSON, or is nested deeper than Python reads.
    """
    if sum(content.count(sign) for sign in (b",", b"[", b"{")) > max_values:
        raise ValueError(f"has more than {max_values} values")
    try:
        # Decoded first: from bytes, Python's reader would take UTF-16 as well.
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        if b"\\u" in content:  # escapes can spell halves of characters, which cannot be written or hashed
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("names a field twice")
    return fields


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"holds {constant}")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"holds the number {text[:40]}, which is beyond all floats")
    return number

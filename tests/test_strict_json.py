from __future__ import annotations

import pytest

from ticketguard.strict_json import parse_json


def test_values_are_counted_up_to_the_limit() -> None:
    assert parse_json(b'[{"a": 1}, [2]]', max_values=4) == [{"a": 1}, [2]]
    with pytest.raises(ValueError, match="more than 3 values"):
        parse_json(b'[{"a": 1}, [2]]', max_values=3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1, "a": 1}', "names a field twice"),
        (b'[{"a": {"b": 1, "b": 2}}]', "names a field twice"),
        (b"[NaN]", "holds NaN"),
        (b"[-Infinity]", "holds -Infinity"),
        (b"[1e999]", "beyond all floats"),
        (b"[-1e999]", "beyond all floats"),
        (b'["\\ud800"]', "surrogates not allowed"),
        ("[1]".encode("utf-16"), "decode"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"[1] [2]", "Extra data"),
    ],
)
def test_what_others_would_read_differently_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(content, max_values=200_000)

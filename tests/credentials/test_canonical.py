from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketguard.credentials.canonical import MAX_DEPTH, canonical_json, parse_canonical

values = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-(2**53) + 1, 2**53 - 1),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_every_value_is_read_back_from_its_one_encoding(value: object) -> None:
    assert parse_canonical(canonical_json(value)) == value


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1}',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":2,"a":1}',
        b'"\\u0041"',
        b'"\\/"',
        b"-0",
        b"[1 ]",
        b"1\n",
    ],
)
def test_other_encodings_of_a_value_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="is not canonical JSON"):
        parse_canonical(content)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"\xef\xbb\xbf1", b"nul", b'{"a":1}x'])
def test_bytes_that_are_no_json_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="is not JSON"):
        parse_canonical(content)


@pytest.mark.parametrize("content", [b"1.5", b"1e3", b"NaN", b"Infinity", b"true", b"null", b'{"a":[null]}'])
def test_kinds_without_one_obvious_spelling_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="expected strings, integers, lists and objects only"):
        parse_canonical(content)


def test_values_are_counted_up_to_the_limit() -> None:
    assert parse_canonical(b'{"a":[1,"b"]}', max_values=4) == {"a": [1, "b"]}
    with pytest.raises(ValueError, match="holds more values than any file of ours"):
        parse_canonical(b'{"a":[1,"b"]}', max_values=3)


def test_keys_that_are_no_text_are_refused() -> None:
    with pytest.raises(ValueError, match="has the key 1, expected strings only"):
        canonical_json({1: 2})


@pytest.mark.parametrize("number", [2**53, -(2**53)])
def test_integers_that_other_languages_round_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="holds an integer beyond"):
        parse_canonical(str(number).encode())


@pytest.mark.parametrize("depth", [MAX_DEPTH + 2, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="is nested more than 32 deep"):
        parse_canonical(b"[" * depth + b"]" * depth)

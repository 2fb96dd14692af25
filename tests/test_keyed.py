"""The keyed draws against a second implementation, published vectors and their own statistics."""

from __future__ import annotations

import collections
import hashlib
import hmac
import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ticketguard.keyed import KeyedStream, commit

VECTORS = json.loads((Path(__file__).parents[1] / "signatures" / "vectors" / "keyed.json").read_text())
SECRET, COMMITMENT = bytes(range(32)), bytes(range(32, 64))


def open_stream(label: str = "edges/a", *, secret: bytes = SECRET, commitment: bytes = COMMITMENT) -> KeyedStream:
    return KeyedStream(secret=secret, commitment=commitment, label=label)


class PlainStream:
    """The construction as signatures/keyed-draws.md words it, one word at a time, from hmac and additions alone."""

    def __init__(self, *, secret: bytes, commitment: bytes, label: str) -> None:
        extracted = hmac.digest(commitment, secret, "sha256")
        self.key = hmac.digest(extracted, b"ticketguard/draw/v1\0" + label.encode() + b"\1", "sha256")
        self.buffer, self.block = b"", 0

    def bytes(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self.buffer += self._next_block()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def integer(self, bound: int) -> int:
        while True:
            word = int.from_bytes(self.bytes(8), "little")
            if word < 2**64 // bound * bound:
                return word % bound

    def distinct(self, bound: int, count: int) -> list[int]:
        kept: list[int] = []
        while len(kept) < count:
            drawn = self.integer(bound)
            if drawn not in kept:
                kept.append(drawn)
        return kept

    def _next_block(self) -> bytes:
        start = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", self.key), self.block, 0, 0, 0]
        state = list(start)
        for _ in range(10):
            for a, b, c, d in (*((i, i + 4, i + 8, i + 12) for i in range(4)), *DIAGONALS):
                for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                    state[x] = (state[x] + state[y]) & 0xFFFFFFFF
                    mixed = state[z] ^ state[x]
                    state[z] = (mixed << turn | mixed >> (32 - turn)) & 0xFFFFFFFF
        self.block += 1
        return struct.pack("<16I", *((one + two) & 0xFFFFFFFF for one, two in zip(state, start, strict=True)))


DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))

requests = st.lists(
    st.one_of(
        st.tuples(st.just("bytes"), st.just(0), st.integers(0, 150)),
        st.tuples(st.just("integers"), st.integers(1, 2**63), st.integers(0, 20)),
        st.tuples(st.just("distinct"), st.integers(1, 60), st.integers(0, 30)),
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(secret=st.binary(min_size=32, max_size=32), label=st.text(max_size=20), calls=requests)
def test_any_sequence_of_draws_agrees_with_a_word_by_word_implementation(
    secret: bytes, label: str, calls: list[tuple[str, int, int]]
) -> None:
    stream = KeyedStream(secret=secret, commitment=COMMITMENT, label=label)
    plain = PlainStream(secret=secret, commitment=COMMITMENT, label=label)
    for kind, bound, count in calls:
        if kind == "bytes":
            assert stream.bytes(count) == plain.bytes(count)
        elif kind == "integers":
            assert stream.integers(bound, count).tolist() == [plain.integer(bound) for _ in range(count)]
        else:
            wanted = min(count, (bound + 1) // 2)
            assert stream.distinct(bound, wanted).tolist() == sorted(plain.distinct(bound, wanted))
    assert stream.bytes(8) == plain.bytes(8)


@pytest.mark.parametrize("vector", VECTORS["commitments"], ids=lambda vector: vector["scheme"])
def test_commitments_are_the_published_ones(vector: dict[str, object]) -> None:
    fields = {name: bytes.fromhex(str(vector[name])) for name in ("secret", "owner_public_key", "reference_digest")}
    commitment = commit(
        **fields,
        scheme=str(vector["scheme"]),
        version=int(str(vector["version"])),
        level_bits=int(str(vector["level_bits"])),
        parameters=str(vector["parameters"]).encode(),
    )
    assert commitment.hex() == vector["commitment"]


@pytest.mark.parametrize("vector", VECTORS["streams"], ids=lambda vector: vector["label"])
def test_streams_are_the_published_ones(vector: dict[str, str]) -> None:
    secret, commitment = bytes.fromhex(vector["secret"]), bytes.fromhex(vector["commitment"])
    stream = KeyedStream(secret=secret, commitment=commitment, label=vector["label"])
    assert stream.bytes(len(vector["keystream"]) // 2).hex() == vector["keystream"]


@pytest.mark.parametrize("vector", VECTORS["draws"], ids=lambda vector: f"{vector['kind']}-{vector['bound']}")
def test_draws_are_the_published_ones(vector: dict[str, object]) -> None:
    secret, commitment = bytes.fromhex(str(vector["secret"])), bytes.fromhex(str(vector["commitment"]))
    stream = KeyedStream(secret=secret, commitment=commitment, label=str(vector["label"]))
    draw = {"integers": stream.integers, "distinct": stream.distinct}[str(vector["kind"])]
    assert draw(int(str(vector["bound"])), int(str(vector["count"]))).tolist() == vector["values"]


def test_commitment_is_the_hash_that_the_page_writes_down() -> None:
    expected = hashlib.sha256(
        b"ticketguard/commitment/v1\0"
        + hashlib.sha256(b"ticketguard/secret/v1\0" + SECRET).digest()
        + bytes(32)
        + bytes([7] * 32)
        + b"\x04\0\0\0test\x02\0\0\0\x40\0\0\0"
        + hashlib.sha256(b"{}").digest()
    ).digest()
    assert commit_test() == expected


def commit_test(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "secret": SECRET,
        "owner_public_key": bytes(32),
        "reference_digest": bytes([7] * 32),
        "scheme": "test",
        "version": 2,
        "level_bits": 64,
        "parameters": b"{}",
    }
    return commit(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("secret", bytes(32)),
        ("owner_public_key", bytes([1] * 32)),
        ("reference_digest", bytes(32)),
        ("scheme", "test2"),
        ("version", 3),
        ("level_bits", 65),
        ("parameters", b'{"a":1}'),
    ],
)
def test_commitment_depends_on_every_field(field: str, value: object) -> None:
    assert commit_test(**{field: value}) != commit_test()


@pytest.mark.parametrize("field", ["secret", "owner_public_key", "reference_digest"])
def test_commit_refuses_fields_of_another_length(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} has 31 bytes, expected 32"):
        commit_test(**{field: bytes(31)})


@pytest.mark.parametrize(("field", "value"), [("version", -1), ("level_bits", 2**32)])
def test_commit_refuses_numbers_that_do_not_fit(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}, expected 0 to"):
        commit_test(**{field: value})


@pytest.mark.parametrize("field", ["secret", "commitment"])
def test_stream_refuses_keys_of_another_length(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} has 33 bytes, expected 32"):
        open_stream(**{field: bytes(33)})


def test_another_secret_commitment_or_label_gives_an_unrelated_stream() -> None:
    streams = [
        open_stream(),
        open_stream("edges/b"),
        open_stream("edges/a "),
        open_stream(secret=bytes(32)),
        open_stream(commitment=bytes(32)),
        open_stream(secret=COMMITMENT, commitment=SECRET),
    ]
    assert len({stream.bytes(32) for stream in streams}) == len(streams)


def test_integers_of_a_bound_that_rejects_often_are_uniform() -> None:
    # A quarter of all words lies above the bound's largest multiple; taking them would favour the low two thirds.
    bound = 3 * 2**61
    drawn = open_stream().integers(bound, 30_000)
    assert stats.kstest(drawn / bound, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("bound", [2, 3, 10, 97])
def test_integers_are_uniform(bound: int) -> None:
    counts = np.bincount(open_stream(f"labels/{bound}").integers(bound, 50_000), minlength=bound)
    assert len(counts) == bound
    assert stats.chisquare(counts).pvalue > 1e-4


def test_distinct_sets_are_uniform_over_all_sets() -> None:
    sets = collections.Counter(
        frozenset(open_stream(f"set/{number}").distinct(6, 3).tolist()) for number in range(6_000)
    )
    assert len(sets) == 20
    assert stats.chisquare(list(sets.values())).pvalue > 1e-4


def test_distinct_draws_are_distinct_and_below_the_bound() -> None:
    drawn = open_stream().distinct(100_001, 50_001)
    assert len(np.unique(drawn)) == 50_001
    assert drawn.min() >= 0
    assert drawn.max() <= 100_000


def test_a_smaller_distinct_set_is_part_of_a_larger_one() -> None:
    assert set(open_stream().distinct(1000, 30)) < set(open_stream().distinct(1000, 400))


@pytest.mark.parametrize("count", [-1, 6])
def test_distinct_refuses_more_than_half_of_the_integers(count: int) -> None:
    with pytest.raises(ValueError, match=f"cannot draw {count} distinct integers below 9"):
        open_stream().distinct(9, count)


@pytest.mark.parametrize("bound", [0, 2**63 + 1])
def test_integers_refuses_bounds_that_do_not_fit(bound: int) -> None:
    with pytest.raises(ValueError, match=f"bound is {bound}, expected 1 to 2\\^63"):
        open_stream().integers(bound, 1)


def drawn_one_by_one(words: KeyedStream, bound: int, count: int) -> list[int]:
    seen: set[int] = set()
    while len(seen) < count:
        word = int.from_bytes(words.bytes(8), "little")
        if word < 2**64 // bound * bound:
            seen.add(word % bound)
    return sorted(seen)


# Each way to draw a set on both sides of where it ends: one by one, in a map, sorted, of four bytes and of eight.
@pytest.mark.parametrize(
    ("bound", "count"),
    [
        *((10_000, count) for count in (0, 1, 32, 33, 156, 157, 2500, 5000)),
        *((65_536, count) for count in (33, 300, 4096, 32_768)),
        *((65_537, count) for count in (33, 300, 4096, 4097, 32_769)),
        *((300_000, count) for count in (1000, 18_750, 18_751, 150_000)),
        *((2**32 + offset, count) for offset in (-1, 0, 1) for count in (32, 33, 500)),
        *((2**63, count) for count in (32, 500)),
    ],
)
def test_sets_are_drawn_one_after_the_other_until_there_are_enough(bound: int, count: int) -> None:
    stream, words = open_stream(), open_stream()
    assert stream.distinct(bound, count).tolist() == drawn_one_by_one(words, bound, count)
    assert stream.bytes(8) == words.bytes(8)


@settings(max_examples=150, deadline=None)
@given(bound=st.integers(0, 400) | st.integers(0, 200_000), share=st.floats(0, 0.5) | st.floats(0, 0.01))
def test_a_map_shows_the_positions_that_are_drawn(bound: int, share: float) -> None:
    count = round(share * bound)
    listed, mapped = open_stream(), open_stream()
    drawn = mapped.distinct_map(bound, count)
    assert (drawn.dtype, drawn.shape) == (np.bool_, (bound,))
    assert np.flatnonzero(drawn).tolist() == listed.distinct(bound, count).tolist()
    assert mapped.bytes(8) == listed.bytes(8)


def test_skipped_words_are_consumed_in_long_draws_too() -> None:
    bound, words = 3 * 2**61, open_stream()
    accepted = [
        word % bound for word in np.frombuffer(words.bytes(8 * 60_000), dtype="<u8").tolist() if word < 2 * bound
    ]
    assert open_stream().integers(bound, 40_000).tolist() == accepted[:40_000]


@pytest.mark.parametrize(("draw", "share", "most"), [("distinct", 0.01, 0.4), ("distinct_map", 0.5, 1.3)])
def test_a_draw_takes_memory_for_its_result_and_not_for_every_word(draw: str, share: float, most: float) -> None:
    bound = 4_000_000
    stream = open_stream()
    tracemalloc.start()
    try:
        getattr(stream, draw)(bound, round(share * bound))
        assert tracemalloc.get_traced_memory()[1] < most * bound
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("draw", ["distinct", "distinct_map"])
def test_no_kind_of_set_has_more_than_half_of_the_integers(draw: str) -> None:
    with pytest.raises(ValueError, match="cannot draw 50001 distinct integers below 100000, expected at most half"):
        getattr(open_stream(), draw)(100_000, 50_001)

from __future__ import annotations

import json

import pytest

from ticketguard.printable import printable, visible, visible_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv1.weight, größer: ≤ 3", "conv1.weight, größer: ≤ 3"),
        ("\x1b[2K\r\x1b[32mSUPPORTED", r"\x1b[2K\r\x1b[32mSUPPORTED"),
        ("one\ntwo\x0bthree\x0c\x85\u2028\u2029", r"one\ntwo\x0bthree\x0c\x85\u2028\u2029"),
        ("\x9b31m\x7f\x00\t", r"\x9b31m\x7f\x00\t"),
        ("\u202edetroppus\u2066\u200b\ufeff\xad", r"\u202edetroppus\u2066\u200b\ufeff\xad"),
        ("\ufe0f\u034f\u115f\u3164\u2800\U000e0101", r"\ufe0f\u034f\u115f\u3164\u2800\U000e0101"),
        ("\udcff.pt", r"\udcff.pt"),
        ("Z" + "\u0301" * 6, "Z" + "\u0301" * 4 + r"\u0301\u0301"),
        ("name     SUPPORTED", r"name \x20 \x20 SUPPORTED"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    printable(text).encode()


# Default_Ignorable_Code_Point (Unicode 16, DerivedCoreProperties.txt) where a category calls it printable, and U+2800.
INVISIBLE = [
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800), (0x3164, 0x3164),
    (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF),
]  # fmt: skip


@pytest.mark.parametrize(("first", "last"), INVISIBLE)
def test_what_is_not_seen_is_escaped_and_its_neighbours_are_not(first: int, last: int) -> None:
    unseen = [chr(code) for code in range(first, last + 1)]
    assert [visible(character) for character in unseen] == [
        character.encode("unicode_escape").decode() for character in unseen
    ]
    seen = [character for character in (chr(first - 1), chr(last + 1)) if character.isprintable()]
    assert [visible(character) for character in seen] == seen


def test_long_texts_keep_both_ends() -> None:
    shown = printable("a" * 1000 + "hint", limit=40)
    assert shown == "a" * 30 + "…" + "a" * 6 + "hint"
    assert printable("a" * 40, limit=40) == "a" * 40


def test_lines_keep_their_columns() -> None:
    assert visible("name    value\n") == r"name    value\n"


def test_json_keeps_its_value_and_its_lines() -> None:
    value = {"name": "\x1b[2K\x9b\u202e\u2028\x7f\udcff größer \U000e0101 \\ \n", "list": [1, None]}
    text = visible_json(json.dumps(value, indent=2, ensure_ascii=False))
    assert json.loads(text) == value
    assert all(line.isprintable() for line in text.split("\n"))
    assert "größer" in text
    assert r"\udb40\udd01" in text

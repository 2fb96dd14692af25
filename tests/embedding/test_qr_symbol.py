"""The symbol of every version and level, as another program draws it and a third one reads it."""

from __future__ import annotations

import numpy as np
import pytest
import segno

from ticketguard.embedding.qr_symbol import ALPHANUMERIC, LEVELS, VERSIONS, Symbol, correction_of
from ticketguard.verification.pictures import shaded
from ticketguard.verification.qr_code.decoding import scan

SYMBOLS = [Symbol(version=version, correction=correction) for version in VERSIONS for correction in LEVELS]


@pytest.mark.parametrize("symbol", SYMBOLS, ids=lambda symbol: symbol.designation)
def test_a_text_of_the_full_length_is_drawn_read_and_a_word_of_the_code(symbol: Symbol) -> None:
    generator = np.random.default_rng(symbol.version)
    text = "".join(generator.choice([*ALPHANUMERIC], symbol.characters))
    bits = symbol.encode(text)
    drawn = segno.make(text, error=LEVELS[symbol.correction], version=symbol.version, mask=0, boost_error=False)
    modules = symbol.draw(bits)
    assert (modules == np.array(drawn.matrix, dtype=np.bool_)).all()
    assert modules.shape == (symbol.side, symbol.side)
    assert (symbol.bits_of(modules) == bits).all()
    assert scan(shaded(modules)) == text
    for block in symbol.blocks:
        word = bits[block.places]
        assert (word[: len(block.generator)] @ block.generator % 2 == word).all()
    places = np.concatenate([block.places for block in symbol.blocks])
    assert sorted(places.tolist()) == [*range(symbol.bits)]
    with pytest.raises(ValueError, match=f"expected 1 to {symbol.characters} of"):
        symbol.encode(text + "A")


def test_sizes_are_the_standards() -> None:
    """Table 7: characters in the alphanumeric mode, and the share of data of the paper's codes."""
    characters = {symbol.designation: symbol.characters for symbol in SYMBOLS}
    assert {
        "1-L": 25,
        "1-H": 10,
        "2-Q": 29,
        "2-H": 20,
        "3-M": 61,
        "4-Q": 67,
        "5-L": 154,
        "6-H": 84,
    }.items() <= characters.items()
    assert [symbol.bits for symbol in SYMBOLS[::4]] == [208, 352, 560, 800, 1072, 1376]
    assert Symbol(version=2, correction=25).rate == 0.5
    assert Symbol(version=2, correction=30).rate == pytest.approx(0.364, abs=1e-3)


def test_error_correction_is_the_standards_example() -> None:
    """Annex I: the symbol 1-M of the digits 01234567."""
    data = [0x10, 0x20, 0x0C, 0x56, 0x61, 0x80, 0xEC, 0x11, 0xEC, 0x11, 0xEC, 0x11, 0xEC, 0x11, 0xEC, 0x11]
    found = correction_of(np.array([data], dtype=np.uint8), 10)
    assert found.tolist() == [[0xA5, 0x24, 0xD4, 0xC1, 0xED, 0x36, 0xC7, 0x87, 0x2C, 0x55]]


@pytest.mark.parametrize("text", ["", "acme", "ÄCME", "A\n"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected 1 to 16 of 0123"):
        Symbol(version=1, correction=25).encode(text)


def test_a_symbol_that_is_not_one_is_not_read() -> None:
    assert scan(shaded(np.zeros((21, 21), dtype=np.bool_))) is None
    assert scan(shaded(Symbol(version=1, correction=25).draw(np.arange(208, dtype=np.uint8) % 2))) is None

"""From what modules show to a text: with the code's own error correction, on soft modules, and as any reader scans it.

The only reader that counts is ``zxing-cpp``, which knows nothing of the claim. It is shown two symbols: *raw*, every
module as it was read and grey where nothing was, and *cleaned*, the nearest words of the symbol's Reed–Solomon code.
Function patterns are drawn.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ticketguard.embedding.pairs import Bits
from ticketguard.embedding.qr_symbol import Symbol
from ticketguard.verification.pictures import Shades, rendered, shaded
from ticketguard.verification.soft_decoding import nearest_word

# Of a module, for the reader.
PIXELS = 4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """What a suspect's modules say.

    Attributes:
        raw: The symbol as it was read, with unread modules in grey.
        cleaned: The symbol after soft decoding.
        raw_text: What a reader finds in *raw*; None if it finds nothing.
        cleaned_text: What a reader finds in *cleaned*.
    """

    raw: Shades
    cleaned: Shades
    raw_text: str | None
    cleaned_text: str | None


def decoded(symbol: Symbol, evidence: npt.NDArray[np.float64]) -> Decoded:
    """Draw and scan a symbol.

    Args:
        symbol: Its version and level.
        evidence: For each bit how much speaks for 0, less how much speaks for 1.
    """
    raw = shaded(symbol.draw((evidence < 0).astype(np.uint8)), unread=symbol.places(evidence == 0))
    cleaned = shaded(symbol.draw(corrected(symbol, evidence)))
    return Decoded(raw=raw, cleaned=cleaned, raw_text=scan(raw), cleaned_text=scan(cleaned))


def corrected(symbol: Symbol, evidence: npt.NDArray[np.float64]) -> Bits:
    """Return the bits of the nearest word, each Reed–Solomon codeword of the symbol for itself."""
    bits = np.zeros(symbol.bits, dtype=np.uint8)
    for block in symbol.blocks:
        bits[block.places] = nearest_word(block.generator, evidence[block.places])
    return bits


def scan(shades: Shades) -> str | None:
    """Return the text that ``zxing-cpp`` reads in a symbol; None if it reads none."""
    import zxingcpp

    found = zxingcpp.read_barcodes(
        rendered(shades, PIXELS), formats=zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)
    )
    return str(found[0].text) if found else None

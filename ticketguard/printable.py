r"""Foreign text made safe to show: names in files, answers of servers and paths may come from strangers.

Nothing is lost but length: what a terminal would act on, or not show, appears as an escape such as ``\x1b``.
"""

from __future__ import annotations

import unicodedata

# Longer foreign texts are cut in the middle: an error's end says what to do next, a path's end which file it is.
NAME_LIMIT = 400
MESSAGE_LIMIT = 2000
# A letter of a written language carries fewer marks; a pile of them covers the lines above and below.
MOST_MARKS = 4
# Printable by Unicode's categories, and yet shown as nothing or as a blank (Default_Ignorable_Code_Point, and Braille's
# blank pattern).
_INVISIBLE = frozenset(
    [0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10)]
)


def printable(text: object, *, limit: int = NAME_LIMIT) -> str:
    """Return *text* on one line, as it can be shown anywhere, cut in the middle if it has more than *limit* characters.

    Escaped are: control characters and line ends; what changes the direction of text or is not seen; lone surrogates,
    which undecodable file names have; marks piled on one letter; and the second and later of several spaces, with
    which a name could fill a line and go on at the start of the next.
    """
    return visible(shortened(str(text), limit=limit)).replace("  ", " \\x20")


def visible(text: str) -> str:
    """Return *text* with everything escaped that a terminal would act on or not show; line ends too."""
    shown, marks = [], 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        shown.append(
            character if _is_seen(character) and marks <= MOST_MARKS else character.encode("unicode_escape").decode()
        )
    return "".join(shown)


def shortened(text: str, *, limit: int) -> str:
    """Return *text*, or its first three quarters and last quarter of *limit* characters with a sign between them."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail]}…{text[-tail:]}"


def visible_json(document: str) -> str:
    """Return a JSON text of the same value with all that is not printable escaped, but line ends between values."""
    return "".join(
        character if character == "\n" or _is_seen(character) else _json_escape(character) for character in document
    )


def _is_seen(character: str) -> bool:
    return character.isprintable() and ord(character) not in _INVISIBLE and not 0xE0100 <= ord(character) <= 0xE01EF


def _json_escape(character: str) -> str:
    """Return a character as JSON writes it (RFC 8259, section 7): beyond the first plane as a pair of surrogates."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))

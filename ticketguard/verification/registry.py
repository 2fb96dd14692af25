"""The schemes of this release: a new one needs a line here, and nothing else outside its own files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketguard.errors import ConfigurationError, UnknownVersionError, shortened
from ticketguard.lazily import listed
from ticketguard.settings import checked_options

if TYPE_CHECKING:  # the command line's help reads the names, and should not wait for more
    from ticketguard.credentials.claim import MarkClaim
    from ticketguard.embedding.interface import Mark
    from ticketguard.ticket import TicketInfo
    from ticketguard.verification.interface import Scheme, Source

# Name in claims → module:name of the scheme, loaded when it is first asked for.
SCHEMES: dict[str, str] = {
    "planted-graph": "ticketguard.verification.planted_graph.scheme:SCHEME",
    "keyed-signs": "ticketguard.verification.keyed_signs.scheme:SCHEME",
    "qr-code": "ticketguard.verification.qr_code.scheme:SCHEME",
    "trigger-set": "ticketguard.verification.trigger_set:SCHEME",
}
# The marks that a ticket gets where none are named, as far as they fit it.
USUAL = ("planted-graph", "trigger-set")
# Those of a ticket that is found from a random initialisation.
USUAL_FROM_START = ("planted-graph", "keyed-signs", "trigger-set")


def scheme(name: str) -> Scheme:
    """Return the scheme of this name.

    Raises:
        ConfigurationError: This release has none.
    """
    if name not in SCHEMES:
        raise ConfigurationError(f"unknown mark '{name}', expected one or more of {', '.join(SCHEMES)}")
    found: Scheme = listed(SCHEMES[name])
    return found


def scheme_of(mark: MarkClaim) -> Scheme | None:
    """Return the scheme that reads a claim's *mark*; None if this release knows no scheme of its name.

    Raises:
        UnknownVersionError: It knows the scheme, but not in this version.
    """
    if mark.scheme not in SCHEMES:
        return None
    known = scheme(mark.scheme)
    if mark.version != known.version:
        raise UnknownVersionError(what=f"the claim's {mark.scheme}", found=mark.version, known=(str(known.version),))
    return known


def marks_read_from(marks: Sequence[MarkClaim], source: Source) -> list[MarkClaim]:
    """Return those of a claim's *marks* that this release reads from *source*, whatever their version."""
    return [mark for mark in marks if mark.scheme in SCHEMES and scheme(mark.scheme).reads == source]


def journals_of(marks: Sequence[MarkClaim], path: str | os.PathLike[str]) -> dict[str, Path]:
    """Return the journals of a claim's *marks*, scheme → file: the one that was named, and others beside it.

    Only marks that are read from answers have one.
    """
    asked = [mark.scheme for mark in marks_read_from(marks, "answers") if mark.version == scheme(mark.scheme).version]
    return {name: Path(f"{os.fspath(path)}.{name}" if name in asked[1:] else path) for name in asked}


def usual_marks(info: TicketInfo) -> tuple[Mark, ...]:
    """Return the marks of a ticket for which none are named."""
    return tuple(found.settings() for found in map(scheme, USUAL) if found.fits(info))


def usual_marks_from_start(info: TicketInfo) -> tuple[Mark, ...]:
    """Return the marks of a ticket that is yet to be found, from a random initialisation, if none are named."""
    return tuple(found.settings() for found in map(scheme, USUAL_FROM_START) if found.fits(info))


def configured_mark(name: str, *, settings: Mapping[str, Any], options: Mapping[str, Any]) -> Mark:
    """Return a mark by its scheme's name.

    Args:
        name: The scheme's name.
        settings: Fields of its settings.
        options: Values of the command line's options; those of other schemes are ignored.

    Raises:
        ConfigurationError: There is no such scheme or setting, or a value is out of range.
    """
    found = scheme(name)
    fields = [field.name for field in dataclasses.fields(found.settings)]  # type: ignore[arg-type]
    given = checked_options(settings, what=f"{name} setting", known=fields)
    usual = {field: options[option] for option, field in found.options.items() if option in options}
    return found.settings(**{**usual, **given})


def checked_marks(marks: Sequence[Mark]) -> tuple[Mark, ...]:
    """Return *marks* if there are any, each scheme once and known.

    Raises:
        ConfigurationError: They are not several, there are none, or a scheme is named twice or unknown.
    """
    if not isinstance(marks, Iterable):
        raise ConfigurationError(f"marks are {shortened(marks)}, expected a list of them, such as [tg.PlantedGraph()]")
    for mark in marks:
        if isinstance(mark, str | type) or not hasattr(mark, "scheme"):
            raise ConfigurationError(f"a mark is {shortened(mark)}, expected one such as tg.PlantedGraph()")
    if not marks or len({mark.scheme for mark in marks}) != len(marks):
        raise ConfigurationError(
            f"marks are {[mark.scheme for mark in marks]}, expected at least one, and each scheme once"
        )
    for mark in marks:
        scheme(mark.scheme)
    return tuple(marks)

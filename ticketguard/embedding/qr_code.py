"""The QR code: a mark that a person can look at. Each module is some pairs of positions, an edge at one of each.

Written down for a second implementation in ``signatures/qr-code.md``. Modules that hold data and error correction are
carried, several pairs each; finders, timing and format are the same in every code, and whoever draws it adds them.
What a verdict rests on is the key's coins, one a pair; the text that a code decodes to is compared with the claim's.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ticketguard.embedding.coins import with_signs
from ticketguard.embedding.interface import Binding, Json, Positions, Start
from ticketguard.embedding.pairs import PairedLayers, move_to_pairs
from ticketguard.embedding.planned_edges import Matching, PlannedEdges, drawn_levels
from ticketguard.embedding.qr_planning import ALIGNING, MOST_PAIRS, Code, codes
from ticketguard.embedding.qr_symbol import ALPHANUMERIC, LEVELS, VERSIONS, Symbol
from ticketguard.errors import CapacityError, ConfigurationError, CredentialError, shortened
from ticketguard.settings import plain_count, plain_number
from ticketguard.ticket import Array, Mask, Ticket

SCHEME = "qr-code"
VERSION = 1
TEXT_DOMAIN = b"ticketguard/qr-code/v1\0"
# Sixty bits of a hash over the commitment, five a character: nobody finds a second claim with the same.
FINGERPRINT = 12
SEPARATOR = ":"
# What a code is made to survive where nothing is said: half of the edges gone, and for a reader without soft decoding a
# fifth of them; in so many copies.
SURVIVE, RAW_SURVIVE, READ = 0.5, 0.8, 0.99


def payload_characters(text: str) -> int:
    """Return how many characters a code shows for an owner's *text*."""
    return len(text) + (len(SEPARATOR) if text else 0) + FINGERPRINT


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeParameters:
    """The public parameters of a QR code; the commitment binds them.

    Attributes:
        text: The owner's text, which may be empty.
        code: The symbol, and the pairs a module.
    """

    text: str
    code: Code

    @classmethod
    def from_json(cls, parameters: Mapping[str, Json]) -> CodeParameters:
        """Read a claim's parameters, which anybody may have written.

        Raises:
            CredentialError: One is missing, unknown or out of range.
        """
        text, *numbers = (parameters.get(name) for name in ("text", "qr_version", "correction", "pairs"))
        version, correction, pairs = (number if type(number) is int else 0 for number in numbers)
        known = {"text", "qr_version", "correction", "pairs"}
        if version in VERSIONS and correction in LEVELS and 1 <= pairs <= MOST_PAIRS and set(parameters) == known:
            code = Code(symbol=Symbol(version=version, correction=correction), pairs=pairs)
            is_text = isinstance(text, str) and not set(text) - set(ALPHANUMERIC)
            if is_text and payload_characters(str(text)) <= code.symbol.characters:
                return cls(text=str(text), code=code)
        raise CredentialError(
            f"the claim's {SCHEME} has parameters {shortened(dict(parameters))}, expected a text of a QR code, "
            f"qr_version 1 to {VERSIONS[-1]}, correction {', '.join(map(str, LEVELS))} and pairs 1 to {MOST_PAIRS}: it "
            "was not made by ticketguard"
        )

    def payload(self, commitment: bytes) -> str:
        """Return the text that the code shows: the owner's, and a fingerprint of the commitment."""
        digest = base64.b32encode(hashlib.sha256(TEXT_DOMAIN + commitment).digest()).decode("ascii")
        return f"{self.text}{SEPARATOR if self.text else ''}{digest[:FINGERPRINT]}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class QrCode:
    """Settings of the QR code.

    The code is the smallest that carries the text and survives what it is to survive; version, level and pairs are
    those that are named.

    Attributes:
        text: A name or serial number of the owner's choice, which everybody may read: capital letters, digits, spaces
            and any of ``$%*+-./:``.
        survive: Share of the edges that a theft leaves, at least, when the code is still to be decoded, from 0.05 to 1;
            also if a third of these is not found again, because channels were permuted.
        qr_version: Version of the symbol, 1 to 6; None for what is needed.
        correction: Share of the codewords that the symbol restores, in percent: 7, 15, 25 or 30, the levels L, M, Q and
            H; None for what is needed.
        pairs: Pairs a module, one edge each, 1 to 8; None for what is needed.
        every_steps: Training steps between two rank matchings.
        rate: How far a planted edge moves towards the quantile of its rank each time, from 0.01 to 1.
    """

    scheme: ClassVar[str] = SCHEME
    version: ClassVar[int] = VERSION

    text: str = ""
    survive: float = SURVIVE
    qr_version: int | None = None
    correction: int | None = None
    pairs: int | None = None
    every_steps: int = 10
    rate: float = 0.2

    def __post_init__(self) -> None:
        for field, lowest, highest in (("survive", 0.05, 1.0), ("rate", 0.01, 1.0)):
            value = plain_number(getattr(self, field), what=f"QR code: {field}")
            object.__setattr__(self, field, value)  # frozen, but not yet seen by anyone
            if not lowest <= value <= highest:
                raise ConfigurationError(f"QR code: {field} is {value:g}, expected {lowest:g} to {highest:g}")
        object.__setattr__(self, "every_steps", plain_count(self.every_steps, what="QR code: every_steps"))
        for field, values in (("qr_version", VERSIONS), ("correction", LEVELS), ("pairs", range(1, MOST_PAIRS + 1))):
            value = getattr(self, field)
            if value is not None and (isinstance(value, bool) or value not in values):
                allowed = ", ".join(map(str, values))
                raise ConfigurationError(f"QR code: {field} is {shortened(value)}, expected one of {allowed}")
        if not isinstance(self.text, str):
            raise ConfigurationError(
                f"QR code: text is {shortened(self.text)}, expected text: give a number in quotation marks"
            )
        if foreign := sorted(set(self.text) - set(ALPHANUMERIC)):
            raise ConfigurationError(
                f"QR code: text has {shortened(''.join(foreign))}, expected only capital letters, digits, spaces and "
                "$%*+-./:"
            )

    def code(self) -> Code:
        """Return the code with the fewest edges that carries the text and survives.

        Raises:
            ConfigurationError: None does; says how many characters fit.
        """
        lasting = [code for code in self.fitting() if self.pairs is not None or self._survives(code)]
        if not lasting:
            raise ConfigurationError(
                f"QR code: no code of at most {MOST_PAIRS} pairs a module carries {len(self.text)} characters and "
                f"survives {self.survive:g}: raise survive, or shorten the text"
            )
        return min(lasting, key=lambda code: (code.edges, -code.symbol.correction))

    def fitting(self) -> list[Code]:
        """Return the codes with the version, level and pairs that are named, which carry the text.

        Raises:
            ConfigurationError: There are none; says how many characters fit.
        """
        wanted = [code for code in codes() if self._is_named(code)]
        needed = payload_characters(self.text)
        if fitting := [code for code in wanted if code.symbol.characters >= needed]:
            return fitting
        most = max(code.symbol.characters for code in wanted) - payload_characters(" ") + 1
        raise ConfigurationError(
            f"QR code: text has {len(self.text)} characters, expected at most {max(0, most)} beside the fingerprint: "
            "shorten it, or leave out qr_version and correction"
        )

    def _is_named(self, code: Code) -> bool:
        named = (self.qr_version, self.correction, self.pairs)
        its = (code.symbol.version, code.symbol.correction, code.pairs)
        return all(wanted in (None, value) for wanted, value in zip(named, its, strict=True))

    def _survives(self, code: Code) -> bool:
        return (
            code.soft_probability(self.survive / ALIGNING) >= READ
            and code.raw_probability(max(self.survive, RAW_SURVIVE)) >= READ
        )

    def moved_edges(self, ticket: Ticket) -> int:
        """Return how many edges it moves.

        Raises:
            CapacityError: The ticket has no room for them; says what fits.
        """
        code, room = self.code(), PairedLayers(ticket.mask).room
        if code.edges > room:
            raise CapacityError(
                layer="the whole ticket", needed_edges=code.edges, free_edges=room, advice=self._what_fits(room)
            )
        return code.edges

    def _what_fits(self, room: int) -> str:
        short = payload_characters("")
        lasting = [
            code for code in codes() if code.edges <= room and code.symbol.characters >= short and self._survives(code)
        ]
        more = "find a ticket of more edges, or leave qr-code out"
        if not lasting:
            return f"no QR code that survives {self.survive:g} fits: {more}"
        most = max(lasting, key=lambda code: (code.symbol.characters, -code.edges))
        characters = max(0, most.symbol.characters - payload_characters(" ") + 1)
        return (
            f"what fits is a text of {characters} characters (version {most.symbol.designation}, "
            f"{most.edges} edges): shorten the text, leave out qr_version, correction and pairs, or {more}"
        )

    def parameters(self, ticket: Ticket) -> dict[str, Json]:
        """Return what a verifier needs: the text, the symbol, and how many pairs carry a module.

        Raises:
            ConfigurationError: The ticket has no room for a code, or no code carries the text.
        """
        self.moved_edges(ticket)
        code = self.code()
        return {
            "text": self.text,
            "qr_version": code.symbol.version,
            "correction": code.symbol.correction,
            "pairs": code.pairs,
        }

    def plan(self, ticket: Ticket, start: Start, binding: Binding, parameters: Mapping[str, Json]) -> PlannedEdges:
        """Draw the pairs and move an edge to one position of each: weakest kept edges out, edges of the code in."""
        committed = CodeParameters.from_json(parameters)
        bits = committed.code.symbol.encode(committed.payload(binding.commitment))
        drawn = PairedLayers(ticket.mask).draw(binding, committed.code.edges)
        moved = {
            name: move_to_pairs(
                start.mask[name],
                pairs,
                bits,
                kept_strength=np.abs(ticket.weights[name]).reshape(-1),
                fixed=start.fixed_in(name),
            )
            for name, pairs in drawn.items()
        }
        mask = Mask(
            layers={**{name: start.mask[name] for name in start.mask}, **{n: m.layer for n, m in moved.items()}}
        )
        weights: dict[str, Array] = {**start.weights}
        planted: dict[str, Positions] = {}
        for name, layer in moved.items():
            planted[name] = layer.planted
            before = np.where(start.mask[name], start.weights[name], ticket.start_weights[name])
            alive = with_signs(before, layer.planted, binding, name)
            weights[name] = np.where(mask[name], alive, 0).astype(start.weights[name].dtype)
        return PlannedEdges(
            matching=Matching(every_steps=self.every_steps, rate=self.rate),
            start=start.changed(mask=mask, weights=weights, fixed={name: layer.fixed for name, layer in moved.items()}),
            planted=planted,
            levels=drawn_levels(planted, binding),
        )

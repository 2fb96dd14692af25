"""The size of a mark, chosen before anything is trained: the smallest that proves ownership after stated thefts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from ticketguard.embedding.interface import Mark
from ticketguard.errors import ConfigurationError
from ticketguard.settings import checked_level, plain_number, require_kind
from ticketguard.ticket import Ticket
from ticketguard.verification.registry import SCHEMES, checked_marks, scheme, usual_marks
from ticketguard.verification.sizing import ForeseenScheme, Foresight, Size, SizedScheme
from ticketguard.verification.thefts import UNTOUCHED, Theft
from ticketguard.verification.verdict import DEFAULT_LEVEL_BITS, level_log10

# What leaves a network useful after a short training: most edges pruned, as many added, channels cut, the mask dropped.
SURVIVE = ("pruned-80", "regrown-100", "channels-25", "tuned-dense")
SHOWN = (UNTOUCHED, "pruned-50", "pruned-80", "pruned-90", "regrown-100", "channels-25", "tuned-dense", "rewired-50")
# Aligning a permuted copy whose weaker half was rewired cost a third of its evidence (10^-79 foreseen, 10^-52 read).
MARGIN = 1.5
# How likely the picture of a mark that shows one is to be decoded, at least.
DECODED = 0.99
# Sizes that are shown beyond the chosen one.
LARGER = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class SizedMark:
    """A mark of one size, and what copies of it will show.

    Attributes:
        size: The mark, and what it costs.
        foreseen: One entry a theft.
        keeps: Whether it keeps the level, with the margin, after every theft that it is to survive.
    """

    size: Size
    foreseen: tuple[Foresight, ...]
    keeps: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkChoice:
    """Sizes of one of a ticket's marks, and the one that was chosen.

    Attributes:
        scheme: The mark whose size is chosen.
        wanted: The marks that the claim is to have, before the choice.
        survive: The thefts that the mark is to survive.
        level_bits: The claim's level.
        margin: The evidence that an unlucky copy must leave, as a multiple of what the level needs.
        looks: Looks at a suspect that are paid for.
        needed_log10_p: What the test of one of the *wanted* marks must reach.
        sizes: What was looked at, the smallest first; the chosen one is the first that keeps the level.
        measured: What trained marks of some size cost, in words.
        beside: By mark that only a search can plant, what copies of a ticket like this one would show of it: one entry
            a theft, as of each size.
    """

    scheme: str
    wanted: tuple[Mark, ...]
    survive: tuple[Theft, ...]
    level_bits: int
    margin: float
    looks: int
    needed_log10_p: float
    sizes: tuple[SizedMark, ...]
    measured: tuple[str, ...]
    beside: Mapping[str, tuple[Foresight, ...]] = dataclasses.field(default_factory=dict)

    @property
    def chosen(self) -> SizedMark | None:
        """The smallest size that keeps the level; None if none does."""
        return next((sized for sized in self.sizes if sized.keeps), None)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The marks to embed.

        Raises:
            ConfigurationError: No size keeps the level.
        """
        if self.chosen is None:
            raise ConfigurationError(self.why_none())
        chosen = self.chosen.size.mark
        return tuple(chosen if mark.scheme == self.scheme else mark for mark in self.wanted)

    def keeps(self, foresight: Foresight) -> bool:
        """Say whether an unlucky copy keeps the level with the margin after one theft, and its picture is decoded."""
        is_decoded = foresight.decoded is None or foresight.decoded >= DECODED
        return is_decoded and foresight.unlucky_log10_p <= self.margin * self.needed_log10_p

    def why_none(self) -> str:
        """Say what no size survives, for a ticket that no size keeps the level of."""
        level = f"no {self.scheme} keeps a level of {self.level_bits} bits in this ticket"
        advice = "name weaker thefts, lower the level, or find a ticket of more edges"
        if not self.sizes:
            return f"{level}, which has no room for one: {advice}"
        best = self.sizes[-1]
        named = {theft.name for theft in self.survive}
        lost = [seen for seen in best.foreseen if seen.theft.name in named and not self.keeps(seen)]
        left = ", ".join(f"{seen.theft.name} leaves {_left(seen)}" for seen in lost)
        settings = " and ".join(f"{name} {value:g}" for name, value in best.size.settings.items())
        needed = f"10^{self.margin * self.needed_log10_p:.1f} is needed"
        reason = f"{left}, and {needed}" if left else "even an untouched copy would leave too little"
        return f"{level}: with {settings}, {reason}: {advice}"


def _left(seen: Foresight) -> str:
    decoded = "" if seen.decoded is None else f" and a picture that {seen.decoded:.0%} decode"
    return f"10^{seen.unlucky_log10_p:.1f}{decoded}"


def choose_marks(
    ticket: Ticket,
    *,
    survive: Iterable[str] = SURVIVE,
    marks: Sequence[Mark] | None = None,
    level_bits: int = DEFAULT_LEVEL_BITS,
    margin: float = MARGIN,
    scheme_to_size: str | None = None,
) -> MarkChoice:
    """Foresee what marks of many sizes will show after thefts, and choose the smallest that proves ownership.

    Nothing is planted or trained. Foreseen is what nineteen copies in twenty show, once the verifier's looks at one
    network and the tests of all marks are paid for, if the suspect's channels are found.

    Args:
        ticket: The unmarked ticket.
        survive: Thefts that the mark must survive, each alone: steps such as "pruned-80", joined by "+" where one thief
            takes several.
        marks: Marks that the claim is to have; by default the usual ones. The first whose size can be chosen gets one,
            and keeps its other settings.
        level_bits: A verdict will need p ≤ 2^-level_bits.
        margin: The evidence (log10 p) that must be left, as a multiple of what the level needs; 1 or more.
        scheme_to_size: The mark that gets a size, instead of the first.

    Raises:
        ConfigurationError: A theft, the level or the margin is not one, or none of the marks has a size to choose.
    """
    require_kind(ticket, Ticket, what="the ticket", hint="tg.Ticket.load reads one from a file")
    thefts = tuple(map(Theft.parse, [survive] if isinstance(survive, str) else survive))
    wanted = checked_marks(usual_marks(ticket.info) if marks is None else marks)
    level_bits = checked_level(level_bits)
    margin = plain_number(margin, what="margin")
    if not margin >= 1.0:
        raise ConfigurationError(f"margin is {margin:g}, expected 1 or more")
    sized = ((mark, scheme(mark.scheme)) for mark in wanted if scheme_to_size in (None, mark.scheme))
    mark, found = next(((mark, known) for mark, known in sized if isinstance(known, SizedScheme)), (None, None))
    if mark is None or found is None:
        raise ConfigurationError(f"marks are {', '.join(mark.scheme for mark in wanted)}: none has a size to choose")
    choice = MarkChoice(
        scheme=mark.scheme,
        wanted=wanted,
        survive=thefts,
        level_bits=level_bits,
        margin=margin,
        looks=found.looks(mark, ticket),
        needed_log10_p=level_log10(level_bits, tests=len(wanted)),
        sizes=(),
        measured=tuple(found.measured),
    )
    room_log10_p = found.room_factor * level_log10(level_bits)
    return dataclasses.replace(
        choice, sizes=_looked_at(choice, found.sizes(mark, ticket), room_log10_p), beside=_beside(choice, ticket)
    )


def marks_that_survive(
    ticket: Ticket, *, survive: Iterable[str], marks: Sequence[Mark], level_bits: int = DEFAULT_LEVEL_BITS
) -> tuple[Mark, ...]:
    """Return *marks*, each that has a size as small as surviving all thefts allows.

    Arguments are those of `choose_marks`.

    Raises:
        ConfigurationError: As `choose_marks`, or no size of a mark survives.
    """
    thefts = tuple(survive)
    named = [mark.scheme for mark in checked_marks(marks)]
    for name in [name for name in named if isinstance(scheme(name), SizedScheme)] or named[:1]:
        choice = choose_marks(ticket, survive=thefts, marks=marks, level_bits=level_bits, scheme_to_size=name)
        marks = choice.marks
    return tuple(marks)


def _beside(choice: MarkChoice, ticket: Ticket) -> dict[str, tuple[Foresight, ...]]:
    known = ((name, scheme(name)) for name in SCHEMES)
    return {
        name: tuple(found.foresee(found.settings(), ticket, theft) for theft in _shown(choice))
        for name, found in known
        if isinstance(found, ForeseenScheme)
    }


def _shown(choice: MarkChoice) -> list[Theft]:
    """Return the thefts that are looked at: the usual ones, and those that are to be survived."""
    shown = [Theft.parse(name) for name in SHOWN]
    return shown + [theft for theft in choice.survive if theft not in shown]


def _looked_at(choice: MarkChoice, sizes: Iterable[Size], room_log10_p: float) -> tuple[SizedMark, ...]:
    """Look at sizes from the smallest that an untouched copy proves to a few beyond the first that survives."""
    shown = _shown(choice)
    looked_at: list[SizedMark] = []
    for size in sizes:
        untouched = size.foresee(shown[0])
        if untouched.unlucky_log10_p > choice.needed_log10_p:
            continue
        foreseen = (untouched, *map(size.foresee, shown[1:]))
        survived = all(choice.keeps(seen) for seen in foreseen if seen.theft in choice.survive)
        keeps = survived and untouched.unlucky_log10_p <= room_log10_p
        looked_at.append(SizedMark(size=size, foreseen=foreseen, keeps=keeps))
        if sum(sized.keeps for sized in looked_at) > LARGER:
            break
    return tuple(looked_at)

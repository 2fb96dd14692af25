"""What a thief may do to a copy, named so that a mark can be chosen that survives it.

A theft is steps joined by ``+``, done in that order: ``pruned-80+regrown-100``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ticketguard.errors import ConfigurationError, shortened
from ticketguard.settings import unknown_name

UNTOUCHED = "untouched"
JOINT = "+"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of step.

    Attributes:
        meaning: What is done, in words; N stands for the percentage.
        most: The largest percentage.
    """

    meaning: str
    most: float


PRUNED, REGROWN, REWIRED, CHANNELS = "pruned", "regrown", "rewired", "channels"
# Training without the mask moves weights past each other: of a ResNet-20's edges 14, 20 and 21% were no longer among
# the largest after two epochs at half the training rate (benchmarks/results/strength.json, three seeds).
TUNED, DISPLACED = "tuned-dense", 0.25
KINDS: Mapping[str, Kind] = {
    PRUNED: Kind(meaning="the smallest N% of the remaining edges are pruned", most=99.9),
    REGROWN: Kind(meaning="N% as many edges as there are are added at random", most=10_000.0),
    REWIRED: Kind(meaning="the weakest N% of the edges are replaced by random ones, and all are retrained", most=99.9),
    CHANNELS: Kind(meaning="N% of the channels between layers are removed", most=99.9),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that is done to a copy.

    Attributes:
        kind: A key of `KINDS`.
        share: How much of it, as a fraction.
        is_from_new_weights: Whether all edges are then trained from other start weights.
    """

    kind: str
    share: float
    is_from_new_weights: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theft:
    """What a copy has been through.

    Attributes:
        name: As it is written.
        steps: What was done, in order; nothing for an untouched copy.
    """

    name: str
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: object) -> Theft:
        """Read a theft as a user writes it.

        Raises:
            ConfigurationError: It names no theft, or a percentage is missing or out of range.
        """
        if not isinstance(text, str):
            raise ConfigurationError(f"theft is {shortened(text)}, expected words such as 'pruned-80+regrown-100'")
        name = text.strip()
        parts = [part.strip() for part in name.split(JOINT)]
        return cls(name=name, steps=tuple(_step(part) for part in parts if part != UNTOUCHED))


def _step(text: str) -> Step:
    if text == TUNED:
        return Step(kind=REWIRED, share=DISPLACED)
    kind, hyphen, percentage = text.rpartition("-")
    if kind not in KINDS:
        # What a percentage was left out of is the name itself.
        name = kind if hyphen and percentage.replace(".", "").isdecimal() else text
        if name in KINDS:
            raise ConfigurationError(f"theft '{text}' does not say how much, expected a percentage, such as {name}-50")
        raise unknown_name("theft", name, (*KINDS, TUNED, UNTOUCHED))
    try:
        percent = float(percentage)
    except ValueError:
        percent = -1.0
    if not 0.0 < percent <= KINDS[kind].most:
        raise ConfigurationError(
            f"theft '{text}' has {shortened(percentage)} percent, expected more than 0 and at most {KINDS[kind].most:g}"
        )
    return Step(kind=kind, share=percent / 100, is_from_new_weights=kind == REWIRED)

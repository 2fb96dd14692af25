"""White-box verification: do the suspect's edges lie at those positions of the owner's pairs that the code says?

1. Draw pairs and coins from (secret, C); C binds the unmarked reference, in which all of their positions are empty.
2. Read the suspect's mask in a few ways: as stored, and its largest weights at a few densities.
3. A pair with an edge at one position alone votes; weigh the votes by layer, blind of the coins, and add up those that
   agree with the claim's code: the tail of the weighted binomial sum is the p-value.
4. If that is not enough, or the strongest evidence is wanted, align the suspect to the reference, and read again.
5. Multiply by the number of readings (Bonferroni); show decoy keys through the same steps.
6. Draw what the strongest pass shows as a picture, decode it, and compare the text with the claim's. That decides
   nothing: p does.

Nothing here runs a model or needs torch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ticketguard.embedding.interface import Binding
from ticketguard.embedding.pairs import Bits, PairedLayers, Pairs
from ticketguard.embedding.qr_code import SCHEME, CodeParameters
from ticketguard.errors import CredentialError
from ticketguard.ticket import Mask
from ticketguard.verification.binomial import log10_at_least
from ticketguard.verification.decoys import decoy_bindings
from ticketguard.verification.doubts import ASSUMPTIONS
from ticketguard.verification.outcome import Outcome
from ticketguard.verification.pairs import Agreement, Evidences, PairReading, ReadLayers, votes_of
from ticketguard.verification.passes import Passes
from ticketguard.verification.qr_code.decoding import Decoded, decoded
from ticketguard.verification.readings import READINGS
from ticketguard.verification.verdict import Evidence
from ticketguard.verification.ways import Way

# Pairs that are drawn for decoys.
DECOY_PAIRS = 6_000
OTHER_TEXT, NOTHING = "another text, which does not count", "nothing decoded"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnCode:
    """A claim's code, and where a key has put it.

    Attributes:
        parameters: Of the claim.
        text: What the code shows.
        bits: Its modules that carry codewords.
        layers: What pairs are drawn on.
        drawn: The key's pairs.
    """

    parameters: CodeParameters
    text: str
    bits: Bits
    layers: PairedLayers
    drawn: Mapping[str, Pairs]

    @classmethod
    def of(cls, parameters: CodeParameters, reference: Mask, binding: Binding) -> OwnCode:
        """Draw it.

        Raises:
            CredentialError: The reference has no room for so many pairs.
        """
        layers, code = PairedLayers(reference), parameters.code
        if code.edges > layers.room:
            raise CredentialError(
                f"the claim's {SCHEME} has {code.edges} pairs, but its reference has room for {layers.room}: it was "
                "not made by ticketguard"
            )
        text = parameters.payload(binding.commitment)
        drawn = layers.draw(binding, code.edges)
        return cls(parameters=parameters, text=text, bits=code.symbol.encode(text), layers=layers, drawn=drawn)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """One pass, counted for one key.

    Attributes:
        read: What was read.
        readings: What its pairs say, one entry a reading.
        agreements: How many votes of each agree.
    """

    read: ReadLayers
    readings: tuple[PairReading, ...]
    agreements: tuple[Agreement, ...]

    @classmethod
    def of(cls, read: ReadLayers, own: OwnCode) -> Counted:
        """Count."""
        readings = votes_of(read, own.drawn)
        return cls(read=read, readings=readings, agreements=tuple(reading.agreement(own.bits) for reading in readings))

    @functools.cached_property
    def strongest(self) -> int:
        """The number of the reading with the smallest p."""
        return min(range(len(self.agreements)), key=lambda index: self.agreements[index].log10_p)

    @property
    def log10_p(self) -> float:
        """Of that reading."""
        return self.agreements[self.strongest].log10_p

    @functools.cached_property
    def attainable_log10_p(self) -> float:
        """Of the most powerful reading, were it of an untouched copy."""
        return min(log10_at_least(right, votes) for votes, right in (reading.of_copy for reading in self.readings))


def examine_code(way: Way, binding: Binding, parameters: CodeParameters, *, threshold_log10_p: float) -> Evidence:
    """Read every network as stored and, if that is not enough, aligned; the strongest one pays for all.

    Args:
        way: The suspect, and the unmarked ticket beside which it is read.
        binding: The owner's key.
        parameters: Of the claim's code.
        threshold_log10_p: What the verdict asks for.

    Raises:
        CredentialError: The reference has no room for the claim's code.
        FileError: The file is gone or has changed.
    """
    own = OwnCode.of(parameters, way.reference.mask, binding)
    passes = Passes(way, see=ReadLayers.of)
    outcome = Outcome.of(
        passes,
        lambda read: Counted.of(read, own),
        looks=len(READINGS) * passes.passes,
        threshold_log10_p=threshold_log10_p,
    )
    best = outcome.best
    reading, agreement = best.readings[best.strongest], best.agreements[best.strongest]
    modules = reading.evidence(len(own.bits))
    seen = decoded(parameters.code.symbol, modules)
    return outcome.evidence(
        mark=SCHEME,
        reading={**_what_is_seen(seen, own, modules), "reading": reading.reading.name},
        statistic="pairs of positions whose edge is where the owner's key and the claim's code say",
        observed=agreement.right,
        expected=agreement.votes / 2,
        details={
            **_decoys(outcome, own, binding),
            "pairs": parameters.code.edges,
            "pairs_read": agreement.votes,
            "layers": len(best.read.reference.layers),
            **passes.what_was_read(outcome.network, best.read.reference.layers),
            "channel_groups": len(way.groups),
        },
        assumptions=ASSUMPTIONS,
        pictures={"raw": seen.raw, "cleaned": seen.cleaned},
    )


def _what_is_seen(seen: Decoded, own: OwnCode, modules: Evidences) -> dict[str, Any]:
    """Return what the picture shows beside what the claim says; another text is a stranger's, and is not repeated."""

    def told(text: str | None) -> str:
        return NOTHING if text is None else text if text == own.text else OTHER_TEXT

    symbol = own.parameters.code.symbol
    return {
        "text_of_the_claim": own.text,
        "decoded": told(seen.cleaned_text),
        "decoded_raw": told(seen.raw_text),
        "symbol": symbol.designation,
        "modules": symbol.bits,
        "modules_wrong": int(np.count_nonzero((modules < 0) != own.bits)),
        "modules_unread": int(np.count_nonzero(modules == 0)),
    }


def _decoys(outcome: Outcome[Counted], own: OwnCode, binding: Binding) -> dict[str, Any]:
    """Return what decoy keys show in the strongest pass; of each, the reading that stands out most is looked at."""
    pairs, found = own.parameters.code.edges, []
    for decoy in decoy_bindings(binding.commitment, positions=pairs, most_positions=DECOY_PAIRS):
        votes = votes_of(outcome.best.read, own.layers.draw(decoy, pairs))
        found.append(max((each.agreement(own.bits) for each in votes), key=lambda each: each.surprise).log10_p)
    return {"decoy_keys": len(found), "decoy_log10_p": outcome.corrected(min(found))}

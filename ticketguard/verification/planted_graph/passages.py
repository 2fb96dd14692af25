"""One pass over a suspect's layers, and every reading of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ticketguard.embedding.interface import Binding, Positions
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.ticket import AnyReference
from ticketguard.verification.memory import Memory
from ticketguard.verification.planted_graph.counting import Counted, ReadSuspect, copy_of, count_hits
from ticketguard.verification.readings import Layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passage:
    """One pass over the suspect's layers: aligned or as stored.

    Attributes:
        read: What was read.
        layout: In which layouts its tensors were read.
        counted: The owner's counts in the reading with the smallest p.
        with_signs: Whether that p is of hits and their signs, rather than of hits alone.
        log10_p: The smallest p, before correction.
        readings_log10_p: Of every reading, in the order of `READINGS`, the smallest p before correction.
        attainable_log10_p: Of the most powerful reading, if as many edges were planted as in an untouched copy.
    """

    read: ReadSuspect
    layout: str
    counted: Counted
    with_signs: bool
    log10_p: float
    readings_log10_p: tuple[float, ...]
    attainable_log10_p: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sighting:
    """What one pass over the suspect's layers sees, before any key.

    Attributes:
        read: What was read.
        layout: In which layouts its tensors were read.
    """

    read: ReadSuspect
    layout: str

    @classmethod
    def of(
        cls,
        suspect: Layers,
        reference: AnyReference,
        parameters: PlantedParameters,
        decided: Mapping[str, Positions] | None = None,
    ) -> Sighting:
        """Read the suspect in every way; *decided* are the positions that other marks of the claim decide."""
        return cls(read=ReadSuspect.of(suspect, reference, parameters, decided), layout=suspect.layout)

    def counted(self, binding: Binding, parameters: PlantedParameters, memory: Memory | None = None) -> Passage:
        """Count in every reading for one key, hits alone and with their signs, and keep the strongest result."""
        counts = count_hits(self.read, binding, parameters, memory)
        best = min(counts, key=lambda counted: min(counted.results))
        return Passage(
            read=self.read,
            layout=self.layout,
            counted=best,
            with_signs=min(best.results) < best.log10_p,
            log10_p=min(best.results),
            readings_log10_p=tuple(min(counted.results) for counted in counts),
            attainable_log10_p=min(min(copy_of(counted, self.read, parameters).results) for counted in counts),
        )


def examine(suspect: Layers, reference: AnyReference, binding: Binding, parameters: PlantedParameters) -> Passage:
    """Read the suspect in every way, and keep the reading with the strongest result."""
    return Sighting.of(suspect, reference, parameters).counted(binding, parameters)

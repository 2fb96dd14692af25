"""One pass over a suspect's layers, and every reading of it."""

from __future__ import annotations

import dataclasses

from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.graph.alignment import Alignment
from ticketguard.ticket import Mask
from ticketguard.verification.memory import Memory
from ticketguard.verification.planted_graph.counting import ReadSuspect, copy_of, count_hits
from ticketguard.verification.readings import Layers, Reading
from ticketguard.verification.statistics import LayerCount, log10_upper_tail


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passage:
    """One pass over the suspect's layers: aligned or as stored.

    Attributes:
        read: What was read.
        alignment: How the suspect was aligned to the reference first; None if it was taken as stored.
        layout: In which layouts its tensors were read.
        reading: The reading with the smallest p.
        counts: The owner's counts in that reading, one a layer.
        log10_p: Of that reading, before correction.
        readings_log10_p: Of every reading, in the order of `READINGS`, before correction.
        attainable_log10_p: Of the most powerful reading, if as many edges were planted as in an untouched copy.
    """

    read: ReadSuspect
    alignment: Alignment | None
    layout: str
    reading: Reading
    counts: tuple[LayerCount, ...]
    log10_p: float
    readings_log10_p: tuple[float, ...]
    attainable_log10_p: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sighting:
    """What one pass over the suspect's layers sees, before any key.

    Attributes:
        read: What was read.
        alignment: How the suspect was aligned to the reference first; None if it was taken as stored.
        layout: In which layouts its tensors were read.
    """

    read: ReadSuspect
    alignment: Alignment | None = None
    layout: str = ""

    @classmethod
    def of(cls, suspect: Layers, reference: Mask, parameters: PlantedParameters, *, layout: str = "") -> Sighting:
        """Read the suspect in every way."""
        read = ReadSuspect.of(suspect, reference, parameters)
        return cls(read=read, alignment=suspect.alignment, layout=layout)

    def counted(self, binding: Binding, parameters: PlantedParameters, memory: Memory | None = None) -> Passage:
        """Count in every reading for one key, and keep the reading with the strongest result."""
        counts = count_hits(self.read, binding, parameters, memory)
        results = [log10_upper_tail(counted.layers) for counted in counts]
        best = min(range(len(results)), key=results.__getitem__)
        return Passage(
            read=self.read,
            alignment=self.alignment,
            layout=self.layout,
            reading=counts[best].reading,
            counts=counts[best].layers,
            log10_p=results[best],
            readings_log10_p=tuple(results),
            attainable_log10_p=min(log10_upper_tail(copy_of(counted, self.read, parameters)) for counted in counts),
        )


def examine(suspect: Layers, reference: Mask, binding: Binding, parameters: PlantedParameters) -> Passage:
    """Read the suspect in every way, and keep the reading with the strongest result."""
    return Sighting.of(suspect, reference, parameters).counted(binding, parameters)

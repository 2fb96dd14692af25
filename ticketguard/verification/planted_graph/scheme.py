"""The planted graph as the verifier asks for it: settings, room, and a test of a suspect."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from ticketguard.credentials.claim import MarkClaim
from ticketguard.embedding import planted_graph
from ticketguard.embedding.interface import Binding, Mark, Positions
from ticketguard.embedding.planted_graph import PlantedGraph, PlantedParameters
from ticketguard.errors import CapacityError
from ticketguard.ticket import AnyReference, Mask, Ticket, TicketInfo
from ticketguard.verification.interface import Glance, Inquiry, Source, Test, own_parameters
from ticketguard.verification.memory import Memory
from ticketguard.verification.planted_graph.counting import ReadSuspect, count_hits
from ticketguard.verification.planted_graph.examination import examine_networks
from ticketguard.verification.planted_graph.glancing import glance
from ticketguard.verification.planted_graph.sizes import LOOKS, MEASURED, sizes_of
from ticketguard.verification.sizing import Size
from ticketguard.verification.statistics import LayerCount, log10_upper_tail
from ticketguard.verification.verdict import Evidence, level_log10


def _with_more(counts: Sequence[LayerCount], times: float) -> list[LayerCount]:
    """Return the counts of a mark that has so many *times* the edges in every layer, as far as it has secret places."""
    hits = [min(layer.secret, math.ceil(layer.hits * times)) for layer in counts]
    return [
        dataclasses.replace(layer, hits=found, kept=max(layer.kept, found))
        for layer, found in zip(counts, hits, strict=True)
    ]


class _PlantedGraphScheme:
    """The planted graph, as `ticketguard.verification.interface.Scheme` has it."""

    name = planted_graph.SCHEME
    version = planted_graph.VERSION
    reads: Source = "weights"
    settings = PlantedGraph
    options: ClassVar[Mapping[str, str]] = {"share": "share"}
    # An untouched copy has to prove the square of the level: thieves leave less.
    room_factor = 2.0
    looks = LOOKS
    measured = MEASURED

    def fits(self, info: TicketInfo) -> bool:
        return True

    def require_room(self, claim: MarkClaim, binding: Binding, *, marked: Mask, reference: AnyReference) -> None:
        """Refuse a mark that an untouched copy could not prove, with a margin for what thieves do to copies.

        Raises:
            CapacityError: The intact mark's p does not reach the square of the level.
        """
        parameters = PlantedParameters.from_json(own_parameters(claim))
        weights = {name: marked[name].astype(np.float32) for name in marked}
        counts = count_hits(ReadSuspect.of(weights, reference.mask, parameters), binding, parameters)[0].layers
        needed_log10_p = self.room_factor * level_log10(claim.level_bits)
        if log10_upper_tail(counts) <= needed_log10_p:
            return
        free = sum(layer.hits for layer in counts)
        possible = range(free, sum(layer.secret for layer in counts))
        more = bisect.bisect_left(
            possible, -needed_log10_p, key=lambda needed: -log10_upper_tail(_with_more(counts, needed / max(1, free)))
        )
        raise CapacityError(layer="the whole ticket", needed_edges=free + max(1, more), free_edges=free)

    def secret_positions(self, claim: MarkClaim, binding: Binding, mask: Mask) -> Mapping[str, Positions]:
        parameters = PlantedParameters.from_json(own_parameters(claim))
        shapes = {name: mask.shape(name) for name in mask}
        return planted_graph.secret_edges(binding, shapes, secret_ppm=parameters.secret_ppm)

    def sizes(self, mark: Mark, ticket: Ticket) -> Sequence[Size]:
        assert isinstance(mark, PlantedGraph)
        return sizes_of(mark, ticket)

    def examine(self, inquiry: Inquiry) -> Test:
        assert inquiry.weights is not None
        suspect = inquiry.weights
        parameters = PlantedParameters.from_json(own_parameters(inquiry.mark))

        def test(threshold_log10_p: float) -> Evidence:
            reference = inquiry.credential.reference
            return examine_networks(
                suspect,
                reference,
                inquiry.binding,
                parameters,
                groups=inquiry.bound_groups(reference.mask),
                threshold_log10_p=threshold_log10_p,
                thorough=inquiry.thorough,
                memory=inquiry.memory,
            )

        return test

    def glance(self, inquiry: Inquiry, seen: Memory) -> Glance:
        assert inquiry.weights is not None
        reference = inquiry.credential.reference
        return glance(
            inquiry.weights,
            reference,
            inquiry.binding,
            PlantedParameters.from_json(own_parameters(inquiry.mark)),
            groups=inquiry.bound_groups(reference.mask),
            memory=inquiry.memory,
            seen=seen,
        )


SCHEME = _PlantedGraphScheme()

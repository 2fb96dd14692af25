"""The planted graph as the verifier asks for it: settings, room, and a test of a suspect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ticketguard.credentials.claim import MarkClaim
from ticketguard.embedding import planted_graph
from ticketguard.embedding.interface import Binding, Mark, Positions
from ticketguard.embedding.planted_graph import PlantedGraph, PlantedParameters
from ticketguard.ticket import AnyReference, Mask, Ticket, TicketInfo
from ticketguard.verification.decided import decided_by_others
from ticketguard.verification.interface import Glance, Inquiry, Source, Test, own_parameters
from ticketguard.verification.memory import Memory
from ticketguard.verification.planted_graph.counting import looks_at_one
from ticketguard.verification.planted_graph.examination import examine_networks
from ticketguard.verification.planted_graph.glancing import glance
from ticketguard.verification.planted_graph.room import Intact
from ticketguard.verification.planted_graph.sizes import MEASURED, sizes_of
from ticketguard.verification.sizing import Size
from ticketguard.verification.verdict import Evidence, level_log10


class _PlantedGraphScheme:
    """The planted graph, as `ticketguard.verification.interface.Scheme` has it."""

    name = planted_graph.SCHEME
    version = planted_graph.VERSION
    reads: Source = "weights"
    settings = PlantedGraph
    options: ClassVar[Mapping[str, str]] = {"share": "share"}
    # An untouched copy has to prove the square of the level: thieves leave less.
    room_factor = 2.0
    measured = MEASURED

    def fits(self, info: TicketInfo) -> bool:
        return True

    def require_room(
        self,
        claim: MarkClaim,
        binding: Binding,
        *,
        marked: Mask,
        reference: AnyReference,
        decided: Mapping[str, Positions],
    ) -> None:
        """Refuse a mark that an untouched copy could not prove, with a margin for what thieves do to copies.

        Raises:
            CapacityError: The intact mark's p does not reach the square of the level.
        """
        parameters = PlantedParameters.from_json(own_parameters(claim))
        needed_log10_p = self.room_factor * level_log10(claim.level_bits)
        Intact.of(marked, reference.mask, binding, parameters, decided).require(needed_log10_p)

    def secret_positions(self, claim: MarkClaim, binding: Binding, mask: Mask) -> Mapping[str, Positions]:
        parameters = PlantedParameters.from_json(own_parameters(claim))
        shapes = {name: mask.shape(name) for name in mask}
        return planted_graph.secret_edges(binding, shapes, secret_ppm=parameters.secret_ppm)

    def looks(self, mark: Mark, ticket: Ticket) -> int:
        assert isinstance(mark, PlantedGraph)
        return looks_at_one(is_signed=mark.turned_ppm(ticket.mask) > 0)

    def sizes(self, mark: Mark, ticket: Ticket) -> Sequence[Size]:
        assert isinstance(mark, PlantedGraph)
        return sizes_of(mark, ticket)

    def examine(self, inquiry: Inquiry) -> Test:
        assert inquiry.weights is not None
        parameters = PlantedParameters.from_json(own_parameters(inquiry.mark))

        def test(threshold_log10_p: float) -> Evidence:
            credential = inquiry.credential
            decided = decided_by_others(
                credential.claim.marks,
                inquiry.mark,
                secret=credential.vault.secret,
                mask=credential.reference.mask,
            )
            return examine_networks(
                inquiry.way_to_read(),
                inquiry.binding,
                parameters,
                threshold_log10_p=threshold_log10_p,
                decided=decided,
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

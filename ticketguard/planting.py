"""Marks that are planted while the ticket is found: the search sees the secret edges.

Before the search there are only the rewind weights, so they alone are the reference: the commitment binds them, the
secret edges follow from it, and whatever the search scores, each layer gives the mark its share of edges, the best of
the secret ones. Nothing has to be moved afterwards.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ticketguard.credentials.claim import MarkClaim
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import Owner
from ticketguard.credentials.vault import Vault
from ticketguard.embedding.interface import Binding, Mark, PlannedMark, Start
from ticketguard.embedding.planted_graph import PlantedGraph, Positions, secret_edges
from ticketguard.errors import ConfigurationError
from ticketguard.keyed import SECRET_BYTES
from ticketguard.plan import (
    DEFAULT_LEVEL_BITS,
    Plan,
    check_capacity,
    checked_marks,
    claim_of,
    default_marks,
    masked,
    with_leaves,
)
from ticketguard.pruning.core import global_top_k, with_quota
from ticketguard.ticket import Array, Mask, Reference, Ticket, TicketInfo

if TYPE_CHECKING:
    import torch

    from ticketguard.training import Hooks


class SearchPlanting:
    """Marks that wait for a search; a `ticketguard.pruning.Planting`.

    Args:
        owner: Whose marks they are.
        info: What will be known of the ticket: model, classes, input shape and normalisation.
        density: The ticket's density, in (0, 1).
        marks: Kinds of marks, a planted graph among them; by default that, and a trigger set where possible.
        groups: The model's channel groups as plain JSON; None if they are unknown.
        level_bits: A verdict will need p ≤ 2^-level_bits.
        secret: 32 secret bytes; by default fresh from the operating system.

    Raises:
        ConfigurationError: There is no planted graph among the marks, or the level is out of range.
    """

    def __init__(
        self,
        *,
        owner: Owner,
        info: TicketInfo,
        density: float,
        marks: Sequence[Mark] | None = None,
        groups: Sequence[Sequence[Sequence[str | int]]] | None = None,
        level_bits: int = DEFAULT_LEVEL_BITS,
        secret: bytes | None = None,
    ) -> None:
        self._marks = checked_marks(default_marks(info) if marks is None else marks, level_bits=level_bits)
        graphs = [mark for mark in self._marks if isinstance(mark, PlantedGraph)]
        if not graphs:
            raise ConfigurationError("only a planted graph can be planted while a ticket is found: name it as a mark")
        self._graph = graphs[0]
        self._owner, self._info, self._density = owner, info, density
        self._groups, self._level_bits = groups, level_bits
        self._secret = os.urandom(SECRET_BYTES) if secret is None else secret
        self._start: Mapping[str, Array] | None = None
        self._plan: Plan | None = None

    @property
    def identity(self) -> str:
        """What is planted, and by whom; the secret's part in it is not to be undone."""
        binding = Binding(secret=self._secret, commitment=bytes(32))
        trace = binding.stream("identity").integers(2**53, 2)
        return f"{self._owner.public_key.hex()} {self._marks!r} {self._level_bits} {trace.tolist()}"

    def bind(self, start: Mapping[str, Array], everything: Mask) -> None:
        """Commit to the rewind weights and draw the secret edges, once.

        Raises:
            ConfigurationError: The level cannot be reached with so few triggers.
        """
        if self._start is not None:
            return
        self._start = start
        self._ticket = Ticket(mask=everything, weights=start, rewind_weights=start, info=self._info)
        reference = self._ticket.reference()
        self._vault = Vault(secret=self._secret, reference=reference.to_bytes(), channel_groups=self._groups)
        self._reference = reference
        self._claims = [self._claim(mark, reference) for mark in self._marks]
        shapes = {name: everything[name].shape for name in everything}
        self._secret_edges = secret_edges(self._binding(self._graph), shapes, secret_ppm=self._secret_ppm)

    def _claim(self, mark: Mark, reference: Reference) -> MarkClaim:
        parameters = (
            self._graph.search_parameters(self._density) if mark is self._graph else mark.parameters(self._ticket)
        )
        return claim_of(
            mark, parameters, self._vault, reference.digest(), owner=self._owner, level_bits=self._level_bits
        )

    @property
    def _secret_ppm(self) -> int:
        return int(str(self._graph.search_parameters(self._density)["secret_ppm"]))

    def _binding(self, mark: Mark) -> Binding:
        claim = self._claims[self._marks.index(mark)]
        return Binding(secret=self._secret, commitment=claim.commitment)

    def secret_positions(self) -> Mapping[str, Positions]:
        """Return the secret edges, flat positions a layer, ascending; `bind` has drawn them."""
        return self._secret_edges

    def choose(self, scores: Mapping[str, Array], keep: int, *, within: Mask) -> Mask:
        """Return `global_top_k`'s mask, with the mark's share of edges on secret positions."""
        mask = global_top_k(scores, keep, within=within)
        return with_quota(scores, mask, within=within, secret=self._secret_edges, share=self._graph.share)

    def hooks(self, mask: Mask, start: Mapping[str, Array]) -> Hooks:
        """Return the marks' part in the final training under *mask* from *start*.

        Raises:
            CapacityError: The mask is too small for a planted graph of this level.
        """
        before = Start(mask=mask, weights={name: masked(array, mask, name) for name, array in start.items()})
        planned: list[PlannedMark] = []
        claims: list[MarkClaim] = []
        for mark, claim in zip(self._marks, self._claims, strict=True):
            binding = self._binding(mark)
            if mark is self._graph:
                drawn: PlannedMark = self._graph.found_in(before, self._secret_edges, binding)
                check_capacity(mask, self._reference.mask, binding, claim)
            else:
                drawn = mark.plan(self._ticket, before, binding)
            before = drawn.start
            planned.append(drawn)
            claims.append(with_leaves(claim, drawn))
        self._plan = Plan(
            ticket=self._ticket,
            owner=self._owner,
            vault=self._vault,
            start=before,
            planned=planned,
            claims=tuple(claims),
        )
        return self._plan

    def finish(
        self, ticket: Ticket, network: torch.nn.Module, *, created: datetime.datetime | None = None
    ) -> tuple[Ticket, Credential]:
        """Return the marked ticket, made for release, and the owner's credential.

        Args:
            ticket: What the search returned.
            network: Its model, holding the trained weights.
            created: When the claim says it was made; by default now.

        Raises:
            ConfigurationError: The method chose no weights, so nothing was planted.
        """
        if self._plan is None:
            raise ConfigurationError(
                f"method '{ticket.info.method}' chooses no weights, so no mark could be planted meanwhile: embed it "
                "afterwards"
            )
        marked, credential = self._plan.finish(network, accuracy=ticket.info.accuracy, created=created)
        found = dataclasses.replace(ticket.info, data=marked.info.data, data_options=marked.info.data_options)
        return dataclasses.replace(marked, info=found), credential

"""Marks that are planted while the ticket is found: the search sees the secret edges.

Before the search there are only the rewind weights, so they alone are the reference: the commitment binds them, the
secret edges follow from it, and whatever the search scores, each layer gives the mark its share of edges, the best of
the secret ones. Nothing has to be moved afterwards.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ticketguard.credentials.claim import MarkClaim
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import Owner
from ticketguard.credentials.vault import Vault
from ticketguard.embedding.interface import Binding, Mark, PlannedMark, Start
from ticketguard.embedding.planted_graph import DENSE, PlantedGraph, PlantedParameters, Positions, secret_edges
from ticketguard.errors import ConfigurationError
from ticketguard.keyed import SECRET_BYTES
from ticketguard.plan import (
    DEFAULT_LEVEL_BITS,
    Plan,
    check_capacity,
    checked_marks,
    claim_of,
    default_marks,
    with_leaves,
)
from ticketguard.pruning.core import global_top_k, with_quota
from ticketguard.ticket import Array, Mask, Reference, Ticket, TicketInfo

if TYPE_CHECKING:
    import torch

    from ticketguard.training import Hooks


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Bound:
    """What follows from the rewind weights.

    Attributes:
        start: The rewind weights.
        ticket: They, with a mask that keeps everything.
        reference: What the commitments bind of it.
        vault: The owner's.
        claims: What the claim will say, by scheme.
        secret: The secret edges: flat positions a layer, ascending.
    """

    start: Mapping[str, Array]
    ticket: Ticket
    reference: Reference
    vault: Vault
    claims: Mapping[str, MarkClaim]
    secret: Mapping[str, Positions]


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
        ConfigurationError: There is no planted graph among the marks, the level is out of range, or the ticket is to
            keep half of its positions or more: there a mark is in what is missing.
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
        if density >= DENSE:
            raise ConfigurationError(
                f"density is {density:g}, expected below {DENSE:g} for a mark that is planted while the ticket is "
                "found: find the ticket first and embed the mark afterwards"
            )
        self._graph = graphs[0]
        self._owner, self._info, self._density = owner, info, density
        self._groups, self._level_bits = groups, level_bits
        self._secret = os.urandom(SECRET_BYTES) if secret is None else secret
        self._bound: _Bound | None = None
        self._plan: Plan | None = None

    @property
    def identity(self) -> str:
        """What is planted, and by whom; the secret's part in it is not to be undone."""
        binding = Binding(secret=self._secret, commitment=bytes(32))
        trace = binding.stream("identity").integers(2**53, 2)
        return f"{self._owner.public_key.hex()} {self._marks!r} {self._level_bits} {trace.tolist()}"

    def rehearse(self, start: Mapping[str, Array], everything: Mask, keep: int) -> None:
        """Refuse marks that tickets of this density have no room for, before hours of search.

        A random mask stands for the one to be found: what a mark can prove follows from how many edges it has.

        Args:
            start: Weights of the model, trained or not.
            everything: The mask that keeps all of its prunable ones.
            keep: Number of weights that the ticket will keep.

        Raises:
            CapacityError: The ticket would be too small for a planted graph of this level.
            ConfigurationError: The level cannot be reached with so few triggers.
        """
        trial = copy.copy(self)
        trial.bind(start, everything)
        generator = np.random.default_rng(0)
        scores = {name: generator.random(everything[name].shape, dtype=np.float32) for name in everything}
        trial.hooks(trial.choose(scores, keep, within=everything), start)

    def bind(self, start: Mapping[str, Array], everything: Mask) -> None:
        """Commit to the rewind weights and draw the secret edges, once.

        Raises:
            ConfigurationError: The level cannot be reached with so few triggers.
            ValueError: Other weights than before are to be bound.
        """
        if self._bound is not None and start is self._bound.start:
            return
        ticket = Ticket(mask=everything, weights=start, rewind_weights=start, info=self._info)
        reference = ticket.reference()
        if self._bound is not None:
            if reference.digest() != self._bound.reference.digest():
                raise ValueError("a mark was planted for other rewind weights: one search has one start")
            return
        vault = Vault(secret=self._secret, reference=reference.to_bytes(), channel_groups=self._groups)
        claims = {
            mark.scheme: claim_of(
                mark,
                self._graph.search_parameters(self._density) if mark is self._graph else mark.parameters(ticket),
                vault,
                reference.digest(),
                owner=self._owner,
                level_bits=self._level_bits,
            )
            for mark in self._marks
        }
        binding = Binding(secret=self._secret, commitment=claims[self._graph.scheme].commitment)
        secret_ppm = PlantedParameters.from_json(claims[self._graph.scheme].parameters).secret_ppm
        shapes = {name: everything[name].shape for name in everything}
        self._bound = _Bound(
            start=start,
            ticket=ticket,
            reference=reference,
            vault=vault,
            claims=claims,
            secret=secret_edges(binding, shapes, secret_ppm=secret_ppm),
        )

    @property
    def _ready(self) -> _Bound:
        if self._bound is None:
            raise ValueError("no rewind weights were bound: call bind first")
        return self._bound

    def choose(self, scores: Mapping[str, Array], keep: int, *, within: Mask) -> Mask:
        """Return `global_top_k`'s mask, with the mark's share of edges on secret positions."""
        mask = global_top_k(scores, keep, within=within)
        return with_quota(scores, mask, within=within, secret=self._ready.secret, share=self._graph.share)

    def hooks(self, mask: Mask, start: Mapping[str, Array]) -> Hooks:
        """Return the marks' part in the final training under *mask* from *start*.

        Raises:
            CapacityError: The mask is too small for a planted graph of this level.
        """
        bound = self._ready
        before = Start(mask=mask, weights=mask.applied(start))
        planned: list[PlannedMark] = []
        claims: list[MarkClaim] = []
        for mark in self._marks:
            claim = bound.claims[mark.scheme]
            binding = Binding(secret=self._secret, commitment=claim.commitment)
            if mark is self._graph:
                drawn: PlannedMark = self._graph.found_in(before, bound.secret, binding)
                check_capacity(mask, bound.reference.mask, binding, claim)
            else:
                drawn = mark.plan(bound.ticket, before, binding)
            before = drawn.start
            planned.append(drawn)
            claims.append(with_leaves(claim, drawn))
        self._plan = Plan(
            ticket=bound.ticket,
            owner=self._owner,
            vault=bound.vault,
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

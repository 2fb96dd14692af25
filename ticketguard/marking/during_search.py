"""Marks that are planted while the ticket is found: the search sees the secret edges.

What the commitments bind comes before the search: the start weights, where a mark is in them (`begin`), or else the
weights that the ticket is trained from, which a search may have trained a little. The secret edges follow from it, and
whatever the search scores, each layer gives the mark its share of edges, the best of the secret ones. Nothing has to be
moved afterwards.

`SearchPlanting.bind` makes `BoundMarks` of the rewind weights; they choose masks, and make a `Plan` of the last one.
Each is a function of what it is given, so that a search which is resumed draws the same marks again.
"""

from __future__ import annotations

import dataclasses
import datetime
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ticketguard.credentials.claim import MarkClaim
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import Owner
from ticketguard.credentials.vault import Vault
from ticketguard.embedding.interface import (
    Binding,
    Mark,
    MovingMark,
    PlannedMark,
    Positions,
    SearchedMark,
    Start,
    StartMark,
)
from ticketguard.errors import ConfigurationError, TicketguardWarning
from ticketguard.keyed import checked_secret
from ticketguard.marking.commitments import claim_of
from ticketguard.marking.from_start import StartMarks, bind_start, warn_of_left_out
from ticketguard.marking.plan import Plan, planned
from ticketguard.marking.proving import warn_unless_proved
from ticketguard.marking.release import for_release, warn_of_guessable_seed
from ticketguard.pruning.engine.selection import full_mask, global_top_k, with_quota
from ticketguard.settings import checked_level
from ticketguard.ticket import AnyReference, Array, Mask, Ticket, TicketInfo, weights_digest
from ticketguard.verification.interface import own_parameters
from ticketguard.verification.registry import SCHEMES, checked_marks, scheme, usual_marks, usual_marks_from_start
from ticketguard.verification.verdict import DEFAULT_LEVEL_BITS

if TYPE_CHECKING:
    import torch

# What the seed of a search that plants marks gives away.
START_WEIGHTS = "the weights that the search starts from, and can tell some of the planted edges by them"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundMarks:
    """Marks that are drawn for the weights a ticket will be trained from.

    Attributes:
        ticket: The rewind weights, with a mask that keeps everything.
        owner: Whose marks they are.
        reference: What the commitments bind.
        vault: The owner's, which holds the reference.
        marks: The marks, each with what the claim will say of it.
        searched: Of them, the one that the search sees; None if there is none.
        secret: Its secret edges: flat positions a layer, ascending.
    """

    ticket: Ticket
    owner: Owner
    reference: AnyReference
    vault: Vault
    marks: Sequence[tuple[Mark, MarkClaim]]
    searched: SearchedMark | None
    secret: Mapping[str, Positions]

    def choose(self, scores: Mapping[str, Array], keep: int, *, within: Mask) -> Mask:
        """Return `global_top_k`'s mask, with the mark's share of edges on secret positions."""
        mask = global_top_k(scores, keep, within=within)
        if self.searched is None:
            return mask
        return with_quota(scores, mask, within=within, secret=self.secret, share=self.searched.share)

    def plan(self, mask: Mask) -> Plan:
        """Return the marks' part in the final training under *mask* from the rewind weights.

        Raises:
            CapacityError: The mask is too small for a mark of this level.
            ConfigurationError: The level cannot be reached with so few triggers.
        """
        start = Start(mask=mask, weights=mask.applied(self.ticket.start_weights))
        return planned(
            self.marks,
            self._draw,
            ticket=self.ticket,
            reference=self.reference,
            owner=self.owner,
            vault=self.vault,
            start=start,
            is_fed=True,
        )

    def _draw(self, mark: Mark, start: Start, binding: Binding, claim: MarkClaim) -> PlannedMark:
        if self.searched is not None and mark is self.searched:
            return self.searched.found_in(start, self.secret, binding)
        return mark.plan(self.ticket, start, binding, own_parameters(claim))


class SearchPlanting:
    """Marks that wait for a search; a `ticketguard.pruning.Planting`.

    Args:
        owner: Whose marks they are.
        info: What will be known of the ticket: model, classes, input shape and normalisation.
        density: The ticket's density, in (0, 1).
        marks: Kinds of marks, one that a search can see, or one in the start weights, among them; by default those that
            tickets of such a start usually get.
        groups: The model's channel groups as plain JSON; None if they are unknown.
        level_bits: A verdict will need p ≤ 2^-level_bits.
        secret: 32 secret bytes; by default fresh from the operating system.
        given: What weights the search starts from instead of a random initialisation, in words; None for one.
        leave_out: Leave a mark out, with a `TicketguardWarning`, that is in start weights and that these, or so small a
            ticket, cannot carry; by default where no marks are named. Otherwise it is refused.

    Raises:
        ConfigurationError: Neither a search nor its start can carry any of the marks, one needs a ticket first, or one
            is for a start that is not random; the level is out of range; or the ticket is to keep half of its positions
            or more: there a planted graph is in what is missing.
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
        given: str | None = None,
        leave_out: bool | None = None,
    ) -> None:
        self._leave_out = marks is None if leave_out is None else leave_out
        usual = usual_marks(info) if given else usual_marks_from_start(info)
        self._marks = checked_marks(usual if marks is None else marks)
        if moving := [mark.scheme for mark in self._marks if isinstance(mark, MovingMark)]:
            raise ConfigurationError(
                f"mark '{moving[0]}' moves edges of a ticket that is there, and cannot be planted during the search: "
                "find the ticket first, then mark it with embed"
            )
        self._is_in_start = any(isinstance(mark, StartMark) for mark in self._marks)
        searched = next((mark for mark in self._marks if isinstance(mark, SearchedMark)), None)
        if given and self._is_in_start:
            named = ", ".join(mark.scheme for mark in self._marks if isinstance(mark, StartMark))
            raise ConfigurationError(
                f"marks are {named}: they are drawn with a random initialisation, but the search starts from {given}: "
                f"leave {named} out, or the weights"
            )
        if searched is None and not self._is_in_start:
            able = [name for name in SCHEMES if isinstance(scheme(name).settings(), SearchedMark | StartMark)]
            raise ConfigurationError(
                f"marks are {', '.join(mark.scheme for mark in self._marks)}: none of them can be planted during the "
                f"search: name one that can, {' or '.join(able)}, or mark the ticket with embed"
            )
        self._searched, self._density = searched, density
        self._parameters = {} if searched is None else searched.search_parameters(density)
        if searched is not None and not given:
            warn_of_guessable_seed(info.seed, what=START_WEIGHTS, instead="leave --seed (seed=) out, and one is drawn")
        self._owner, self._info = owner, info
        self._groups, self._level_bits = groups, checked_level(level_bits)
        self._secret = checked_secret(secret)
        self._asked: bytes | None = None
        self._begun: StartMarks | None = None
        self._last: tuple[Mapping[str, Array], BoundMarks] | None = None

    @property
    def identity(self) -> str:
        """What is planted, and by whom; the secret's part in it is not to be undone."""
        binding = Binding(secret=self._secret, commitment=bytes(32))
        trace = binding.stream("identity").integers(2**53, 2)
        return f"{self._owner.public_key.hex()} {self._marks!r} {self._level_bits} {trace.tolist()}"

    def begin(self, start: Mapping[str, Array], everything: Mask) -> Mapping[str, Array]:
        """Return the weights that the search starts from: the start weights, with the marks that are in them.

        Args:
            start: The model's random initialisation.
            everything: The mask that keeps all of its prunable weights.

        Raises:
            ConfigurationError: Most of the start weights cannot carry a mark, or they are others than a moment ago.
        """
        if not self._is_in_start:
            return start
        # A search asks several times, and binding a large start takes seconds.
        asked = weights_digest(start)
        if self._begun is not None and self._asked == asked:
            return self._begun.weights
        begun = bind_start(
            start,
            everything,
            self._marks,
            owner=self._owner,
            secret=self._secret,
            info=self._info,
            density=self._density,
            groups=self._groups,
            level_bits=self._level_bits,
        )
        if self._begun is None:
            warn_of_left_out(begun.left_out)
        elif self._begun.reference.digest() != begun.reference.digest():
            raise ConfigurationError(
                "the model's factory makes other start weights each time, so that no mark can be in them: make it draw "
                "them from torch's generator, which is seeded before it is called"
            )
        self._asked, self._begun = asked, begun
        return begun.weights

    def rehearse(self, start: Mapping[str, Array], everything: Mask, keep: int) -> None:
        """Refuse marks that tickets of this density have no room for, before hours of search.

        A random mask stands for the one to be found: what a mark can prove follows from how many edges it has.

        Args:
            start: Weights of the model, trained or not.
            everything: The mask that keeps all of its prunable ones.
            keep: Number of weights that the ticket will keep.

        Raises:
            CapacityError: The ticket would be too small for a mark of this level.
            ConfigurationError: The level cannot be reached with so few triggers, or the start cannot carry a mark.
        """
        try:
            self._rehearse(start, everything, keep)
        except ConfigurationError as error:
            left = [mark.scheme for mark in self._marks if isinstance(mark, StartMark)]
            if not left or not self._leave_out:
                raise
            self._marks = tuple(mark for mark in self._marks if not isinstance(mark, StartMark))
            self._is_in_start, self._begun = False, None
            self._rehearse(start, everything, keep)
            warnings.warn(f"the ticket is found without {', '.join(left)}: {error}", TicketguardWarning, stacklevel=4)

    def _rehearse(self, start: Mapping[str, Array], everything: Mask, keep: int) -> None:
        generator = np.random.default_rng(0)
        scores = {name: generator.random(everything[name].shape, dtype=np.float32) for name in everything}
        bound = self._draw(self.begin(start, everything), everything)
        bound.plan(bound.choose(scores, keep, within=everything))

    def bind(self, start: Mapping[str, Array], everything: Mask) -> BoundMarks:
        """Draw the secret edges: they follow from what is committed to, the start or these rewind weights."""
        # A search asks in every round; drawing again would give the same.
        if self._last is None or self._last[0] is not start:
            self._last = (start, self._draw(start, everything))
        return self._last[1]

    def _draw(self, start: Mapping[str, Array], everything: Mask) -> BoundMarks:
        ticket = Ticket(mask=everything, weights=start, rewind_weights=start, info=self._info)
        reference: AnyReference
        if self._begun is not None:
            reference, vault, marks = self._begun.reference, self._begun.vault, self._begun.claims
        else:
            reference = ticket.reference()
            vault = Vault(secret=self._secret, reference=reference.to_bytes(), channel_groups=self._groups)
            marks = tuple((mark, self._claim(mark, ticket, vault, reference.digest())) for mark in self._marks)
        return BoundMarks(
            ticket=ticket,
            owner=self._owner,
            reference=reference,
            vault=vault,
            marks=marks,
            searched=self._searched,
            secret=self._secret_positions(marks, everything),
        )

    def _claim(self, mark: Mark, ticket: Ticket, vault: Vault, digest: bytes) -> MarkClaim:
        parameters = self._parameters if mark is self._searched else mark.parameters(ticket)
        return claim_of(mark, parameters, vault, digest, owner=self._owner, level_bits=self._level_bits)

    def _secret_positions(self, marks: Sequence[tuple[Mark, MarkClaim]], everything: Mask) -> Mapping[str, Positions]:
        if self._searched is None:
            return {}
        commitment = next(claim.commitment for mark, claim in marks if mark is self._searched)
        return self._searched.secret_positions(
            {name: everything[name].shape for name in everything},
            Binding(secret=self._secret, commitment=commitment),
            self._parameters,
        )

    def finish(
        self,
        ticket: Ticket,
        network: torch.nn.Module,
        *,
        created: datetime.datetime | None = None,
        rescale: bool = True,
    ) -> tuple[Ticket, Credential]:
        """Return the marked ticket, made for release, and the owner's credential.

        Args:
            ticket: What the search returned, with its rewind weights.
            network: Its model, holding the trained weights.
            created: When the claim says it was made; by default now.
            rescale: As for `Plan.finish`.
        """
        everything = full_mask({name: ticket.mask.shape(name) for name in ticket.mask})
        plan = self.bind(ticket.start_weights, everything).plan(ticket.mask)
        marked, credential = plan.finish(network, accuracy=ticket.info.accuracy, created=created, rescale=rescale)
        in_start = {mark.scheme for mark in self._marks if isinstance(mark, StartMark)}
        warn_unless_proved(marked, credential, schemes=in_start, instead="train at a lower rate")
        return dataclasses.replace(marked, info=for_release(ticket.info)), credential

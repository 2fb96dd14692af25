"""Embedding as three steps inside any training loop: start, after every step, finish.

`prepare` draws the marks; the loop, ours or a stranger's, calls the plan; `finish` gives the marked ticket and
the credential.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ticketguard.credentials.claim import MarkClaim
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import Owner
from ticketguard.credentials.vault import Vault
from ticketguard.embedding.interface import (
    Answers,
    Binding,
    Mark,
    MatchedMark,
    MovingMark,
    PlannedMark,
    Start,
    WatchingMark,
)
from ticketguard.errors import TicketguardError, TicketguardWarning
from ticketguard.graph import KnownGroups, known_groups
from ticketguard.keyed import checked_secret
from ticketguard.marking.commitments import claim_about, claim_of, with_leaves
from ticketguard.marking.release import (
    for_release,
    probes_of,
    require_fit,
    require_masked,
    warn_if_released,
    warn_of_guessable_seed,
)
from ticketguard.marking.rescaling import rescaled
from ticketguard.settings import checked_accuracy, checked_level, require_kind
from ticketguard.ticket import AnyReference, Ticket
from ticketguard.verification.decided import decided_by_others
from ticketguard.verification.interface import own_parameters
from ticketguard.verification.registry import checked_marks, scheme, usual_marks
from ticketguard.verification.verdict import DEFAULT_LEVEL_BITS

if TYPE_CHECKING:
    import torch

    from ticketguard.graph.examples import Example
    from ticketguard.models.answers import Ask

# A trained model that carries less of a mark than this is released with a warning.
LEARNED_SHARE = 0.95
WITHOUT_MODEL = (
    "a copy whose channels were reordered may not be recognised, because no model is given that says which belong "
    "together: prepare takes the ticket's (model=)"
)
# What a ticket's seed gives away, and what to do about it.
UNMARKED_TICKET = "the unmarked ticket again, and can remove the mark"
FOUND_ANEW = "find the ticket without --seed (seed=), which draws one, and mark that"
# How often marks are shown the model: asking a hundred triggers takes as long as a third of a step.
WATCH_STEPS = 50


def prepare(
    ticket: Ticket,
    *,
    owner: Owner,
    marks: Sequence[Mark] | None = None,
    model: torch.nn.Module | None = None,
    level_bits: int = DEFAULT_LEVEL_BITS,
    secret: bytes | None = None,
    ask: Ask | None = None,
    example: Example | None = None,
) -> Plan:
    """Draw the owner's marks for *ticket*; nothing is trained yet.

    The same ticket, owner, marks, level and secret give the same plan again. A loop that may be interrupted keeps
    `Plan.secret` where only the owner can read it, beside its checkpoints, until the credential is saved.

    Args:
        ticket: The unmarked ticket; it becomes the reference that the commitments bind. A `TicketguardWarning` says if
            it looks like one that was made for release, which is not secret.
        owner: Whose marks they are.
        marks: Kinds of marks, each scheme once; by default a planted graph and, where possible, a trigger set.
        model: The ticket's model; its channel groups are kept, so that a copy with permuted channels can be
            aligned. Without them such a copy may not be recognised, which a `TicketguardWarning` says, with the reason
            where a model cannot be tried. It is also asked once what `finish` will ask it, so that it fails now rather
            than after training.
        level_bits: A verdict will need p ≤ 2^-level_bits.
        secret: 32 secret bytes; by default fresh from the operating system.
        ask: Returns the class scores of a model for a batch of inputs, for models that take more than that, or return
            them in their own way; by default ``model(inputs)``, a tensor, the first of a tuple, or "logits", "out" or
            "scores" by name.
        example: A batch of the model's inputs, if they are not numbers of the ticket's input shape: a tensor, several
            in a sequence, or several by name in a mapping. Embedding layers are tried with tokens without one.

    Raises:
        CapacityError: The ticket is too small for a planted graph of this level.
        ConfigurationError: A scheme is named twice, a mark cannot work on this ticket, the model does not answer, or
            the level or secret cannot be one.
        TensorError: The ticket's mask covers what is not a parameter of the model.
    """
    require_kind(ticket, Ticket, what="the ticket", hint="tg.Ticket.load reads one from a file")
    require_kind(
        owner, Owner, what="the owner", hint="tg.Owner.load reads one from a key file, tg.Owner.generate makes one"
    )
    level_bits = checked_level(level_bits)
    chosen = checked_marks(usual_marks(ticket.info) if marks is None else marks)
    if model is not None:
        from ticketguard.models import require_parameters

        require_parameters(model, ticket.mask)
    reference = ticket.reference()
    key = checked_secret(secret)
    start = Start(
        mask=ticket.mask,
        weights=ticket.mask.applied(ticket.start_weights),
    )
    known = KnownGroups(groups=None, doubts=WITHOUT_MODEL)
    if model is not None:
        shape = ticket.info.input_shape
        known = known_groups(model, layers=tuple(ticket.mask), input_shape=shape, example=example, ask=ask)
    vault = Vault(secret=key, reference=reference.to_bytes(), channel_groups=known.groups)
    digest = reference.digest()
    claimed = (
        (mark, claim_of(mark, mark.parameters(ticket), vault, digest, owner=owner, level_bits=level_bits))
        for mark in chosen
    )

    def draw(mark: Mark, start: Start, binding: Binding, claim: MarkClaim) -> PlannedMark:
        return mark.plan(ticket, start, binding, own_parameters(claim))

    plan = planned(claimed, draw, ticket=ticket, reference=reference, owner=owner, vault=vault, start=start, ask=ask)
    if model is not None:
        plan.require_answers(model)
    if any(scheme(mark.scheme).reads == "weights" for mark in chosen):
        if known.doubts:
            warnings.warn(known.doubts, TicketguardWarning, stacklevel=2)
        warn_of_guessable_seed(ticket.info.seed, what=UNMARKED_TICKET, instead=FOUND_ANEW)
        warn_if_released(ticket, stacklevel=2)
    return plan


def planned(
    marks: Iterable[tuple[Mark, MarkClaim]],
    draw: Callable[[Mark, Start, Binding, MarkClaim], PlannedMark],
    *,
    ticket: Ticket,
    reference: AnyReference,
    owner: Owner,
    vault: Vault,
    start: Start,
    ask: Ask | None = None,
    is_fed: bool = False,
) -> Plan:
    """Draw marks, each into what the ones before it left, and return their plan.

    Those that need given positions are drawn first: others have positions to choose from.

    Args:
        marks: The marks with what the claim will say of each.
        draw: Draws one.
        ticket: The unmarked ticket.
        reference: What the commitments bind.
        owner: Whose marks they are.
        vault: The owner's, which holds the reference.
        start: Where training starts without marks.
        ask: As for `prepare`.
        is_fed: Whether the batches of its training certainly have what `Plan.extra_batch` gives.

    Raises:
        CapacityError, ConfigurationError: A mark could not be proved at the claim's level.
    """
    claimed = list(marks)
    drawn: dict[str, PlannedMark] = {}
    claims: dict[str, MarkClaim] = {}
    for mark, claim in sorted(claimed, key=lambda each: not isinstance(each[0], MovingMark)):
        binding = Binding(secret=vault.secret, commitment=claim.commitment)
        planned = draw(mark, start, binding, claim)
        start = planned.start
        decided = decided_by_others([each for _, each in claimed], claim, secret=vault.secret, mask=reference.mask)
        scheme(mark.scheme).require_room(claim, binding, marked=start.mask, reference=reference, decided=decided)
        drawn[mark.scheme], claims[mark.scheme] = planned, with_leaves(claim, planned)
    in_order = [drawn[mark.scheme] for mark, _ in claimed]
    return Plan(
        ticket=ticket,
        owner=owner,
        vault=vault,
        start=start,
        planned=[mark.under(start.mask) if isinstance(mark, MatchedMark) else mark for mark in in_order],
        claims=tuple(claims[mark.scheme] for mark, _ in claimed),
        ask=ask,
        is_fed=is_fed,
    )


class Plan:
    """Marks that are drawn and wait for a training loop.

    A loop calls `start` once, appends `extra_batch` to its batches where it gives any, calls `after_step` after
    every optimiser step, and `finish` at the end. A loop that resumes calls `seek` first, with the `state` it kept.

    Attributes:
        mask: The marked mask to train under.
        claims: What the claim will say about each mark.
    """

    def __init__(
        self,
        *,
        ticket: Ticket,
        owner: Owner,
        vault: Vault,
        start: Start,
        planned: Sequence[PlannedMark],
        claims: tuple[MarkClaim, ...],
        ask: Ask | None = None,
        is_fed: bool = False,
    ) -> None:
        self.mask = start.mask
        self._ticket = ticket
        self._owner = owner
        self._vault = vault
        self._start = start
        self._planned = tuple(planned)
        self.claims = claims
        self._ask = ask
        self._step = 0
        self._steps: int | None = None  # in all, if the loop has said so
        self._is_fed = is_fed
        self._live_masks: list[torch.Tensor] = []

    @property
    def secret(self) -> bytes:
        """The owner's 32 secret bytes: `prepare` makes the same plan of them again."""
        return self._vault.secret

    def require_answers(self, model: torch.nn.Module) -> None:
        """Ask *model* one question of each kind that it will be asked; it is left as it was.

        Raises:
            ConfigurationError: It does not answer.
        """
        import torch

        for mark in self._planned:
            batch = mark.extra_batch(0, torch.device("cpu"))
            if batch is not None:
                self._answers(model)(batch[0][:1].numpy())

    def start(self, model: torch.nn.Module, *, steps: int | None = None) -> None:
        """Load the marked start weights into *model*.

        Args:
            model: The model to train.
            steps: How many steps the loop will take; triggers then take less from the task in the middle of them.

        Raises:
            TensorError: The model lacks a tensor of the ticket or has it in another shape, or the mask covers a buffer.
        """
        from ticketguard.models import load_arrays, require_parameters
        from ticketguard.models.arrays import require_shapes

        # Before anything is written; load_arrays would notice a buffer too late.
        require_shapes(model, self._start.weights)
        require_parameters(model, self.mask)
        load_arrays(model, self._start.weights, masked=self.mask.layers)
        self._steps = steps

    def state(self) -> dict[str, list[int]]:
        """Return what `seek` has to know beside the step, to be kept in a checkpoint."""
        marks = zip(self._planned, self.claims, strict=True)
        return {claim.scheme: mark.state() for mark, claim in marks if isinstance(mark, WatchingMark)}

    def seek(self, step: int, state: Mapping[str, Sequence[int]] | None = None) -> None:
        """Continue as after *step* finished steps, when `state` returned *state*; without it marks start afresh."""
        self._step = step
        self._is_fed = self._is_fed or step > 0  # by whom it was begun, for all that is known
        for mark, claim in zip(self._planned, self.claims, strict=True):
            if isinstance(mark, WatchingMark) and claim.scheme in (state or {}):
                mark.resume((state or {})[claim.scheme])

    def extra_batch(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return normalised inputs and labels to append to the next batch; None if no mark trains any."""
        import torch

        self._is_fed = True
        batches = [batch for mark in self._planned if (batch := mark.extra_batch(self._step, device)) is not None]
        if not batches:
            return None
        inputs, labels = zip(*batches, strict=True)
        return torch.cat(inputs), torch.cat(labels)

    def after_step(self, model: torch.nn.Module) -> None:
        """Keep the model under the marked mask and the marks hidden among its weights; call after every step."""
        import torch

        from ticketguard.models import mask_tensors, named_parameters

        parameters = named_parameters(model, every_name=True)
        if not self._live_masks or self._live_masks[0].device != next(model.parameters()).device:
            self._live_masks = mask_tensors(self.mask, parameters)
        layers: list[torch.Tensor] = [parameters[name] for name in self.mask]
        self._step += 1
        with torch.no_grad():
            torch._foreach_mul_(layers, self._live_masks)
            for mark in self._planned:
                mark.after_step(self._step, parameters)
        if self._steps is not None and self._step % WATCH_STEPS == 0:
            self._show(model, self._steps)

    def _show(self, model: torch.nn.Module, steps: int) -> None:
        for mark in self._planned:
            # A model that cannot be asked is told of by `finish`.
            with contextlib.suppress(TicketguardError):
                if isinstance(mark, WatchingMark):
                    mark.watch(self._step, steps, self._answers(model))

    def finish(
        self,
        model: torch.nn.Module,
        *,
        accuracy: float | None = None,
        created: datetime.datetime | None = None,
        check: bool = True,
        rescale: bool = True,
    ) -> tuple[Ticket, Credential]:
        """Return the marked ticket, made for release, and the owner's credential.

        The plan stays as it is, and so does the model, also where this fails: put the model right, and finish again.
        The model to release is the ticket's: rescaling changes its weights, though not what it computes.

        Args:
            model: The trained model.
            accuracy: Its test accuracy, for the ticket's metadata.
            created: When the claim says it was made; by default now.
            check: Refuse a model that was not kept under the mask, and warn, with a `TicketguardWarning`, of a mark
                that it did not learn, or cannot be asked for.
            rescale: Make the ticket's weights before normalisations larger, so that fine-tuning, a thief's or a
                licensee's, moves them less; see `ticketguard.marking.rescaling`.

        Raises:
            ConfigurationError: Weights lie outside the mask: `after_step` was not called after every step. Or the
                accuracy is not a share.
            TensorError: A weight is NaN or infinite, or the model no longer fits the mask.
        """
        from ticketguard.models import state_arrays

        accuracy = checked_accuracy(accuracy)
        trained = state_arrays(model)
        require_fit(trained, self.mask)
        state = self.mask.applied(trained)
        if check:
            require_masked(trained, self.mask)
            self._warn_of_what_was_not_learned(model)
        if rescale and (probes := probes_of(self._ticket.info, self._planned)) is not None:
            state = rescaled(model, state, probes, ask=self._ask)
        info = dataclasses.replace(for_release(self._ticket.info), accuracy=accuracy)
        marked = Ticket(mask=self.mask, weights=state, rewind_weights=None, info=info)
        claim = claim_about(marked, self.claims, owner=self._owner, created=created)
        return marked, Credential(claim=claim, vault=self._vault)

    def _answers(self, model: torch.nn.Module) -> Answers:
        from ticketguard.models.answers import answers_of

        return functools.partial(answers_of, model, classes=self._ticket.info.classes, ask=self._ask)

    def _warn_of_what_was_not_learned(self, model: torch.nn.Module) -> None:
        for mark, claim in zip(self._planned, self.claims, strict=True):
            try:
                share = mark.learned(self._answers(model))
            except TicketguardError as error:  # whatever the check says, what was trained is not lost
                message = f"the model could not be asked for the {claim.scheme}, so a copy may not prove it: {error}"
            else:
                if share >= LEARNED_SHARE:
                    continue
                message = f"the model carries {share:.0%} of the {claim.scheme}: {self._worth(claim)}"
                message += "; train longer (more epochs)"
                message += "" if self._is_fed else ", and append extra_batch to the batches"
            warnings.warn(message, TicketguardWarning, stacklevel=3)

    def _worth(self, claim: MarkClaim) -> str:
        """Say what a mark that was not learned leaves unproved."""
        if scheme(claim.scheme).reads != "answers":
            return "a copy may not prove ownership"
        others = any(scheme(other.scheme).reads == "weights" for other in self.claims)
        alone = "a copy's answers alone may not prove ownership"
        return f"{alone}, while the marks in its weights do not depend on them" if others else alone

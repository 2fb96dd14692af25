"""Keyed signs for any training of your own: one call before it, one after it."""

from __future__ import annotations

import dataclasses
import datetime
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import Owner
from ticketguard.embedding.interface import Mark, StartMark
from ticketguard.errors import ConfigurationError, TensorError, TicketguardWarning
from ticketguard.graph import known_groups
from ticketguard.keyed import checked_secret
from ticketguard.marking.commitments import claim_about
from ticketguard.marking.from_start import StartMarks, bind_start, warn_of_left_out
from ticketguard.marking.layers_to_sign import layers_to_sign
from ticketguard.marking.proving import warn_unless_proved
from ticketguard.marking.release import for_release, require_fit
from ticketguard.marking.signed_before import warn_if_signed_over
from ticketguard.settings import checked_accuracy, checked_level, plain_number, require_kind
from ticketguard.ticket import Array, Mask, Ticket, TicketInfo, weights_digest
from ticketguard.verification.registry import SCHEMES, checked_marks, scheme
from ticketguard.verification.verdict import DEFAULT_LEVEL_BITS

if TYPE_CHECKING:
    import torch

    from ticketguard.graph.examples import Example
    from ticketguard.models.answers import Ask

# A layer with a smaller share of weights that are exactly zero is not pruned.
LEAST_PRUNED = 0.01
NOT_WORN = "train at a lower rate, and begin with the model's weights as they are after sign_start"


def sign_start(
    model: torch.nn.Module,
    *,
    owner: Owner,
    marks: Sequence[Mark] | None = None,
    layers: Sequence[str] | None = None,
    density: float = 1.0,
    level_bits: int = DEFAULT_LEVEL_BITS,
    secret: bytes | None = None,
    example: Example | None = None,
    ask: Ask | None = None,
) -> SignedStart:
    """Give the start weights of *model* the owner's signs, before it is trained.

    Train it then as ever, prune it or not, and call `SignedStart.finish`. The start weights are as random as they were,
    so that nothing is lost by it. One start is for one network: networks that were trained from the same start prove
    the same thing, and cannot be told apart.

    The same start weights, owner, marks, density, level and secret give the same signs again. A training that may be
    interrupted keeps `SignedStart.secret` and the model's state dict from before this call, where only the owner can
    read them. To go on, load that state dict, call this with ``secret=``, and then load the checkpoint of the training.

    Args:
        model: The model, as it was initialised at random; its weights are changed in place.
        owner: Whose marks they are.
        marks: Marks that are in start weights; by default keyed signs.
        layers: State-dict names of the weights to sign; by default all with two or more axes, but for embeddings. Tied
            layers have the first of their names.
        density: Share of these weights that pruning will leave, if it is known: what is read from a suspect that has
            more of them. 1 for a network that is not pruned.
        level_bits: A verdict will need p ≤ 2^-level_bits.
        secret: 32 secret bytes; by default fresh from the operating system.
        example: A batch of the model's inputs, by which it is seen which channels belong together: a tensor, several in
            a sequence, or several by name in a mapping. Without it copies with permuted channels may not be recognised.
        ask: Returns the outputs of a model for such a batch; by default ``model(inputs)``.

    Raises:
        ConfigurationError: The start is not random (constant, orthogonal, pretrained, zero), a mark is none that is
            drawn before training, or the density, level or secret cannot be one.
        TensorError: A layer is not one of the model's, has no signs, or lies in the same memory as another.
    """
    from ticketguard.models import load_arrays, state_arrays, tied_names

    require_kind(
        owner, Owner, what="the owner", hint="tg.Owner.load reads one from a key file, tg.Owner.generate makes one"
    )
    chosen = _start_marks(marks)
    density = plain_number(density, what="density")
    if not 0.0 < density <= 1.0:
        raise ConfigurationError(f"density is {density:g}, expected above 0 and at most 1")
    state = state_arrays(model)
    tied = tied_names(model)
    names, left_out = layers_to_sign(model, state, layers)
    _require_untrained(state)
    known = known_groups(model, layers=names, example=example, ask=ask)
    begun = bind_start(
        state,
        Mask(layers={name: np.ones(state[name].shape, dtype=np.bool_) for name in names}),
        chosen,
        owner=owner,
        secret=checked_secret(secret),
        info=TicketInfo(method="own training"),
        density=density,
        groups=known.groups,
        level_bits=checked_level(level_bits),
    )
    if known.doubts:
        warnings.warn(known.doubts.replace("prepare takes", "sign_start takes"), TicketguardWarning, stacklevel=2)
    warn_of_left_out({**left_out, **begun.left_out})
    signed = [name for name in begun.reference.layers if name not in begun.left_out]
    load_arrays(model, begun.weights, masked=signed)
    _require_signs(model, begun.weights, signed, before=state)
    warn_if_signed_over(model, state, begun.weights, layers=signed)
    second = {name: f"is '{first}' under a second name" for name, first in tied.items() if first in names}
    return SignedStart(owner=owner, marks=dataclasses.replace(begun, left_out={**left_out, **begun.left_out, **second}))


class SignedStart:
    """A start with the owner's signs, and what is to be said once the network is trained.

    It lives in memory only: what `finish` returns has to be saved.

    Args:
        owner: Whose marks they are.
        marks: The marks.
    """

    def __init__(self, *, owner: Owner, marks: StartMarks) -> None:
        self._owner, self._marks = owner, marks
        self._finished: bytes | None = None

    def __repr__(self) -> str:
        """Say whose start it is and how much of it is signed; nothing of the secret."""
        signed = [name for name in self._marks.reference.layers if name not in self._marks.left_out]
        weights = sum(self._marks.reference.layers[name].size for name in signed)
        marks = ", ".join(claim.scheme for _, claim in self._marks.claims)
        return f"<SignedStart of {self._owner.name!r}: {marks} in {weights} weights of {len(signed)} layers>"

    @property
    def secret(self) -> bytes:
        """The owner's 32 secret bytes: `sign_start` draws the same signs from them again. Keep them to yourself."""
        return self._marks.vault.secret

    @property
    def left_out(self) -> Mapping[str, str]:
        """Why layers carry no signs, or are not read by this name, by name."""
        return self._marks.left_out

    def finish(
        self,
        model: torch.nn.Module,
        *,
        accuracy: float | None = None,
        info: TicketInfo | None = None,
        created: datetime.datetime | None = None,
    ) -> tuple[Ticket, Credential]:
        """Return the trained network as a ticket, and the owner's credential.

        Its mask is what of the signed layers is not zero. The network is verified by its own claim; a
        `TicketguardWarning` says if that proves nothing, if the model was not trained, or if another network was
        finished from this start before.

        Save both, or the signs prove nothing: ``credential.save("claim.json", "vault.age", owner, passphrase)`` and
        ``ticket.save("marked.safetensors", release=True)``. Ticket and claim are for others. The vault, its passphrase,
        the owner's key, `secret` and the start weights, signed or not, are for the owner alone.

        Args:
            model: The trained model; it stays as it is.
            accuracy: Its test accuracy, in [0, 1].
            info: What else the ticket says of itself.
            created: When the claim says it was made; by default now.

        Raises:
            ConfigurationError: The accuracy is not a share.
            TensorError: A weight is NaN or infinite, or a signed layer is gone or has another shape.
        """
        from ticketguard.models import state_arrays

        accuracy = checked_accuracy(accuracy)
        state = state_arrays(model)
        require_fit(state, self._marks.reference.mask)
        mask = Mask(layers={name: _kept(state[name]) for name in self._marks.reference.layers})
        info = dataclasses.replace(for_release(info or TicketInfo(method="own training")), accuracy=accuracy)
        marked = Ticket(mask=mask, weights=mask.applied(state), rewind_weights=None, info=info)
        claims = tuple(claim for _, claim in self._marks.claims)
        credential = Credential(
            claim=claim_about(marked, claims, owner=self._owner, created=created), vault=self._marks.vault
        )
        self._warn_if_untrained(state)
        self._warn_of_another(marked)
        schemes = {claim.scheme for claim in claims}
        warn_unless_proved(marked, credential, schemes=schemes, instead=NOT_WORN)
        return marked, credential

    def _warn_if_untrained(self, state: Mapping[str, Array]) -> None:
        start = self._marks.weights
        if all(
            np.array_equal(state[name], start[name].astype(state[name].dtype)) for name in self._marks.reference.layers
        ):
            warnings.warn(
                "the model still has the start weights that sign_start gave it: train it first, or give finish the "
                "model that was trained",
                TicketguardWarning,
                stacklevel=3,
            )

    def _warn_of_another(self, marked: Ticket) -> None:
        digest = weights_digest(marked.weights)
        if self._finished not in (None, digest):
            warnings.warn(
                "another network was finished from this start before: the signs say that a copy comes from one of "
                "them, and not from which; sign a new start for each network that is released",
                TicketguardWarning,
                stacklevel=3,
            )
        self._finished = digest


def _start_marks(marks: Sequence[Mark] | None) -> tuple[Mark, ...]:
    """Return the marks to draw; by default all that are in start weights.

    Raises:
        ConfigurationError: One is not.
    """
    settings = [scheme(name).settings for name in SCHEMES]
    able = [kind() for kind in settings if isinstance(kind(), StartMark)]
    chosen = checked_marks(able if marks is None else marks)
    for mark in chosen:
        if not isinstance(mark, StartMark):
            names = " or ".join(known.scheme for known in able)
            raise ConfigurationError(
                f"mark '{mark.scheme}' is not in start weights, expected {names}: add others with prepare or embed, "
                "once the network is trained"
            )
    return chosen


def _require_signs(
    model: torch.nn.Module, weights: Mapping[str, Array], signed: Sequence[str], *, before: Mapping[str, Array]
) -> None:
    """Check that *model* holds the signs of each layer; else it gets its weights back.

    Raises:
        TensorError: It does not: two of its parameters lie in the same memory.
    """
    from ticketguard.models import load_arrays, state_arrays

    held = state_arrays(model)
    for name in signed:
        if not np.array_equal(np.sign(held[name]), np.sign(weights[name].astype(held[name].dtype))):
            load_arrays(model, before)
            raise TensorError(
                name=name,
                reason="does not keep its signs: another tensor of the model lies in the same memory",
                hint="tie layers by giving both the same parameter, or copy one (clone())",
            )


def _require_untrained(state: Mapping[str, Array]) -> None:
    """Refuse a model whose normalisations have seen data.

    Raises:
        ConfigurationError: They have.
    """
    for name, value in state.items():
        if name.endswith("num_batches_tracked") and int(value.max(initial=0)) > 0:
            raise ConfigurationError(
                f"the model was trained already: '{name}' is {int(value.max())}: sign_start comes right after the "
                "random initialisation, before any training"
            )


def _kept(layer: Array) -> Array:
    """Return what of a layer is not pruned: everything, where hardly a weight is zero."""
    kept: Array = layer != 0
    return kept if kept.mean() <= 1 - LEAST_PRUNED else np.ones_like(kept)

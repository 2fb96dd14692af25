"""What a trained model is checked for before it is released, and what its ticket then says."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from pathlib import PurePath

import numpy as np

from ticketguard.embedding.interface import PlannedMark
from ticketguard.errors import ConfigurationError, TensorError, TicketguardWarning
from ticketguard.seeds import can_be_guessed
from ticketguard.ticket import Array, FloatArray, Mask, Ticket, TicketInfo

# Inputs of noise that a rescaled ticket's answers are compared on, beside some of the marks' own.
PROBES = 8


def for_release(info: TicketInfo) -> TicketInfo:
    """Forget what is the owner's alone: where the data lie, and the seed, by which the search can be made again."""
    options = {name: value for name, value in info.data_options.items() if name not in ("folder", "test_path")}
    return dataclasses.replace(info, data=PurePath(info.data).name, data_options=options, seed=None)


def warn_of_guessable_seed(seed: int | None, *, what: str, instead: str) -> None:
    """Say with a `TicketguardWarning` that others can make the search of *seed* again, if they can guess it.

    Args:
        seed: Of the search; None if it is unknown.
        what: What they have then, in words.
        instead: What the owner does instead.
    """
    if seed is not None and can_be_guessed(seed):
        warnings.warn(f"seed {seed} can be guessed: who does has {what}; {instead}", TicketguardWarning, stacklevel=3)


def warn_if_released(ticket: Ticket, *, stacklevel: int) -> None:
    """Warn, with a `TicketguardWarning`, of a ticket that others may have: one that was made for release.

    Such a ticket holds neither rewind weights nor its seed. One that was imported, and one whose weights are good as
    found, may lack them for other reasons.

    Args:
        ticket: What a mark is to be planted in.
        stacklevel: Where the warning points, as seen from the caller.
    """
    info = ticket.info
    if ticket.rewind_weights is None and info.seed is None and info.method != "import":
        warnings.warn(
            "this ticket looks like one that was made for release, and marked already: it holds neither rewind weights "
            "nor the seed of its search. A mark that is planted in it is a secret only while nobody else has it: who "
            "does sees which edges were planted, and removes them. Mark the ticket that was not released, or find a "
            "new one",
            TicketguardWarning,
            stacklevel=stacklevel + 1,
        )


def require_fit(state: Mapping[str, Array], mask: Mask) -> None:
    """Check that a trained state is one that can be released.

    Raises:
        TensorError: It no longer fits the mask, or holds values that are NaN or infinite.
    """
    for name in mask:
        if name not in state or state[name].shape != mask[name].shape:
            raise TensorError(
                name=name, reason="is masked but the model has no weights of its shape", hint="give the ticket's model"
            )
        if state[name].dtype.kind != "f":
            raise TensorError(
                name=name,
                reason=f"has type {state[name].dtype}, expected a floating-point type",
                hint="give the model as it was trained, before it is converted",
            )
    for name, array in state.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise TensorError(
                name=name,
                reason="has values that are NaN or infinite",
                hint="load an earlier checkpoint into the model and finish again, or train with a lower rate",
            )


def require_masked(trained: Mapping[str, Array], mask: Mask) -> None:
    """Check that no weight lies outside the marked *mask*.

    Raises:
        ConfigurationError: Some do: `after_step` was not called after every step.
    """
    outside = sum(int(np.count_nonzero(trained[name][~mask[name]])) for name in mask)
    if outside:
        raise ConfigurationError(
            f"{outside} weights lie outside the marked mask: after_step was not called after every optimiser step. "
            "If only the last call is missing, call plan.after_step(model) and finish again; otherwise the model "
            "was trained without the mask: train it from plan.start(model) again, with the same plan"
        )


def probes_of(info: TicketInfo, marks: Iterable[PlannedMark]) -> FloatArray | None:
    """Return inputs that a ticket's model can be asked: noise, and some of the marks'; None if the shape is unknown."""
    import torch

    device = torch.device("cpu")
    batches = [batch for mark in marks if (batch := mark.extra_batch(0, device)) is not None]
    probes = [inputs.numpy() for inputs, _ in batches]
    if info.input_shape:
        shape = (PROBES, *info.input_shape)
        probes.append(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    return np.concatenate(probes) if probes else None

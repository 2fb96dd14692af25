"""What a mark is: public parameters, keyed draws, and what it does while a ticket is retrained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from ticketguard.keyed import KeyedStream
from ticketguard.ticket import Array, FloatArray, Mask, StartReference, Ticket

if TYPE_CHECKING:
    import torch

Json: TypeAlias = "str | int | list[Json] | dict[str, Json]"
# Flat positions in a layer (C order), and levels in [0, 1).
Positions: TypeAlias = npt.NDArray[np.int64]
Levels: TypeAlias = npt.NDArray[np.float64]
# A model as the one who asks sees it: normalised inputs, shape (count, *input_shape), to one class each.
Answers: TypeAlias = Callable[[FloatArray], npt.NDArray[np.int64]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Binding:
    """The secret and the commitment that every draw of one mark is a function of.

    Attributes:
        secret: The owner's 32 secret bytes.
        commitment: The mark's commitment C, 32 bytes.
    """

    secret: bytes = dataclasses.field(repr=False)
    commitment: bytes

    def stream(self, label: str) -> KeyedStream:
        """Open the independent stream of draws that *label* names."""
        return KeyedStream(secret=self.secret, commitment=self.commitment, label=label)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """Where retraining starts.

    Attributes:
        mask: The mask to train under.
        weights: The state dict to train from, zero where the mask prunes.
        fixed: Per layer flat positions that marks have decided, kept or empty: other marks leave them as they are.
    """

    mask: Mask
    weights: Mapping[str, Array]
    fixed: Mapping[str, Positions] = dataclasses.field(default_factory=dict)

    def fixed_in(self, name: str) -> Positions:
        """Return the fixed positions of a layer, ascending."""
        return self.fixed.get(name, np.empty(0, dtype=np.int64))

    def changed(self, *, mask: Mask, weights: Mapping[str, Array], fixed: Mapping[str, Positions]) -> Start:
        """Return the start with another mark's mask and weights, and with what it has *fixed* besides."""
        together = {name: np.union1d(self.fixed_in(name), positions) for name, positions in fixed.items()}
        return Start(mask=mask, weights=weights, fixed={**self.fixed, **together})


class PlannedMark(Protocol):
    """One mark, drawn and ready, inside any training loop."""

    @property
    def start(self) -> Start:
        """Where training starts once this mark is in."""
        ...

    def extra_batch(self, step: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return inputs and labels to append to the batch of *step*, if the mark trains any."""
        ...

    def after_step(self, step: int, parameters: Mapping[str, torch.Tensor]) -> None:
        """Correct the live *parameters* (by state-dict name) in place after optimiser step number *step*, from 1."""
        ...

    def learned(self, answers: Answers) -> float:
        """Return the share of the mark that a trained model carries, in [0, 1], by its *answers*."""
        ...

    def leaves(self) -> tuple[bytes, ...]:
        """Return the salted leaves whose Merkle root the claim discloses; none if the mark has no parts to reveal."""
        ...


@runtime_checkable
class MatchedMark(PlannedMark, Protocol):
    """A mark whose edges are kept like all others of the mask that is trained."""

    def under(self, mask: Mask) -> PlannedMark:
        """Return the same mark under a *mask* that other marks have changed elsewhere."""
        ...


@runtime_checkable
class WatchingMark(PlannedMark, Protocol):
    """A mark that is shown the model while it is trained, and goes by what it sees."""

    def watch(self, step: int, steps: int, answers: Answers) -> None:
        """Look at the model, by its *answers*, after *step* of all *steps*."""
        ...

    def state(self) -> list[int]:
        """Return what a run that goes on from here has to know beside its step."""
        ...

    def resume(self, state: Sequence[int]) -> None:
        """Go on from what `state` returned."""
        ...


class Mark(Protocol):
    """A kind of mark with its settings."""

    @property
    def scheme(self) -> str:
        """The scheme's name in claims."""
        ...

    @property
    def version(self) -> int:
        """The scheme's version in claims."""
        ...

    def parameters(self, ticket: Ticket) -> dict[str, Json]:
        """Return the public parameters that the commitment binds and a verifier draws with."""
        ...

    def plan(self, ticket: Ticket, start: Start, binding: Binding, parameters: Mapping[str, Json]) -> PlannedMark:
        """Draw the mark by the *parameters* that were committed to, and put it into *start*."""
        ...


@runtime_checkable
class StartMark(Mark, Protocol):
    """A mark that is in the weights a training starts from, drawn before anything is trained."""

    def start_parameters(self, density: float) -> dict[str, Json]:
        """Return the public parameters of a network that will keep this share of its positions."""
        ...

    def bound(self, start: Mapping[str, Array], *, salt: bytes) -> tuple[StartReference, dict[str, str]]:
        """Return what the commitment binds of start weights, and why layers carry none of the mark, by name.

        Args:
            start: The start weights.
            salt: 32 secret bytes that say where the mark is.

        Raises:
            ConfigurationError: Most of the weights cannot carry any.
        """
        ...

    def drawn(self, start: Mapping[str, Array], reference: StartReference, binding: Binding) -> dict[str, Array]:
        """Return start weights with the mark in those layers that *reference* has."""
        ...


@runtime_checkable
class MovingMark(Mark, Protocol):
    """A mark that needs a ticket first: it moves edges to positions that the ticket leaves empty."""

    def moved_edges(self, ticket: Ticket) -> int:
        """Return how many edges it moves in a *ticket*.

        Raises:
            ConfigurationError: The ticket has no room for them.
        """
        ...


@runtime_checkable
class SearchedMark(Mark, Protocol):
    """A mark that a search can take into account while it finds the ticket."""

    @property
    def share(self) -> float:
        """Share of each layer's edges that are to be on secret positions."""
        ...

    def search_parameters(self, density: float) -> dict[str, Json]:
        """Return the public parameters for a ticket of this *density* that is yet to be found.

        Raises:
            ConfigurationError: The mark cannot be planted in such a ticket.
        """
        ...

    def secret_positions(
        self, shapes: Mapping[str, tuple[int, ...]], binding: Binding, parameters: Mapping[str, Json]
    ) -> Mapping[str, Positions]:
        """Return, per layer, the flat secret positions, ascending."""
        ...

    def found_in(self, start: Start, secret: Mapping[str, Positions], binding: Binding) -> PlannedMark:
        """Return the mark that a search has put into the mask of *start*."""
        ...

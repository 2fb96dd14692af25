"""Keyed signs: the signs of some of the start weights come from the owner's key.

Winning tickets keep the signs that they were initialised with (Zhou et al. 2019, "Deconstructing lottery tickets").
Start weights are symmetric around zero, so that some of their signs, the *votes*, may as well be drawn from a key:
nothing is planted, and the start is distributed as it was. Of every weight of a suspect that does not derive from this
start, the sign agrees with the key's with probability ½.

Written down for a second implementation in ``signatures/keyed-signs.md``.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ticketguard.embedding.interface import Answers, Binding, Json, Start
from ticketguard.embedding.symmetry import why_not_symmetric
from ticketguard.errors import ConfigurationError, CredentialError
from ticketguard.keyed import KeyedStream
from ticketguard.settings import plain_number
from ticketguard.ticket import Array, BoolArray, StartReference, Ticket
from ticketguard.ticket.start_reference import PUBLIC_SALT, SHARES, StartLayer

if TYPE_CHECKING:
    import torch

SCHEME = "keyed-signs"
VERSION = 1
PARTS = 1_000_000
# Share of the layers' positions that must be able to carry signs.
LEAST_SYMMETRIC = 0.5
DRAWN_BEFORE = (
    "keyed signs are drawn before training starts, and this ticket was found without them: find it with an owner "
    "(find --owner), or call tg.sign_start before a training of your own"
)


def drawn_signs(binding: Binding, name: str, size: int) -> BoolArray:
    """Return, per flat position of a layer, whether the key's sign is negative: fair and independent coins.

    Only those of votes are used.

    Args:
        binding: The mark's secret and commitment.
        name: The layer.
        size: Its number of positions.
    """
    coins = np.frombuffer(binding.stream(f"votes/{name}").bytes((size + 7) // 8), dtype=np.uint8)
    return np.unpackbits(coins, count=size, bitorder="little").view(np.bool_)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignParameters:
    """The public parameters of keyed signs; the commitment binds them.

    Attributes:
        density_ppm: Share of all positions that an untouched copy keeps, in parts per million; all of them for a
            network that is not pruned.
    """

    density_ppm: int

    @classmethod
    def from_json(cls, parameters: Mapping[str, Json]) -> SignParameters:
        """Read a claim's parameters, which anybody may have written.

        Raises:
            CredentialError: One is missing, unknown or out of range.
        """
        density = parameters.get("density_ppm")
        if set(parameters) != {"density_ppm"} or type(density) is not int or not 1 <= density <= PARTS:
            raise CredentialError(
                f"the claim's {SCHEME} has parameters {reprlib.repr(dict(parameters))}, expected density_ppm from 1 "
                f"to {PARTS}: it was not made by ticketguard"
            )
        return cls(density_ppm=density)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyedSigns:
    """Settings of keyed signs.

    Attributes:
        anchors: Share of the positions whose signs the vault keeps, drawn from its secret before the start is bound:
            permuted channels are found again by them. The others' follow from the key, and are evidence. From 0.1 to
            0.95.
    """

    scheme: ClassVar[str] = SCHEME
    version: ClassVar[int] = VERSION

    anchors: float = 0.7

    def __post_init__(self) -> None:
        anchors = plain_number(self.anchors, what="keyed signs: anchors")
        object.__setattr__(self, "anchors", anchors)  # frozen, but not yet seen by anyone
        if not 0.1 <= anchors <= 0.95:
            raise ConfigurationError(f"keyed signs: anchors is {anchors}, expected 0.1 to 0.95")

    def parameters(self, ticket: Ticket) -> dict[str, Json]:
        """Refuse a ticket that exists already.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(DRAWN_BEFORE)

    def plan(self, ticket: Ticket, start: Start, binding: Binding, parameters: Mapping[str, Json]) -> PlannedSigns:
        """Return the mark of a training that starts from weights with drawn signs: nothing is left to do."""
        return PlannedSigns(start)

    def start_parameters(self, density: float) -> dict[str, Json]:
        """Return the public parameters of a network that will keep this share of its positions."""
        return {"density_ppm": min(PARTS, max(1, round(density * PARTS)))}

    def bound(self, start: Mapping[str, Array], *, salt: bytes | None = None) -> tuple[StartReference, dict[str, str]]:
        """Return what the commitment binds of the *start* weights, and why layers carry no signs, by name.

        Args:
            start: Start weights.
            salt: 32 secret bytes. They say where the votes are, whose signs a thief could otherwise turn alone; and the
                anchors' signs are drawn from them, since a start's own are known to whoever guesses its seed. Without
                them everybody knows where the votes are, and anchors keep their signs: for measurements.

        Raises:
            ConfigurationError: Most of the weights cannot carry any, or some are not finite.
        """
        for name, layer in start.items():
            # A vault that held such a layer could not be read again.
            if not layer.size or not np.isfinite(layer).all():
                raise ConfigurationError(
                    f"the start weights cannot be bound: '{name}' is empty or has values that are NaN or infinite: "
                    "initialise it first"
                )
        whole = round(self.anchors * SHARES)
        reasons = {name: reason for name, layer in start.items() if (reason := why_not_symmetric(layer)) is not None}
        symmetric = sum(layer.size for name, layer in start.items() if name not in reasons)
        if symmetric < LEAST_SYMMETRIC * sum(layer.size for layer in start.values()) or not symmetric:
            name, reason = max(reasons.items(), key=lambda item: start[item[0]].size, default=("", "has no layers"))
            raise ConfigurationError(
                f"the start weights cannot carry keyed signs: layer '{name}' {reason}, and such layers hold most of "
                "the weights: start from an ordinary random initialisation, or leave keyed-signs out"
            )
        public, layers = salt or PUBLIC_SALT, {}
        for name, layer in start.items():
            signed = layer
            if salt is not None and name not in reasons:
                signed = _signed(layer, _signs_of_anchors(salt, name, layer.size))
            layers[name] = StartLayer.of(name, signed, share=SHARES if name in reasons else whole, salt=public)
        return StartReference(layers=layers, salt=public), reasons

    def drawn(self, start: Mapping[str, Array], reference: StartReference, binding: Binding) -> dict[str, Array]:
        """Return the *start* weights with the key's signs at the votes, and the reference's at the anchors.

        Args:
            start: What *reference* was made of, among any other arrays.
            reference: Says where the votes are, and which signs the anchors have.
            binding: The mark's secret and commitment, which binds the reference.
        """
        drawn = dict(start)
        for name, layer in reference.layers.items():
            if layer.share == SHARES:
                continue
            negative = drawn_signs(binding, name, layer.size)
            drawn[name] = _signed(start[name], np.where(reference.anchors(name), layer.negative(layer.size), negative))
        return drawn


def _signs_of_anchors(salt: bytes, name: str, size: int) -> BoolArray:
    """Return which positions of a layer are negative where they are anchors."""
    stream = KeyedStream(secret=salt, commitment=bytes(32), label=f"signs/{name}")
    coins = np.frombuffer(stream.bytes((size + 7) // 8), dtype=np.uint8)
    return np.unpackbits(coins, count=size, bitorder="little").view(np.bool_)


def _signed(layer: Array, negative: BoolArray) -> Array:
    """Return a layer's magnitudes with other signs, flat *negative* where they are."""
    signs = np.where(negative, -1.0, 1.0).astype(layer.dtype).reshape(layer.shape)
    signed: Array = np.copysign(layer, signs)
    return signed


class PlannedSigns:
    """Keyed signs in a training: they are in its start, and nothing holds them there."""

    def __init__(self, start: Start) -> None:
        self._start = start

    @property
    def start(self) -> Start:
        """The start as it was given."""
        return self._start

    def extra_batch(self, step: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return nothing: signs need no data."""
        return None

    def after_step(self, step: int, parameters: Mapping[str, torch.Tensor]) -> None:
        """Do nothing."""

    def learned(self, answers: Answers) -> float:
        """Return 1: answers say nothing of signs."""
        return 1.0

    def leaves(self) -> tuple[bytes, ...]:
        """Return nothing: signs are not revealed in parts."""
        return ()

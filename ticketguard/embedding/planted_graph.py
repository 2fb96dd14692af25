"""The planted graph: a share of the mask's edges is moved into the owner's secret edge set.

Written down for a second implementation in ``signatures/planted-graph.md``. What a verdict rests on: given
the reference, the secret edges are uniformly random, so the number of a suspect's edges among them is
hypergeometric in every layer unless the suspect derives from the marked ticket.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import reprlib
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ticketguard.embedding.coins import with_coins, with_signs
from ticketguard.embedding.interface import Binding, Json, Positions, Start
from ticketguard.embedding.moving_edges import MOST_LIKELY, move_edges, with_holes
from ticketguard.embedding.planned_edges import Matching, PlannedEdges, drawn_levels
from ticketguard.errors import ConfigurationError, CredentialError, shortened
from ticketguard.settings import plain_count, plain_number
from ticketguard.ticket import Array, BoolArray, Mask, Ticket

SCHEME = "planted-graph"
VERSION = 1
PARTS = 1_000_000
# Parameters that a claim need not have.
OPTIONAL = ("holes_ppm", "density_ppm", "turned_ppm")
# The secret set's size where none is asked for: between these shares of the positions, with room to choose from, after
# the densest layers that together hold this share of the edges.
LEAST_SECRET, MOST_SECRET, SECRET_ROOM, DENSEST_EDGES = 0.01, 0.03, 1.5, 0.1
# A ticket at least this dense was pruned by its structure: there the mark is in what is missing. The evidence of holes
# grows with s·(1 − s), s the secret share of the positions: a quarter has three quarters of what a half gives, at half
# the draws.
DENSE, DENSE_SECRET = 0.5, 0.25
# An edge that moves changes two positions; in a full layer, where none can come, two edges go.
HOLES_AN_EDGE = 2
# Planted edges that do not end with the sign they start with: of a perceptron on the digits 5 to 8% (three seeds;
# benchmarks/results/planted_signs.json).
TURNED = 0.08
# Layers up to this many times as dense as the whole ticket have room for the share of a mark planted in the search.
SEARCH_ROOM = 4


def secret_edges(binding: Binding, shapes: Mapping[str, tuple[int, ...]], *, secret_ppm: int) -> dict[str, Positions]:
    """Draw the owner's secret edge set S, layer by layer.

    Args:
        binding: The mark's secret and commitment.
        shapes: The reference's layers, name → shape.
        secret_ppm: Parts per million of each layer's positions, rounded half up.

    Returns:
        Per layer distinct flat positions (C order), ascending.
    """
    sets: dict[str, Positions] = {}
    for name, shape in sorted(shapes.items()):
        size = math.prod(shape)
        secret = (size * secret_ppm + PARTS // 2) // PARTS
        # Of the smallest layers nothing is secret: no stream is opened for nothing.
        sets[name] = binding.stream(f"edges/{name}").distinct(size, secret) if secret else np.empty(0, dtype=np.int64)
    return sets


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlantedParameters:
    """The public parameters of a planted graph; the commitment binds them.

    Attributes:
        secret_ppm: Size of S in parts per million of each layer's positions.
        share_ppm: Share of each layer's edges that was moved into S, in parts per million, as an untouched copy
            shows it.
        holes_ppm: Share of the edges of the reference's full layers that was removed outside S, in parts per million.
        density_ppm: Density of a ticket that was found after S was drawn, in parts per million; 0 for a ticket that the
            reference is.
        turned_ppm: Share of the planted edges whose sign is expected to be turned by training, in parts per million;
            0 where edges are planted without signs.
    """

    secret_ppm: int
    share_ppm: int
    holes_ppm: int = 0
    density_ppm: int = 0
    turned_ppm: int = 0

    @classmethod
    def from_json(cls, parameters: Mapping[str, Json]) -> PlantedParameters:
        """Read a claim's parameters, which anybody may have written.

        Raises:
            CredentialError: One is missing, unknown or out of range.
        """
        if unknown := sorted(set(parameters) - {field.name for field in dataclasses.fields(cls)}):
            raise CredentialError(
                f"the claim's {SCHEME} has unknown parameters {reprlib.repr(unknown)}: it was not made by ticketguard"
            )
        values = {name: parameters.get(name) for name in ("secret_ppm", "share_ppm")}
        values |= {name: parameters[name] for name in OPTIONAL if name in parameters}
        if not all(type(value) is int and 1 <= value <= PARTS // 2 for value in values.values()):
            found = reprlib.repr([*values.values()])
            raise CredentialError(
                f"the claim's {SCHEME} has {' and '.join(values)} {found}, expected 1 to {PARTS // 2}: "
                "it was not made by ticketguard"
            )
        return cls(**{name: int(str(value)) for name, value in values.items()})

    @property
    def is_signed(self) -> bool:
        """Whether edges are planted with signs."""
        return self.turned_ppm > 0

    def edges_of_a_copy(self, edges: int, size: int) -> int:
        """Return how many edges an untouched copy has where a layer of this *size* of the reference has *edges*."""
        return edges - (edges * self.holes_ppm // PARTS if edges == size else 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlantedGraph:
    """Settings of the planted graph.

    Attributes:
        share: Share of each layer's kept edges that is moved into the secret set, from 0.000001 to 0.5.
        secret_share: Share of each layer's positions that is secret, from 0.000001 to 0.5; by default 0.01 to 0.03, as
            much as the ticket's denser layers need to have edges to choose from.
        every_steps: Training steps between two rank matchings.
        rate: How far a planted edge moves towards the quantile of its rank each time, from 0.01 to 1.
        signed: Whether edges that are planted in a ticket start with signs from the key. Those that a search plants
            keep the signs that it chose them with.
    """

    scheme: ClassVar[str] = SCHEME
    version: ClassVar[int] = VERSION

    share: float = 0.05
    secret_share: float | None = None
    every_steps: int = 10
    rate: float = 0.2
    signed: bool = True

    def __post_init__(self) -> None:
        for field, lowest, highest in (
            ("share", 1 / PARTS, 0.5),
            ("secret_share", 1 / PARTS, 0.5),
            ("rate", 0.01, 1.0),
        ):
            if field == "secret_share" and self.secret_share is None:
                continue
            value = plain_number(getattr(self, field), what=f"planted graph: {field}")
            object.__setattr__(self, field, value)  # frozen, but not yet seen by anyone
            if not lowest <= value <= highest:
                raise ConfigurationError(f"planted graph: {field} is {value}, expected {lowest:f} to {highest}")
        object.__setattr__(self, "every_steps", plain_count(self.every_steps, what="planted graph: every_steps"))
        if not isinstance(self.signed, bool):
            raise ConfigurationError(f"planted graph: signed is {shortened(self.signed)}, expected true or false")

    def parameters(self, ticket: Ticket) -> dict[str, Json]:
        """Return what a verifier needs: the size of S to draw it, what share of edges to expect there, and their signs.

        Raises:
            ConfigurationError: The share leaves a dense ticket no room for its holes.
        """
        parameters: dict[str, Json] = {
            "secret_ppm": self._secret_ppm(ticket.mask),
            "share_ppm": round(self.share * PARTS),
        }
        if turned_ppm := self.turned_ppm(ticket.mask):
            parameters["turned_ppm"] = turned_ppm
        if ticket.mask.density < DENSE:
            return parameters
        room = (PARTS - self._secret_ppm(ticket.mask)) // 2
        if self._holes_ppm > room:
            raise ConfigurationError(
                f"planted graph: share is {self.share:g}, expected {room / (HOLES_AN_EDGE * PARTS):g} or less for a "
                "ticket that keeps half of its positions or more: lower --share"
            )
        return {**parameters, "holes_ppm": self._holes_ppm}

    def turned_ppm(self, mask: Mask) -> int:
        """Return the share of signs that training is expected to turn, in parts per million; 0 if there are none.

        Where every layer is full no edge can come, and none has a planted sign.
        """
        is_full = all(mask.count(name) == math.prod(mask.shape(name)) for name in mask)
        return round(TURNED * PARTS) if self.signed and not is_full else 0

    @property
    def _holes_ppm(self) -> int:
        return min(round(HOLES_AN_EDGE * self.share * PARTS), PARTS // 2)

    def _secret_ppm(self, mask: Mask) -> int:
        if self.secret_share is not None:
            return round(self.secret_share * PARTS)
        if mask.density >= DENSE:
            return round(DENSE_SECRET * PARTS)
        # Moving a share of the edges takes share·d/(1−d) of the positions of a layer of density d. A larger set is
        # weaker evidence, so the densest few layers, the first and the last, do not count.
        layers = sorted((mask[name] for name in mask), key=lambda layer: -float(layer.mean()))
        passed = itertools.accumulate(int(layer.sum()) for layer in layers)
        ranked = zip(layers, passed, strict=True)
        counting = (float(layer.mean()) for layer, edges in ranked if edges > DENSEST_EDGES * mask.kept)
        density = min(next(counting, 0.0), MOST_LIKELY)
        needed = SECRET_ROOM * self.share * density / (1.0 - density)
        return round(min(max(needed, LEAST_SECRET), MOST_SECRET) * PARTS)

    def search_parameters(self, density: float) -> dict[str, Json]:
        """Return the parameters of a graph that is planted while a ticket of this *density* is found.

        S has room for the mark's share of the edges in layers of up to `SEARCH_ROOM` times the density.

        Raises:
            ConfigurationError: The ticket is to keep half of its positions or more: there a mark is in what is missing.
        """
        if density >= DENSE:
            raise ConfigurationError(
                f"density is {density:g}, expected below {DENSE:g} for a mark that is planted during the search: "
                "find the ticket first, then mark it with embed"
            )
        likely = min(SEARCH_ROOM * density, MOST_LIKELY)
        needed = self.share * likely / (1.0 - likely)
        secret = self.secret_share or min(max(needed, LEAST_SECRET), MOST_SECRET)
        return {
            "secret_ppm": round(secret * PARTS),
            "share_ppm": round(self.share * PARTS),
            "density_ppm": max(1, round(density * PARTS)),
        }

    def secret_positions(
        self, shapes: Mapping[str, tuple[int, ...]], binding: Binding, parameters: Mapping[str, Json]
    ) -> dict[str, Positions]:
        """Return S, layer by layer."""
        return secret_edges(binding, shapes, secret_ppm=PlantedParameters.from_json(parameters).secret_ppm)

    def found_in(self, start: Start, secret: Mapping[str, Positions], binding: Binding) -> PlannedEdges:
        """Take the secret edges that a search has kept as planted, so that training leaves them like the others."""
        planted = {name: positions[start.mask[name].reshape(-1)[positions]] for name, positions in secret.items()}
        return self._planned(start, planted, binding, matched=True)

    def plan(self, ticket: Ticket, start: Start, binding: Binding, parameters: Mapping[str, Json]) -> PlannedEdges:
        """Draw S and move edges into it: weakest kept edges outside S out, pruned edges inside S in.

        Kept edges are ranked by the ticket's trained weights; those that come are drawn where edges are many, so that
        their channels' degrees are like the others'. Every layer keeps its number of edges, but for the full layers of
        a ticket that was pruned by its structure: no edge can come there, and more go, drawn at random outside S. (The
        weakest would be those that any later pruning takes.) What other marks decided stays as it is.
        """
        committed = PlantedParameters.from_json(parameters)
        shapes = {name: start.mask.shape(name) for name in start.mask}
        secret = secret_edges(binding, shapes, secret_ppm=committed.secret_ppm)
        layers: dict[str, BoolArray] = {}
        planted: dict[str, Positions] = {}
        for name in start.mask:
            if committed.holes_ppm and start.mask[name].all():
                holes = start.mask[name].size * committed.holes_ppm // PARTS
                luck = binding.stream(f"holes/{name}")
                layers[name] = with_holes(start.mask[name], secret=secret[name], luck=luck, holes=holes)
                planted[name] = np.empty(0, dtype=np.int64)
                continue
            layers[name], planted[name] = move_edges(
                start.mask[name],
                secret=secret[name],
                kept_strength=np.abs(ticket.weights[name]).reshape(-1),
                luck=binding.stream(f"coming/{name}"),
                share=committed.share_ppm / PARTS,
                fixed=start.fixed_in(name),
            )
        mask = Mask(layers=layers)
        weights: dict[str, Array] = {**start.weights}
        for name in mask:
            # What earlier marks planted has weights of its own.
            before = np.where(start.mask[name], start.weights[name], ticket.start_weights[name])
            if committed.is_signed:
                signed = with_coins(before, planted[name], binding, name, secret[name])
            else:
                signed = with_signs(before, planted[name], binding, name)
            weights[name] = np.where(mask[name], signed, 0).astype(start.weights[name].dtype)
        return self._planned(start.changed(mask=mask, weights=weights, fixed=planted), planted, binding)

    def _planned(
        self, start: Start, planted: Mapping[str, Positions], binding: Binding, *, matched: bool = False
    ) -> PlannedEdges:
        matching = Matching(every_steps=self.every_steps, rate=self.rate)
        levels = drawn_levels(planted, binding)
        return PlannedEdges(matching=matching, start=start, planted=planted, levels=levels, matched=matched)

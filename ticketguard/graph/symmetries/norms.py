"""Layers before a batch norm: multiplied, which the norm takes back, or joined with it into one layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ticketguard.graph.sides import Norm, module_of
from ticketguard.graph.symmetries.scaling import drawn_factors
from ticketguard.graph.transformation import Array, Description, Floats, State, along, like

# What torch adds to a batch norm's variance unless told otherwise.
NORM_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NormScaling:
    """Layers' outputs multiplied before a batch norm, whose statistics and scale take it back; any sign will do.

    Attributes:
        layers: By a layer's weight, one factor per output, none of them zero.
        norms: By a norm's module, the factors that reach it.
        epsilon: What the norms add to the variance.
        inward: Weights laid out (in, out).
    """

    layers: Mapping[str, Floats]
    norms: Mapping[str, Floats]
    epsilon: float = NORM_EPSILON
    inward: tuple[str, ...] = ()

    @classmethod
    def drawn(
        cls,
        state: State,
        norms: Sequence[Norm],
        *,
        generator: np.random.Generator,
        signs: bool = False,
        epsilon: float = NORM_EPSILON,
        inward: Collection[str] = (),
    ) -> NormScaling:
        """Draw the factors of every layer.

        Args:
            state: The network's tensors.
            norms: Which norm follows which layer. Layers whose sum a norm takes, or norms that take the same layer,
                get the same factors.
            generator: Source of the factors.
            signs: Whether every other factor is negative.
            epsilon: What the norms add to the variance.
            inward: Weights laid out (in, out).

        Raises:
            ValueError: A norm has no scale to take a factor back with.
        """
        for norm in norms:
            if f"{norm.norm}.weight" not in state:
                raise ValueError(f"norm {norm.norm!r} has no scale: leave it out")
        layers: dict[str, Floats] = {}
        reached: dict[str, Floats] = {}
        for together in _joined(norms):
            first = together[0].layer
            size = state[first].shape[1 if first in inward else 0]
            factors = drawn_factors(size, generator, signs=signs)
            layers.update({norm.layer: factors for norm in together})
            reached.update({norm.norm: factors for norm in together})
        return cls(layers=layers, norms=reached, epsilon=epsilon, inward=tuple(inward))

    @property
    def description(self) -> Description:
        """Say what it is."""
        return Description(
            name="layers scaled before their norm",
            does="what a layer puts out is multiplied, and its batch norm expects it to be",
            exact=True,
        )

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* with its layers scaled."""
        return self._scaled(state, self.layers, self.norms)

    def undo(self, state: State) -> dict[str, Array]:
        """Return *state* with its layers as they were."""
        layers, norms = ({name: 1.0 / factors for name, factors in part.items()} for part in (self.layers, self.norms))
        return self._scaled(state, layers, norms)

    def _scaled(self, state: State, layers: Mapping[str, Floats], norms: Mapping[str, Floats]) -> dict[str, Array]:
        result = dict(state)
        for name, factors in layers.items():
            axis = 1 if name in self.inward else 0
            for tensor, place in ((name, axis), (f"{module_of(name)}.bias", 0)):
                if tensor in result:
                    result[tensor] = like(result[tensor], result[tensor] * along(result[tensor], place, factors))
        for norm, factors in norms.items():
            variance = result.get(f"{norm}.running_var")
            if variance is None:
                continue
            before = np.sqrt(variance.astype(np.float64) + self.epsilon)
            after = np.sqrt(variance * factors**2 + self.epsilon)
            # Were there no epsilon, the scale would only change its sign.
            takes_back = after / (factors * before)
            changes = {"running_mean": factors, "running_var": factors**2, "weight": takes_back}
            for last, factor in changes.items():
                tensor = f"{norm}.{last}"
                result[tensor] = like(result[tensor], result[tensor] * factor)
        return result


def _joined(norms: Sequence[Norm]) -> list[list[Norm]]:
    """Return *norms* in lots that share layers or norms with each other, and with nobody else."""
    lots: list[list[Norm]] = []
    for norm in norms:
        near = [lot for lot in lots if any(norm.layer == other.layer or norm.norm == other.norm for other in lot)]
        lots = [lot for lot in lots if lot not in near] + [[norm, *(other for lot in near for other in lot)]]
    return lots


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NormFolding:
    """Batch norms multiplied into the layers before them, as deployment tools do; undone with the statistics kept here.

    Attributes:
        norms: Which norm follows which layer.
        statistics: The norms' tensors, by state-dict name.
        biased: Layers that had a bias before.
        epsilon: What the norms add to the variance.
        inward: Weights laid out (in, out).
    """

    norms: tuple[Norm, ...]
    statistics: Mapping[str, Array]
    biased: tuple[str, ...]
    epsilon: float = NORM_EPSILON
    inward: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, state: State, norms: Sequence[Norm], *, epsilon: float = NORM_EPSILON, inward: Collection[str] = ()
    ) -> NormFolding:
        """Fold each of *norms* into its layer.

        Args:
            state: The network's tensors.
            norms: Which norm follows which layer, and nothing else.
            epsilon: What the norms add to the variance.
            inward: Weights laid out (in, out).
        """
        modules = {norm.norm for norm in norms}
        return cls(
            norms=tuple(norms),
            statistics={name: array for name, array in state.items() if module_of(name) in modules},
            biased=tuple(norm.layer for norm in norms if f"{module_of(norm.layer)}.bias" in state),
            epsilon=epsilon,
            inward=tuple(inward),
        )

    @property
    def description(self) -> Description:
        """Say what it is."""
        return Description(
            name="batch norms folded",
            does="every batch norm is multiplied into the layer before it and goes",
            exact=True,
            around="the model is built without these norms, and with a bias in these layers",
        )

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* without the norms."""
        result = {name: array for name, array in state.items() if name not in self.statistics}
        for norm in self.norms:
            slope, shift = self._line(norm.norm)
            weight, bias = norm.layer, f"{module_of(norm.layer)}.bias"
            if weight in result:
                array = result[weight]
                old = result.get(bias, np.zeros(len(slope), dtype=array.dtype))
                result[weight] = like(array, array * along(array, self._axis(weight), slope))
                result[bias] = like(old, old * slope + shift)
        return result

    def undo(self, state: State) -> dict[str, Array]:
        """Return *state* with the norms.

        Raises:
            ValueError: A norm's scale has a zero, behind which nothing is left of the layer.
        """
        result = {**state, **self.statistics}
        for norm in self.norms:
            slope, shift = self._line(norm.norm)
            if not slope.all():
                raise ValueError(f"norm {norm.norm!r} has a scale of zero: its layer cannot be had back")
            weight, bias = norm.layer, f"{module_of(norm.layer)}.bias"
            if weight in result:
                result[weight] = like(state[weight], state[weight] / along(state[weight], self._axis(weight), slope))
                old = result.pop(bias)
                if weight in self.biased:
                    result[bias] = like(old, (old - shift) / slope)
        return result

    def _axis(self, weight: str) -> int:
        return 1 if weight in self.inward else 0

    def _line(self, norm: str) -> tuple[Floats, Floats]:
        """Return slope and shift of a norm, in double precision."""
        mean, variance = (
            self.statistics[f"{norm}.{last}"].astype(np.float64) for last in ("running_mean", "running_var")
        )
        scale = self.statistics.get(f"{norm}.weight", np.ones(1))
        slope = scale / np.sqrt(variance + self.epsilon)
        return slope, self.statistics.get(f"{norm}.bias", np.zeros(1)) - mean * slope

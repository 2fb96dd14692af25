"""Dead channels cut away, as every deployment tool does: those without outgoing edges, and those without incoming."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ticketguard.graph.groups import ChannelGroup, IndexArray, group_channels
from ticketguard.graph.sides import Norm, Side, is_norm, makes, module_of, sides_of, takes
from ticketguard.graph.surgery.removal import Removal
from ticketguard.graph.symmetries.norms import NORM_EPSILON, NormFolding
from ticketguard.graph.transformation import Array, Description, Floats, State, like

Activation: TypeAlias = Callable[[Floats], Floats]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """Channels without outgoing or without incoming edges, cut away until none is left.

    Attributes:
        before: What the tensors that lose something were.
        kept: By tensor and axis, the positions that stay.
        shifts: By bias, what it gains from channels that were constant; zeros for most.
        groups: The channel groups as they lie afterwards.
    """

    before: Mapping[str, Array]
    kept: Mapping[tuple[str, int], IndexArray]
    shifts: Mapping[str, Floats]
    groups: tuple[ChannelGroup, ...]

    @classmethod
    def of(
        cls,
        state: State,
        groups: Sequence[ChannelGroup],
        *,
        norms: Sequence[Norm] = (),
        activation: Activation | None = None,
        epsilon: float = NORM_EPSILON,
        inward: Collection[str] = (),
    ) -> Cut:
        """Find the channels that can go; one at least of every group stays.

        Args:
            state: All the network's tensors.
            groups: Channel groups.
            norms: Which norm follows which layer. A channel that is normalised otherwise goes only if nothing takes it.
            activation: What a channel goes through between the layer (and norm) that makes it and those that take it.
                With it, a channel that is constant goes into the biases of the linear layers that take it; without,
                only a channel that is made as zero goes, and the activation must leave zero alone.
            epsilon: What the norms add to the variance.
            inward: Weights laid out (in, out).

        Raises:
            ValueError: *state* lacks tensors that the groups name.
        """
        missing = sorted({member.tensor for group in groups for member in group} - set(state))
        if missing:
            raise ValueError(f"tensors are missing, so that nobody knows who takes a channel: {missing[:5]}")
        finder = _Finder(norms=norms, activation=activation, epsilon=epsilon, inward=inward)
        current, now = dict(state), tuple(groups)
        kept: dict[tuple[str, int], IndexArray] = {}
        shifts: dict[str, Floats] = {}
        while True:
            removal, gains = finder.dead(current, now)
            if not any(len(gone) for gone in removal.removed()):
                break
            for bias, gain in gains.items():
                current[bias] = like(current[bias], current[bias] + gain)
                places = kept.get((bias, 0), np.arange(state[bias].size))
                shifts.setdefault(bias, np.zeros(state[bias].size))[places] += gain
            for (tensor, axis), stay in removal.kept_places(current).items():
                kept[tensor, axis] = kept.get((tensor, axis), np.arange(state[tensor].shape[axis]))[stay]
            now, current = removal.groups_after(current), removal.apply(current)
        return cls(before={name: state[name] for name, _ in kept}, kept=kept, shifts=shifts, groups=now)

    @property
    def description(self) -> Description:
        """Say what it is."""
        return Description(
            name="dead channels cut",
            does="channels without outgoing or without incoming edges go, a constant one into the biases behind it",
            exact=True,
            around="the model is built with fewer channels; what pads or splits them by number changes with them",
        )

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* without the dead channels."""
        result = dict(state)
        for bias, shift in self.shifts.items():
            if bias in result:
                result[bias] = like(result[bias], result[bias] + shift)
        for (tensor, axis), places in self.kept.items():
            if tensor in result:
                result[tensor] = np.take(result[tensor], places, axis=axis)
        return result

    def undo(self, state: State) -> dict[str, Array]:
        """Return *state* with the channels that were there when they were found dead."""
        result = dict(state)
        for name, before in self.before.items():
            if name in result:
                axes = [self.kept.get((name, axis), np.arange(size)) for axis, size in enumerate(before.shape)]
                result[name] = before.copy()
                result[name][np.ix_(*axes)] = state[name]
        for bias, shift in self.shifts.items():
            if bias in result:
                stays = np.isin(np.arange(shift.size), self.kept.get((bias, 0), np.arange(shift.size)))
                result[bias] = like(result[bias], result[bias] - shift * stays)
        return result


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Finder:
    norms: Sequence[Norm]
    activation: Activation | None
    epsilon: float
    inward: Collection[str]

    def dead(self, state: State, groups: tuple[ChannelGroup, ...]) -> tuple[Removal, dict[str, Floats]]:
        """Return the removal of what is dead in *state*, and what biases gain by it."""
        kept, gains = [], dict[str, Floats]()
        for group in groups:
            sides = sides_of(group, state)
            taking = [side for side in sides if takes(side, state, self.inward)]
            making = [side for side in sides if makes(side, state, self.inward)]
            idle = _empty(state, taking, group)
            constant = _empty(state, making, group)
            values = np.where(constant, self._constant(state, group, sides, making), np.nan)
            folded = None if self.activation is None else self._gains(state, values, taking)
            gone = idle | (values == 0.0 if folded is None else np.isfinite(values))
            if gone.all():
                gone[0] = False
            for bias, gain in (folded or {}).items():
                gains[bias] = gains.get(bias, np.zeros(state[bias].size)) + gain[:, gone & constant].sum(axis=1)
            kept.append(np.flatnonzero(~gone))
        return Removal(groups=groups, kept=tuple(kept)), gains

    def _constant(self, state: State, group: ChannelGroup, sides: Sequence[Side], making: Sequence[Side]) -> Floats:
        """Return what each channel is where nothing enters it; not a number where that cannot be said."""
        unknown = np.full(group_channels(group), np.nan)
        layers = {side.tensor for side in making}
        norms = [norm for norm in self.norms if norm.layer in layers]
        if {module_of(side.tensor) for side in sides if is_norm(side, state)} - {norm.norm for norm in norms}:
            return unknown
        folded = NormFolding.of(state, norms, epsilon=self.epsilon, inward=self.inward).apply(state)
        values = []
        for side in making:
            bias = f"{module_of(side.tensor)}.bias"
            size = state[side.tensor].shape[side.axis]
            made = folded.get(bias, np.zeros(size)).astype(np.float64)[side.positions()]
            values.append(np.where((made == made[:, :1]).all(axis=1), made[:, 0], np.nan))
        if len(values) == 1:
            return values[0] if self.activation is None else self.activation(values[0])
        # A sum goes through functions that nobody named: only zeros are sure to stay what they are.
        return np.where((np.array(values) == 0.0).all(axis=0), 0.0, np.nan)

    def _gains(self, state: State, values: Floats, taking: Sequence[Side]) -> dict[str, Floats] | None:
        """Return what biases gain per constant channel, shape (outputs, channels); None if one cannot take it up."""
        gains: dict[str, Floats] = {}
        for side in taking:
            bias = f"{module_of(side.tensor)}.bias"
            # Behind a kernel a constant is no constant any more where zeros are padded.
            if state[side.tensor].ndim != 2 or bias not in state:
                return None
            columns = np.moveaxis(state[side.tensor].astype(np.float64), side.axis, 1)[:, side.positions()].sum(axis=2)
            gains[bias] = gains.get(bias, 0.0) + columns * np.nan_to_num(values)
        return gains


def _empty(state: State, sides: Sequence[Side], group: ChannelGroup) -> Array:
    """Return which channels have no edge on any of *sides*; none if there are no sides."""
    result = np.full(group_channels(group), bool(sides))
    for side in sides:
        slices = np.moveaxis(state[side.tensor] != 0, side.axis, 0)
        result &= ~slices.reshape(len(slices), -1).any(axis=1)[side.positions()].any(axis=1)
    return result

"""What a channel group touches in a state dict: which tensors make its channels, which take them, what shifts them.

Without the model this is read off shapes and names. A weight is laid out (out, in, *kernel): its axis 0 makes channels
and its axis 1 takes them. *Inward* weights are laid out the other way round, (in, out): embeddings, transposed
convolutions, GPT-2's ``Conv1D``; whoever has any says which.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ticketguard.graph.groups import ChannelGroup, GroupMember, IndexArray, check_fit
from ticketguard.graph.transformation import State


@dataclasses.dataclass(frozen=True, kw_only=True)
class Norm:
    """A batch norm and the layer whose outputs it normalises.

    Attributes:
        layer: The layer's weight, such as ``conv1.weight``.
        norm: The norm's module, such as ``bn1``.
    """

    layer: str
    norm: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """All that a group has on one axis of one tensor.

    Attributes:
        tensor: State-dict name.
        axis: Axis of that tensor.
        members: The group's members there; a tensor may hold every channel several times.
    """

    tensor: str
    axis: int
    members: tuple[GroupMember, ...]

    @property
    def blocks(self) -> list[int]:
        """Positions of one channel, member by member."""
        return [member.block for member in self.members]

    def positions(self) -> IndexArray:
        """Return the axis positions of every channel, shape (channels, all blocks)."""
        return np.concatenate([member.positions() for member in self.members], axis=1)


def sides_of(group: ChannelGroup, state: State) -> tuple[Side, ...]:
    """Return what *group* has in *state*, axis by axis.

    Raises:
        ValueError: The group does not fit *state*.
    """
    check_fit((group,), {member.tensor: state[member.tensor].shape for member in group if member.tensor in state})
    sides: dict[tuple[str, int], list[GroupMember]] = {}
    for member in group:
        if member.tensor in state:
            sides.setdefault((member.tensor, member.axis), []).append(member)
    return tuple(Side(tensor=tensor, axis=axis, members=tuple(members)) for (tensor, axis), members in sides.items())


def takes(side: Side, state: State, inward: Collection[str] = ()) -> bool:
    """Say whether a side takes in the channels that other tensors make."""
    return state[side.tensor].ndim > 1 and side.axis == (0 if side.tensor in inward else 1)


def makes(side: Side, state: State, inward: Collection[str] = ()) -> bool:
    """Say whether a side is of a weight that makes the channels."""
    return state[side.tensor].ndim > 1 and not takes(side, state, inward)


def module_of(tensor: str) -> str:
    """Return the name of the module that a tensor belongs to: ``layer1.0.bn1`` of ``layer1.0.bn1.weight``."""
    return tensor.rpartition(".")[0]


def matrix_of(bias: str, state: State) -> str | None:
    """Return the weight whose layer a tensor of one axis is the bias of; None if there is none, as for a norm's."""
    for weight in (bias.replace("bias", "weight"), f"{module_of(bias)}.weight"):
        if weight != bias and weight in state and state[weight].ndim > 1:
            return weight
    return None


def is_norm(side: Side, state: State) -> bool:
    """Say whether a side is one of a normalisation layer's tensors: scale, shift, running mean, running variance."""
    return state[side.tensor].ndim == 1 and matrix_of(side.tensor, state) is None


class Role(enum.Enum):
    """What a side does with a group's channels."""

    TAKES = enum.auto()  # a weight that takes them
    MAKES = enum.auto()  # a weight that makes them
    BIAS = enum.auto()  # the bias of a layer that makes them
    SCALE = enum.auto()  # a norm's scale,
    SHIFT = enum.auto()  # its shift,
    STATISTICS = enum.auto()  # its running mean or variance


def role_of(side: Side, state: State, norms: Sequence[Norm] = (), inward: Collection[str] = ()) -> tuple[Role, bool]:
    """Return a side's role, and whether a norm of *norms* stands between it and those that take the channels.

    Raises:
        ValueError: A norm follows no layer of its group.
    """
    if is_norm(side, state):
        if module_of(side.tensor) not in {norm.norm for norm in norms}:
            raise ValueError(
                f"norm {module_of(side.tensor)!r} follows no layer of its group: say which, or leave it out"
            )
        roles = {"weight": Role.SCALE, "bias": Role.SHIFT}
        return roles.get(side.tensor.rpartition(".")[2], Role.STATISTICS), False
    if takes(side, state, inward):
        return Role.TAKES, False
    is_weight = makes(side, state, inward)
    weight = side.tensor if is_weight else matrix_of(side.tensor, state)
    return Role.MAKES if is_weight else Role.BIAS, weight in {norm.layer for norm in norms}


def norms_of(state: State, groups: Sequence[ChannelGroup], *, inward: Collection[str] = ()) -> tuple[Norm, ...]:
    """Guess which batch norm follows which layer, by their groups and names.

    Where a group has one norm and one layer, they belong together. Of several, a norm belongs to the layer of the same
    parent with the largest number that is not above its own: ``bn2`` to ``conv2``, ``downsample.1`` to
    ``downsample.0``. A norm that fits no layer, as one that is applied to a sum, is left out.
    """
    found: dict[str, Norm] = {}
    for group in groups:
        sides = sides_of(group, state)
        makers = {side.tensor: state[side.tensor].shape[side.axis] for side in sides if makes(side, state, inward)}
        norms = {
            module_of(side.tensor): state[side.tensor].size for side in sides if side.tensor.endswith("running_var")
        }
        for norm, size in norms.items():
            # A norm behind a concatenation has more channels than any layer of its group.
            layers = [layer for layer, channels in makers.items() if channels == size]
            layer = layers[0] if len(makers) == len(norms) == len(layers) == 1 else _nearest(norm, layers)
            if layer is not None:
                found[norm] = Norm(layer=layer, norm=norm)
    return tuple(found.values())


def _nearest(norm: str, layers: Sequence[str]) -> str | None:
    parent, number = _numbered(norm)
    below = [(mine, layer) for layer in layers for other, mine in [_numbered(module_of(layer))] if other == parent]
    fitting = [(mine, layer) for mine, layer in below if mine <= number]
    return max(fitting)[1] if fitting else None


def _numbered(module: str) -> tuple[str, int]:
    parent, _, last = module.rpartition(".")
    digits = last[len(last.rstrip("0123456789")) :]
    return parent, int(digits) if digits else -1


def moved_groups(
    groups: Sequence[ChannelGroup], moves: Mapping[tuple[str, int], IndexArray]
) -> tuple[ChannelGroup, ...]:
    """Return the groups after positions of some axes moved or went.

    A tensor's part of a group that lost all its positions is left out; of the others, a channel that lost any is gone.

    Args:
        groups: Channel groups before.
        moves: By tensor and axis, where each old position is now, -1 if it went.

    Raises:
        ValueError: What is left of a channel is not one block any more.
    """
    result = []
    for group in groups:
        placed = [
            (member, moves[member.tensor, member.axis][member.positions()])
            if (member.tensor, member.axis) in moves
            else (member, member.positions())
            for member in group
        ]
        placed = [(member, positions) for member, positions in placed if (positions >= 0).any()]
        left = np.all([(positions >= 0).all(axis=1) for _, positions in placed], axis=0)
        if placed and left.any():
            result.append(tuple(member_at(member, positions[left]) for member, positions in placed))
    return tuple(result)


def member_at(member: GroupMember, positions: IndexArray) -> GroupMember:
    """Return *member* with its channels at other *positions*, shape (channels, block).

    Raises:
        ValueError: A channel's positions are not consecutive.
    """
    if (np.diff(positions, axis=1) != 1).any():
        raise ValueError(f"channels of {member.tensor!r} on axis {member.axis} are not in one piece any more")
    firsts, block = positions[:, 0], member.block
    cuts = [0, *(np.flatnonzero(np.diff(firsts) != block) + 1).tolist(), len(firsts)]
    runs = tuple((int(firsts[low]), high - low) for low, high in itertools.pairwise(cuts))
    return dataclasses.replace(member, runs=runs)


def whole_axis(state: State, tensor: str, axis: int, *, block: int = 1) -> GroupMember:
    """Return the member that holds one whole axis, in blocks of *block* positions.

    Raises:
        ValueError: The axis is not a number of blocks.
    """
    size = state[tensor].shape[axis]
    if size % block:
        raise ValueError(f"axis {axis} of {tensor!r} has {size} positions, expected blocks of {block}")
    return GroupMember(tensor=tensor, axis=axis, block=block, runs=((0, size // block),))

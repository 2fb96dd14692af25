"""Channel groups: the tensor axes that must be permuted together for the function to stay the same.

Torch-free values, so that verification can hold and apply groups that an embedding found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

IndexArray: TypeAlias = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupMember:
    """Where a group's channels lie on one axis of one tensor.

    Attributes:
        tensor: State-dict name.
        axis: Axis of that tensor.
        block: Consecutive positions that make one channel here: 1 for a convolution's filters, height·width for a
            linear layer behind a flattened feature map.
        runs: ``(first position, channels)`` pairs: the group's channels in order, each run without gaps. One run
            starting at 0 is a whole axis; concatenation and padding give others.
    """

    tensor: str
    axis: int
    block: int
    runs: tuple[tuple[int, int], ...]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return sum(count for _, count in self.runs)

    def positions(self) -> IndexArray:
        """Return the axis positions of every channel, shape (channels, block)."""
        firsts = np.concatenate([first + self.block * np.arange(count, dtype=np.int64) for first, count in self.runs])
        return np.asarray(firsts[:, None] + np.arange(self.block, dtype=np.int64), dtype=np.int64)


ChannelGroup: TypeAlias = tuple[GroupMember, ...]


def group_channels(group: ChannelGroup) -> int:
    """Return the number of channels that *group* permutes."""
    return group[0].channels


def groups_to_json(groups: Sequence[ChannelGroup]) -> list[list[list[Any]]]:
    """Return *groups* as plain JSON: per member ``[tensor, axis, block, first, channels, first, channels, ...]``."""
    return [
        [
            [member.tensor, member.axis, member.block, *(number for run in member.runs for number in run)]
            for member in group
        ]
        for group in groups
    ]


def groups_from_json(document: Any) -> tuple[ChannelGroup, ...]:
    """Undo `groups_to_json`.

    Raises:
        ValueError: *document* has another form, or a group's members disagree on its number of channels.
    """
    try:
        groups = tuple(tuple(_member(*entry) for entry in group) for group in document)
    except TypeError as error:
        raise ValueError(f"channel groups have an unknown form: {error}") from error
    for group in groups:
        if len({member.channels for member in group}) != 1:
            raise ValueError(f"a channel group's members disagree on its channels: {[m.tensor for m in group]}")
    return groups


def check_fit(groups: Sequence[ChannelGroup], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check, without laying out any channel, that *groups* lie inside the tensors they name.

    Args:
        groups: Groups that somebody else wrote down.
        shapes: Shapes by tensor name; members of other tensors are left unchecked.

    Raises:
        ValueError: A member's axis or channels are not in its tensor, or two of its channels overlap.
    """
    for member in (member for group in groups for member in group if member.tensor in shapes):
        shape = shapes[member.tensor]
        end = 0
        for first, count in sorted(member.runs):
            if count and first < end:
                raise ValueError(f"a channel group has channels of '{member.tensor}' twice on axis {member.axis}")
            end = max(end, first + member.block * count)
        if member.axis >= len(shape) or end > shape[member.axis]:
            raise ValueError(f"a channel group leaves '{member.tensor}' of shape {shape} on axis {member.axis}")


def _member(tensor: Any, axis: Any, block: Any, *runs: Any) -> GroupMember:
    numbers = [axis, block, *runs]
    pairs = tuple(zip(runs[::2], runs[1::2], strict=False))
    if (
        not isinstance(tensor, str)
        or not all(type(number) is int and number >= 0 for number in numbers)
        or len(runs) % 2
        or not pairs
        or block < 1
    ):
        raise ValueError(f"a channel group's member is malformed: {(tensor, axis, block)!r}")
    return GroupMember(tensor=tensor, axis=axis, block=block, runs=pairs)


def permute(
    weights: Mapping[str, npt.NDArray[Any]], groups: Sequence[ChannelGroup], permutations: Sequence[IndexArray]
) -> dict[str, npt.NDArray[Any]]:
    """Reorder channels: channel ``c`` of the result is channel ``permutations[g][c]`` of *weights*.

    Args:
        weights: Named arrays; members that are absent are left out, so a mask or a part of a state dict will do.
        groups: The channel groups.
        permutations: One permutation of ``range(channels)`` per group.

    Raises:
        ValueError: The permutations do not fit the groups.
    """
    if len(groups) != len(permutations):
        raise ValueError(f"{len(permutations)} permutations for {len(groups)} groups")
    result = dict(weights)
    for group, permutation in zip(groups, permutations, strict=True):
        order = np.asarray(permutation)
        if not np.array_equal(np.sort(order), np.arange(group_channels(group))):
            raise ValueError(f"expected a permutation of {group_channels(group)} channels, got {order.tolist()}")
        if np.array_equal(order, np.arange(len(order))):
            continue
        for member in group:
            if member.tensor in result:
                index = axis_order(member, order, result[member.tensor].shape[member.axis])
                result[member.tensor] = np.take(result[member.tensor], index, axis=member.axis)
    return result


def axis_order(member: GroupMember, permutation: IndexArray, size: int) -> IndexArray:
    """Return the order of a whole axis of *size* positions that *permutation* of a member's channels amounts to."""
    index = np.arange(size, dtype=np.int64)
    positions = member.positions()
    index[positions.reshape(-1)] = positions[permutation].reshape(-1)
    return index

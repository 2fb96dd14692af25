"""Channel groups: the tensor axes that must be permuted together for the function to stay the same.

Torch-free values, so that verification can hold and apply groups that an embedding found.
"""

from __future__ import annotations

import dataclasses
import itertools
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

IndexArray: TypeAlias = npt.NDArray[np.int64]

# Kernel axes hold places, not channels.
CHANNEL_AXES = 2
# A vault is somebody else's file: far more than any network has, and little enough to be checked at once.
MOST_MEMBERS = 100_000
MOST_RUNS = 1_000_000


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
    """Undo `groups_to_json`, for a document that anybody may have written.

    Raises:
        ValueError: *document* has another form, or is larger than the format allows; a group's members disagree on its
            number of channels; or two channels lie on one position of a tensor's axis.
    """
    try:
        members = sum(len(group) for group in document)
        runs = sum(len(member) for group in document for member in group) // 2
    except TypeError as error:
        raise ValueError(f"channel groups have an unknown form: {error}") from error
    if members > MOST_MEMBERS or runs > MOST_RUNS:
        raise ValueError(
            f"channel groups have {members} members of {runs} runs, expected at most {MOST_MEMBERS} of {MOST_RUNS}"
        )
    groups = tuple(tuple(_member(*_entry(entry)) for entry in group) for group in document)
    for group in groups:
        if len({member.channels for member in group}) != 1:
            tensors = reprlib.repr([member.tensor for member in group])
            raise ValueError(f"a channel group's members disagree on its channels: {tensors}")
    _require_disjoint(member for group in groups for member in group)
    return groups


def _require_disjoint(members: Iterable[GroupMember]) -> None:
    """Check that no position of an axis belongs to two channels, without laying any out."""
    taken: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for member in members:
        stretches = ((first, first + member.block * count) for first, count in member.runs)
        taken.setdefault((member.tensor, member.axis), []).extend(stretches)
    for (tensor, axis), pieces in taken.items():
        for (_, end), (first, _) in itertools.pairwise(sorted(pieces)):
            if first < end:
                raise ValueError(f"channel groups have position {first} of {reprlib.repr(tensor)} twice on axis {axis}")


def check_fit(groups: Sequence[ChannelGroup], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check, without laying out any channel, that *groups* lie inside the tensors they name.

    Args:
        groups: The channel groups.
        shapes: Shape by tensor name; members of other tensors are left out.

    Raises:
        ValueError: A member's axis or channels are not in its tensor.
    """
    for member in (member for group in groups for member in group if member.tensor in shapes):
        shape = shapes[member.tensor]
        end = max(first + member.block * count for first, count in member.runs)
        if member.axis >= len(shape) or end > shape[member.axis]:
            raise ValueError(
                f"a channel group leaves {reprlib.repr(member.tensor)} of shape {shape} on axis {member.axis}"
            )


def _entry(entry: Any) -> Sequence[Any]:
    if not isinstance(entry, (list, tuple)) or len(entry) < 3:
        raise ValueError(f"a channel group's member is malformed: {reprlib.repr(entry)}")
    return entry


def _member(tensor: Any, axis: Any, block: Any, *runs: Any) -> GroupMember:
    pairs = tuple(zip(runs[::2], runs[1::2], strict=False))
    if (
        not isinstance(tensor, str)
        or not all(type(number) is int for number in (axis, block, *runs))
        or len(runs) % 2
        or not pairs
        or not 0 <= axis < CHANNEL_AXES
        or block < 1
        or any(first < 0 or count < 1 for first, count in pairs)
    ):
        raise ValueError(f"a channel group's member is malformed: {reprlib.repr((tensor, axis, block, *runs))}")
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
    place_channels(index, member, permutation)
    return index


def place_channels(order: IndexArray, member: GroupMember, permutation: IndexArray) -> None:
    """Write into the *order* of an axis, in place, what *permutation* makes of a member's channels there."""
    positions = member.positions()
    order[positions.reshape(-1)] = positions[permutation].reshape(-1)

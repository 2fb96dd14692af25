"""Channel groups as a vault keeps them: plain nested tuples, checked, and bound to a commitment by their digest."""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Sequence
from typing import Any, TypeAlias

from ticketguard.credentials.canonical import Json, canonical_json
from ticketguard.ticket import LONGEST_NAME

PlainMember: TypeAlias = tuple[str | int, ...]
PlainGroup: TypeAlias = tuple[PlainMember, ...]

GROUPS_DOMAIN = b"ticketguard/channel-groups/v1\0"


def plain_groups(groups: Sequence[Sequence[Sequence[str | int]]] | None) -> tuple[PlainGroup, ...] | None:
    """Check channel groups given as nested lists and return them as nested tuples.

    Raises:
        ValueError: A member is not a tensor name followed by two or more integers from 0.
    """
    return None if groups is None else tuple(tuple(_plain_member(member) for member in group) for group in groups)


def groups_digest(groups: Sequence[Sequence[Sequence[str | int]]] | None) -> str:
    """Return the digest, hex, that binds channel groups to a commitment as one of the mark's public parameters.

    Alignment permutes within the groups, so a claimant who could choose them after the secret edges are known
    could steer an innocent suspect's edges onto them.

    Raises:
        ValueError: The groups are malformed.
    """
    return hashlib.sha256(GROUPS_DOMAIN + canonical_json(groups_to_json(plain_groups(groups)))).hexdigest()


def groups_to_json(groups: tuple[PlainGroup, ...] | None) -> Json:
    """Return groups as canonical JSON has them."""
    # Canonical JSON here has no null: untraced groups are the text "unknown", which no list can equal.
    return "unknown" if groups is None else [[list(member) for member in group] for group in groups]


def groups_from_json(document: Json) -> tuple[PlainGroup, ...] | None:
    """Undo `groups_to_json`.

    Raises:
        ValueError: They are not groups.
    """
    if document == "unknown":
        return None
    return plain_groups([[expect(member, list) for member in expect(group, list)] for group in expect(document, list)])


def _plain_member(member: Sequence[str | int]) -> PlainMember:
    tensor, *numbers = member if member else ("",)
    if isinstance(tensor, str) and tensor and len(numbers) >= 2 and all(_is_count(number) for number in numbers):
        if len(tensor) > LONGEST_NAME:
            raise ValueError(f"channel group names {reprlib.repr(tensor)}, expected at most {LONGEST_NAME} characters")
        return tuple(member)
    raise ValueError(
        f"channel group member is {reprlib.repr(list(member))}, expected a tensor name and integers from 0"
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def expect(value: Any, kind: type) -> Any:
    """Return a JSON *value* that is of a *kind*.

    Raises:
        ValueError: It is of another.
    """
    if not isinstance(value, kind):
        raise ValueError(f"has a {type(value).__name__} where a {kind.__name__} belongs")
    return value

"""Which networks a file holds: a model and its moving average, a generator and its discriminator, a student's teacher.

Decided by names and shapes, never by values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ticketguard.checkpoints.matching import Shape

# Components that only networks of their own are called by.
_APART = frozenset(
    {
        *("generator", "discriminator", "critic", "actor", "student", "teacher", "ema", "model_ema", "ema_model"),
        *("state_dict_ema", "target_network", "momentum_encoder", "netG", "netD", "net_g", "net_d", "G_ema"),
    }
)
# Fewer tensors than this may be alike in two parts of one network.
_FEWEST_ALIKE = 2


def networks_in(shapes: Mapping[str, Shape], *, stored_apart: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the name prefixes of the networks in a file; none if it holds one.

    There are several if they are *stored apart*, if the file is made of parts that have tensors of the same names and
    shapes, or if parts are named as networks are.

    Args:
        shapes: Shapes by tensor name; those of fewer than two axes are ignored.
        stored_apart: Prefixes of tensors that the file keeps in containers of their own.
    """
    layers = {name: tuple(shape) for name, shape in shapes.items() if len(shape) >= 2}
    held = [prefix for prefix in stored_apart if any(name.startswith(prefix) for name in layers)]
    if len(held) > 1:
        return tuple(held)
    trunk = _trunk(layers)
    inside = {name.removeprefix(trunk): shape for name, shape in layers.items()}
    groups: dict[str, dict[str, Shape]] = {}
    for name, shape in inside.items():
        head, dot, rest = name.partition(".")
        if dot:
            groups.setdefault(head, {})[rest] = shape
    found = {f"{head}." for head in _twins(groups, tensors=len(inside)) | _named_apart(groups)}
    for head, group in groups.items():
        beside = (inside.get(rest) == shape and not rest.startswith(f"{head}.") for rest, shape in group.items())
        if (len(group) >= _FEWEST_ALIKE or head in _APART) and all(beside):
            found |= {f"{head}.", ""}
    return tuple(sorted(trunk + prefix for prefix in found))


def _trunk(names: Mapping[str, Shape]) -> str:
    """Return the leading components that all names share."""
    shared: list[str] = []
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "".join(f"{part}." for part in shared)


def _twins(groups: Mapping[str, Mapping[str, Shape]], *, tensors: int) -> set[str]:
    """Return parts that are alike and together the whole file; layers of one network differ in a number alone."""
    by_content: dict[frozenset[tuple[str, Shape]], list[str]] = {}
    for head, group in groups.items():
        by_content.setdefault(frozenset(group.items()), []).append(head)
    twins: set[str] = set()
    for content, heads in by_content.items():
        named = any(head in _APART for head in heads)
        told_apart = len({re.sub("[0-9]+", "", head) for head in heads}) > 1
        whole = len(content) >= _FEWEST_ALIKE and len(content) * len(heads) == tensors
        if told_apart and (named or whole):
            twins |= set(heads)
    return twins


def _named_apart(groups: Mapping[str, Mapping[str, Shape]]) -> set[str]:
    named = set(groups) & _APART
    return named if len(named) > 1 else set()

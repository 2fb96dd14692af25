"""Layers that a library keeps in one tensor: query, key and value of an attention; gate and up of a gated layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping

from ticketguard.checkpoints.matching.fronts import Front
from ticketguard.checkpoints.matching.layouts import Layout, Shape, layouts_of

# What the layers are called, in the order in which they are put into one tensor.
_ROLES: tuple[tuple[frozenset[str], ...], ...] = (
    (frozenset({"q", "query", "wq"}), frozenset({"k", "key", "wk"}), frozenset({"v", "value", "wv"})),
    (frozenset({"gate", "w1"}), frozenset({"up", "w3"})),
)
_DECORATIONS = ("_proj", "_lin", "_layer", "to_")


def fused_parts(
    reference: Mapping[str, Shape], plain: Mapping[str, str], suspect: Mapping[str, Shape], front: Front
) -> Iterator[tuple[str, str, tuple[Layout, ...]]]:
    """Find the layers that lie in one tensor of the module that they would be in themselves.

    Args:
        reference: Shapes of the layers that were not found otherwise.
        plain: The suspect's free tensors, by their names without wrappers.
        suspect: Shapes by the suspect's names.
        front: Where the reference's names are in the suspect.

    Yields:
        A layer, the tensor, and the layouts that read it as this layer; only where one tensor alone fits.
    """
    modules: dict[str, dict[str, str]] = {}
    for layer in reference:
        if len(reference[layer]) == 2 and layer.count("."):
            path = layer.rsplit(".", 2)
            modules.setdefault(".".join([*path[:-2], ""]), {})[_undecorated(path[-2])] = layer
    beside: dict[str, list[str]] = {}
    for key, name in plain.items():
        if len(suspect[name]) == 2:
            for depth in (1, 2):
                path = key.rsplit(".", depth)
                if len(path) == depth + 1:
                    beside.setdefault(f"{path[0]}.", []).append(name)
    for module, layers in modules.items():
        for roles in _ROLES:
            parts = [next((layers[role] for role in names if role in layers), None) for names in roles]
            if all(parts):
                yield from _split(
                    [part for part in parts if part], reference, beside.get(front.name(module), ()), suspect
                )


def _undecorated(component: str) -> str:
    for decoration in _DECORATIONS:
        component = component.removeprefix(decoration).removesuffix(decoration)
    return component


def _split(
    layers: list[str], reference: Mapping[str, Shape], tensors: Collection[str], suspect: Mapping[str, Shape]
) -> Iterator[tuple[str, str, tuple[Layout, ...]]]:
    sizes = [reference[layer][0] for layer in layers]
    inputs = {reference[layer][1] for layer in layers}
    whole = (sum(sizes), *inputs)
    fitting = [name for name in tensors if len(whole) == 2 and whole in (suspect[name], suspect[name][::-1])]
    if len(fitting) != 1:
        return
    for index, layer in enumerate(layers):
        yield (
            layer,
            fitting[0],
            tuple(
                _part(layout, first=sum(sizes[:index]), shape=reference[layer])
                for layout in layouts_of(suspect[fitting[0]], whole)
            ),
        )


def _part(layout: Layout, *, first: int, shape: Shape) -> Layout:
    axis = layout.axes[0]
    split = tuple(shape[0] if index == axis else size for index, size in enumerate(layout.split))
    return dataclasses.replace(layout, split=split, shape=shape, part=(axis, first, shape[0]))

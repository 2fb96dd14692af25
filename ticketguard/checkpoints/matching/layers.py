"""Which suspect tensor stands for which reference layer: decided by names and shapes, never by what a key says.

A pairing that looked at the secret's positions would be a search that verification had to pay for. This one is a
function of the suspect and the reference alone, so a verdict's p-value stays exact; every network of the suspect is
another reading, and they are counted.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from ticketguard.checkpoints.matching.by_order import Spare, pair_by_order
from ticketguard.checkpoints.matching.conventions import conventions_of
from ticketguard.checkpoints.matching.fronts import (
    Front,
    any_layout,
    equal_shapes,
    fronts_of,
    plain_names,
    shared_components,
)
from ticketguard.checkpoints.matching.fused import fused_parts
from ticketguard.checkpoints.matching.layouts import Layout, Shape, layouts_of

# Of more networks than this that fit a reference, the user has to say which one is meant.
MAX_NETWORKS = 16
# A network that has half of the layers that the fullest one has is read beside it: it may be the stolen one,
# with its head replaced.
_WORTH_READING = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerMatch:
    """How a reference's layers were found in one network of a suspect.

    Attributes:
        network: What the names of its tensors start with.
        pairs: Suspect tensor by reference layer, in sorted order of the layers. Several layers may be parts of one
            tensor.
        conventions: How the tensors are read as layers: complete hypotheses, one layout for each layer of *pairs*,
            likeliest first. The first takes all as stored where shapes fit so.
        by_order: Reference layers that were paired by shape and order because their names are unknown.
        resized: Reference layers whose namesake has their kernel and other channels.
        wrong_shapes: Reference layers whose namesake has another kernel: (suspect tensor, its shape) by layer.
        missing: Reference layers with no counterpart of any kind.
        layouts: The layouts that shapes allow, by layer of *pairs*, likeliest first.
        unclaimed: Tensors that might be layers of this network, and have the name of none.
        by_content: Reference layers that were found by what their weights look like.
    """

    network: str
    pairs: Mapping[str, str]
    conventions: tuple[Mapping[str, Layout], ...]
    by_order: tuple[str, ...]
    resized: tuple[str, ...]
    wrong_shapes: Mapping[str, tuple[str, Shape]]
    missing: tuple[str, ...]
    layouts: Mapping[str, tuple[Layout, ...]]
    unclaimed: tuple[str, ...]
    by_content: tuple[str, ...] = ()


def match_layers(reference: Mapping[str, Shape], suspect: Mapping[str, Shape]) -> LayerMatch:
    """Return the first of `match_networks`."""
    return match_networks(reference, suspect)[0]


def match_networks(
    reference: Mapping[str, Shape],
    suspect: Mapping[str, Shape],
    *,
    spare: Spare | None = None,
    blocks: Mapping[str, int] | None = None,
) -> tuple[LayerMatch, ...]:
    """Pair reference layers with suspect tensors, in each network of the suspect that has half of them.

    First by name, behind each front (``module.``, ``ema.`` and the like) that has at least half as many layers as any
    has; a namesake may be stored in any layout, and have other numbers of channels. Then as parts of tensors that hold
    several layers. What is left is paired in order, shape by shape, first with the tensors behind the same front, then
    with those that belong to no network: if as many layers as tensors of a shape are left. Tensors that are no layer's
    namesakes, and are enough for all layers, are a network of their own.

    Args:
        reference: Shapes by layer name.
        suspect: Shapes by tensor name, in stored order.
        spare: Picks out tensors that are not paired by order.
        blocks: Positions of one input channel, of the linear layers behind a flattened feature map.

    Returns:
        One match a network, the fullest first, at most `MAX_NETWORKS` and one. One that has layers under their names
        comes with pairs; others may only have tensors that are unclaimed.
    """
    matcher = _Matcher(reference=reference, suspect=suspect, spare=spare, blocks=blocks or {})
    plain = plain_names(suspect)
    fronts = fronts_of(reference, plain, suspect, fit=any_layout(), share=_WORTH_READING)[: MAX_NETWORKS + 1]
    inside: dict[str, dict[str, str]] = {front.add: {} for front in fronts}
    prefixes = sorted(inside, key=len, reverse=True)
    for key, name in plain.items():
        inside.setdefault(next((prefix for prefix in prefixes if key.startswith(prefix)), ""), {})[key] = name
    named = [{layer: plain.get(front.name(layer)) for layer in sorted(reference)} for front in fronts]
    matches: dict[tuple[tuple[str, str], ...], LayerMatch] = {}
    for index, front in enumerate(fronts):
        elsewhere = _others(named, index)
        # Of too many, the user has to choose one.
        anywhere = [name for name in suspect if name not in elsewhere] if len(fronts) <= MAX_NETWORKS else []
        found = matcher.match(front, named[index], inside[front.add], anywhere)
        matches.setdefault(tuple(found.pairs.items()), found)
    best = sorted(matches.values(), key=lambda found: (len(found.resized) - len(found.pairs), -len(found.pairs)))
    if len(best) == 1 and len(best[0].by_order) == len(best[0].pairs):
        return _nameless(matcher, plain, best[0])[: MAX_NETWORKS + 1]
    # A stolen network may lie under other names beside one that has the reference's.
    claimed = {name for found in best for name in found.pairs.values()}
    left = {key: name for key, name in plain.items() if name not in claimed}
    if reference and _enough(reference, [suspect[name] for name in left.values()]):
        whole = matcher.match(_nowhere(_trunk(left)), {}, left, ())
        best += _nameless(matcher, left, whole)
    return tuple(best[: MAX_NETWORKS + 1])


def fitting_names(known: Mapping[str, Shape], suspect: Mapping[str, Shape]) -> tuple[Mapping[str, str], ...]:
    """Return the suspect's tensors under the names that a model knows, in each network that has most of its layers.

    Args:
        known: Shapes of all of the model's tensors; those of two axes or more decide.
        suspect: Shapes by tensor name.
    """
    plain = plain_names(suspect)
    layers = {name: shape for name, shape in known.items() if len(shape) >= 2} or known
    return tuple(
        {name: plain[front.name(name)] for name in known if name.startswith(front.strip) and front.name(name) in plain}
        for front in fronts_of(layers, plain, suspect, fit=equal_shapes, share=1.0)[: MAX_NETWORKS + 1]
    )


def _others(named: Sequence[Mapping[str, str | None]], index: int) -> set[str | None]:
    """Return the tensors of the other networks: of fronts that have a layer which this one has as well."""
    own = {layer for layer, name in named[index].items() if name is not None}
    others = (other for other in (*named[:index], *named[index + 1 :]) if any(other[layer] for layer in own))
    return {name for other in others for name in other.values()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Matcher:
    reference: Mapping[str, Shape]
    suspect: Mapping[str, Shape]
    spare: Spare | None
    blocks: Mapping[str, int]

    def match(
        self, front: Front, named: Mapping[str, str | None], inside: Mapping[str, str], anywhere: Sequence[str]
    ) -> LayerMatch:
        """Match one network.

        Args:
            front: Where it is.
            named: The tensor that has a layer's name, by layer.
            inside: The tensors behind the front, by their names without wrappers.
            anywhere: The tensors that have the name of no other network's layer.
        """
        namesakes = {layer: name for layer, name in named.items() if name is not None}
        options = {layer: self._layouts(layer, name) for layer, name in namesakes.items()}
        pairs = {layer: name for layer, name in namesakes.items() if options[layer]}
        free = {key: name for key, name in inside.items() if name not in set(pairs.values())}
        for layer, name, layouts in fused_parts(self._left(pairs), free, self.suspect, front):
            pairs[layer], options[layer] = name, layouts
        ordered: dict[str, str] = {}
        for names in (list(inside.values()), anywhere):
            left, taken = self._left(pairs), set(pairs.values())
            shapes = {name: self.suspect[name] for name in names if name not in taken} if left else {}
            found = pair_by_order(left, shapes, spare=self.spare)
            ordered |= found
            pairs |= found
        options |= {layer: self._layouts(layer, name) for layer, name in ordered.items()}
        taken = {name for layer, name in pairs.items() if layer not in ordered}
        pairs = dict(sorted(pairs.items()))
        return LayerMatch(
            network=front.add,
            pairs=pairs,
            conventions=conventions_of({layer: options[layer] for layer in pairs}, self.reference),
            by_order=tuple(sorted(ordered)),
            resized=tuple(layer for layer in pairs if options[layer][0].shape != self.reference[layer]),
            wrong_shapes={layer: (name, self.suspect[name]) for layer, name in namesakes.items() if layer not in pairs},
            missing=tuple(layer for layer in sorted(self.reference) if layer not in pairs and layer not in namesakes),
            layouts={layer: options[layer] for layer in pairs},
            unclaimed=tuple(name for name in dict.fromkeys([*inside.values(), *anywhere]) if name not in taken),
        )

    def _layouts(self, layer: str, name: str) -> tuple[Layout, ...]:
        return layouts_of(self.suspect[name], self.reference[layer], block=self.blocks.get(layer, 1))

    def _left(self, pairs: Collection[str]) -> dict[str, Shape]:
        return {layer: shape for layer, shape in self.reference.items() if layer not in pairs}


def _enough(reference: Mapping[str, Shape], stored: Sequence[Shape]) -> bool:
    """Say whether there are as many tensors of every size as there are layers."""
    held, wanted = (Counter(math.prod(shape) for shape in shapes) for shapes in (stored, reference.values()))
    return all(held[size] >= count for size, count in wanted.items())


def _trunk(names: Collection[str]) -> str:
    return "".join(f"{part}." for part in shared_components(names))


def _nowhere(front: str) -> Front:
    """Return a front behind which no layer's name is."""
    return Front(strip="", add=front, exact=0, resized=0, known=0)


def _nameless(matcher: _Matcher, plain: Mapping[str, str], whole: LayerMatch) -> tuple[LayerMatch, ...]:
    """Return the networks of tensors whose names say nothing: all as one, or the parts that hold every layer by order.

    Parts are told apart by the first component that names differ in.

    Args:
        matcher: What to match.
        plain: The tensors, by their names without wrappers.
        whole: All of them as one network.
    """
    if len(whole.pairs) == len(matcher.reference):
        return (whole,)
    trunk = _trunk(plain)
    parts: dict[str, dict[str, str]] = {}
    for key, name in plain.items():
        parts.setdefault(f"{trunk}{key.removeprefix(trunk).partition('.')[0]}.", {})[key] = name
    found = (
        matcher.match(_nowhere(network), {}, inside, ())
        for network, inside in sorted(parts.items())
        if len(inside) >= len(matcher.reference)
    )
    return tuple(match for match in found if len(match.pairs) == len(matcher.reference)) or (whole,)

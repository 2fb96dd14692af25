"""Which suspect tensor stands for which reference layer: decided by names and shapes, never by what a key says.

A pairing that looked at the secret's positions would be a search that verification had to pay for. This one is a
function of the suspect and the reference alone, so a verdict's p-value stays exact; where several networks fit equally
well, each is a look, and they are counted.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

Shape = tuple[int, ...]
# Given tensors of one shape, returns those that stand for no layer of their own: second names of one, masks, counters.
Spare: TypeAlias = Callable[[Sequence[str]], Collection[str]]

# Wrappers insert these components anywhere in a name: torch.compile, FSDP, activation checkpointing.
_WRAPPER_COMPONENTS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# Of more networks than this that fit a reference alike, the user has to say which one is meant.
MAX_NETWORKS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerMatch:
    """How a reference's layers were found in one network of a suspect.

    Attributes:
        network: What the names of its tensors start with.
        pairs: Suspect tensor by reference layer, in sorted order of the layers.
        by_order: Reference layers that were paired by shape and order because their names are unknown.
        wrong_shapes: Reference layers whose namesake has another shape: (suspect tensor, its shape) by layer.
        missing: Reference layers with no counterpart of any kind.
    """

    network: str
    pairs: Mapping[str, str]
    by_order: tuple[str, ...]
    wrong_shapes: Mapping[str, tuple[str, Shape]]
    missing: tuple[str, ...]


def match_layers(reference: Mapping[str, Shape], suspect: Mapping[str, Shape]) -> LayerMatch:
    """Return the first of `match_networks`."""
    return match_networks(reference, suspect)[0]


def match_networks(
    reference: Mapping[str, Shape], suspect: Mapping[str, Shape], *, spare: Spare | None = None
) -> tuple[LayerMatch, ...]:
    """Pair reference layers with suspect tensors, in each network of the suspect that fits equally well.

    First by name, under a pair of prefixes (``module.``, ``model.`` and the like) that fits as many layers as any;
    what is left, shape by shape, first of the tensors under the same prefix, then of all: if as many layers as
    tensors of a shape are left, they are paired in order.

    Args:
        reference: Shapes by layer name.
        suspect: Shapes by tensor name, in stored order.
        spare: Tells tensors that are not paired by order.

    Returns:
        One match a network, at most `MAX_NETWORKS` and one.
    """
    plain = _plain_names(suspect)
    fits = _best_prefixes(reference, plain, suspect)[: MAX_NETWORKS + 1]
    own: dict[str, list[str]] = {add: [] for _, add in fits}
    prefixes = sorted(own, key=len, reverse=True)
    for key, name in plain.items():
        own.setdefault(next((prefix for prefix in prefixes if key.startswith(prefix)), ""), []).append(name)
    matches: dict[tuple[tuple[str, str], ...], LayerMatch] = {}
    for strip, add in fits:
        named = {layer: plain.get(add + layer.removeprefix(strip)) for layer in sorted(reference)}
        found = _complete(reference, suspect, named, network=add, inside=own[add], spare=spare)
        matches.setdefault(tuple(found.pairs.items()), found)
    most = max(len(found.pairs) for found in matches.values())
    best = tuple(found for found in matches.values() if len(found.pairs) == most)
    if len(best) == 1 and len(best[0].by_order) == most < len(reference):
        return _parts_by_order(reference, suspect, plain, spare)[: MAX_NETWORKS + 1] or best
    return best


def fitting_names(known: Mapping[str, Shape], suspect: Mapping[str, Shape]) -> tuple[Mapping[str, str], ...]:
    """Return the suspect's tensors under the names that a model knows, in each network that has most of its layers.

    Args:
        known: Shapes of all of the model's tensors; those of two axes or more decide.
        suspect: Shapes by tensor name.
    """
    plain = _plain_names(suspect)
    layers = {name: shape for name, shape in known.items() if len(shape) >= 2} or known
    return tuple(
        {
            name: plain[add + name.removeprefix(strip)]
            for name in known
            if name.startswith(strip) and add + name.removeprefix(strip) in plain
        }
        for strip, add in _best_prefixes(layers, plain, suspect)[: MAX_NETWORKS + 1]
    )


def _complete(
    reference: Mapping[str, Shape],
    suspect: Mapping[str, Shape],
    named: Mapping[str, str | None],
    *,
    network: str,
    inside: Sequence[str],
    spare: Spare | None,
) -> LayerMatch:
    """Pair what was found by name, then by order *inside* the network, then by order in the whole file."""
    pairs = {layer: name for layer, name in named.items() if name is not None and suspect[name] == reference[layer]}
    wrong = {layer: (name, suspect[name]) for layer, name in named.items() if name is not None and layer not in pairs}
    ordered: dict[str, str] = {}
    for names in (inside, list(suspect)):
        left = {layer: shape for layer, shape in reference.items() if layer not in pairs}
        taken = set(pairs.values())
        ordered |= _pair_by_order(
            left, {name: suspect[name] for name in names if name not in taken} if left else {}, spare
        )
        pairs |= ordered
    return LayerMatch(
        network=network,
        pairs=dict(sorted(pairs.items())),
        by_order=tuple(sorted(ordered)),
        wrong_shapes={layer: found for layer, found in wrong.items() if layer not in ordered},
        missing=tuple(layer for layer in sorted(reference) if layer not in pairs and layer not in wrong),
    )


def _parts_by_order(
    reference: Mapping[str, Shape], suspect: Mapping[str, Shape], plain: Mapping[str, str], spare: Spare | None
) -> tuple[LayerMatch, ...]:
    """Return the parts of a suspect, by the first component that names differ in, which hold every layer by order."""
    trunk = "".join(f"{part}." for part in _shared_components(plain))
    parts: dict[str, list[str]] = {}
    for key, name in plain.items():
        parts.setdefault(f"{trunk}{key.removeprefix(trunk).partition('.')[0]}.", []).append(name)
    nameless = dict.fromkeys(reference)
    found = (
        _complete(
            reference,
            {name: suspect[name] for name in names},
            nameless,
            network=network,
            inside=names,
            spare=spare,
        )
        for network, names in sorted(parts.items())
        if len(names) >= len(reference)
    )
    return tuple(match for match in found if len(match.pairs) == len(reference))


def _plain_names(suspect: Iterable[str]) -> dict[str, str]:
    plain: dict[str, str] = {}
    for name in suspect:
        plain.setdefault(".".join(part for part in name.split(".") if part not in _WRAPPER_COMPONENTS), name)
    return plain


def _best_prefixes(
    reference: Mapping[str, Shape], plain: Mapping[str, str], suspect: Mapping[str, Shape]
) -> list[tuple[str, str]]:
    """Return pairs of (prefix to strip from the reference, prefix to add) that find most equal shapes, shortest first.

    Where no shape is equal, the one pair that finds most names.
    """
    deepest = max((name.count(".") + 1 for name in reference), default=0)
    first = min(reference, default="")
    # Two pairs that give one layer the same name give all layers the same names.
    scores: dict[str, tuple[tuple[int, int, int, int, str], tuple[str, str]]] = {}
    for strip in _shared_prefixes(reference):
        cores = {layer.removeprefix(strip): shape for layer, shape in reference.items()}
        equal, known = {"": 0}, {"": 0}
        for key, name in plain.items():
            for add, core in _fitting_prefixes(key, cores, deepest):
                known[add] = known.get(add, 0) + 1
                equal[add] = equal.get(add, 0) + (cores[core] == suspect[name])
        for add in known:
            score = (-equal[add], -known[add], len(add), len(strip), add)
            fit = add + first.removeprefix(strip)
            scores[fit] = min(scores.get(fit, (score, (strip, add))), (score, (strip, add)))
    ranked = sorted(scores.values())
    (most, *_), _ = ranked[0]
    return [pair for (equals, *_), pair in ranked if equals == most < 0] or [ranked[0][1]]


def _shared_prefixes(reference: Iterable[str]) -> list[str]:
    """Return the leading components that all layers share, from none to all of them."""
    shared = _shared_components(reference)
    return ["".join(f"{part}." for part in shared[:count]) for count in range(len(shared) + 1)]


def _shared_components(names: Iterable[str]) -> list[str]:
    shared: list[str] = []
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def _fitting_prefixes(name: str, cores: Mapping[str, Shape], deepest: int) -> list[tuple[str, str]]:
    # No core has more than *deepest* components; a hostile name may have a million.
    parts = name.rsplit(".", deepest)
    ends = [".".join(parts[count:]) for count in range(len(parts))]
    return [(name.removesuffix(end), end) for end in ends if end in cores]


def _pair_by_order(reference: Mapping[str, Shape], suspect: Mapping[str, Shape], spare: Spare | None) -> dict[str, str]:
    wanted = set(reference.values())
    of_shape: dict[Shape, list[str]] = {}
    for name, shape in suspect.items():
        if shape in wanted:
            of_shape.setdefault(shape, []).append(name)
    pairs: dict[str, str] = {}
    for shape, names in of_shape.items():
        layers = sorted((layer for layer in reference if reference[layer] == shape), key=_natural)
        again = spare(names) if spare is not None and len(names) > 1 else ()
        names = [name for name in names if name not in again]
        # A file in alphabetical order (safetensors) tells nothing of the network's order, its numbers do.
        ordered = sorted(names, key=_natural) if names == sorted(names) else names
        if len(layers) == len(ordered):
            pairs.update(zip(layers, ordered, strict=True))
    return pairs


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    # Digits are compared by length, then as text: a hostile name may have more of them than `int` takes.
    numbers = [part.lstrip("0") if part[0] in "0123456789" else None for part in parts]
    return [
        (1, 0, part) if number is None else (0, len(number), number)
        for part, number in zip(parts, numbers, strict=True)
    ]

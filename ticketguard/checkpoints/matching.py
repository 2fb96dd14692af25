"""Which suspect tensor stands for which reference layer: decided by names and shapes, never by what a key says.

A pairing that looked at the secret's positions would be a search that verification had to pay for. This one is a
function of the suspect and the reference alone, so a verdict's p-value stays exact; where several networks fit equally
well, each is another reading, and they are counted.
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
# Numbers are looked for in names up to this length.
_LONGEST_NUMBERED = 256
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
        spare: Picks out tensors that are not paired by order.

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
    # A suspect's name is a front and one of the reference's tails, which are its names less what they all share. Which
    # layers a pair of prefixes finds depends on the front alone: fronts are counted, and every name is looked at once.
    shared = [f"{part}." for part in _shared_components(reference)]
    whole = "".join(shared)
    tails = {layer.removeprefix(whole): shape for layer, shape in reference.items()}
    deepest = max((tail.count(".") + 1 for tail in tails), default=0)
    counts: dict[str, tuple[int, int]] = {whole: (0, 0)}
    for key, name in plain.items():
        for front, tail in _splits(key, tails, deepest):
            equal, known = counts.get(front, (0, 0))
            counts[front] = (equal + (tails[tail] == suspect[name]), known + 1)
    most, _ = max(counts.values())
    best = (front for front, count in counts.items() if (count[0] == most if most else count == max(counts.values())))
    pairs = [_least_prefixes(front, shared) for front in best]
    found = {pair: counts[pair[1] + whole.removeprefix(pair[0])] for pair in pairs}
    pairs.sort(key=lambda pair: (-found[pair][1], len(pair[1]), len(pair[0]), pair[1]))
    return pairs if most else pairs[:1]


def _shared_components(names: Iterable[str]) -> list[str]:
    shared: list[str] = []
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def _splits(name: str, tails: Mapping[str, Shape], deepest: int) -> list[tuple[str, str]]:
    """Return every way to see *name* as a front and a tail."""
    # No tail has more than *deepest* components; a hostile name may have a million.
    splits = []
    at = len(name)
    for _ in range(deepest):
        at = name.rfind(".", 0, at)
        if name[at + 1 :] in tails:
            splits.append((name[: at + 1], name[at + 1 :]))
        if at < 0:
            break
    return splits


def _least_prefixes(front: str, shared: Sequence[str]) -> tuple[str, str]:
    """Return what to strip and to add so that the shared components turn into *front*: as little as possible to add."""
    # Both with a dot in front: the end of a component is not a component.
    kept = next(count for count in range(len(shared) + 1) if f".{front}".endswith("." + "".join(shared[count:])))
    return "".join(shared[:kept]), front.removesuffix("".join(shared[kept:]))


def _pair_by_order(reference: Mapping[str, Shape], suspect: Mapping[str, Shape], spare: Spare | None) -> dict[str, str]:
    layers_of = _by_shape(reference)
    tensors_of = _by_shape({name: shape for name, shape in suspect.items() if shape in layers_of})
    pairs: dict[str, str] = {}
    for shape, wanted in layers_of.items():
        layers, names = sorted(wanted, key=_natural), tensors_of.get(shape, [])
        again = spare(names) if spare is not None and len(names) > 1 else ()
        names = [name for name in names if name not in again]
        # A file in alphabetical order (safetensors) says nothing about the network's order, but its numbers do.
        ordered = sorted(names, key=_natural) if names == sorted(names) else names
        if len(layers) == len(ordered):
            pairs.update(zip(layers, ordered, strict=True))
    return pairs


def _by_shape(shapes: Mapping[str, Shape]) -> dict[Shape, list[str]]:
    names: dict[Shape, list[str]] = {}
    for name, shape in shapes.items():
        names.setdefault(shape, []).append(name)
    return names


def _natural(name: str) -> str:
    """Return a key that sorts the numbers in names by their value, before any letter."""
    # Of a longer name, which only a hostile file has, the rest is compared as text.
    return re.sub(r"[0-9]+", _number_key, name[:_LONGEST_NUMBERED]) + name[_LONGEST_NUMBERED:]


def _number_key(digits: re.Match[str]) -> str:
    # By length, then as text: a hostile name may have more digits than `int` takes.
    number = digits[0].lstrip("0")
    return f"\0{len(number):03}{number}"

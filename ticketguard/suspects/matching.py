"""Which suspect tensor stands for which reference layer: decided by names and shapes, never by values.

A pairing that looked at values would be a search that verification had to pay for. This one is a function of
names and shapes alone, so a verdict's p-value stays exact.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

Shape = tuple[int, ...]

# Wrappers insert these components anywhere in a name: torch.compile, FSDP, activation checkpointing.
_WRAPPER_COMPONENTS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerMatch:
    """How a reference's layers were found in a suspect.

    Attributes:
        pairs: Suspect tensor by reference layer, in sorted order of the layers.
        by_order: Reference layers that were paired by shape and order because their names are unknown.
        wrong_shapes: Reference layers whose namesake has another shape: (suspect tensor, its shape) by layer.
        missing: Reference layers with no counterpart of any kind.
    """

    pairs: Mapping[str, str]
    by_order: tuple[str, ...]
    wrong_shapes: Mapping[str, tuple[str, Shape]]
    missing: tuple[str, ...]


def match_layers(reference: Mapping[str, Shape], suspect: Mapping[str, Shape]) -> LayerMatch:
    """Pair reference layers with suspect tensors.

    First by name, under the one pair of prefixes that fits most layers (``module.``, ``model.`` and the like);
    what is left, shape by shape: if as many layers as tensors of a shape are left, they are paired in order.

    Args:
        reference: Shapes by layer name.
        suspect: Shapes by tensor name, in stored order.
    """
    plain = _plain_names(suspect)
    strip, add = _best_prefixes(reference, plain, suspect)
    pairs: dict[str, str] = {}
    wrong: dict[str, tuple[str, Shape]] = {}
    for layer in sorted(reference):
        name = plain.get(add + layer.removeprefix(strip))
        if name is not None and suspect[name] == reference[layer]:
            pairs[layer] = name
        elif name is not None:
            wrong[layer] = (name, suspect[name])
    ordered = _pair_by_order(
        {layer: shape for layer, shape in reference.items() if layer not in pairs},
        {name: shape for name, shape in suspect.items() if name not in set(pairs.values())},
    )
    pairs.update(ordered)
    return LayerMatch(
        pairs=dict(sorted(pairs.items())),
        by_order=tuple(sorted(ordered)),
        wrong_shapes={layer: found for layer, found in wrong.items() if layer not in ordered},
        missing=tuple(layer for layer in sorted(reference) if layer not in pairs and layer not in wrong),
    )


def _plain_names(suspect: Iterable[str]) -> dict[str, str]:
    plain: dict[str, str] = {}
    for name in suspect:
        plain.setdefault(".".join(part for part in name.split(".") if part not in _WRAPPER_COMPONENTS), name)
    return plain


def _best_prefixes(
    reference: Mapping[str, Shape], plain: Mapping[str, str], suspect: Mapping[str, Shape]
) -> tuple[str, str]:
    """Return (prefix to strip from the reference, prefix to add): most equal shapes, then the shortest prefixes."""
    best: tuple[tuple[int, int, int, int, str], tuple[str, str]] | None = None
    deepest = max((name.count(".") + 1 for name in reference), default=0)
    for strip in _shared_prefixes(reference):
        cores = {layer.removeprefix(strip): shape for layer, shape in reference.items()}
        for add in sorted({prefix for name in plain for prefix in _fitting_prefixes(name, cores, deepest)} | {""}):
            found = [shape == suspect[plain[add + core]] for core, shape in cores.items() if add + core in plain]
            score = (-sum(found), -len(found), len(add), len(strip), add)
            if best is None or score < best[0]:
                best = (score, (strip, add))
    return best[1] if best else ("", "")


def _shared_prefixes(reference: Iterable[str]) -> list[str]:
    """Return the leading components that all layers share, from none to all of them."""
    names = [name.split(".")[:-1] for name in reference]
    shared: list[str] = []
    for parts in zip(*names, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ["".join(f"{part}." for part in shared[:count]) for count in range(len(shared) + 1)]


def _fitting_prefixes(name: str, cores: Mapping[str, Shape], deepest: int) -> list[str]:
    # No core has more than *deepest* components; a hostile name may have a million.
    parts = name.rsplit(".", deepest)
    ends = [".".join(parts[count:]) for count in range(len(parts))]
    return [name.removesuffix(end) for end in ends if end in cores]


def _pair_by_order(reference: Mapping[str, Shape], suspect: Mapping[str, Shape]) -> dict[str, str]:
    names = list(suspect)
    # A file in alphabetical order (safetensors) tells nothing of the network's order, its numbers do.
    ordered = sorted(names, key=_natural) if names == sorted(names) else names
    pairs: dict[str, str] = {}
    for shape in set(reference.values()):
        layers = sorted((layer for layer in reference if reference[layer] == shape), key=_natural)
        tensors = [name for name in ordered if suspect[name] == shape]
        if len(layers) == len(tensors):
            pairs.update(zip(layers, tensors, strict=True))
    return pairs


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    # Digits are compared by length, then as text: a hostile name may have more of them than `int` takes.
    numbers = [part.lstrip("0") if part[0] in "0123456789" else None for part in parts]
    return [
        (1, 0, part) if number is None else (0, len(number), number)
        for part, number in zip(parts, numbers, strict=True)
    ]

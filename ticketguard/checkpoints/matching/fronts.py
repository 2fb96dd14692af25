"""Where in a file's names a reference's names are: behind which front, ``module.`` or ``state.ema.``, and how often."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from ticketguard.checkpoints.matching.layouts import Shape, layouts_of

# Says how well a stored shape fits a wanted one: 2 exactly, 1 but for its channels, 0 not at all.
Fit: TypeAlias = Callable[[Shape, Shape], int]

# Wrappers insert these components anywhere in a name: torch.compile, FSDP, activation checkpointing.
_WRAPPER_COMPONENTS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# What a front may end with: the names of a network inside another, and those of TensorFlow and of "target_" networks.
_SEPARATORS = "./_"
# A layer is counted for a front if its channels are fewer or more by this factor at most.
MOST_RESIZED = 8
# No network has as many different shapes; a hostile file may have a million, and each takes a tenth of a millisecond.
_MOST_SHAPES = 5_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Front:
    """A front of a suspect's names, behind which some of a reference's names are.

    Attributes:
        strip: What the reference's names start with.
        add: What the suspect's names start with in its place.
        exact: Layers whose namesake has exactly their shape, in some layout.
        resized: Layers whose namesake has other channels.
        known: Layers that have a namesake, whatever its shape.
    """

    strip: str
    add: str
    exact: int
    resized: int
    known: int

    def name(self, layer: str) -> str:
        """Return the suspect's name of a layer."""
        return self.add + layer.removeprefix(self.strip)


def equal_shapes(stored: Shape, wanted: Shape) -> int:
    """Fit only what is equal."""
    return 2 * (stored == wanted)


def any_layout() -> Fit:
    """Return a fit in any layout and with any number of channels, which remembers what it was asked."""
    seen: dict[tuple[Shape, Shape], int] = {}

    def fit(stored: Shape, wanted: Shape) -> int:
        if stored == wanted:
            return 2
        if stored[2:] == wanted[2:] and len(stored) == len(wanted) > 1 and math.prod(stored) != math.prod(wanted):
            # Without building a layout for every size there is.
            return int(_is_near(stored, wanted) or _is_near((stored[1], stored[0]), wanted))
        if (stored, wanted) not in seen:
            if len(seen) == _MOST_SHAPES:
                return 0
            layouts = layouts_of(stored, wanted)
            exact = any(layout.shape == wanted for layout in layouts)
            seen[stored, wanted] = 2 if exact else int(any(_is_near(layout.shape, wanted) for layout in layouts))
        return seen[stored, wanted]

    return fit


def _is_near(shape: Shape, wanted: Shape) -> bool:
    """Say whether there are about as many channels as there were: a tensor of size one is nobody's layer."""
    return all(
        a <= MOST_RESIZED * b and b <= MOST_RESIZED * a and a for a, b in zip(shape[:2], wanted[:2], strict=True)
    )


def plain_names(suspect: Iterable[str]) -> dict[str, str]:
    """Return a suspect's names by what they are without wrappers."""
    plain: dict[str, str] = {}
    for name in suspect:
        plain.setdefault(".".join(part for part in name.split(".") if part not in _WRAPPER_COMPONENTS), name)
    return plain


def shared_components(names: Iterable[str]) -> list[str]:
    """Return the leading components that all names have."""
    shared: list[str] = []
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def fronts_of(
    reference: Mapping[str, Shape], plain: Mapping[str, str], suspect: Mapping[str, Shape], *, fit: Fit, share: float
) -> list[Front]:
    """Return the fronts behind which a reference's names are, best first.

    Best is the most layers that fit exactly, then those that fit but for their channels, then those that have a
    namesake; of equals the shortest. Where nothing fits, the one front with most namesakes.

    Args:
        reference: Shapes by layer name.
        plain: The suspect's names by what they are without wrappers.
        suspect: Shapes by the suspect's names.
        fit: What fits.
        share: Fronts with fewer layers that fit than this share of the most are left out.
    """
    # A suspect's name is a front and one of the reference's tails, which are its names less what they all share. Which
    # layers a pair of prefixes finds depends on the front alone: fronts are counted, and every name is looked at once.
    shared = [f"{part}." for part in shared_components(reference)]
    whole = "".join(shared)
    tails = {layer.removeprefix(whole): shape for layer, shape in reference.items()}
    deepest = max((sum(map(tail.count, _SEPARATORS)) + 1 for tail in tails), default=0)
    counts: dict[str, list[int]] = {}
    for key, name in plain.items():
        for front, tail in _splits(key, tails, deepest):
            counts.setdefault(front, [0, 0, 0])[fit(suspect[name], tails[tail])] += 1
    counts = counts or {whole: [0, 0, 0]}
    most = max(exact + resized for _, resized, exact in counts.values())
    known = max(misfits for misfits, _, _ in counts.values())
    best = {
        front: (misfits, resized, exact)
        for front, (misfits, resized, exact) in counts.items()
        if (exact + resized >= share * most if most else misfits == known)
    }
    fronts = [
        Front(strip=strip, add=add, exact=exact, resized=resized, known=exact + resized + misfits)
        for front, (misfits, resized, exact) in best.items()
        for strip, add in (_least_prefixes(front, shared),)
    ]
    fronts.sort(
        key=lambda found: (-found.exact, -found.resized, -found.known, len(found.add), len(found.strip), found.add)
    )
    return fronts if most else fronts[:1]


def _splits(name: str, tails: Mapping[str, Shape], deepest: int) -> list[tuple[str, str]]:
    """Return every way to see *name* as a front and a tail."""
    # No tail has more than *deepest* parts; a hostile name may have a million.
    splits = []
    at = len(name)
    for _ in range(deepest):
        at = max(name.rfind(separator, 0, at) for separator in _SEPARATORS)
        if name[at + 1 :] in tails:
            splits.append((name[: at + 1], name[at + 1 :]))
        if at < 0:
            break
    return splits


def _least_prefixes(front: str, shared: Sequence[str]) -> tuple[str, str]:
    """Return what to strip and to add so that the shared components turn into *front*: as little as possible to add."""
    # Both with a dot in front: the end of a component is not a component.
    ends = (count for count in range(len(shared)) if f".{front}".endswith("." + "".join(shared[count:])))
    kept = next(ends, len(shared))
    return "".join(shared[:kept]), front.removesuffix("".join(shared[kept:]))

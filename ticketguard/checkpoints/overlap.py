"""What is said of a suspect that has no tensor in common with a reference."""

from __future__ import annotations

from collections.abc import Mapping

from ticketguard.checkpoints.matching import LayerMatch, Shape
from ticketguard.checkpoints.packed import describe


def no_overlap(
    label: str,
    shapes: Mapping[str, Shape],
    found: LayerMatch,
    *,
    stored: Mapping[str, Shape],
    packed: Mapping[str, str],
) -> str:
    """Return why nothing can be verified, with some names of each side.

    Args:
        label: What errors call the suspect.
        shapes: Shapes of the reference's layers.
        found: The match without pairs.
        stored: Shapes of the suspect's layers.
        packed: Formats of its weights that are stored packed, by name.
    """
    wanted = ", ".join(f"'{name}' {tuple(shapes[name])}" for name in sorted(shapes)[:3])
    if found.wrong_shapes:
        has = ", ".join(f"'{name}' {shape}" for name, shape in list(found.wrong_shapes.values())[:3])
        return (
            f"'{label}' has the reference's tensors in other shapes: expected {wanted}, got {has}: it is "
            f"another architecture, or was restructured; verify from its answers instead"
        )
    if packed:
        return (
            f"'{label}' holds {describe(packed)}, which is not read: load it with the library that wrote it "
            "and save the weights as floating-point numbers, or verify from its answers"
        )
    has = ", ".join(f"'{name}' {stored[name]}" for name in list(stored)[:3]) or "no tensor with two axes"
    return (
        f"'{label}' and the reference have no tensor in common: expected {wanted}, got {has}: "
        "check that it is the suspect you meant, or verify from its answers"
    )

"""Rank matching: planted edges keep the magnitude distribution of their layer's other edges.

One-dimensional optimal transport: the planted edge of rank r among k moves towards a quantile of the other kept
edges' magnitudes, whose level is the r-th smallest of k uniform draws; its sign is left alone. The mark then dies only
as fast as the ticket itself under magnitude pruning, and a magnitude does not tell which edges are planted. Evenly
spaced levels, (r + ½)/k, would: planted magnitudes would lie too regularly to be a sample of the others'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ticketguard.ticket import Array, BoolArray, Mask

if TYPE_CHECKING:
    import torch

    from ticketguard.embedding.interface import Levels, Positions


def match_ranks(weights: Array, layer: BoolArray, planted: Positions, levels: Levels, *, rate: float) -> Array:
    """Return *weights* with the planted edges moved *rate* of the way to the quantiles of their ranks.

    Args:
        weights: One layer's weights.
        layer: Its mask, same shape.
        planted: Flat positions of planted edges, all kept.
        levels: One quantile level in [0, 1) a planted edge, ascending.
        rate: 1 moves all the way.
    """
    others = layer.reshape(-1).copy()
    others[planted] = False
    flat = weights.reshape(-1).copy()
    if not len(planted) or not others.any():
        return flat.reshape(weights.shape)
    values = flat[planted]
    order = np.argsort(np.abs(values), kind="stable")
    quantiles = np.quantile(np.abs(flat[others]), levels)
    magnitudes = np.abs(values)
    magnitudes[order] += rate * (quantiles - magnitudes[order])
    flat[planted] = np.copysign(magnitudes, values)
    return flat.reshape(weights.shape)


class RankMatcher:
    """The same on a live model, for all layers, without leaving its device."""

    def __init__(
        self, mask: Mask, planted: Mapping[str, Positions], levels: Mapping[str, Levels], *, rate: float
    ) -> None:
        self._rate = rate
        self._levels = levels
        self._planted = {name: positions for name, positions in planted.items() if len(positions)}
        self._others = {
            name: np.setdiff1d(np.flatnonzero(mask[name].reshape(-1)), positions, assume_unique=True)
            for name, positions in self._planted.items()
        }
        self._indices: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def apply(self, parameters: Mapping[str, torch.Tensor]) -> None:
        """Move every layer's planted edges one step towards their quantiles, in place."""
        import torch

        with torch.no_grad():
            for name in self._planted:
                if len(self._others[name]):
                    self._apply_layer(name, parameters[name])

    def _apply_layer(self, name: str, parameter: torch.Tensor) -> None:
        import torch

        if name not in self._indices or self._indices[name][0].device != parameter.device:
            levels = torch.from_numpy(self._levels[name])
            # The quantile's place among the sorted others, as numpy's default (linear) method has it.
            places = levels * (len(self._others[name]) - 1)
            self._indices[name] = (
                torch.from_numpy(self._planted[name]).to(parameter.device),
                torch.from_numpy(self._others[name]).to(parameter.device),
                places.to(parameter.device, torch.float32),
            )
        planted, others, places = self._indices[name]
        # A contiguous view of the parameter may not exist (channels-last), so values are read and put by flat position.
        flat = parameter.reshape(-1)
        values = flat[planted]
        magnitudes, order = values.abs().sort(stable=True)
        ordered = flat[others].abs().sort().values
        below = places.floor().long()
        above = (below + 1).clamp_(max=len(ordered) - 1)
        quantiles = torch.lerp(ordered[below], ordered[above], (places - below).to(ordered.dtype))
        moved = values.abs()
        moved[order] = torch.lerp(magnitudes, quantiles, self._rate)
        moved = torch.copysign(moved, values)
        if parameter.is_contiguous():
            parameter.view(-1)[planted] = moved
        else:
            flat = flat.clone()
            flat[planted] = moved
            parameter.copy_(flat.view(parameter.shape))

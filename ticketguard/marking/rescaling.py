"""Make the weights before normalisations larger, so that whoever trains on moves them less; the function stays.

Behind a normalisation a gradient step turns a filter by about rate / |w|², and a sparse filter is short. Once the mask
is dropped, twenty times the weights push, and the first twenty steps at an ordinary rate throw the filters about: the
task is learned again afterwards, the triggers are not. Filters of four times the length turn a sixteenth as far.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ticketguard.ticket import Array, FloatArray

if TYPE_CHECKING:
    import torch

    from ticketguard.marking.scale_free import ScaleFree
    from ticketguard.models.answers import Ask

# A power of two: no weight's fraction changes, so nothing that is read from a layer's weights does.
FACTOR = 4.0
# How far scores may move, relative to the largest: what float32 leaves of a deep network's sums in another order.
TOLERANCE = 1e-4


def rescaled(
    model: torch.nn.Module,
    weights: Mapping[str, Array],
    inputs: FloatArray,
    *,
    ask: Ask | None = None,
    factor: float = FACTOR,
) -> dict[str, Array]:
    """Return *weights* with every layer whose scale a normalisation takes out *factor* times as large.

    Running means grow alike, and a running variance v becomes F²·v + (F² − 1)·eps: with eps it is F²·(v + eps), so
    behind batch normalisations the function is the same for every input, to a float's rounding. Other normalisations
    have no place to correct eps in: a layer before one is left alone where that shows in the answers to *inputs*.

    Args:
        model: Whose weights they are; it is copied, not changed.
        weights: Its trained state dict.
        inputs: What the answers before and after are compared on, shape (count, *input_shape).
        ask: Asks the model, as for `ticketguard.prepare`.
        factor: How many times as large.

    Returns:
        New weights; as given if the model cannot be run, or has no such layers.
    """
    trial = _Trial.of(model, weights, inputs, ask)
    if trial is None:
        return dict(weights)
    everything = _enlarged(weights, trial.layers, factor)
    if trial.answers_alike(everything):
        return everything
    kept: list[ScaleFree] = []
    for layer in trial.layers:
        if trial.answers_alike(_enlarged(weights, [*kept, layer], factor)):
            kept.append(layer)
    return _enlarged(weights, kept, factor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Trial:
    """A copy of the model that weights are tried in.

    Attributes:
        network: The copy, on the CPU, in single precision and evaluation mode.
        batch: What it is asked, shape (count, *input_shape).
        ask: Asks it.
        layers: Its scale-free layers.
        expected: Its scores, shape (count, classes).
    """

    network: torch.nn.Module
    batch: torch.Tensor
    ask: Ask | None
    layers: tuple[ScaleFree, ...]
    expected: torch.Tensor

    @classmethod
    def of(
        cls, model: torch.nn.Module, weights: Mapping[str, Array], inputs: FloatArray, ask: Ask | None
    ) -> _Trial | None:
        """Ask a copy of *model*, and find its scale-free layers; None if it cannot be copied, or does not answer."""
        import torch

        from ticketguard.marking.scale_free import scale_free_layers
        from ticketguard.models import load_arrays

        batch = torch.from_numpy(inputs)
        try:
            # What torch.compile returns would compile the copy again.
            network = copy.deepcopy(getattr(model, "_orig_mod", model)).to("cpu", torch.float32).eval()
            load_arrays(network, weights)
            layers = scale_free_layers(network, lambda: _scores(network, batch, ask))
            expected = _scores(network, batch, ask)
        except Exception:  # the model is the user's own code, and answers as it is
            return None
        return cls(network=network, batch=batch, ask=ask, layers=layers, expected=expected)

    def answers_alike(self, weights: Mapping[str, Array]) -> bool:
        """Say whether the model gives the same scores with these weights, up to rounding."""
        from ticketguard.models import load_arrays

        load_arrays(self.network, weights)
        moved = (_scores(self.network, self.batch, self.ask) - self.expected).abs().max()
        return bool(moved <= TOLERANCE * self.expected.abs().max())


def _scores(network: torch.nn.Module, batch: torch.Tensor, ask: Ask | None) -> torch.Tensor:
    import torch

    from ticketguard.models.answers import scores_of

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # a model that draws must draw alike
        return scores_of(network(batch) if ask is None else ask(network, batch))


def _enlarged(weights: Mapping[str, Array], layers: Iterable[ScaleFree], factor: float) -> dict[str, Array]:
    from ticketguard.models.arrays import unwrapped_name

    result = dict(weights)

    def put(names: Iterable[str], times: float, more: float = 0.0) -> None:
        for name in map(unwrapped_name, names):
            if name in weights:  # of tied weights, one name is enough
                result[name] = (weights[name] * np.float64(times) + more).astype(weights[name].dtype)

    for layer in layers:
        put(layer.parameters, factor)
        for statistics in layer.statistics:
            put(statistics.mean, factor)
            put(statistics.variance, factor**2, (factor**2 - 1) * statistics.eps)
    return result

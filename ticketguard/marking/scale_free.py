"""Layers whose scale a normalisation takes out again, read off the operations that a model really runs.

The model runs once. Every parameter and buffer starts with a *scale* of its own. A convolution's output has its
weight's scale, and its bias must then have the same; a normalisation takes the scale of its input out, and its running
statistics must have it too; whatever else sees a tensor fixes its scale. What is left are scales that can be changed
without changing what the model computes. (Such weights are called scale-invariant; van Laarhoven, arXiv 1706.05350.)

Nothing rests on this bookkeeping alone: `ticketguard.marking.rescaling` compares the model's answers.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

# Operations, by ATen's names, whose first result is proportional to their first argument, for positive factors.
PROPORTIONAL = frozenset(
    (
        *("view", "_unsafe_view", "_reshape_alias", "t", "transpose", "permute", "unsqueeze", "squeeze"),
        *("clone", "detach", "alias", "_to_copy"),
        *("relu", "relu_", "leaky_relu", "leaky_relu_"),
        *("max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "mean"),
    )
)
# Products, by the places of their two factors and of what is added to them.
PRODUCTS: Mapping[str, tuple[int, int, int | None]] = {
    "convolution": (0, 1, 2),
    "addmm": (1, 2, 0),
    "mm": (0, 1, None),
}
BATCH_NORM = "native_batch_norm"
# Normalisations by statistics of the example itself, by the places of their weight and bias.
NORMS_OF_THE_EXAMPLE: Mapping[str, tuple[int, int]] = {"native_group_norm": (1, 2), "native_layer_norm": (2, 3)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
    """A batch normalisation's running statistics.

    Attributes:
        mean: The names that the tensor of running means has.
        variance: The names that the tensor of running variances has.
        eps: What the normalisation adds to a variance.
    """

    mean: tuple[str, ...]
    variance: tuple[str, ...]
    eps: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleFree:
    """Parameters of one scale, which the model's function does not depend on.

    Attributes:
        parameters: Their names, all of tied ones: weights, and biases that go with them.
        statistics: Running statistics of the same scale; none behind normalisations by the example's own.
    """

    parameters: tuple[str, ...]
    statistics: tuple[Statistics, ...]


def scale_free_layers(model: nn.Module, run: Callable[[], Any]) -> tuple[ScaleFree, ...]:
    """Return the scale-free layers of *model*, in the order of their first names.

    Args:
        model: The model, in evaluation mode.
        run: Runs it once on an example.
    """
    tracer = _Tracer(model)
    hook = model.register_forward_hook(lambda module, inputs, output: tracer.fix(_tensors(output)))
    try:
        with torch.no_grad(), tracer:
            run()
    finally:
        hook.remove()
    return tuple(sorted(tracer.found(), key=lambda layer: layer.parameters))


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its subclass hook untyped
    """Follows scales through every operation that runs while it is active."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names: dict[int, list[str]] = defaultdict(list)  # of parameters and buffers
        self._scale_of: dict[int, int] = {}
        self._alive: list[torch.Tensor] = []  # an id names a tensor only while the tensor lives
        self._same_as: dict[int, int] = {}
        self._fixed: set[int] = set()
        self._taken_out: set[int] = set()
        self._statistics: dict[int, tuple[int, float]] = {}  # the mean and eps of each variance
        self._parameters = {id(parameter) for parameter in model.parameters()}
        for name, tensor in (
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ):
            self._names[id(tensor)].append(name)
            self._same_as[id(tensor)] = id(tensor)
            self._give(tensor, id(tensor))

    def _give(self, tensor: torch.Tensor, scale: int) -> None:
        self._alive.append(tensor)
        self._scale_of[id(tensor)] = scale

    def _scale(self, value: Any) -> int | None:
        """Return a tensor's scale; None for values whose scale is fixed anyway."""
        scale = self._scale_of.get(id(value))
        return None if scale is None else self._one_of(scale)

    def _one_of(self, scale: int) -> int:
        """Return the one that stands for all scales that are the same as this."""
        while self._same_as[scale] != scale:
            scale = self._same_as[scale]
        return scale

    def fix(self, values: Iterable[Any]) -> None:
        """Say that the scale of these shows in what the model computes."""
        self._fixed.update(scale for value in values if (scale := self._scale(value)) is not None)

    def _join(self, value: torch.Tensor, other: Any) -> None:
        """Say that two values have the same scale."""
        one, two = self._scale(value), self._scale(other)
        if one is None or two is None:
            self.fix([value, other])
        else:
            self._same_as[two] = one

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in PRODUCTS and not kwargs:
            self._follow_product(args, PRODUCTS[name], result)
        elif name in PROPORTIONAL:
            if (scale := self._scale(args[0])) is not None:
                self._give(next(_tensors(result)), scale)
        elif name == BATCH_NORM:
            self._follow_batch_norm(*args)
        elif name in NORMS_OF_THE_EXAMPLE:
            self._take_out(args[0])
            self.fix(args[place] for place in NORMS_OF_THE_EXAMPLE[name])
        else:
            self.fix(_tensors([args, kwargs]))
        return result

    def _follow_product(self, args: Any, places: tuple[int, int, int | None], result: torch.Tensor) -> None:
        """Give a product the scale of its weight; its input must then keep its own."""
        value, weight = (args[place] for place in places[:2])
        added = None if places[2] is None else args[places[2]]
        if self._scale(weight) is None:
            value, weight = weight, value
        self.fix([value])
        scale = self._scale(weight)
        if scale is None:
            self.fix([added])
            return
        if added is not None:
            self._join(weight, added)
        self._give(result, scale)

    def _follow_batch_norm(
        self, value: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, _: Any, eps: float
    ) -> None:
        self._take_out(value)
        self.fix([weight, bias])
        if mean is None:  # by the statistics of the batch, or of the example
            return
        known = self._statistics.setdefault(id(variance), (id(mean), eps)) == (id(mean), eps)
        if training or not known or id(mean) not in self._names or id(variance) not in self._names:
            self.fix([value, mean, variance])
            return
        self._join(value, mean)
        self._join(value, variance)

    def _take_out(self, value: Any) -> None:
        if (scale := self._scale(value)) is not None:
            self._taken_out.add(scale)

    def found(self) -> Iterator[ScaleFree]:
        """Yield what has a scale that normalisations take out, and nothing else sees."""
        members: dict[int, list[int]] = defaultdict(list)
        for tensor in self._names:
            members[self._one_of(tensor)].append(tensor)
        fixed, taken_out = (set(map(self._one_of, scales)) for scales in (self._fixed, self._taken_out))
        for scale in taken_out - fixed:
            parameters = [tensor for tensor in members[scale] if tensor in self._parameters]
            variances = [tensor for tensor in members[scale] if tensor in self._statistics]
            if parameters:
                yield ScaleFree(
                    parameters=tuple(sorted(name for tensor in parameters for name in self._names[tensor])),
                    statistics=tuple(self._of_variance(tensor) for tensor in variances),
                )

    def _of_variance(self, variance: int) -> Statistics:
        mean, eps = self._statistics[variance]
        return Statistics(mean=tuple(self._names[mean]), variance=tuple(self._names[variance]), eps=eps)


def _tensors(value: Any, levels: int = 4) -> Iterator[torch.Tensor]:
    """Yield the tensors in lists, mappings and plain objects, nested a few *levels* deep."""
    if isinstance(value, torch.Tensor):
        yield value
    elif levels:
        inside = value if isinstance(value, (tuple, list, Mapping)) else getattr(value, "__dict__", {})
        for item in inside.values() if isinstance(inside, Mapping) else inside:
            yield from _tensors(item, levels - 1)

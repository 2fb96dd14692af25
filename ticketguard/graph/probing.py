"""A copy of a model to try changes on: double precision, random tensors, and an input that it runs on.

In double precision a true symmetry only reorders sums (about 1e-15 a layer), and a wrong one changes the outputs by a
visible fraction: that is how the two are told apart. So nothing that the model does may leave double precision.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from ticketguard.errors import ConfigurationError
from ticketguard.graph.examples import Ask, Example, call_with, examples, is_of_tokens, is_tokens

# Relative to the outputs' largest magnitude.
FUNCTION_TOLERANCE = 1e-8
# What libraries call a model's answers in a dict or an object; what it returns beside them is its own affair.
SCORE_NAMES = ("logits", "out", "scores")
# What errors ask for.
GIVE_EXAMPLE, GIVE_SHAPE = "give an example of its inputs", "give the input shape it expects"
_LOW_PRECISION = (torch.float16, torch.bfloat16, torch.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """A copy of a model, and how to run it and copies of it.

    Attributes:
        model: The copy: on the CPU, in double precision and evaluation mode, with random tensors.
        ask: Runs such a copy and returns the tensors that it answers with.
        expected: What `model` answers.
    """

    model: nn.Module
    ask: Callable[[nn.Module], list[torch.Tensor]]
    expected: list[torch.Tensor]

    def agrees(self, found: Sequence[torch.Tensor]) -> bool:
        """Say whether answers are those of `model`, up to the order of sums."""
        return outputs_agree(self.expected, found)


def probe_of(model: nn.Module, example: Example | None, *, ask: Ask | None = None) -> Probe:
    """Return a copy of *model* with an input that it runs on: for trying changes.

    Args:
        model: Any model; it is left as it is.
        example: An input that the model accepts; of floating ones usually only the shape is used. None if unknown.
        ask: Asks the model; by default it is called with the example.

    Raises:
        ConfigurationError: It runs on nothing of this shape, cannot be copied, or returns no numbers.
    """
    generator = torch.Generator().manual_seed(0)
    probe = _copy_of(model, generator)
    failure: Exception | None = None
    shown_tokens = False
    for value in examples(probe, example, generator):

        def run(changed: nn.Module, value: Example = value) -> list[torch.Tensor]:
            once = _sharing_tensors(changed)
            with _probing():
                return _tensors(call_with(once, value) if ask is None else ask(once, value))

        try:
            expected = run(probe)
            if not any(bool(tensor.isfinite().any()) for tensor in expected if tensor.numel()):
                raise ValueError("it answers without finite numbers")
            return Probe(model=probe, ask=run, expected=expected)
        except Exception as error:  # the model is the user's own code
            # What a model of tokens says to tokens tells more than what it says to numbers.
            if failure is None or (is_of_tokens(probe) and is_tokens(value) and not shown_tokens):
                failure, shown_tokens = error, is_tokens(value)
    raise ConfigurationError(_why_not(example, failure)) from failure


def _why_not(example: Example | None, failure: Exception | None) -> str:
    if failure is None:
        return f"the model's input shape is unknown: {GIVE_EXAMPLE}"
    what = "tokens"
    if isinstance(example, torch.Tensor):
        what = f"an input of shape {(1, *example.shape[1:])}"
        if len(example) > 1:
            what += f", the first of {len(example)}"
    elif example is not None:
        what = "the example"
    return f"the model does not run on {what}: {str(failure).strip()}: {GIVE_SHAPE}"


def outputs_agree(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> bool:
    """Say whether the answers of two copies are the same up to the order of sums."""
    return len(expected) == len(found) and all(
        one.shape == other.shape and _agree(one.to(torch.complex128), other.to(torch.complex128))
        for one, other in zip(expected, found, strict=True)
    )


def _agree(one: torch.Tensor, other: torch.Tensor) -> bool:
    same = (one == other) | (one.isnan() & other.isnan())  # infinite ones, too
    if bool(same.all()):
        return True
    scale = one[one.isfinite()].abs().max() if bool(one.isfinite().any()) else torch.zeros(())
    return bool((one - other)[~same].abs().max() <= FUNCTION_TOLERANCE * scale)


def _copy_of(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Copy *model*, each tensor replaced while it is copied: no device holds two models at once."""
    kept = model.state_dict(keep_vars=True)
    replaced: dict[int, Any] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        is_learned = isinstance(tensor, nn.Parameter)
        # What is not in checkpoints follows from the code, such as the angles of rotary positions.
        values = _random(tensor, generator) if is_learned or name in kept else _doubled(tensor.detach().to("cpu"))
        replaced[id(tensor)] = nn.Parameter(values, requires_grad=False) if is_learned else values
    try:
        probe = copy.deepcopy(model, dict(replaced)).eval()
    except Exception as error:  # what a model holds is the user's own
        raise ConfigurationError(f"the model cannot be copied to try it: {error}: give a copy without hooks") from error
    for module in probe.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor):
                setattr(module, name, _doubled(value.detach().to("cpu")))
    return probe


def _sharing_tensors(model: nn.Module) -> nn.Module:
    """Copy all but a model's tensors: what a run leaves in it, such as a cache, is not there in the next one."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _doubled(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.float64) if tensor.dtype in _LOW_PRECISION else tensor.clone()


def _random(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return values that matter, contiguous: a zero scale would hide a wrong group from the check.

    Training leaves a model channels last, and with that layout pooling runs operations that no rule can follow.
    """
    if not tensor.is_floating_point():
        return tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
    if tensor.ndim < 2:
        return torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5
    # He et al. 2015, eq. 10: keeps activations in range at any depth.
    scale = (2.0 / max(1, math.prod(tensor.shape[1:]))) ** 0.5
    return torch.randn(tensor.shape, generator=generator).to(torch.float64).mul_(scale)  # a third of the time


def _tensors(answer: Any) -> list[torch.Tensor]:
    """Return the tensors in whatever a model returned: those called `SCORE_NAMES`, or all.

    Raises:
        ValueError: There are none.
    """
    if not isinstance(answer, (torch.Tensor, Mapping, tuple, list)):
        answer = dict(vars(answer)) if hasattr(answer, "__dict__") else ()
    if isinstance(answer, Mapping):
        scores = [answer[name] for name in SCORE_NAMES if isinstance(answer.get(name), torch.Tensor)]
        answer = scores or list(answer.values())
    found = [item for item in flat(answer) if isinstance(item, torch.Tensor)]
    if not found:
        raise ValueError("it returns no tensors")
    return found


def flat(value: Any) -> list[Any]:
    """Return what lists, mappings and dataclasses within each other hold, in order."""
    if isinstance(value, Mapping):
        value = list(value.values())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in flat(item)]
    return [value]


@contextlib.contextmanager
def _probing() -> Iterator[None]:
    """Run models without gradients, in double precision, in operations that rules can follow, drawing nothing new."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fuses a whole layer into one operation
    try:
        double = _DoublePrecision()  # type: ignore[no-untyped-call]
        with torch.no_grad(), torch.random.fork_rng(devices=[]), sdpa_kernel([SDPBackend.MATH]), double:
            torch.default_generator.manual_seed(0)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _DoublePrecision(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its subclass hook untyped
    """Takes double precision wherever a model asks for less, as normalisations and rotary positions do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") in _LOW_PRECISION:
            kwargs["dtype"] = torch.float64
        if func.overloadpacket.__name__ == "_grouped_mm" and len(args) == 3:
            return _grouped_product(*args)
        result = func(*args, **kwargs)
        is_new = not any(isinstance(item, torch.Tensor) for item in flat(args))
        if isinstance(result, torch.Tensor) and result.dtype in _LOW_PRECISION and (is_new or "lift" in str(func)):
            return torch.ops.aten._to_copy.default(result, dtype=torch.float64)
        return result


def _grouped_product(rows: torch.Tensor, matrices: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Multiply each stretch of rows with a matrix of its own, as mixtures of experts do: torch only does it in singles.

    Args:
        rows: Shape (rows, in); sorted by expert.
        matrices: Shape (experts, in, out).
        ends: Where each expert's rows end.
    """
    starts = [0, *ends.tolist()]
    stretches = enumerate(itertools.pairwise(starts))
    return torch.cat([torch.mm(rows[first:end], matrices[expert]) for expert, (first, end) in stretches])

"""What a search is given is checked before anything is trained: the model, the density, weights, the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from ticketguard.data import Dataset
from ticketguard.errors import ConfigurationError
from ticketguard.models import state_arrays, unwrapped_name
from ticketguard.models.answers import scores_of
from ticketguard.ticket import Array
from ticketguard.zeros import FEWEST_PRUNED_SHARE, pruned_share

PRETRAINED, REWIND = "pretrained", "rewind"


def require_taken(method: str, takes: frozenset[str], **given: object) -> None:
    """Check that *method* takes the weights that were *given*, by the name of their argument; None for none.

    Raises:
        ConfigurationError: It would ignore some.
    """
    if given.get(PRETRAINED) is not None and PRETRAINED not in takes:
        raise ConfigurationError(
            f"method '{method}' does not start from a trained network: leave --pretrained (pretrained=) out"
        )
    if given.get(REWIND) is not None and REWIND not in takes:
        instead = ", or give them as --pretrained (pretrained=)" if PRETRAINED in takes else ""
        raise ConfigurationError(
            f"method '{method}' does not take rewind weights: leave --rewind (rewind=) out{instead}"
        )


def require_examples(data: Dataset, batch_size: int, *, knob: str) -> None:
    """Check that the data fills a batch; *knob* is what the user lowers.

    Raises:
        ConfigurationError: It does not.
    """
    examples = len(data.train_labels)
    if examples < batch_size:
        raise ConfigurationError(
            f"data '{data.name}' has {examples} training examples, fewer than a batch of {batch_size}: "
            f"lower {knob}, or use more data"
        )


def require_own_layers(network: nn.Module, layers: Sequence[str], *, model: str) -> None:
    """Check that the prunable *layers* are parameters that can be masked and trained.

    Args:
        network: The model at initialisation.
        layers: State-dict names of its prunable weights.
        model: How errors call it.

    Raises:
        ConfigurationError: There are none, or one is not.
    """
    if not layers:
        raise ConfigurationError(f"model '{model}' has no convolution or linear layers to prune")
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(tensor):
            raise ConfigurationError(
                f"tensor '{name}' of model '{model}' is not initialised yet, expected one with a shape: "
                "avoid lazy modules, or run the model once in its factory"
            )
    parameters = dict(network.named_parameters(remove_duplicate=False))
    uses = [id(parameter) for parameter in parameters.values()]
    for name in layers:
        if name not in parameters or uses.count(id(parameters[name])) > 1:
            raise ConfigurationError(
                f"layer '{name}' of model '{model}' is shared or reparametrised, expected a parameter of its own: "
                "untie it, or remove weight_norm and other parametrisations"
            )
        if not parameters[name].requires_grad:
            raise ConfigurationError(
                f"layer '{name}' of model '{model}' is frozen, expected one that trains: set its requires_grad"
            )
        if unwrapped_name(name) != name:
            raise ConfigurationError(
                f"layer '{name}' of model '{model}' is named as in a wrapper, expected the model itself: return it "
                "without DataParallel or torch.compile, or rename the attribute"
            )


def require_part(density: float, *, positions: int, layers: int) -> None:
    """Check that a density keeps a weight of each layer, and not all of them.

    Raises:
        ConfigurationError: It does not.
    """
    kept = round(density * positions)
    if kept < layers:
        raise ConfigurationError(
            f"density {density:g} keeps {kept} of {positions} weights, fewer than the model's {layers} layers: raise it"
        )
    if kept >= positions:
        raise ConfigurationError(f"density {density!r} keeps all {positions} weights: lower it")


def require_weights(network: nn.Module, given: Mapping[str, Array], *, which: str, model: str) -> None:
    """Check that weights that were *given* are those of *network*, and finite.

    Args:
        network: The model.
        given: A state dict; counters and indices that the model does not have are ignored.
        which: "pretrained" or "rewind", for the errors.
        model: How errors call the model.

    Raises:
        ConfigurationError: They are not.
    """
    expected = {name: array.shape for name, array in state_arrays(network).items()}
    own = "name the model they belong to"
    for name, array in given.items():
        if name not in expected and np.asarray(array).dtype.kind == "f":
            raise ConfigurationError(
                f"the {which} weights have tensor '{name}', which model '{model}' does not have: {own}"
            )
    for name, shape in expected.items():
        if name not in given:
            raise ConfigurationError(f"the {which} weights lack tensor '{name}' of model '{model}': {own}")
        values = np.asarray(given[name])
        if values.shape != shape:
            raise ConfigurationError(
                f"tensor '{name}' of the {which} weights has shape {values.shape}, expected {shape} as in model "
                f"'{model}': {own}, with its options"
            )
        if not np.isfinite(values).all():
            raise ConfigurationError(
                f"tensor '{name}' of the {which} weights has values that are NaN or infinite, expected finite ones: "
                "give weights of a run that did not diverge"
            )


def require_dense(given: Mapping[str, Array], layers: Sequence[str], *, model: str) -> None:
    """Check that pretrained weights are a dense network's.

    A few zeros, and rows that are zero as a whole, come by themselves; a pruned network's zeros would stay zero under
    most methods, and pass for weights.

    Args:
        given: A state dict.
        layers: Names of the model's prunable weights.
        model: How errors call it.

    Raises:
        ConfigurationError: More of them are zero than chance explains.
    """
    share = pruned_share({name: np.asarray(given[name]) for name in layers})
    if share >= FEWEST_PRUNED_SHARE:
        raise ConfigurationError(
            f"of the pretrained weights of model '{model}' {share:.2%} are exactly zero, as a sparse network's are, "
            f"expected a dense network with under {FEWEST_PRUNED_SHARE:.1%}: give the checkpoint that it was pruned "
            "from, or turn it into a ticket with 'ticketguard import'"
        )


def require_outputs(network: nn.Module, data: Dataset, *, model: str, wrapped: bool = False) -> None:
    """Check that *network* answers an example of the data with a score for each class; it is left as it was.

    Args:
        network: The model.
        data: What it is to be trained on.
        model: How errors call it.
        wrapped: Whether the scores may be in a dict, tuple or object, as our training takes them and searches do not.

    Raises:
        ConfigurationError: It does not take the example, or answers otherwise.
    """
    shape = (1, *data.input_shape)
    try:
        outputs = _outputs(network, data, training=False)
    # A model is the user's own code: what it raises is not a bug of ours.
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise ConfigurationError(
            f"model '{model}' raised {type(error).__name__} ({_first_line(error)}) for an input of shape {shape} from "
            f"data '{data.name}': use data or model options that fit each other"
        ) from error
    if wrapped:
        outputs = scores_of(outputs)
    if not isinstance(outputs, torch.Tensor):
        raise ConfigurationError(
            f"model '{model}' returned a {type(outputs).__name__}, expected a tensor of shape (1, {data.classes}) for "
            f"an input of shape {shape}: return the class scores alone"
        )
    if outputs.ndim != 2 or len(outputs) != 1 or outputs.shape[1] < data.classes:
        raise ConfigurationError(
            f"model '{model}' gave outputs of shape {tuple(outputs.shape)} for an input of shape {shape}, expected "
            f"(1, {data.classes}), a score for each class of data '{data.name}': set its number of classes"
        )


def require_trainable_alone(network: nn.Module, data: Dataset, *, model: str, knob: str) -> None:
    """Check that *network* trains on batches of one example, which batch normalisation may not; it is left as it was.

    Raises:
        ConfigurationError: It does not; *knob* is what the user raises.
    """
    if not any(isinstance(module, _BatchNorm) for module in network.modules()):
        return
    try:
        _outputs(network, data, training=True)
    except ValueError as error:
        raise ConfigurationError(
            f"model '{model}' normalises batches and cannot train on one example at a time ({_first_line(error)}): "
            f"raise {knob}"
        ) from error


def _outputs(network: nn.Module, data: Dataset, *, training: bool) -> object:
    # A copy: a model may write to its input.
    example = data.scaled(data.train_inputs[:1]).clone()
    with _unchanged(network), torch.random.fork_rng(devices=[]), torch.no_grad():
        return network.train(training)(example)


@contextlib.contextmanager
def _unchanged(network: nn.Module) -> Iterator[None]:
    """Put buffers, and the mode of every module, back in the end."""
    modes = [(module, module.training) for module in network.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

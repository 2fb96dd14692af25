"""A sparse checkpoint that was found elsewhere becomes a ticket: its zeros are the mask."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.errors import ConfigurationError, FileError, TensorError, TicketguardWarning
from ticketguard.settings import checked_options
from ticketguard.ticket import Array, Mask, Ticket, TicketInfo
from ticketguard.zeros import FEWEST_PRUNED_SHARE, read_zeros, reason_for_zeros

if TYPE_CHECKING:
    import torch

    from ticketguard.data import Dataset
    from ticketguard.training import TrainingConfig

Source: TypeAlias = "Checkpoint | str | os.PathLike[str] | Mapping[str, Any]"

# Put before every name by DistributedDataParallel and torch.compile; a bare model does not have them.
_WRAPPERS = ("module.", "_orig_mod.")
_NAMING = "--network, or tg.Checkpoint(..., network=...)"


def import_checkpoint(
    checkpoint: Source,
    *,
    rewind: Source | None = None,
    model: str | Callable[..., torch.nn.Module] | None = None,
    model_options: Mapping[str, Any] | None = None,
    data: str | Dataset | Callable[..., Dataset] | None = None,
    data_options: Mapping[str, Any] | None = None,
    training: TrainingConfig | Mapping[str, Any] | None = None,
    classes: int = 0,
    input_shape: tuple[int, ...] = (),
    explain: Callable[[Mapping[str, str]], None] | None = None,
) -> Ticket:
    """Turn a sparse checkpoint that was found elsewhere into a ticket: its zeros are the mask.

    With a model at hand its parameters alone can be layers, embeddings' tables excepted, and its tensors alone are
    read. Without it names and values say which zeros are those of pruned weights (`ticketguard.zeros`).

    Args:
        checkpoint: A safetensors or torch file, the index or folder of one in several files, or a state dict; pruning
            masks beside their weights are read too.
        rewind: The early checkpoint it was trained from; without it, embedding starts from the trained weights.
        model: What it belongs to, for `embed`: a name, an import path, or a factory.
        model_options: Arguments of the model's factory.
        data: What it was trained on, for `embed`: a name, a path, an import path, or a data set.
        data_options: Arguments of the data loader.
        training: The recipe to retrain with, or changes to the recommended one.
        classes: Number of classes, where *data* does not say it.
        input_shape: Shape of one input, where *data* does not say it.
        explain: Given the tensors that have zeros and are not layers, with the reason why; by default a
            `TicketguardWarning` says so.

    Raises:
        FileError: The file cannot be read, is packed, or nothing in it was pruned.
        TensorError: A tensor is not finite, all zero, or does not fit the model or the rewind checkpoint.
        ConfigurationError: The model or data is unknown, or the file holds several networks and none was named.
    """
    source = _open(checkpoint)
    network, dataset, info = _known(
        model,
        checked_options(model_options, what="model option"),
        data,
        checked_options(data_options, what="data option"),
        classes=classes,
        input_shape=input_shape,
    )
    weights = _whole_state(source) if network is None else _state_for(source, network)
    mask, left_out = _mask_of(source, weights, network)
    early = None
    if rewind is not None:
        state = _whole_state(_open(rewind)) if network is None else _state_for(_open(rewind), network)
        early = _rewind_state(state, weights)
    if network is not None:
        info = _measured(info, network, weights, mask, model=model, dataset=dataset, training=training)
    if left_out and explain is None:
        shown = "; ".join(f"'{name}': {reason}" for name, reason in list(left_out.items())[:8])
        warnings.warn(f"has zeros and is not a pruned layer: {shown}", TicketguardWarning, stacklevel=2)
    elif left_out and explain is not None:
        explain(left_out)
    return Ticket(mask=mask, weights=weights, rewind_weights=early, info=info)


def _open(checkpoint: Source) -> Checkpoint:
    return checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)


def _whole_state(source: Checkpoint) -> dict[str, Array]:
    """Read everything but constants that hold infinities, under the names without wrappers.

    Raises:
        ConfigurationError: It holds several networks.
        FileError: It holds packed weights.
        TensorError: A tensor is not finite.
    """
    source.require_one_network(naming=_NAMING)
    source.require_unpacked()
    state: dict[str, Array] = {}
    for name in source.names():
        values = source.stored(name)
        if not _is_finite(values):
            if values.ndim >= 2 and not values.all() and reason_for_zeros(name, values) is not None:
                continue  # A mask of attention: no ticket could hold it, and every model makes its own.
            raise TensorError(
                name=name,
                reason="has values that are NaN or infinite (in float32)",
                hint=f"if the network in use does not need it, give its --model (model=), or choose the network with "
                f"{_NAMING}",
            )
        state[name] = values
    names = list(state)
    while names and (found := [wrapper for wrapper in _WRAPPERS if all(name.startswith(wrapper) for name in names)]):
        state = {name.removeprefix(found[0]): array for name, array in state.items()}
        names = list(state)
    return state


def _state_for(source: Checkpoint, network: torch.nn.Module) -> dict[str, Array]:
    """Read what *network* knows, and nothing else.

    Raises:
        ConfigurationError: Several networks of the file fit it equally well.
        FileError: The file holds them packed, or nothing of them.
        TensorError: A tensor is not finite, or two that are tied in the network differ.
    """
    from ticketguard.models import state_arrays, tied_names

    known = state_arrays(network)
    fits = source.fits({name: array.shape for name, array in known.items()})
    if len(fits) > 1 and source.network is None:
        examples = ", ".join(f"'{next(iter(fit.values()))}'" for fit in fits[:4] if fit)
        raise ConfigurationError(
            f"'{source.label}' holds {len(fits)} networks that fit the model equally well, with {examples}: choose "
            f"one with {_NAMING}"
        )
    packed = {name for name in source.packed() if name in fits[0].values() or name not in source.names()}
    if packed:
        source.require_unpacked()
    if not fits[0]:
        raise FileError(
            path=source.label,
            reason="has no tensor that fits the model by name and shape",
            hint="name the model it belongs to (--model, model=) and its options, or leave the model out",
        )
    state: dict[str, Array] = {}
    for name, stored in fits[0].items():
        values = source.stored(stored)
        if _is_finite(values):
            state[name] = values
        elif _is_finite(known[name]):
            raise TensorError(
                name=stored,
                reason="has values that are NaN or infinite (in float32)",
                hint="such a network cannot answer; import the weights that are in use",
            )
    for name, first in tied_names(network).items():
        given = [state[tied] for tied in (first, name) if tied in state]
        if len(given) == 2 and not np.array_equal(given[0], given[1]):
            raise TensorError(
                name=name,
                reason=f"differs from '{first}', which the model ties it to",
                hint="build the model untied, or name the checkpoint that belongs to it",
            )
        if given:
            state[first] = state[name] = given[0]
    return state


def _is_finite(values: Array) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def _mask_of(
    source: Checkpoint, weights: Mapping[str, Array], network: torch.nn.Module | None
) -> tuple[Mask, dict[str, str]]:
    """Return the mask of the zeros, and why other tensors with zeros are not in it.

    Raises:
        FileError: Nothing was pruned.
        TensorError: A layer is zero as a whole.
    """
    others: dict[str, str] = {}
    if network is not None:
        from ticketguard.models import not_prunable

        others = not_prunable(network)
    zeros = read_zeros(weights, others=others)
    if not len(zeros.mask):
        reasons = "".join(f"; '{name}' has zeros, but {reason}" for name, reason in list(zeros.left_out.items())[:3])
        raise FileError(
            path=source.label,
            reason=f"has no weights that are exactly zero, so there is no mask to read{reasons}",
            hint="import the checkpoint as it was pruned, or find a ticket with 'ticketguard find'",
        )
    if 1 - zeros.mask.density < FEWEST_PRUNED_SHARE:
        raise FileError(
            path=source.label,
            reason=f"is a dense network: {zeros.mask.size - zeros.mask.kept} of {zeros.mask.size} weights are "
            f"exactly zero, no more than chance explains",
            hint="import the checkpoint as it was pruned, or find a ticket with 'ticketguard find'",
        )
    for name in zeros.mask:
        if not zeros.mask[name].any():
            raise TensorError(name=name, reason="is all zero", hint="a ticket needs edges in every layer it prunes")
    return zeros.mask, dict(zeros.left_out)


def _rewind_state(rewind: Mapping[str, Array], weights: Mapping[str, Array]) -> dict[str, Array]:
    for name, array in weights.items():
        if name not in rewind or rewind[name].shape != array.shape:
            found = rewind[name].shape if name in rewind else "none"
            raise TensorError(
                name=name,
                reason=f"has shape {found} in the rewind checkpoint, expected {array.shape}",
                hint="give an early checkpoint of the same run",
            )
    return {name: rewind[name] for name in weights}


def _known(
    model: str | Callable[..., torch.nn.Module] | None,
    model_options: Mapping[str, Any],
    data: str | Dataset | Callable[..., Dataset] | None,
    data_options: Mapping[str, Any],
    *,
    classes: int,
    input_shape: tuple[int, ...],
) -> tuple[torch.nn.Module | None, Dataset | None, TicketInfo]:
    """Build the model and load the data, as far as they were given, and record them."""
    info = TicketInfo(method="import", classes=classes, input_shape=input_shape)
    dataset = None
    if data is not None:
        from ticketguard.data import load_data

        dataset = load_data(data, options=data_options)
        info = dataclasses.replace(
            info,
            data=data if isinstance(data, str) else dataset.name,
            data_options=data_options,
            classes=dataset.classes,
            input_shape=dataset.input_shape,
            input_mean=dataset.mean,
            input_std=dataset.std,
        )
    if model is None:
        return None, dataset, info
    from ticketguard.models import build_model

    known = {"classes": info.classes, "input_shape": list(info.input_shape)} if info.classes else {}
    info = dataclasses.replace(
        info,
        model=model if isinstance(model, str) else f"{model.__module__}:{model.__qualname__}",
        model_options={**known, **model_options},
    )
    return build_model(model, options=info.model_options, seed=0), dataset, info


def _measured(
    info: TicketInfo,
    network: torch.nn.Module,
    weights: Mapping[str, Array],
    mask: Mask,
    *,
    model: str | Callable[..., torch.nn.Module] | None,
    dataset: Dataset | None,
    training: TrainingConfig | Mapping[str, Any] | None,
) -> TicketInfo:
    """Load the weights to see that they fit, and measure the network where there is data."""
    from ticketguard.models import load_arrays, require_parameters
    from ticketguard.training import TrainingConfig, evaluate, recommended_training

    require_parameters(network, mask)
    load_arrays(network, weights)
    if dataset is None or model is None:
        return info
    if not isinstance(training, TrainingConfig):
        training = recommended_training(model, dataset).changed(training)
    return dataclasses.replace(info, training=training.to_json(), accuracy=evaluate(network, dataset))

"""Tickets from and to the rest of the world: a sparse checkpoint becomes a ticket, a ticket plain weights."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import safetensors.numpy

from ticketguard.errors import ConfigurationError, FileError, TensorError
from ticketguard.files import write_whole
from ticketguard.suspects.checkpoints import Checkpoint
from ticketguard.ticket import Array, Mask, Ticket, TicketInfo
from ticketguard.zeros import mask_of_zeros

if TYPE_CHECKING:
    import torch

    from ticketguard.data import Dataset
    from ticketguard.training import TrainingConfig

WeightsFormat = Literal["safetensors", "prune"]
FORMATS: tuple[WeightsFormat, ...] = ("safetensors", "prune")

# Put before every name by DistributedDataParallel and torch.compile; a bare model does not have them.
_WRAPPERS = ("module.", "_orig_mod.")


def export_weights(ticket: Ticket, path: str | os.PathLike[str], *, format: WeightsFormat = "safetensors") -> None:  # noqa: A002
    """Write a ticket's plain weights for deployment, whole or not at all.

    Args:
        ticket: The ticket; its rewind weights and how it was found are left out.
        path: The file to write.
        format: "safetensors" (zeros where the mask prunes), or "prune": a torch state dict with the ``_orig`` and
            ``_mask`` pairs of ``torch.nn.utils.prune``.

    Raises:
        ConfigurationError: The format is unknown.
        FileError: The file cannot be written.
    """
    if format not in FORMATS:
        raise ConfigurationError(f"unknown format '{format}', expected one of {', '.join(FORMATS)}")
    weights = {name: np.asarray(array, order="C") for name, array in ticket.weights.items()}
    if format == "safetensors":
        # Readers of the Hugging Face family ask for this entry.
        write_whole(path, safetensors.numpy.save(weights, metadata={"format": "pt"}))
        return
    import torch

    state: dict[str, torch.Tensor] = {}
    for name, array in weights.items():
        tensor = torch.from_numpy(array.copy())
        if name in ticket.mask:
            state[f"{name}_orig"] = tensor
            state[f"{name}_mask"] = torch.from_numpy(np.array(ticket.mask[name])).to(tensor.dtype)
        else:
            state[name] = tensor
    content = io.BytesIO()
    torch.save(state, content)
    write_whole(path, content.getvalue())


def import_checkpoint(
    checkpoint: Checkpoint | str | os.PathLike[str] | Mapping[str, Any],
    *,
    rewind: Checkpoint | str | os.PathLike[str] | Mapping[str, Any] | None = None,
    model: str | Callable[..., torch.nn.Module] | None = None,
    model_options: Mapping[str, Any] | None = None,
    data: str | Dataset | Callable[..., Dataset] | None = None,
    data_options: Mapping[str, Any] | None = None,
    training: TrainingConfig | Mapping[str, Any] | None = None,
    classes: int = 0,
    input_shape: tuple[int, ...] = (),
) -> Ticket:
    """Turn a sparse checkpoint that was found elsewhere into a ticket: its zeros are the mask.

    Args:
        checkpoint: A safetensors or torch file, or a state dict; ``_orig`` and ``_mask`` pairs are read too.
        rewind: The early checkpoint it was trained from; without it, embedding starts from the trained weights.
        model: What it belongs to, for `embed`: a name, an import path, or a factory.
        model_options: Arguments of the model's factory.
        data: What it was trained on, for `embed`: a name, a path, an import path, or a data set.
        data_options: Arguments of the data loader.
        training: The recipe to retrain with, or changes to the recommended one.
        classes: Number of classes, where *data* does not say it.
        input_shape: Shape of one input, where *data* does not say it.

    Raises:
        FileError: The file cannot be read, or nothing in it is zero.
        TensorError: A tensor is not finite, all zero, or does not fit the model or the rewind checkpoint.
        ConfigurationError: The model or data is unknown.
    """
    source = _open(checkpoint)
    weights = _bare_names(source.state())
    mask = _mask_of(source, weights)
    rewind_weights = None if rewind is None else _rewind_state(_bare_names(_open(rewind).state()), weights)
    info = _describe(
        weights,
        model=model,
        model_options=dict(model_options or {}),
        data=data,
        data_options=dict(data_options or {}),
        training=training,
        classes=classes,
        input_shape=input_shape,
    )
    return Ticket(mask=mask, weights=weights, rewind_weights=rewind_weights, info=info)


def _open(checkpoint: Checkpoint | str | os.PathLike[str] | Mapping[str, Any]) -> Checkpoint:
    return checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)


def _bare_names(state: Mapping[str, Array]) -> dict[str, Array]:
    names = dict.fromkeys(state)
    while names and any(all(name.startswith(wrapper) for name in names) for wrapper in _WRAPPERS):
        wrapper = next(wrapper for wrapper in _WRAPPERS if all(name.startswith(wrapper) for name in names))
        state = {name.removeprefix(wrapper): array for name, array in state.items()}
        names = dict.fromkeys(state)
    return dict(state)


def _mask_of(source: Checkpoint, weights: Mapping[str, Array]) -> Mask:
    mask = mask_of_zeros(weights)
    if not len(mask):
        raise FileError(
            path=source.label,
            reason="has no weights that are exactly zero, so there is no mask to read",
            hint="import the checkpoint as it was pruned, or find a ticket with 'ticketguard find'",
        )
    for name in mask:
        if not mask[name].any():
            raise TensorError(name=name, reason="is all zero", hint="a ticket needs edges in every layer it prunes")
    return mask


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


def _describe(
    weights: Mapping[str, Array],
    *,
    model: str | Callable[..., torch.nn.Module] | None,
    model_options: Mapping[str, Any],
    data: str | Dataset | Callable[..., Dataset] | None,
    data_options: Mapping[str, Any],
    training: TrainingConfig | Mapping[str, Any] | None,
    classes: int,
    input_shape: tuple[int, ...],
) -> TicketInfo:
    """Say what `embed` needs to know, as far as it was told; a model is built to see that the weights fit it."""
    info = TicketInfo(method="import", classes=classes, input_shape=input_shape)
    if data is None and model is None:
        return info
    from ticketguard.data import load_data
    from ticketguard.models import build_model, load_arrays
    from ticketguard.training import TrainingConfig, evaluate, recommended_training

    dataset = None if data is None else load_data(data, options=data_options)
    if dataset is not None:
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
        return info
    known = {"classes": info.classes, "input_shape": list(info.input_shape)} if info.classes else {}
    info = dataclasses.replace(
        info,
        model=model if isinstance(model, str) else f"{model.__module__}:{model.__qualname__}",
        model_options={**known, **model_options},
    )
    network = build_model(model, options=info.model_options, seed=0)
    load_arrays(network, weights)
    if dataset is None:
        return info
    if not isinstance(training, TrainingConfig):
        training = dataclasses.replace(recommended_training(model, dataset), **(training or {}))
    return dataclasses.replace(info, training=training.to_json(), accuracy=evaluate(network, dataset))

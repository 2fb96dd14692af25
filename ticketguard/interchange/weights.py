"""A ticket becomes plain weights, for the rest of the world."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Literal

import numpy as np
import safetensors.numpy

from ticketguard.errors import ConfigurationError
from ticketguard.files import write_whole
from ticketguard.ticket import Ticket

if TYPE_CHECKING:
    import torch

WeightsFormat = Literal["safetensors", "prune"]
FORMATS: tuple[WeightsFormat, ...] = ("safetensors", "prune")


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

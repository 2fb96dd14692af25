"""A ticket's network as a program that runs without its code: ONNX, or torch's exported program."""

from __future__ import annotations

import importlib
import io
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from ticketguard.errors import ConfigurationError, MissingExtraError
from ticketguard.files import write_whole
from ticketguard.ticket import Ticket

if TYPE_CHECKING:
    import torch

ProgramFormat = Literal["onnx", "pt2"]
PROGRAM_FORMATS: tuple[ProgramFormat, ...] = ("onnx", "pt2")
# torch takes a traced batch of one for a size that never changes.
EXAMPLES = 2


def export_program(
    ticket: Ticket,
    path: str | os.PathLike[str],
    *,
    format: ProgramFormat,  # noqa: A002
    model: str | Callable[..., torch.nn.Module] | None = None,
) -> None:
    """Write a ticket's network with its weights as a program, whole or not at all.

    Its one input is a batch of any size, normalised as the ticket's info says; its one output the logits. A structured
    ticket's program is as small as the ticket; where single weights are pruned their zeros are written out.

    Args:
        ticket: The ticket.
        path: The file to write.
        format: "onnx" (one self-contained file), or "pt2" (what ``torch.export.load`` reads).
        model: Takes the place of the ticket's model.

    Raises:
        ConfigurationError: The format is unknown, the ticket has no model or input shape, or the model cannot
            be traced.
        UntrustedNameError: The ticket is from a file that names an import path, and *model* is not given.
        MissingExtraError: ONNX is asked for, and its packages are not installed.
        TensorError: The ticket's tensors are those of another model.
        FileError: The file cannot be written.
    """
    if format not in PROGRAM_FORMATS:
        raise ConfigurationError(f"unknown format '{format}', expected one of {', '.join(PROGRAM_FORMATS)}")
    if format == "onnx":
        for package in ("onnx", "onnxscript"):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise MissingExtraError(package=package, extra="export") from error
    from ticketguard.models import trained_network

    program = _traced(trained_network(ticket, model=model), ticket.info.input_shape)
    write_whole(path, _onnx_bytes(program) if format == "onnx" else _pt2_bytes(program))


def _traced(network: torch.nn.Module, input_shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    import torch

    example = torch.zeros(EXAMPLES, *input_shape)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's own, about its insides
            return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    except Exception as error:  # whatever tracing meets in a model's own code
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigurationError(
            f"the model cannot be traced into a program ({reason}): export its weights instead"
        ) from error


def _pt2_bytes(program: torch.export.ExportedProgram) -> bytes:
    import torch

    content = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.export.save(program, content)
    return content.getvalue()


def _onnx_bytes(program: torch.export.ExportedProgram) -> bytes:
    import torch

    with warnings.catch_warnings(action="ignore"):
        exported = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["inputs"], output_names=["logits"]
        )
    assert exported is not None
    content: bytes = exported.model_proto.SerializeToString()
    return content

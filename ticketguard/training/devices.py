"""Where a run takes place: device, precision and processes, as accelerate finds them.

See ``docs/decisions/0031-accelerate.md``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate.state import AcceleratorState
from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.training.config import TrainingConfig
from ticketguard.work_folder import hold


def accelerator_for(config: TrainingConfig) -> accelerate.Accelerator:
    """Return accelerate's view of this process: its device, precision, and place among several processes.

    Raises:
        ConfigurationError: The device has no such precision, or there is another device in use already.
    """
    # accelerate keeps one state a process and refuses another precision or device in it; each run here is its own.
    AcceleratorState._reset_state(reset_partial_state=False)
    # Several processes on a machine without an accelerator are only seen as such where the CPU is asked for.
    on_cpu = config.device == "cpu" or not torch.accelerator.is_available()
    wanted = config.precision
    if wanted == "auto":
        wanted = "bf16" if not on_cpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    precision = "no" if wanted == "fp32" else wanted
    try:
        accelerator = accelerate.Accelerator(mixed_precision=precision, cpu=on_cpu)
    except ValueError as error:
        raise ConfigurationError(
            f"training: precision {config.precision} on device {config.device} does not work here ({error}): use fp32"
        ) from error
    if config.precision == "fp16" and accelerator.scaler is None:
        raise ConfigurationError(
            f"training: precision fp16 does not work on device '{accelerator.device.type}': use fp32 or bf16"
        )
    return accelerator


def compiled(model: nn.Module) -> Callable[..., Any]:
    """Return what calls *model* as torch.compile makes it on first use; the weights stay *model*'s, with their names.

    Raises:
        ConfigurationError: This machine cannot compile at all.
    """
    try:
        return torch.compile(model)
    except RuntimeError as error:
        raise _cannot_compile(error) from error


@contextlib.contextmanager
def naming_compilation(config: TrainingConfig) -> Iterator[None]:
    """Say of an error within that it is compilation's.

    Raises:
        ConfigurationError: The network could not be compiled.
    """
    if not config.compile:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        raise _cannot_compile(error) from error


def _cannot_compile(error: Exception) -> ConfigurationError:
    # Behind the first lines come advice for torch's developers and stack traces.
    reason = " ".join(line.strip() for line in str(error).splitlines()[:2]).strip()
    return ConfigurationError(
        f"training: compile does not work here ({reason}): leave it out, or install what torch.compile needs"
    )


def join_processes(config: TrainingConfig) -> None:
    """Wait until all processes of a run have come this far: before the first of them writes what others look for."""
    accelerator_for(config).wait_for_everyone()


def in_first_process(action: Callable[[], object]) -> bool:
    """Run *action*, which writes or removes files, in the first process of a run only; return whether this is it.

    It runs when no process is still at what came before it, and none goes on until it is done.
    """
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    is_first = not several or torch.distributed.get_rank() == 0
    if several:
        torch.distributed.barrier()
    if is_first:
        action()
    if several:
        torch.distributed.barrier()
    return is_first


@contextlib.contextmanager
def held_by_first_process(folder: Path | None, *, anew: bool) -> Iterator[None]:
    """Have the first process of a run hold its work folder, if it has one, while all of them work.

    Raises:
        ConfigurationError, FileError: As `ticketguard.work_folder.hold`.
    """
    with contextlib.ExitStack() as held:
        if folder is not None:
            own = folder
            in_first_process(lambda: held.enter_context(hold(own, anew=anew)))
        yield


def share_first(tensors: Iterable[torch.Tensor], accelerator: accelerate.Accelerator) -> None:
    """Give every process what the first one has, in place; the tensors come in one order, with one shape each."""
    if accelerator.num_processes == 1:
        return
    with torch.no_grad():
        for tensor in tensors:
            # As bytes, and where the processes can send them: not every way to communicate takes every type.
            shared = tensor.detach().to(accelerator.device, copy=True).contiguous()
            torch.distributed.broadcast(shared.view(-1).view(torch.uint8), src=0)
            tensor.copy_(shared)


def drawn_once(draw: Callable[[], bytes], *, length: int, config: TrainingConfig) -> bytes:
    """Return what *draw* gives in the first process, in every process of a run.

    Args:
        draw: Returns *length* bytes, at random or from a file; called in the first process only.
        length: Number of bytes.
        config: Says where the run takes place.
    """
    accelerator = accelerator_for(config)
    if accelerator.num_processes == 1:
        return draw()
    drawn = draw() if accelerator.is_main_process else bytes(length)
    shared = torch.frombuffer(bytearray(drawn), dtype=torch.uint8)
    share_first([shared], accelerator)
    return shared.numpy().tobytes()

"""What a ticket costs to keep and to run, beside the dense network it was found in."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import safetensors.numpy
import torch
from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.models import state_arrays, trained_network, whole_model_of
from ticketguard.models.counting import multiplications
from ticketguard.ticket import Ticket

WARM_UP_RUNS = 3
NOTES: Mapping[str, str] = {
    "weight": "single weights are pruned and tensors keep their sizes: both networks run alike, and a difference in "
    "latency is noise; only software with sparse kernels gains from the density",
    "filter": "whole filters are gone: the tensors are smaller",
    "channel": "whole channels are gone: the tensors are smaller",
    "block": "whole blocks are gone: the network is shallower",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """What a network costs.

    Attributes:
        parameters: Number of parameters, zeros among them.
        multiply_adds: Multiplications with an addition that one input takes, zeros among them.
        file_bytes: Size of its plain weights as safetensors.
        latency_seconds: Median wall time of one batch.
        latencies: The wall time of every batch, in the order they were run.
    """

    parameters: int
    multiply_adds: int
    file_bytes: int
    latency_seconds: float
    latencies: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """A ticket's cost beside the dense network's, measured in turns on the CPU.

    Attributes:
        ticket: The ticket's network.
        dense: The network it was found in.
        batch_size: Inputs in a batch.
        threads: Threads that torch used.
        note: Why the two differ, or cannot.
    """

    ticket: NetworkCost
    dense: NetworkCost
    batch_size: int
    threads: int
    note: str

    @property
    def speedup(self) -> float:
        """How many times faster than the dense network the ticket is."""
        return self.dense.latency_seconds / self.ticket.latency_seconds

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**dataclasses.asdict(self), "speedup": self.speedup}


def measure(
    ticket: Ticket,
    *,
    batch_size: int = 1,
    repeats: int = 30,
    threads: int = 1,
    model: str | Callable[..., nn.Module] | None = None,
) -> Measurement:
    """Measure size and latency of a ticket's network, and of the dense one beside it.

    Batches of the two networks are run in turns, so that whatever else the machine does slows both alike.

    Args:
        ticket: Any ticket that says its model and input shape.
        batch_size: Inputs in a batch.
        repeats: Timed batches of each network.
        threads: Threads that torch may use.
        model: Takes the place of the ticket's model.

    Raises:
        ConfigurationError: The ticket does not name its model or input shape, or the model does not run on it.
        UntrustedNameError: The ticket is from a file that names an import path, and *model* is not given.
        TensorError: The ticket's tensors are those of another model.
    """
    for name, value in (("batch_size", batch_size), ("repeats", repeats), ("threads", threads)):
        if value < 1:
            raise ConfigurationError(f"{name} is {value}, expected at least 1")
    info = ticket.info
    network = trained_network(ticket, model=model)
    dense = whole_model_of(ticket, model=model).eval()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        multiply_adds = [_multiply_adds(one, info.input_shape) for one in (network, dense)]
        latencies = _latencies((network, dense), torch.zeros(batch_size, *info.input_shape), repeats)
    finally:
        torch.set_num_threads(before)
    return Measurement(
        ticket=_cost(network, multiply_adds[0], latencies[0]),
        dense=_cost(dense, multiply_adds[1], latencies[1]),
        batch_size=batch_size,
        threads=threads,
        note=NOTES[info.structure],
    )


def _cost(network: nn.Module, multiply_adds: int, latencies: list[float]) -> NetworkCost:
    return NetworkCost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        multiply_adds=multiply_adds,
        file_bytes=len(safetensors.numpy.save(state_arrays(network), metadata={"format": "pt"})),
        latency_seconds=statistics.median(latencies),
        latencies=tuple(latencies),
    )


def _multiply_adds(network: nn.Module, input_shape: Sequence[int]) -> int:
    try:
        return multiplications(network, input_shape)
    except Exception as error:  # whatever a model's own code raises
        raise ConfigurationError(
            f"the model does not run on an input of shape {tuple(input_shape)}: {error}: name the ticket's own model"
        ) from error


def _latencies(pair: tuple[nn.Module, nn.Module], batch: torch.Tensor, repeats: int) -> tuple[list[float], list[float]]:
    times: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for number in range(WARM_UP_RUNS + repeats):
            # Who goes first changes every time, for the first finds the caches full of the other's weights.
            for index in (0, 1) if number % 2 else (1, 0):
                begun = time.perf_counter()
                pair[index](batch)
                if number >= WARM_UP_RUNS:
                    times[index].append(time.perf_counter() - begun)
    return times

from __future__ import annotations

import dataclasses
import statistics

import numpy as np
import pytest
import torch

import ticketguard as tg
from ticketguard.errors import ConfigurationError, TensorError
from ticketguard.models import build_model, cuttable_groups, prunable_layers, remove_channels, state_arrays
from ticketguard.ticket import Mask, Ticket, TicketInfo

IMAGES = {"classes": 10, "input_shape": [3, 16, 16]}


def ticket_of(model: str, structure: str, **options: object) -> Ticket:
    network = build_model(model, options={**IMAGES, **options}, seed=0)
    state = state_arrays(network)
    info = TicketInfo(
        method="test", model=model, model_options={**IMAGES, **options}, input_shape=(3, 16, 16), structure=structure
    )
    mask = Mask(layers={name: np.ones(state[name].shape, np.bool_) for name in prunable_layers(network)})
    return Ticket(mask=mask, weights=state, rewind_weights=None, info=info)


def test_fewer_blocks_cost_less() -> None:
    found = tg.measure(ticket_of("resnet56", "block", removed_blocks=[f"layer1.{n}" for n in range(9)]), repeats=5)
    # He et al. 2016, table 6: 0.85 million. Gone are 18 convolutions of 16 x 16 x 9 weights, and their scales.
    assert found.dense.parameters == 853_018
    assert found.dense.parameters - found.ticket.parameters == 18 * (16 * 16 * 9 + 2 * 16)
    assert found.dense.multiply_adds - found.ticket.multiply_adds == 18 * 16 * 16 * 9 * 16 * 16
    assert found.dense.file_bytes - found.ticket.file_bytes > 4 * 18 * 16 * 16 * 9
    assert found.speedup == statistics.median(found.dense.latencies) / statistics.median(found.ticket.latencies)
    assert found.note == "whole blocks are gone: the network is shallower"


def test_a_perceptron_multiplies_once_a_weight() -> None:
    found = tg.measure(ticket_of("mlp", "weight", widths=[20]), batch_size=7, repeats=3)
    assert found.dense.multiply_adds == found.ticket.multiply_adds == 768 * 20 + 20 * 10
    assert (found.batch_size, found.threads, len(found.ticket.latencies), len(found.dense.latencies)) == (7, 1, 3, 3)


def test_single_pruned_weights_are_said_to_save_nothing() -> None:
    ticket = ticket_of("mlp", "weight", widths=[20])
    layers = {name: np.zeros_like(layer) for name, layer in ticket.mask.layers.items()}
    sparse = dataclasses.replace(ticket, mask=Mask(layers=layers))
    found = tg.measure(sparse, repeats=1)
    assert (found.ticket.parameters, found.ticket.file_bytes) == (found.dense.parameters, found.dense.file_bytes)
    assert "both networks run alike, and a difference in latency is noise" in found.note


def test_fewer_filters_cost_less() -> None:
    whole = ticket_of("mlp", "filter", widths=[20])
    groups = cuttable_groups(build_model("mlp", options={**IMAGES, "widths": [20]}, seed=0), torch.zeros(1, 3, 16, 16))
    weights = remove_channels(whole.weights, groups, [np.arange(5)])
    mask = Mask(layers=remove_channels(whole.mask.layers, groups, [np.arange(5)]))
    found = tg.measure(dataclasses.replace(whole, weights=weights, mask=mask), repeats=1)
    assert (found.ticket.multiply_adds, found.dense.multiply_adds) == (778 * 5, 778 * 20)


def test_threads_are_as_they_were_before() -> None:
    before = torch.get_num_threads()
    assert tg.measure(ticket_of("mlp", "weight", widths=[20]), repeats=1, threads=2).threads == 2
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", ["batch_size", "repeats", "threads"])
def test_a_number_below_one_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is 0, expected at least 1"):
        tg.measure(ticket_of("mlp", "weight", widths=[20]), **{name: 0})


@pytest.mark.parametrize("missing", [{"model": ""}, {"input_shape": ()}])
def test_a_ticket_of_unknown_model_or_shape_is_refused(missing: dict[str, object]) -> None:
    ticket = ticket_of("mlp", "weight", widths=[20])
    unknown = dataclasses.replace(ticket, info=dataclasses.replace(ticket.info, **missing))
    with pytest.raises(ConfigurationError, match="the ticket does not name its model and input shape"):
        tg.measure(unknown)


def test_a_shape_that_the_model_does_not_take_is_refused() -> None:
    ticket = ticket_of("mlp", "weight", widths=[20])
    other = dataclasses.replace(ticket, info=dataclasses.replace(ticket.info, input_shape=(3, 4, 4)))
    with pytest.raises(ConfigurationError, match=r"the model does not run on an input of shape \(3, 4, 4\)"):
        tg.measure(other)


def test_another_model_is_told() -> None:
    with pytest.raises(TensorError, match="is in the model but not in the ticket: name the ticket's own model"):
        tg.measure(ticket_of("mlp", "weight", widths=[20]), model=lambda **_: torch.nn.Conv2d(3, 1, 1))

"""What `finish` gives out is rescaled; the model in memory, the marks and the answers are as they were."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ticketguard as tg
from ticketguard.graph import group_channels, groups_from_json, permute
from ticketguard.marking.rescaling import FACTOR
from ticketguard.models import build_model, load_arrays, state_arrays
from ticketguard.ticket import weights_digest

# So few steps teach too few triggers: how many is not what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:the model carries:ticketguard.TicketguardWarning")

OPTIONS = {"classes": 10, "input_shape": [1, 8, 8], "blocks": [1, 1, 1], "width": 8}
DATA = {"train_limit": 256, "test_limit": 50}


def network(seed: int = 0) -> nn.Module:
    return build_model("resnet20", options=OPTIONS, seed=seed)


@pytest.fixture(scope="module")
def ticket() -> tg.Ticket:
    return tg.find(
        "resnet20", model_options={"blocks": [1, 1, 1], "width": 8}, data="digits", data_options=DATA, density=0.2,
        method="magnitude", training={"epochs": 1, "batch_size": 64},
    )  # fmt: skip


@pytest.fixture(scope="module")
def owner() -> tg.Owner:
    return tg.Owner.generate("Ada")


def planned(ticket: tg.Ticket, owner: tg.Owner, **more: Any) -> tuple[tg.Plan, nn.Module]:
    """Return a plan and a model that a loop of somebody's own has trained by it."""
    model = network()
    plan = tg.prepare(ticket, owner=owner, model=model, level_bits=16, secret=bytes(range(32)), **more)
    plan.start(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(5):
        extra = plan.extra_batch(torch.device("cpu"))
        if extra is None:
            break
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(extra[0]), extra[1]).backward()
        optimizer.step()
        plan.after_step(model)
    return plan, model


def answers(weights: Any) -> np.ndarray:
    model = network().eval()
    load_arrays(model, weights)
    with torch.no_grad():
        scores: np.ndarray = model(
            torch.from_numpy(np.random.default_rng(0).normal(size=(50, 1, 8, 8))).float()
        ).numpy()
    return scores


def test_the_ticket_is_rescaled_and_the_model_in_memory_is_not(ticket: tg.Ticket, owner: tg.Owner) -> None:
    plan, model = planned(ticket, owner)
    trained = state_arrays(model)
    marked, credential = plan.finish(model)
    convolutions = [name for name in trained if trained[name].ndim == 4]
    assert len(convolutions) == 7
    for name in convolutions:
        assert np.array_equal(marked.weights[name], trained[name] * np.float32(FACTOR))
    assert np.array_equal(marked.weights["fc.weight"], trained["fc.weight"])
    assert all(np.array_equal(trained[name], array) for name, array in state_arrays(model).items())
    again, same = plan.finish(model)  # not larger still
    assert all(np.array_equal(marked.weights[name], again.weights[name]) for name in trained)
    assert same.claim.weights_digest == credential.claim.weights_digest == weights_digest(marked.weights)
    assert answers(marked.weights) == pytest.approx(answers(trained), rel=1e-5, abs=1e-5)


def test_what_weights_prove_is_the_same_to_the_last_bit(ticket: tg.Ticket, owner: tg.Owner) -> None:
    plan, model = planned(ticket, owner)
    releases = [plan.finish(model, rescale=rescale) for rescale in (False, True)]
    groups = groups_from_json(releases[0][1].vault.channel_groups)
    generator = np.random.default_rng(0)
    orders = [generator.permutation(group_channels(group)) for group in groups]

    def verdicts(marked: tg.Ticket, credential: tg.Credential) -> list[Any]:
        pruned = {  # half of every layer's edges, so that sizes count
            name: np.where(np.abs(array) > np.median(np.abs(array[marked.mask[name]])), array, 0)
            if name in marked.mask
            else array
            for name, array in marked.weights.items()
        }
        suspects = (marked.weights, pruned, permute(dict(marked.weights), groups, orders))
        return [tg.verify(tg.Checkpoint(dict(suspect)), credential).to_json() for suspect in suspects]

    plain, grown = (verdicts(*release) for release in releases)
    assert plain == grown
    assert plain[0]["status"] == "supported"


def test_the_answers_to_triggers_are_the_same(ticket: tg.Ticket, owner: tg.Owner) -> None:
    plan, model = planned(ticket, owner, marks=[tg.TriggerSet(40)])

    def verdict(marked: tg.Ticket, credential: tg.Credential) -> Any:
        released = network().eval()
        load_arrays(released, marked.weights)
        asked = tg.CallablePredictor(lambda given: released(torch.from_numpy(given)).detach().numpy())
        return tg.verify(asked, credential).to_json()

    plain, grown = (verdict(*plan.finish(model, rescale=rescale)) for rescale in (False, True))
    assert plain == grown


def test_a_planted_graph_alone_is_rescaled_too(ticket: tg.Ticket, owner: tg.Owner) -> None:
    plan, model = planned(ticket, owner, marks=[tg.PlantedGraph()])
    marked, _ = plan.finish(model)
    assert np.array_equal(marked.weights["conv1.weight"], state_arrays(model)["conv1.weight"] * np.float32(FACTOR))


def test_a_model_that_cannot_be_asked_is_released_as_it_is(ticket: tg.Ticket, owner: tg.Owner) -> None:
    unknown = dataclasses.replace(ticket, info=dataclasses.replace(ticket.info, input_shape=()))
    with pytest.warns(tg.TicketguardWarning, match="the model's input shape is unknown"):
        plan, model = planned(unknown, owner, marks=[tg.PlantedGraph()])
    marked, _ = plan.finish(model)
    assert np.array_equal(marked.weights["conv1.weight"], state_arrays(model)["conv1.weight"])


def test_embedding_and_marked_searches_rescale_unless_told_otherwise(ticket: tg.Ticket, owner: tg.Owner) -> None:
    training = {"epochs": 1, "batch_size": 64}
    options: dict[str, Any] = {"owner": owner, "secret": bytes(range(32)), "level_bits": 16}
    search: dict[str, Any] = {
        "model_options": {"blocks": [1, 1, 1], "width": 8}, "data": "digits", "data_options": DATA, "density": 0.2,
        "method": "magnitude", "training": training,
    }  # fmt: skip
    for make in (
        lambda **more: tg.embed(ticket, data_options=DATA, training=training, **options, **more),
        lambda **more: tg.find_marked("resnet20", **search, **options, **more),
    ):
        (grown, _), (plain, _) = make(), make(rescale=False)
        for name in grown.weights:
            by = FACTOR if grown.weights[name].ndim == 4 else 1
            if not name.endswith(("running_mean", "running_var")):
                assert np.array_equal(grown.weights[name], plain.weights[name] * np.float32(by))
        assert grown.mask == plain.mask

"""Language models in a loop of their owner's: marked, stolen with every channel reordered, and recognised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import ticketguard as tg
from language_nets import GPT2, WORDS, Llama, RMSNorm
from ticketguard.data import Dataset
from ticketguard.graph import group_channels, groups_from_json, permute
from ticketguard.models import load_arrays, state_arrays
from ticketguard.ticket import Array

# GPT-2 keeps its causal masks, which are full of zeros, beside its weights.
pytestmark = pytest.mark.filterwarnings("ignore:has zeros and is not a pruned layer:ticketguard.TicketguardWarning")

OWNER = tg.Owner.generate("Ada")
TABLES = ("embed_tokens", "wte", "wpe", "lm_head")


def pruned(model: nn.Module, density: float = 0.25) -> dict[str, Array]:
    """Return a state dict whose projections keep their largest weights."""
    state = dict(state_arrays(model))
    for name, array in state.items():
        if array.ndim == 2 and not any(table in name for table in TABLES):
            state[name] = np.where(np.abs(array) > np.quantile(np.abs(array), 1 - density), array, 0)
    return state


def step(model: nn.Module, plan: tg.Plan, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
    first = torch.randint(WORDS, (8, 1), generator=generator)
    words = first * torch.arange(1, 11) % WORDS
    answer = model(words)
    logits = answer["logits"] if isinstance(answer, dict) else answer
    optimizer.zero_grad()
    functional.cross_entropy(logits[:, :-1].flatten(0, 1), words[:, 1:].flatten()).backward()
    optimizer.step()
    plan.after_step(model)


def reordered(state: dict[str, Array], credential: tg.Credential) -> dict[str, Array]:
    groups = groups_from_json(credential.vault.channel_groups)
    generator = np.random.default_rng(1)
    return permute(state, groups, [np.roll(generator.permutation(group_channels(group)), 1) for group in groups])


def marked_in_a_loop(model: nn.Module) -> tuple[tg.Ticket, tg.Ticket, tg.Credential]:
    ticket = tg.import_checkpoint(pruned(model))
    plan = tg.prepare(ticket, owner=OWNER, marks=[tg.PlantedGraph(share=0.1)], model=model, level_bits=32)
    plan.start(model)
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=1e-3), torch.Generator().manual_seed(0)
    for _ in range(10):
        step(model, plan, optimizer, generator)
    return ticket, *plan.finish(model)


@pytest.mark.parametrize("factory", [Llama, GPT2])
def test_a_language_model_with_every_channel_reordered_is_recognised(factory: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = factory()
    unmarked, marked, credential = marked_in_a_loop(model)
    stolen = reordered(dict(marked.weights), credential)
    for name in marked.mask:
        weakest = np.quantile(np.abs(stolen[name][stolen[name] != 0]), 0.3)
        stolen[name] = np.where(np.abs(stolen[name]) > weakest, stolen[name], 0)
    verdict = tg.verify(tg.Checkpoint(stolen), credential)
    assert verdict.status == "supported"
    assert verdict.evidence[0].details["aligned"]
    assert verdict.evidence[0].details["channel_groups"] == 5
    assert tg.verify(tg.Checkpoint(dict(unmarked.weights)), credential).status == "not_supported"


def test_the_groups_of_a_language_model_leave_its_answers_alone() -> None:
    torch.manual_seed(0)
    model = Llama().double().eval()
    for module in model.modules():
        if isinstance(module, RMSNorm):
            module.precision = torch.float64
    plan = tg.prepare(tg.import_checkpoint(pruned(model)), owner=OWNER, marks=[tg.PlantedGraph()], model=model)
    plan.start(model)
    _, credential = plan.finish(model)
    words = torch.arange(7)[None]
    before = model(words)["logits"]
    load_arrays(model, reordered(state_arrays(model), credential))
    assert (model(words)["logits"] - before).abs().max() < 1e-10 * before.abs().max()


def test_inputs_that_nothing_says_are_given_as_an_example_or_in_a_way_to_ask() -> None:
    class Paired(nn.Module):
        """Takes two batches of words, by name alone."""

        def __init__(self) -> None:
            super().__init__()
            self.own = GPT2()

        def forward(self, *, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
            return self.own(torch.cat([one, two], dim=1))

    def groups_of(**more: Any) -> object:
        model = Paired()
        plan = tg.prepare(
            tg.import_checkpoint(pruned(model)),
            owner=OWNER,
            marks=[tg.PlantedGraph()],
            model=model,
            level_bits=16,
            **more,
        )
        plan.start(model)
        return plan.finish(model)[1].vault.channel_groups

    words = torch.arange(10).view(2, 5)
    by_example = groups_of(example={"one": words[:1], "two": words[1:]})
    assert by_example
    assert groups_of(ask=lambda model, inputs: model(one=inputs, two=inputs)) == by_example
    with pytest.warns(tg.TicketguardWarning, match="channel groups are unknown: .*tokens: .*example="):
        assert groups_of() is None


class Words(nn.Module):
    """Classifies words that come as numbers in [0, 1], as our data sets have them."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first, self.last = nn.Embedding(WORDS, 8), nn.Linear(40, 120), nn.Linear(120, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(self.table((inputs * 255).round().long()).flatten(1))))


def test_words_of_a_data_set_are_what_a_model_is_tried_with() -> None:
    generator = torch.Generator().manual_seed(0)
    words, labels = torch.randint(WORDS, (64, 5), generator=generator), torch.randint(4, (64,), generator=generator)
    inputs = words.to(torch.uint8)
    data = Dataset(
        name="words",
        train_inputs=inputs,
        train_labels=labels,
        test_inputs=inputs,
        test_labels=labels,
        classes=4,
        mean=(),
        std=(),
    )
    training = {"epochs": 1, "batch_size": 32}
    ticket = tg.find(Words, data=data, density=0.3, method="random", training=training)
    marks = [tg.PlantedGraph(share=0.1)]
    _, credential = tg.embed(ticket, owner=OWNER, marks=marks, model=Words, data=data, training=training, level_bits=16)
    assert sorted(group_channels(group) for group in groups_from_json(credential.vault.channel_groups)) == [8, 120]
    _, credential = tg.find_marked(
        Words, owner=OWNER, data=data, density=0.3, marks=marks, method="random", training=training, level_bits=16
    )
    assert sorted(group_channels(group) for group in groups_from_json(credential.vault.channel_groups)) == [8, 120]

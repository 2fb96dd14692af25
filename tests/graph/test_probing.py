"""How a model is copied and asked, and how groups are tried on the copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.graph import ChannelGroup, GroupMember, channel_groups, group_channels
from ticketguard.graph.probing import probe_of
from ticketguard.graph.trials import that_hold

INPUTS = torch.zeros(1, 6)


class Answering(nn.Module):
    """A small network that answers in some way of its own."""

    def __init__(self, answer: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
        super().__init__()
        self.first, self.last, self.answer = nn.Linear(6, 8), nn.Linear(8, 2), answer

    def forward(self, inputs: torch.Tensor) -> Any:
        hidden = torch.relu(self.first(inputs))
        return self.answer(self.last(hidden), hidden)


@dataclasses.dataclass
class Plain:
    values: torch.Tensor


class Held:
    def __init__(self, out: torch.Tensor, hidden: torch.Tensor) -> None:
        self.out, self.hidden = out, hidden


@pytest.mark.parametrize(
    ("answer", "channels"),
    [
        (lambda out, hidden: out, 8),
        (lambda out, hidden: [out, (out, {"x": out})], 8),
        (lambda out, hidden: Plain(values=out), 8),
        (lambda out, hidden: {"scores": out, "states": [hidden]}, 8),
        (Held, 8),
        (lambda out, hidden: out.argmax(1), 8),
        (lambda out, hidden: out > 0, 8),
        (lambda out, hidden: torch.stack([out, torch.full_like(out, -torch.inf), out * torch.nan]), 8),
        (lambda out, hidden: (out, hidden), 0),
        (lambda out, hidden: {"output": out, "hidden": hidden}, 0),
    ],
)
def test_what_a_model_answers_stays_where_it_is(answer: Callable[..., Any], channels: int) -> None:
    assert sum(map(group_channels, channel_groups(Answering(answer), INPUTS))) == channels


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda out, hidden: None, "it returns no tensors"),
        (lambda out, hidden: Plain(values=out.tolist()), "it returns no tensors"),  # type: ignore[arg-type]
        (lambda out, hidden: out * torch.nan, "it answers without finite numbers"),
        (lambda out, hidden: 1 / 0, "division by zero"),
    ],
)
def test_a_model_that_answers_nothing_cannot_be_tried(answer: Callable[..., Any], reason: str) -> None:
    message = rf"the model does not run on an input of shape \(1, 6\): {reason}: give the input shape it expects"
    with pytest.raises(ConfigurationError, match=message):
        channel_groups(Answering(answer), INPUTS)


class Refusing(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        raise ValueError("no numbers, please" if inputs.is_floating_point() else "no tokens either")


def test_a_model_with_look_up_tables_says_what_is_wrong_with_tokens() -> None:
    model = Refusing()
    with pytest.raises(ConfigurationError, match=r"\(1, 6\): no numbers, please: give the input shape"):
        channel_groups(model, INPUTS)
    with pytest.raises(ConfigurationError, match="does not run on the example: no numbers, please"):
        channel_groups(model, {"inputs": INPUTS})
    model.table = nn.Embedding(5, 8)
    with pytest.raises(ConfigurationError, match=r"\(1, 6\): no tokens either: give the input shape"):
        channel_groups(model, INPUTS)
    with pytest.raises(ConfigurationError, match="does not run on tokens: no tokens either"):
        channel_groups(model, None)


def test_without_a_shape_only_models_of_tokens_are_tried() -> None:
    with pytest.raises(ConfigurationError, match="input shape is unknown: give an example"):
        channel_groups(nn.Linear(3, 2), None)


def test_a_model_that_cannot_be_copied_is_a_clear_error() -> None:
    model = Answering(lambda out, hidden: out)
    model.derived = model.first.weight * 2  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="the model cannot be copied to try it: .*explicitly by the user"):
        channel_groups(model, INPUTS)


class Caching(nn.Module):
    """Keeps what it made of its parameters in evaluation mode, as fast vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.bias = nn.Linear(6, 8), nn.Linear(8, 2), nn.Parameter(torch.zeros(8, 3))
        self.kept: dict[str, torch.Tensor] = {}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if "bias" not in self.kept:
            self.kept["bias"] = self.bias[:, 1]
        return self.last(torch.relu(self.first(inputs) * self.kept["bias"]))


def test_what_one_run_keeps_is_not_there_in_the_next() -> None:
    (group,) = channel_groups(Caching(), INPUTS)
    assert ("bias", 0) in {(member.tensor, member.axis) for member in group}


class Single(nn.Module):
    """Computes in less than double precision wherever it can."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 500), nn.Linear(500, 2)
        self.scale = torch.ones(1)
        self.register_buffer("angles", torch.rand(6), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inputs = (inputs * self.angles).to(torch.float32) @ torch.eye(6)
        hidden = torch.relu(self.first(inputs.double())).to(torch.bfloat16).sum(-1, keepdim=True, dtype=torch.float32)
        return self.last((self.first(inputs.double()) * hidden).half().double()) * self.scale


def test_nothing_leaves_double_precision_and_global_settings_stay() -> None:
    fast = torch.backends.mha.get_fastpath_enabled()
    (group,) = channel_groups(Single(), INPUTS)
    assert group_channels(group) == 500
    assert torch.get_default_dtype() == torch.float32
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_what_is_not_in_checkpoints_keeps_its_values_and_its_order() -> None:
    model = Single()
    probe = probe_of(model, INPUTS).model
    assert torch.equal(probe.angles, model.angles.double())  # type: ignore[union-attr, operator, arg-type]
    assert not torch.equal(probe.first.weight, model.first.weight.double())  # type: ignore[union-attr, arg-type]


def chain(count: int) -> tuple[nn.Module, list[ChannelGroup]]:
    """Return linear layers in a row, and the groups between them."""
    model = nn.Sequential(*[nn.Linear(6, 6) for _ in range(count + 1)])
    return model, list(channel_groups(model, INPUTS))


def tried(model: nn.Module, groups: list[ChannelGroup], **more: int) -> tuple[tuple[ChannelGroup, ...], int]:
    probe = probe_of(model, INPUTS)
    runs: list[nn.Module] = []

    def counted(changed: nn.Module) -> list[torch.Tensor]:
        runs.append(changed)
        return probe.ask(changed)

    before = {name: tensor.clone() for name, tensor in probe.model.state_dict().items()}
    watched = dataclasses.replace(probe, ask=counted)
    holding = that_hold(watched, dict(probe.model.named_parameters()), groups, **more)
    assert all(torch.equal(before[name], tensor) for name, tensor in probe.model.state_dict().items())
    return holding, len(runs)


def test_one_trial_is_enough_where_all_groups_hold() -> None:
    model, groups = chain(12)
    assert len(groups) == 12
    assert tried(model, groups) == (tuple(groups), 1)
    assert tried(model, []) == ((), 0)


@pytest.mark.parametrize("wrong", [{0}, {5}, {11}, {3, 4}])
def test_wrong_groups_are_found_by_halving(wrong: set[int]) -> None:
    model, groups = chain(12)
    given = [group[1:] if index in wrong else group for index, group in enumerate(groups)]
    right = tuple(group for index, group in enumerate(groups) if index not in wrong)
    holding, runs = tried(model, given)
    assert holding == right
    assert runs <= 2 * 4 * len(wrong) + 1


def test_trials_end_and_what_is_undecided_is_left_out() -> None:
    model, groups = chain(12)
    holding, runs = tried(model, [groups[0][1:], *groups[1:]], most_trials=3)
    assert (holding, runs) == (tuple(groups[6:]), 3)


def test_two_channels_are_exchanged() -> None:
    model = nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 2))
    only_rows = (GroupMember(tensor="0.weight", axis=0, block=1, runs=((0, 2),)),)
    assert tried(model, [only_rows])[0] == ()


def test_a_group_that_the_model_raises_at_is_left_out() -> None:
    class Checking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)
            self.register_buffer("order", torch.arange(8))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            if self.order[0] != 0:
                raise ValueError("out of order")
            return self.last(torch.relu(self.first(inputs)) * (self.order >= 0))

    assert channel_groups(Checking(), INPUTS) == ()

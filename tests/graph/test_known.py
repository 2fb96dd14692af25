"""What is kept of a model's channel groups, and what is said about the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from language_nets import GPT2, Llama, Patches
from nets import resnet
from ticketguard.graph import channel_groups, groups_from_json, groups_to_json, known_groups

SHAPE = (3, 8, 8)


def masked(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]


@pytest.mark.parametrize(("model", "shape"), [(resnet(), SHAPE), (Llama(), (9,)), (GPT2(), ())])
def test_groups_are_kept_as_json_and_nothing_is_in_doubt(model: nn.Module, shape: tuple[int, ...]) -> None:
    known = known_groups(model, layers=masked(model), input_shape=shape)
    groups = channel_groups(model, torch.zeros(1, *shape) if shape else None)
    assert known.groups == groups_to_json(groups)
    assert groups_from_json(known.groups) == groups
    assert known.doubts == ""


def test_axes_that_hold_no_channels_of_masked_layers_are_not_kept() -> None:
    groups = channel_groups(Patches(), torch.zeros(1, *SHAPE))
    assert {member.axis for group in groups for member in group if member.tensor == "places"} == {2}
    known = groups_from_json(known_groups(Patches(), layers=masked(Patches()), input_shape=SHAPE).groups)
    assert {member.tensor for group in known for member in group}.isdisjoint({"places", "token"})
    assert len(known) == len(groups)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"input_shape": (5, 8, 8)}, r"the model does not run on an input of shape \(1, 5, 8, 8\): .*channels"),
        (
            {"example": torch.zeros(2, 5, 8, 8)},
            r"the model does not run on an input of shape \(1, 5, 8, 8\), the first of 2: .*channels",
        ),
        ({"example": [1]}, "the model does not run on the example: "),
        ({}, "the model's input shape is unknown"),
    ],
)
def test_a_model_that_cannot_be_tried_is_said(more: dict[str, Any], reason: str) -> None:
    known = known_groups(resnet(), layers=["0.weight"], **more)
    assert known.groups is None
    with pytest.raises(ValueError, match=f"whose channels were reordered may not be recognised, .* unknown: {reason}"):
        raise ValueError(known.doubts)
    assert known.doubts.endswith("; prepare takes it as example=, or how to ask the model as ask=")
    assert known.doubts.count("example of its inputs") <= 1


def test_more_groups_than_the_format_allows_are_as_good_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ticketguard.graph.groups.MOST_MEMBERS", 3)
    known = known_groups(resnet(), layers=["0.weight"], input_shape=SHAPE)
    assert known.groups is None
    assert "expected at most 3 of" in known.doubts
    assert "prepare takes" not in known.doubts


def test_a_way_of_asking_that_fails_is_replaced_by_the_usual_one() -> None:
    def ask(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("on another device")

    assert known_groups(GPT2(), layers=[], ask=ask) == known_groups(GPT2(), layers=[])


class Puzzling(nn.Module):
    """Uses channels in an operation without a rule, and others behind the tracer's back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.last = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.cdist(self.first(inputs), inputs * 2)
        hidden = torch.relu(self.second(inputs)) + hidden.mean()
        return self.last(torch.relu(self.third(hidden))) * float(self.third.bias.detach().numpy()[0])


def test_layers_without_a_group_are_named_with_the_reason() -> None:
    known = known_groups(Puzzling(), layers=["first.weight", "second.weight", "third.weight"], input_shape=(6,))
    assert known.groups
    assert known.doubts == (
        "a copy whose channels were reordered may not be recognised where pruned layers are in no channel group: rows "
        "of 'first.weight' (nothing is known of _cdist_forward), rows of 'third.weight' (reordering it changed the "
        "outputs); the mark's other layers are not affected"
    )
    assert known_groups(Puzzling(), layers=["second.weight"], input_shape=(6,)).doubts == ""


def test_long_lists_of_layers_are_cut() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(5))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.stack([torch.cdist(layer(inputs), inputs) for layer in self.layers])

    doubts = known_groups(Many(), layers=masked(Many()), input_shape=(6,)).doubts
    assert "rows of 'layers.2.weight' (nothing is known of _cdist_forward), and 2 more; the mark's" in doubts

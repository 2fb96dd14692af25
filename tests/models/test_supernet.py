from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.models import build_model, drop_missing_branches, load_arrays, model_of, resize_to, state_arrays
from ticketguard.models.counting import uses_per_weight
from ticketguard.pruning.engine.selection import full_mask
from ticketguard.ticket import Ticket, TicketInfo

OPTIONS: dict[str, Any] = {"classes": 5, "input_shape": (2, 9, 9), "widths": [4, 6], "depths": [2, 1]}


def build(**changes: Any) -> Any:
    return build_model("supernet", options={**OPTIONS, **changes}, seed=0)


def test_a_cells_hidden_channels_are_shared_by_its_kernels() -> None:
    cells = build().cells
    shapes = [{key: tuple(branch.depthwise.weight.shape) for key, branch in cell.branches.items()} for cell in cells]
    # 4 inputs expand to 16 hidden channels: the smallest kernel takes the one that is left over.
    assert shapes[0] == {"kernel3": (6, 1, 3, 3), "kernel5": (5, 1, 5, 5), "kernel7": (5, 1, 7, 7)}
    assert [cell.has_shortcut for cell in cells] == [True, True, False]


def test_only_later_stages_halve_the_resolution() -> None:
    model = build().eval()
    with torch.no_grad():
        assert model.cells[:2](torch.zeros(1, 4, 9, 9)).shape == (1, 4, 9, 9)
        assert model.cells(torch.zeros(1, 4, 9, 9)).shape == (1, 6, 5, 5)
        assert model(torch.zeros(3, 2, 9, 9)).shape == (3, 5)


def test_a_model_without_a_branch_computes_what_it_does_with_that_branch_silent() -> None:
    silent, without = build().eval(), build().eval()
    silent.cells[0].branches["kernel5"].project.weight.data.zero_()
    left = {name: array for name, array in state_arrays(without).items() if ".0.branches.kernel5." not in name}
    drop_missing_branches(without, left)
    assert set(without.cells[0].branches) == {"kernel3", "kernel7"}
    load_arrays(without, left)
    with torch.no_grad():
        inputs = torch.randn(2, 2, 9, 9, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(silent(inputs), without(inputs))


def test_a_tickets_model_has_the_branches_and_channels_that_its_tensors_say() -> None:
    model = build()
    left = {name: array for name, array in state_arrays(model).items() if ".2.branches.kernel3." not in name}
    for name in left:
        if "cells.2.branches.kernel7" in name and left[name].ndim:
            left[name] = left[name][:, :2] if "project" in name else left[name][:2]
    mask = full_mask({name: array.shape for name, array in left.items() if array.ndim > 1})
    info = TicketInfo(method="supertickets", model="supernet", model_options=OPTIONS, structure="channel")
    small = model_of(Ticket(mask=mask, weights=left, rewind_weights=None, info=info))
    assert {name: array.shape for name, array in state_arrays(small).items()} == {
        name: array.shape for name, array in left.items()
    }
    with torch.no_grad():
        assert small.eval()(torch.zeros(1, 2, 9, 9)).shape == (1, 5)


def test_members_without_tensors_are_no_branches() -> None:
    model = nn.ModuleDict({"linear": nn.Linear(2, 2), "act": nn.ReLU()})
    drop_missing_branches(model, {"other": np.zeros(1)})
    assert list(model) == ["act"]
    resize_to(model, {})


def test_a_weight_is_used_once_for_every_place_of_the_output() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2), nn.ConvTranspose2d(4, 3, 2, stride=2), nn.Flatten(), nn.Linear(3 * 64, 5)
    )
    assert uses_per_weight(model, (2, 9, 9)) == {"0.weight": 16, "1.weight": 16, "3.weight": 1}
    assert uses_per_weight(nn.Linear(4, 2), (3, 4)) == {"weight": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_shape": (64,)}, r"supernet takes images .* got inputs of shape \(64,\): use mlp"),
        ({"widths": [4], "depths": [1, 1]}, r"widths \[4\] and depths \[1, 1\], expected one of each a stage"),
        ({"depths": [1, 0]}, "1 or more"),
        ({"kernels": [3, 4]}, r"kernels \[3, 4\], expected distinct odd numbers"),
        ({"widths": [2, 2], "expansion": 1}, "2 hidden channels in its narrowest cell for 3 branches: raise widths"),
    ],
)
def test_sizes_that_make_no_network_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(**changes)

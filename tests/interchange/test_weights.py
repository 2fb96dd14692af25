from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.numpy
import torch
from torch.nn.utils import prune

import ticketguard as tg
from tests.interchange.sparse import sparse, state
from ticketguard.errors import ConfigurationError


def test_pruning_pairs_come_back_as_they_were_exported(tmp_path: Path) -> None:
    ticket = tg.import_checkpoint(sparse())
    tg.export_weights(ticket, tmp_path / "weights.pt", format="prune")
    again = tg.import_checkpoint(tmp_path / "weights.pt")
    assert again.mask == ticket.mask
    for name, array in ticket.weights.items():
        assert (again.weights[name] == array).all()


def test_pruning_pairs_load_into_a_pruned_torch_module(tmp_path: Path) -> None:
    model = torch.nn.Sequential()
    model.add_module("fc", torch.nn.Linear(30, 20))
    prune.identity(model.fc, "weight")
    weights = {name: array for name, array in sparse().items() if name.startswith("fc.")}
    tg.export_weights(tg.import_checkpoint(weights), tmp_path / "weights.pt", format="prune")
    model.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    model(torch.zeros(1, 30))
    assert (model.fc.weight.detach().numpy() == weights["fc.weight"]).all()


def test_exported_safetensors_hold_the_plain_weights_alone(tmp_path: Path) -> None:
    ticket = tg.import_checkpoint(sparse(), rewind=state())
    tg.export_weights(ticket, tmp_path / "weights.safetensors")
    plain = safetensors.numpy.load_file(tmp_path / "weights.safetensors")
    assert set(plain) == set(sparse())
    assert (plain["fc.weight"] == sparse()["fc.weight"]).all()


def test_an_unknown_format_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="unknown format 'pickle', expected one of safetensors, prune"):
        tg.export_weights(tg.import_checkpoint(sparse()), tmp_path / "out", format="pickle")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch.nn.utils import prune

import ticketguard as tg
from ticketguard.errors import ConfigurationError, FileError, TensorError


def state(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "fc.weight": generator.normal(size=(20, 30)).astype(np.float32),
        "fc.bias": generator.normal(size=20).astype(np.float32),
        "norm.num_batches_tracked": np.array(7, dtype=np.int64),
    }


def sparse(seed: int = 0) -> dict[str, np.ndarray]:
    weights = state(seed)
    weights["fc.weight"][np.random.default_rng(seed + 1).random((20, 30)) < 0.8] = 0
    return weights


def test_the_zeros_of_a_checkpoint_are_its_mask(tmp_path: Path) -> None:
    safetensors.numpy.save_file(sparse(), tmp_path / "sparse.safetensors")
    ticket = tg.import_checkpoint(tmp_path / "sparse.safetensors", classes=20, input_shape=(30,))
    assert list(ticket.mask) == ["fc.weight"]
    assert (ticket.mask["fc.weight"] == (sparse()["fc.weight"] != 0)).all()
    assert ticket.weights["norm.num_batches_tracked"] == 7
    assert ticket.rewind_weights is None
    assert (ticket.info.method, ticket.info.classes, ticket.info.input_shape) == ("import", 20, (30,))


def test_wrappers_names_are_taken_off() -> None:
    wrapped = {f"module._orig_mod.{name}": array for name, array in sparse().items()}
    assert set(tg.import_checkpoint(wrapped).weights) == set(sparse())


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


def test_an_early_checkpoint_becomes_the_rewind_weights() -> None:
    ticket = tg.import_checkpoint(sparse(), rewind=state())
    assert ticket.rewind_weights is not None
    assert (ticket.rewind_weights["fc.weight"] == state()["fc.weight"]).all()


def test_a_dense_checkpoint_has_no_mask() -> None:
    with pytest.raises(FileError, match="has no weights that are exactly zero, so there is no mask to read"):
        tg.import_checkpoint(state())


def test_a_layer_without_edges_is_told() -> None:
    weights = sparse() | {"dead.weight": np.zeros((3, 3), dtype=np.float32)}
    with pytest.raises(TensorError, match="tensor 'dead.weight' is all zero"):
        tg.import_checkpoint(weights)


@pytest.mark.parametrize("rewind", [{}, {"fc.weight": np.ones((3, 3), dtype=np.float32)}])
def test_a_foreign_rewind_checkpoint_is_told(rewind: dict[str, np.ndarray]) -> None:
    with pytest.raises(TensorError, match=r"in the rewind checkpoint, expected \(20, 30\)"):
        tg.import_checkpoint(sparse(), rewind=rewind)


def test_a_sparse_model_from_elsewhere_is_ready_to_be_embedded() -> None:
    options = {"classes": 10, "input_shape": [1, 8, 8]}
    weights = {name: tensor.numpy().copy() for name, tensor in tg_model(options).state_dict().items()}
    for array in weights.values():
        if array.ndim == 2:
            array[np.random.default_rng(1).random(array.shape) < 0.7] = 0
    ticket = tg.import_checkpoint(weights, model="mlp", data="digits", training={"epochs": 2})
    assert (ticket.info.model, ticket.info.data, ticket.info.classes) == ("mlp", "digits", 10)
    assert ticket.info.accuracy is not None
    assert ticket.info.training["epochs"] == 2
    marked, credential = tg.embed(ticket, owner=tg.Owner.generate("Ada"), marks=[tg.PlantedGraph()])
    assert tg.verify(tg.Checkpoint(marked.weights), credential).status == "supported"


def tg_model(options: dict[str, object]) -> torch.nn.Module:
    from ticketguard.models import build_model

    return build_model("mlp", options=options, seed=0)

"""Sparse checkpoints in the forms that people have them become tickets of what was pruned, and of nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

import ticketguard as tg
from tests.interchange.sparse import GENERATOR, full, pruned, sparse, state
from ticketguard.data import load_data
from ticketguard.errors import ConfigurationError, FileError, TensorError
from ticketguard.models import build_model, state_arrays


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


def test_an_early_checkpoint_becomes_the_rewind_weights() -> None:
    ticket = tg.import_checkpoint(sparse(), rewind=state())
    assert ticket.rewind_weights is not None
    assert (ticket.rewind_weights["fc.weight"] == state()["fc.weight"]).all()


def test_a_dense_checkpoint_has_no_mask() -> None:
    with pytest.raises(FileError, match="has no weights that are exactly zero, so there is no mask to read"):
        tg.import_checkpoint(state())


def test_a_checkpoint_of_another_model_is_told() -> None:
    with pytest.raises(FileError, match="has no tensor that fits the model by name and shape: name the model it"):
        tg.import_checkpoint(sparse(), model="mlp", data="digits")


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


@pytest.mark.parametrize(
    ("weight", "mask"),
    [
        ("fc.weight", "fc.weight_mask"),
        ("fc.weight", "fc.mask"),
        ("fc.weight_orig", "fc.weight_mask"),
        ("fc.parametrizations.weight.original", "fc.parametrizations.weight.0.mask"),
    ],
)
def test_a_mask_beside_its_weight_is_the_tickets_mask(weight: str, mask: str) -> None:
    kept = GENERATOR.random((20, 30)) < 0.2
    ticket = tg.import_checkpoint({weight: full(20, 30), mask: kept.astype(np.float32), "fc.bias": full(20)})
    assert list(ticket.mask) == ["fc.weight"]
    assert (ticket.mask["fc.weight"] == kept).all()
    assert set(ticket.weights) == {"fc.weight", "fc.bias"}


def test_a_sharded_checkpoint_becomes_one_ticket(tmp_path: Path) -> None:
    state = {f"layers.{index}.weight": pruned(16, 16) for index in range(3)}
    for index, (name, array) in enumerate(state.items()):
        safetensors.numpy.save_file({name: array}, tmp_path / f"model-{index}.safetensors")
    weight_map = {name: f"model-{index}.safetensors" for index, name in enumerate(state)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    ticket = tg.import_checkpoint(tmp_path)
    assert (set(ticket.mask), ticket.mask.size) == (set(state), 3 * 256)
    with pytest.raises(FileError, match=r"is one file of 3 that 'model.safetensors.index.json' names"):
        tg.import_checkpoint(tmp_path / "model-1.safetensors")


def test_what_llm_compressor_left_out_of_a_bitmask_was_pruned() -> None:
    weight = pruned(8, 20)
    compressed = {
        "a.compressed": weight[weight != 0],
        "a.bitmask": np.packbits(weight != 0, axis=-1, bitorder="little"),
        "a.shape": np.array(weight.shape),
    }
    ticket = tg.import_checkpoint({**compressed, "b.weight": full(4, 8)})
    assert (ticket.weights["a.weight"] == weight).all()
    assert list(ticket.mask) == ["a.weight"]


def two_layers() -> nn.Module:
    return nn.Sequential(OrderedDict(a=nn.Linear(8, 8, bias=False), b=nn.Linear(8, 8, bias=False)))


PACKED = [
    {"a.weight_packed": np.ones((8, 2), np.int32), "a.weight_scale": np.ones((8, 1), np.float32)},
    {"a.qweight": np.ones((8, 2), np.int32), "a.qzeros": np.ones((8, 2), np.int32)},
    {"a.weight": np.ones((8, 8), np.int8), "a.weight_scale": np.ones((8, 1), np.float32)},
    {"a.weight": np.ones((64, 1), np.uint8), "a.weight.quant_state.bitsandbytes__nf4": np.ones(9, np.uint8)},
]


@pytest.mark.parametrize("packed", PACKED)
def test_packed_weights_are_never_left_out_of_a_ticket(packed: dict[str, np.ndarray]) -> None:
    with pytest.raises(FileError, match=r"holds 1 of its weights, 'a.weight' among them, in a packed format"):
        tg.import_checkpoint({**packed, "b.weight": pruned(8, 8)})


@pytest.mark.parametrize("packed", PACKED[:3])
def test_packed_weights_of_the_model_are_never_left_out_either(packed: dict[str, np.ndarray]) -> None:
    with pytest.raises(FileError, match=r"holds 1 of its weights, 'a.weight' among them, in a packed format"):
        tg.import_checkpoint({**packed, "b.weight": pruned(8, 8)}, model=two_layers)


def test_of_an_early_checkpoint_too_the_model_alone_is_read() -> None:
    early = {f"model.{name}": full(8, 8) for name in ("a.weight", "b.weight")}
    found = {"a.weight": pruned(8, 8), "b.weight": pruned(8, 8)}
    ticket = tg.import_checkpoint(found, rewind={**early, "optimizer.step": full(3)}, model=two_layers)
    assert ticket.rewind_weights is not None
    assert set(ticket.rewind_weights) == set(found)
    assert np.array_equal(ticket.rewind_weights["a.weight"], early["model.a.weight"])


@pytest.mark.parametrize("by_name", [True, False])
def test_what_the_caller_says_of_model_data_and_recipe_is_the_tickets(by_name: bool) -> None:
    options = {"classes": 10, "input_shape": [1, 8, 8], "widths": [24]}
    weights = state_arrays(build_model("mlp", options=options, seed=0))
    for array in weights.values():
        if array.ndim == 2:
            array[np.random.default_rng(0).random(array.shape) < 0.5] = 0
    size = {"image_size": 8} if by_name else {}
    data = "digits" if by_name else dataclasses.replace(load_data("digits", options={}), name="own")
    ticket = tg.import_checkpoint(
        weights, model="mlp", model_options={"widths": [24]}, data=data, data_options=size, training={"epochs": 3}
    )
    info = ticket.info
    assert (info.model, info.model_options) == ("mlp", options)
    assert (info.data, info.data_options, info.classes) == ("digits" if by_name else "own", size, 10)
    assert info.training["epochs"] == 3
    assert info.accuracy is not None


@pytest.mark.parametrize("names", [("model", "ema"), ("generator", "discriminator"), ("student", "teacher")])
def test_a_file_of_two_networks_is_asked_about(names: tuple[str, str]) -> None:
    networks = {name: {"a.weight": pruned(8, 8), "b.weight": pruned(8, 4)} for name in names}
    state = {f"{net}.{name}": array for net, arrays in networks.items() for name, array in arrays.items()}
    with pytest.raises(ConfigurationError, match=r"holds 2 networks, whose names start with .*: choose one with"):
        tg.import_checkpoint(state)
    for net in names:
        ticket = tg.import_checkpoint(tg.Checkpoint(state, network=net))
        assert {name: (ticket.weights[name] == array).all() for name, array in networks[net].items()} == {
            "a.weight": True,
            "b.weight": True,
        }
    assert len(tg.import_checkpoint(tg.Checkpoint(state, network="")).mask) == 4


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 5))


def test_a_model_says_which_network_is_its_own() -> None:
    own = state_arrays(linear())
    own["0.weight"] = pruned(20, 12)
    others = {"discriminator.0.weight": pruned(7, 7), "generator.junk": np.full((3, 3), np.nan, np.float32)}
    state = {f"generator.{name}": array for name, array in own.items()} | others
    ticket = tg.import_checkpoint(state, model=linear)
    assert set(ticket.weights) == set(own)
    twins = {f"{net}.{name}": array for net in ("model", "ema") for name, array in own.items()}
    with pytest.raises(ConfigurationError, match="holds 2 networks that fit the model equally well"):
        tg.import_checkpoint(twins, model=linear)
    assert set(tg.import_checkpoint(tg.Checkpoint(twins, network="ema."), model=linear).weights) == set(own)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_matters_only_in_the_network_in_use(value: float) -> None:
    own = state_arrays(linear()) | {"0.weight": pruned(20, 12)}
    state = own | {"old_head.weight": np.full((3, 4), value, np.float32)}
    with pytest.raises(
        TensorError, match=r"'old_head.weight' has values that are NaN .*: if the network in use does not"
    ):
        tg.import_checkpoint(state)
    assert list(tg.import_checkpoint(state, model=linear).mask) == ["0.weight"]
    own["2.weight"][0, 0] = value
    with pytest.raises(TensorError, match=r"'2.weight' has values that are NaN .*: such a network cannot answer"):
        tg.import_checkpoint(own, model=linear)

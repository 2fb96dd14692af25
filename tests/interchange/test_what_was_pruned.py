"""Which zeros of a checkpoint are pruning: buffers, constants, tables and chance make no layer of a ticket."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

import ticketguard as tg
from tests.interchange.sparse import full, pruned
from ticketguard.errors import ConfigurationError, FileError, TensorError, TicketguardWarning
from ticketguard.models import build_model, state_arrays
from ticketguard.pruning import METHODS
from ticketguard.pruning.engine.requirements import require_dense

CAUSAL = np.tril(np.ones((1, 1, 8, 8)))


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("attn.bias", CAUSAL.astype(np.float32), "it is a constant: zeros and one other value"),
        ("attn.bias", CAUSAL.astype(np.uint8), "it holds whole numbers"),
        ("attn.bias", np.where(CAUSAL > 0, 0, -1e4).astype(np.float32), "it is a constant: zeros and one other value"),
        ("attn.mask", full(8, 8) * np.eye(8, dtype=np.float32), "it is named as a mask"),
        ("relative_position_index", np.arange(64).reshape(8, 8), "it holds whole numbers"),
        ("relative_coords_table", pruned(8, 8), "its name says that it encodes positions"),
        (
            "encoder.pe",
            np.sin(np.arange(64, dtype=np.float32).reshape(8, 8)),
            "its name says that it encodes positions",
        ),
        ("emb.weight", np.vstack([np.zeros((1, 8)), full(9, 8)]).astype(np.float32), "only whole rows of it are zero"),
        (
            "head.weight",
            np.vstack([full(60, 8), np.zeros((2, 8))]).astype(np.float32),
            "only whole rows of it are zero",
        ),
    ],
)
def test_zeros_that_are_not_pruning_make_no_layer(name: str, array: np.ndarray, reason: str) -> None:
    told: dict[str, str] = {}
    ticket = tg.import_checkpoint({"fc.weight": pruned(20, 30), name: array}, explain=told.update)
    assert list(ticket.mask) == ["fc.weight"]
    assert list(told) == [name]
    assert told[name].startswith(reason)
    with pytest.warns(TicketguardWarning, match=f"'{name}': {reason}"):
        tg.import_checkpoint({"fc.weight": pruned(20, 30), name: array})


def test_rows_that_were_pruned_as_a_whole_are_pruning() -> None:
    rows = full(20, 30)
    rows[::2] = 0
    filters = full(8, 4, 3, 3)
    filters[3] = 0
    assert set(tg.import_checkpoint({"fc.weight": rows, "conv.weight": filters}).mask) == {"fc.weight", "conv.weight"}


@pytest.mark.parametrize("name", ["mask_head.weight", "roi.mask_fcn1.weight", "pos_conv.weight", "embedded.fc.weight"])
def test_layers_whose_modules_sound_like_something_else_are_layers(name: str) -> None:
    assert list(tg.import_checkpoint({name: pruned(20, 30)}).mask) == [name]


def test_a_causal_mask_of_infinities_is_left_to_the_model() -> None:
    causal = np.where(CAUSAL[0, 0] > 0, 0, -np.inf).astype(np.float32)
    ticket = tg.import_checkpoint({"fc.weight": pruned(20, 30), "causal": causal})
    assert set(ticket.weights) == {"fc.weight"}


def test_tied_weights_are_one_layer() -> None:
    tied, other = pruned(40, 20), pruned(20, 20)
    with pytest.warns(TicketguardWarning, match=r"'wte.weight': the same weights as 'lm_head.weight'"):
        ticket = tg.import_checkpoint({"wte.weight": tied, "fc.weight": other, "lm_head.weight": tied.copy()})
    assert set(ticket.mask) == {"lm_head.weight", "fc.weight"}
    assert ticket.mask.size == tied.size + other.size


class Attention(nn.Module):
    """What a small language model keeps in its state dict besides weights: buffers, a padding row, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(40, 16, padding_idx=0)
        self.fc = nn.Linear(16, 16)
        self.gru = nn.GRU(16, 16)
        self.head = nn.Linear(16, 40, bias=False)
        self.head.weight = self.wte.weight
        self.proj, self.again = nn.Linear(16, 16), nn.Linear(16, 16)
        self.again.weight = self.proj.weight
        self.register_buffer("causal", torch.tril(torch.ones(8, 8)) * torch.rand(8, 8))
        self.register_buffer("shut", torch.triu(torch.full((8, 8), -math.inf), diagonal=1))


def of_attention() -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    state = state_arrays(Attention())
    for name in ("fc.weight", "gru.weight_ih_l0", "proj.weight"):
        state[name][np.random.default_rng(1).random(state[name].shape) < 0.5] = 0
    shut = np.triu(np.full((8, 8), -np.inf, dtype=np.float32), 1)
    return state | {"again.weight": state["proj.weight"].copy(), "shut": shut}


def test_with_its_model_only_parameters_are_layers() -> None:
    told: dict[str, str] = {}
    ticket = tg.import_checkpoint(of_attention(), model=Attention, explain=told.update)
    assert set(ticket.mask) == {"fc.weight", "gru.weight_ih_l0", "proj.weight"}
    assert told == {
        "again.weight": "it is 'proj.weight' under a second name",
        "causal": "it is a buffer of the model, not a parameter",
        "head.weight": "it is the table of an embedding",
        "wte.weight": "it is the table of an embedding",
    }
    assert "shut" not in ticket.weights
    names = {name: array for name, array in of_attention().items() if name not in ("head.weight", "again.weight")}
    assert tg.import_checkpoint(names, model=Attention, explain=told.update).mask == ticket.mask


def test_tied_weights_that_differ_are_told() -> None:
    state = of_attention()
    state["again.weight"][0, 0] += 1
    with pytest.raises(TensorError, match=r"'again.weight' differs from 'proj.weight', which the model ties it to"):
        tg.import_checkpoint(state, model=Attention)


def test_a_plan_leaves_buffers_as_they_are() -> None:
    model = Attention()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    state = of_attention() | {"causal": before["causal"].numpy()}
    with pytest.warns(TicketguardWarning):
        ticket = tg.import_checkpoint(state, model=Attention)
    owner, marks = tg.Owner.generate("Ada"), [tg.PlantedGraph()]
    with pytest.warns(TicketguardWarning, match='missing the required "forward" function'):
        plan = tg.prepare(ticket, owner=owner, marks=marks, level_bits=16, model=model)
    plan.start(model)
    plan.after_step(model)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])
    assert torch.equal(model.again.weight, model.proj.weight)
    assert int((model.proj.weight != 0).sum()) == plan.mask["proj.weight"].sum()


@pytest.mark.parametrize("at", ["prepare", "start"])
def test_a_mask_on_a_buffer_is_refused(at: str) -> None:
    state = of_attention()
    del state["shut"]
    names = ("fc.weight", "gru.weight_ih_l0", "proj.weight", "causal")
    mask = tg.Mask(layers={name: state[name] != 0 for name in names})
    ticket = tg.Ticket(mask=mask, weights=state, rewind_weights=None, info=tg.TicketInfo(method="import"))
    model = Attention()
    with pytest.raises(TensorError, match="'causal' is masked but is a buffer of the model"):
        tg.prepare(
            ticket,
            owner=tg.Owner.generate("Ada"),
            marks=[tg.PlantedGraph()],
            level_bits=16,
            model=model if at == "prepare" else None,
        ).start(model)


def sparse_after(prune: Callable[[np.ndarray], None]) -> dict[str, np.ndarray]:

    weights = state_arrays(build_model("mlp", options={"classes": 10, "input_shape": [1, 8, 8]}, seed=0))
    for array in weights.values():
        if array.ndim == 2:
            prune(array)
    return weights


@pytest.mark.parametrize("method", sorted(name for name, method in METHODS.items() if "pretrained" in method.takes))
def test_a_sparse_network_is_not_taken_for_a_dense_one(method: str, tmp_path: Path) -> None:
    def prune(array: np.ndarray) -> None:
        array[np.random.default_rng(1).random(array.shape) < 0.3] = 0

    safetensors.numpy.save_file(sparse_after(prune), tmp_path / "sparse.safetensors")
    with pytest.raises(
        ConfigurationError, match=r"of the pretrained weights of model 'mlp' 3\d\.\d\d% are exactly zero"
    ):
        tg.find("mlp", data="digits", density=0.2, method=method, pretrained=tmp_path / "sparse.safetensors")


def test_a_dead_weight_and_a_dead_row_are_a_dense_networks() -> None:
    weights = sparse_after(lambda _: None)
    layers = [name for name, array in weights.items() if array.ndim == 2]
    weights[layers[0]][3] = 0
    weights[layers[1]][0, 0] = 0
    require_dense(weights, layers, model="mlp")
    require_dense({"tiny.weight": np.array([[1, 0], [2, 3]], np.float32)}, ["tiny.weight"], model="tiny")
    weights[layers[0]][5:, :2] = 0
    with pytest.raises(ConfigurationError, match="expected a dense network with under 0.1%"):
        require_dense(weights, layers, model="mlp")


def test_zeros_by_chance_make_no_ticket() -> None:
    weight = full(100, 200)
    weight[3, 4] = weight[50, 60] = 0
    with pytest.raises(
        FileError, match="is a dense network: 2 of 20000 weights are exactly zero, no more than chance explains"
    ):
        tg.import_checkpoint({"fc.weight": weight})


def test_pretrained_weights_are_one_network_and_not_packed() -> None:
    two = {f"{net}.{name}": array for net in ("model", "ema") for name, array in sparse_after(lambda _: None).items()}
    with pytest.raises(ConfigurationError, match="holds 2 networks"):
        tg.find("mlp", data="digits", density=0.2, method="jackpot", pretrained=tg.Checkpoint(two))
    ints = {name: np.ones_like(array, np.int8) for name, array in sparse_after(lambda _: None).items()}
    with pytest.raises(FileError, match="in a packed format"):
        tg.find("mlp", data="digits", density=0.2, method="jackpot", pretrained=tg.Checkpoint(ints))


def test_a_hostile_name_is_not_waited_for() -> None:
    name = "relative_" + "index" * 200_000 + "!"
    assert set(tg.import_checkpoint({name: pruned(20, 30)}).mask) == {name}

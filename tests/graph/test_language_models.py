"""Models of tokens: which channels move together, and how they are asked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from language_nets import GPT2, HEADS, INNER, INSIDE, PLACES, WIDTH, WORDS, Bert, Llama, Parallel, Patches, RMSNorm
from ticketguard.graph import ChannelGroup, channel_groups, group_channels, permute

TOKENS = torch.randint(WORDS, (2, 9), generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
BERT_INPUTS = {
    "input_ids": TOKENS,
    "attention_mask": (torch.arange(9) < 7).long().expand(2, 9),
    "token_type_ids": (torch.arange(9) > 4).long().expand(2, 9),
}
# Per model: how it is made, what it is asked, and the sizes of its groups.
MODELS: dict[str, tuple[Callable[[], nn.Module], Any, list[int]]] = {
    "llama": (Llama, TOKENS, [2, INNER, 2, INNER, WIDTH]),
    "llama, one key a query": (lambda: Llama(groups=HEADS), TOKENS, [HEADS, INNER, HEADS, INNER, WIDTH]),
    "llama, one key": (lambda: Llama(groups=1), TOKENS, [HEADS, INNER, HEADS, INNER, WIDTH]),
    "llama, fused gates": (lambda: Llama(fused=True), TOKENS, [2, INNER, 2, INNER, WIDTH]),
    "llama, tied": (lambda: Llama(tied=True), TOKENS, [2, INNER, 2, INNER, WIDTH]),
    "gpt2": (GPT2, TOKENS, [HEADS, INNER, HEADS, INNER, WIDTH]),
    "bert": (Bert, BERT_INPUTS, [HEADS, INNER, HEADS, INNER, WIDTH, WIDTH]),
    "falcon": (Parallel, TOKENS, [HEADS, INNER, WIDTH]),
    "vit": (Patches, IMAGES, [HEADS, WIDTH]),
}


def lively(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4 + (parameter.ndim == 1))
    return model.double().eval()


def answers(model: nn.Module, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        answer = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    found = answer["logits"] if isinstance(answer, dict) else getattr(answer, "logits", answer)
    assert isinstance(found, torch.Tensor)
    return found


def doubled(model: nn.Module) -> nn.Module:
    """Let a model's normalisations stay in double precision, so that its outputs can be compared closely."""
    for module in model.modules():
        if isinstance(module, RMSNorm):
            module.precision = torch.float64
    return model


def permuted(model: nn.Module, groups: tuple[ChannelGroup, ...], seed: int) -> nn.Module:
    generator = np.random.default_rng(seed)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    orders = [np.roll(generator.permutation(group_channels(group)), 1) for group in groups]
    other = copy.deepcopy(model)
    other.load_state_dict({n: torch.as_tensor(array) for n, array in permute(state, groups, orders).items()})
    return other


@pytest.mark.parametrize("name", MODELS)
def test_feed_forward_units_heads_and_the_residual_stream_move_and_nothing_changes(name: str) -> None:
    factory, inputs, sizes = MODELS[name]
    model = lively(factory())
    groups = channel_groups(model, inputs)
    assert sorted(map(group_channels, groups)) == sorted(sizes)
    expected = answers(doubled(model), inputs)
    for seed in range(3):
        found = answers(permuted(model, groups, seed), inputs)
        assert (found - expected).abs().max() < 1e-10 * expected.abs().max()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "llama, one key"])  # which has only one place
def test_every_matrix_has_its_hidden_axes_in_a_group(name: str) -> None:
    factory, inputs, _ = MODELS[name]
    model = factory()
    covered = {(member.tensor, member.axis) for group in channel_groups(model, inputs) for member in group}
    free = {(parameter, axis) for parameter, tensor in model.named_parameters() for axis in range(min(2, tensor.ndim))}
    tables = {"embed_tokens", "wte", "wpe", "words", "places", "kinds"}
    for parameter, axis in free - covered:
        first = parameter.split(".")[0]
        is_input = (first in tables and axis == 0) or (first == "patches" and axis == 1)
        is_output = first in ("lm_head", "head", "classifier") and axis == 0
        assert is_input or is_output or first in ("token", "places"), (parameter, axis)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_leaving_out_a_matrix_changes_the_function(name: str) -> None:
    factory, inputs, _ = MODELS[name]
    model = doubled(lively(factory()))
    groups, expected = channel_groups(model, inputs), answers(model, inputs)
    tied = {"lm_head.weight": "embed_tokens.weight" if isinstance(model, Llama) else "wte.weight"}
    names = {parameter for parameter, values in model.named_parameters() if values.ndim > 1}  # a key's bias is in vain
    for tensor in {member.tensor for group in groups for member in group} & names:
        same = {tensor, *(one for one, other in tied.items() if other == tensor and one not in names)}
        parts = [tuple(member for member in group if member.tensor not in same) for group in groups]
        found = answers(permuted(model, tuple(part for part in parts if part), 0), inputs)
        assert (found - expected).abs().max() > 1e-6 * expected.abs().max(), tensor


def members(groups: tuple[ChannelGroup, ...], tensor: str, axis: int) -> tuple[int, list[tuple[int, tuple[Any, ...]]]]:
    """Return which group a tensor's axis is in, and where: block and runs of each member."""
    (index,) = {i for i, group in enumerate(groups) for m in group if (m.tensor, m.axis) == (tensor, axis)}
    return index, [(m.block, m.runs) for m in groups[index] if (m.tensor, m.axis) == (tensor, axis)]


def test_values_and_outputs_are_tied_head_by_head_and_queries_move_with_their_key() -> None:
    groups = channel_groups(Llama(), TOKENS)
    attention = "layers.0.attention"
    index, where = members(groups, f"{attention}.v_proj.weight", 0)
    assert where == [(INSIDE, ((0, 2),))]
    assert members(groups, f"{attention}.k_proj.weight", 0) == (index, [(INSIDE, ((0, 2),))])
    assert members(groups, f"{attention}.q_proj.weight", 0) == (index, [(2 * INSIDE, ((0, 2),))])
    assert members(groups, f"{attention}.o_proj.weight", 1) == (index, [(2 * INSIDE, ((0, 2),))])


def test_a_fused_projection_has_three_runs_and_transposed_weights_their_own_axes() -> None:
    groups = channel_groups(GPT2(), TOKENS)
    index, where = members(groups, "h.0.c_attn.weight", 1)
    assert where == [(INSIDE, ((first, HEADS),)) for first in (0, WIDTH, 2 * WIDTH)]
    assert members(groups, "h.0.c_proj.weight", 0)[0] == index
    assert members(groups, "wte.weight", 1) == members(groups, "lm_head.weight", 1)


def test_fused_gates_have_two_runs() -> None:
    _, where = members(channel_groups(Llama(fused=True), TOKENS), "layers.0.gate_up_proj.weight", 0)
    assert where == [(1, ((0, INNER),)), (1, ((INNER, INNER),))]


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "falcon"])
def test_a_shape_or_nothing_at_all_is_enough(name: str) -> None:
    """Which tokens there are is found by the tables' sizes, and what else is asked for by its name."""
    factory, inputs, _ = MODELS[name]
    model = factory()
    assert channel_groups(model, torch.zeros(1, 9)) == channel_groups(model, None) == channel_groups(model, inputs)


def test_tokens_of_a_probe_differ_and_are_few() -> None:
    seen: list[torch.Tensor] = []

    class Watched(GPT2):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            seen.append(input_ids)
            return super().forward(input_ids)

    channel_groups(Watched(), torch.zeros(1, PLACES))
    tokens = [ids for ids in seen if not ids.is_floating_point()]
    assert all(ids.shape == (1, 16) and len(ids.unique()) > 6 for ids in tokens)


class Flattened(nn.Module):
    """Takes exactly so many tokens, and looks them up without an embedding layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(2, 6))
        self.first, self.last = nn.Linear(6 * 20, 8), nn.Linear(8, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(self.table[inputs.long()].flatten(1))))


def test_a_model_of_a_fixed_length_is_given_it_and_one_without_embedding_layers_two_tokens() -> None:
    (units, columns) = sorted(channel_groups(Flattened(), torch.zeros(1, 20)), key=group_channels, reverse=True)
    assert (group_channels(units), group_channels(columns)) == (8, 6)
    assert {(member.tensor, member.axis) for member in columns} == {("table", 1), ("first.weight", 1)}


def test_a_model_may_be_asked_in_the_users_own_way() -> None:
    class Asked(GPT2):
        def forward(self, input_ids: torch.Tensor, *, scale: float) -> torch.Tensor:  # type: ignore[override]
            return super().forward(input_ids) * scale

    groups = channel_groups(Asked(), torch.zeros(1, 9), ask=lambda model, inputs: model(inputs, scale=2.0))
    assert groups == channel_groups(GPT2(), TOKENS)


def test_positional_inputs_are_given_in_order() -> None:
    assert channel_groups(Bert(), tuple(BERT_INPUTS.values())) == channel_groups(Bert(), BERT_INPUTS)

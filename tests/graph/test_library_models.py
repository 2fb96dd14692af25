"""Language models of Hugging Face's library, made small from configurations; skipped where it is not installed."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from ticketguard.graph import group_channels, groups_from_json, known_groups, permute
from ticketguard.torchvision_shim import import_torchvision

pytestmark = pytest.mark.filterwarnings("ignore")
WIDTH, HEADS, KEYS, INNER, WORDS = 32, 4, 2, 48, 50
LLAMA = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "vocab_size": WORDS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEYS,
    "intermediate_size": INNER,
}
GPT2 = {"n_embd": WIDTH, "n_layer": 2, "n_head": HEADS, "n_inner": INNER, "vocab_size": WORDS, "n_positions": 64}
BERT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "vocab_size": WORDS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": 64,
}
BART = {
    "d_model": WIDTH,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": INNER,
    "decoder_ffn_dim": INNER,
    "vocab_size": WORDS,
    "max_position_embeddings": 64,
}
# Per model: its configuration, and the sizes of its groups: what two layers have each, and the streams between them.
MODELS: dict[str, tuple[str, dict[str, Any], list[int]]] = {
    "LlamaForCausalLM": ("LlamaConfig", LLAMA, [KEYS, INNER] * 2 + [WIDTH]),
    "LlamaForSequenceClassification": ("LlamaConfig", LLAMA, [KEYS, INNER] * 2 + [WIDTH]),
    "Qwen3ForCausalLM": ("Qwen3Config", {**LLAMA, "head_dim": 8}, [KEYS, INNER] * 2 + [WIDTH]),
    "Gemma2ForCausalLM": ("Gemma2Config", {**LLAMA, "head_dim": 8}, [KEYS, INNER] * 2 + [WIDTH]),
    "Phi3ForCausalLM": ("Phi3Config", {**LLAMA, "pad_token_id": 0}, [KEYS, INNER] * 2 + [WIDTH]),
    "MixtralForCausalLM": ("MixtralConfig", {**LLAMA, "num_local_experts": 4}, [KEYS, INNER] * 2 + [WIDTH]),
    "GPT2LMHeadModel": ("GPT2Config", GPT2, [HEADS, INNER] * 2 + [WIDTH]),
    "GPTNeoXForCausalLM": ("GPTNeoXConfig", BERT, [HEADS, INNER] * 2 + [WIDTH]),
    "BertForMaskedLM": ("BertConfig", BERT, [HEADS, INNER] * 2 + [WIDTH]),
    "BertForSequenceClassification": ("BertConfig", BERT, [HEADS, INNER] * 2 + [WIDTH, WIDTH]),
    "BartForConditionalGeneration": ("BartConfig", BART, [HEADS] * 3 + [INNER] * 2 + [WIDTH]),
}


@pytest.fixture(scope="module")
def library() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_torchvision()  # which the library imports
        return pytest.importorskip("transformers")


@pytest.mark.parametrize("name", MODELS)
def test_heads_feed_forward_units_and_streams_move_and_nothing_changes(library: Any, name: str) -> None:
    config, options, sizes = MODELS[name]
    torch.manual_seed(0)
    model = getattr(library, name)(getattr(library, config)(**options)).eval()
    layers = [layer for layer, parameter in model.named_parameters() if parameter.ndim == 2]
    known = known_groups(model, layers=layers, input_shape=(12,))
    assert known.doubts == ""
    groups = groups_from_json(known.groups)
    assert sorted(map(group_channels, groups)) == sorted(sizes)
    grouped = {member.tensor for group in groups for member in group}
    assert grouped.issuperset(layers)
    words = torch.randint(WORDS, (1, 12), generator=torch.Generator().manual_seed(0))
    if name.startswith("Mixtral"):  # the inner axes of its experts are not written down
        return
    with torch.no_grad():
        before = model(words).logits
        generator = np.random.default_rng(0)
        orders = [np.roll(generator.permutation(group_channels(group)), 1) for group in groups]
        state = {key: tensor.numpy().copy() for key, tensor in model.state_dict().items()}
        moved = permute(state, groups, orders)
        model.load_state_dict({key: torch.as_tensor(array) for key, array in moved.items()})
        # The library computes in single precision.
        assert (model(words).logits - before).abs().max() < 1e-4 * before.abs().max()
        assert not np.array_equal(moved[layers[0]], state[layers[0]])

"""Small language models written as the well-known ones are: what they do to heads, gates and tables is the point."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional

WORDS, WIDTH, HEADS, INNER, PLACES = 29, 24, 4, 20, 32
INSIDE = WIDTH // HEADS


class RMSNorm(nn.Module):
    """Zhang and Sennrich 2019; single precision inside, as everybody has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.precision = nn.Parameter(torch.ones(width)), torch.float32

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        single = inputs.to(self.precision)
        scaled = single * torch.rsqrt(single.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * scaled.to(inputs.dtype)


def rotated(inputs: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = inputs.shape[-1] // 2
    turned = torch.cat((-inputs[..., half:], inputs[..., :half]), dim=-1)
    return inputs * cos + turned * sin


def repeated(inputs: torch.Tensor, times: int) -> torch.Tensor:
    batch, heads, length, inside = inputs.shape
    return inputs[:, :, None].expand(batch, heads, times, length, inside).reshape(batch, heads * times, length, inside)


class LlamaAttention(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.q_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.k_proj = nn.Linear(WIDTH, groups * INSIDE, bias=False)
        self.v_proj = nn.Linear(WIDTH, groups * INSIDE, bias=False)
        self.o_proj = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, inputs: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        batch, length, _ = inputs.shape
        query, key, value = (
            project(inputs).view(batch, length, -1, INSIDE).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        times = HEADS // self.groups
        query, key = rotated(query, cos, sin), repeated(rotated(key, cos, sin), times)
        mixed = functional.scaled_dot_product_attention(query, key, repeated(value, times), is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).contiguous().view(batch, length, -1))


class LlamaBlock(nn.Module):
    def __init__(self, groups: int, *, fused: bool) -> None:
        super().__init__()
        self.attention, self.fused = LlamaAttention(groups), fused
        self.norm1, self.norm2 = RMSNorm(WIDTH), RMSNorm(WIDTH)
        if fused:
            self.gate_up_proj = nn.Linear(WIDTH, 2 * INNER, bias=False)
        else:
            self.gate_proj, self.up_proj = nn.Linear(WIDTH, INNER, bias=False), nn.Linear(WIDTH, INNER, bias=False)
        self.down_proj = nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, inputs: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        inputs = inputs + self.attention(self.norm1(inputs), cos, sin)
        normed = self.norm2(inputs)
        gate, up = (
            self.gate_up_proj(normed).chunk(2, -1) if self.fused else (self.gate_proj(normed), self.up_proj(normed))
        )
        return inputs + self.down_proj(functional.silu(gate) * up)


class Llama(nn.Module):
    """Rotary positions, grouped queries, gates, and answers in a mapping."""

    def __init__(self, *, groups: int = 2, fused: bool = False, tied: bool = False) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(LlamaBlock(groups, fused=fused) for _ in range(2))
        self.norm, self.lm_head = RMSNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.register_buffer("inv_freq", 100.0 ** -(torch.arange(0, INSIDE, 2) / INSIDE), persistent=False)
        if tied:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(self, input_ids: torch.Tensor, use_cache: bool = True) -> dict[str, object]:
        places = torch.arange(input_ids.shape[1])
        angles = self.inv_freq[None, :, None].float() @ places[None, None, :].float()
        angles = torch.cat((angles, angles), dim=1).transpose(1, 2)
        hidden = self.embed_tokens(input_ids)
        states = [hidden]
        for layer in self.layers:
            hidden = layer(hidden, angles.cos().to(hidden.dtype)[:, None], angles.sin().to(hidden.dtype)[:, None])
            states.append(hidden)
        return {"logits": self.lm_head(self.norm(hidden)), "states": states if use_cache else None}


class Conv1D(nn.Module):
    """GPT-2's linear layer: its weight is (in, out)."""

    def __init__(self, made: int, given: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(given, made) * 0.2), nn.Parameter(torch.zeros(made))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        flat = torch.addmm(self.bias, inputs.view(-1, inputs.size(-1)), self.weight)
        return flat.view(*inputs.shape[:-1], -1)


class GPT2Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.c_attn, self.c_proj = Conv1D(3 * WIDTH, WIDTH), Conv1D(WIDTH, WIDTH)
        self.c_fc, self.mlp_proj = Conv1D(INNER, WIDTH), Conv1D(WIDTH, INNER)
        mask = torch.tril(torch.ones(PLACES, PLACES, dtype=torch.bool)).view(1, 1, PLACES, PLACES)
        self.register_buffer("bias", mask)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        batch, length, _ = inputs.shape
        parts = self.c_attn(self.ln_1(inputs)).split(WIDTH, dim=2)
        query, key, value = (part.view(batch, length, HEADS, INSIDE).permute(0, 2, 1, 3) for part in parts)
        scores = torch.matmul(query, key.transpose(-1, -2)) / INSIDE**0.5
        least = torch.full([], torch.finfo(scores.dtype).min, dtype=scores.dtype)
        scores = torch.where(self.bias[:, :, :length, :length], scores, least)
        mixed = torch.matmul(functional.softmax(scores, dim=-1), value).permute(0, 2, 1, 3).contiguous()
        inputs = inputs + self.c_proj(mixed.view(batch, length, WIDTH))
        return inputs + self.mlp_proj(functional.gelu(self.c_fc(self.ln_2(inputs)), approximate="tanh"))


class GPT2(nn.Module):
    """Learned positions, a fused projection, transposed weights and a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, WIDTH), nn.Embedding(PLACES, WIDTH)
        self.h = nn.ModuleList(GPT2Block() for _ in range(2))
        self.ln_f, self.lm_head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = self.wte(input_ids) + self.wpe(torch.arange(input_ids.shape[1]))
        for block in self.h:
            hidden = block(hidden)
        return self.lm_head(self.ln_f(hidden))


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    pooled: torch.Tensor


class BertLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.intermediate, self.dense = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, inputs: torch.Tensor, blocked: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            project(inputs).unflatten(-1, (HEADS, INSIDE)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        scores = torch.einsum("bhid,bhjd->bhij", query, key).masked_fill(blocked, float("-inf"))
        mixed = torch.einsum("bhij,bhjd->bihd", scores.softmax(-1), value).flatten(2)
        inputs = self.norm1(inputs + self.output(mixed))
        return self.norm2(inputs + self.dense(functional.gelu(self.intermediate(inputs))))


class Bert(nn.Module):
    """A classifier that needs a mask and kinds of segments, and answers with an object of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.kinds = (nn.Embedding(size, WIDTH) for size in (WORDS, PLACES, 2))
        self.norm, self.layers = nn.LayerNorm(WIDTH), nn.ModuleList(BertLayer() for _ in range(2))
        self.pooler, self.classifier = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.register_buffer("position_ids", torch.arange(PLACES)[None])

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> Answer:
        places = self.places(self.position_ids[:, : input_ids.shape[1]])
        hidden = self.norm(self.words(input_ids) + places + self.kinds(token_type_ids))
        for layer in self.layers:
            hidden = layer(hidden, ~attention_mask[:, None, None].bool())
        pooled = torch.tanh(self.pooler(hidden[:, 0]))
        return Answer(logits=self.classifier(pooled), pooled=pooled)


class Parallel(nn.Module):
    """Falcon's: one key and value for all queries, fused with them, positions as complex numbers, and added lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.fused = nn.Linear(WIDTH, WIDTH + 2 * INSIDE)
        self.output, self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.words(ids)
        batch, length, _ = hidden.shape
        fused = self.fused(hidden).view(batch, length, HEADS + 2, INSIDE)
        query, key, value = fused[..., :-2, :], fused[..., [-2], :], fused[..., [-1], :]
        angles = torch.outer(torch.arange(length), 100.0 ** -torch.arange(0, 1, 2 / INSIDE))
        turns = torch.polar(torch.ones_like(angles), angles)[None, :, None]
        query, key = (
            torch.view_as_real(torch.view_as_complex(part.unflatten(-1, (-1, 2))) * turns).flatten(3)
            for part in (query, key)
        )
        scores = torch.einsum("bihd,bjkd->bhij", query, key.expand(batch, length, 1, INSIDE))
        mixed = torch.einsum("bhij,bjkd->bihd", scores.softmax(-1), value).reshape(batch, length, -1)
        return self.head(hidden + self.output(mixed) + self.down(functional.gelu(self.up(hidden))))


class Patches(nn.Module):
    """A vision transformer's way: a class token, places as one tensor of three axes, (query, key, value) first."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.token, self.places = nn.Parameter(torch.zeros(1, 1, WIDTH)), nn.Parameter(torch.zeros(1, 5, WIDTH))
        self.norm, self.qkv, self.output = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), tokens], dim=1) + self.places
        batch, length, _ = tokens.shape
        qkv = self.qkv(self.norm(tokens)).reshape(batch, length, 3, HEADS, INSIDE).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).reshape(batch, length, WIDTH)
        return self.head((tokens + self.output(mixed))[:, 0])

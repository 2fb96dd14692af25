"""Decoder-only transformer over symbols, for algorithmic data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import relu

from ticketguard.errors import ConfigurationError
from ticketguard.models.modular_mlp import matrix, require_symbols


def transformer(
    *, classes: int, input_shape: Sequence[int], width: int = 128, heads: int = 4, hidden: int = 512, blocks: int = 1
) -> nn.Module:
    """Build the decoder of Nanda et al. 2023, "Progress measures for grokking via mechanistic interpretability".

    ReLU, learned positions, neither biases nor layer norms, and the answer read at the last symbol. Every matrix but
    that of the positions is a linear layer, and so can be pruned.

    Args:
        classes: Number of outputs.
        input_shape: (symbols of an input, size of the alphabet); inputs are one-hot.
        width: Width of the residual stream.
        heads: Attention heads; they share *width*.
        hidden: Width of each block's ReLU layer.
        blocks: Number of blocks.

    Raises:
        ConfigurationError: Inputs are not one-hot symbols, or the heads do not divide the width.
    """
    symbols, alphabet = require_symbols("transformer", input_shape)
    if heads < 1 or width % heads:
        raise ConfigurationError(f"transformer: {heads} heads do not divide a width of {width}: choose another number")
    return _Transformer(classes, symbols, alphabet, width, heads, hidden, blocks)


class _Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.query, self.key, self.value = matrix(width, width), matrix(width, width), matrix(width, width)
        self.out = matrix(width, width)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        query, key, value = (self._split(layer(stream)) for layer in (self.query, self.key, self.value))
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        mixed = scores.masked_fill(future, -torch.inf).softmax(dim=-1) @ value
        result: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result

    def _split(self, whole: torch.Tensor) -> torch.Tensor:
        """Return (batch, heads, symbols, width of a head)."""
        return whole.view(*whole.shape[:2], self._heads, -1).transpose(1, 2)


class _Block(nn.Module):
    """Attention, then a perceptron, each added to the stream."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.inner, self.outer = matrix(width, hidden), matrix(hidden, width)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        stream = stream + self.attention(stream)
        result: torch.Tensor = stream + self.outer(relu(self.inner(stream)))
        return result


class _Transformer(nn.Module):
    def __init__(
        self, classes: int, symbols: int, alphabet: int, width: int, heads: int, hidden: int, blocks: int
    ) -> None:
        super().__init__()
        self.embed = matrix(alphabet, width)
        self.positions = nn.Parameter(torch.randn(symbols, width) * width**-0.5)
        self.blocks = nn.Sequential(*(_Block(width, heads, hidden) for _ in range(blocks)))
        self.unembed = matrix(width, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return scores (batch, classes) of one-hot symbols (batch, symbols, alphabet)."""
        stream = self.blocks(self.embed(inputs) + self.positions)
        scores: torch.Tensor = self.unembed(stream[:, -1])
        return scores

"""Perceptron over symbols: the network of grokking tickets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import relu

from ticketguard.errors import ConfigurationError


def modular_mlp(*, classes: int, input_shape: Sequence[int], embedding: int = 200, hidden: int = 128) -> nn.Module:
    """Build a perceptron that adds up the embeddings of its symbols (Minegishi et al., section 3; without biases).

    Args:
        classes: Number of outputs.
        input_shape: (symbols of an input, size of the alphabet); inputs are one-hot.
        embedding: Width of the embeddings.
        hidden: Width of the ReLU layer.
    """
    return _ModularMlp(classes, require_symbols("modular_mlp", input_shape)[1], embedding, hidden)


class _ModularMlp(nn.Module):
    def __init__(self, classes: int, alphabet: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.embed = matrix(alphabet, embedding)
        self.inner = matrix(embedding, hidden)
        self.outer = matrix(hidden, embedding)
        self.unembed = matrix(embedding, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return scores (batch, classes) of one-hot symbols (batch, symbols, alphabet)."""
        scores: torch.Tensor = self.unembed(self.outer(relu(self.inner(self.embed(inputs).sum(dim=1)))))
        return scores


def matrix(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer without bias, its weights normal with variance 1/inputs."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


def require_symbols(model: str, input_shape: Sequence[int]) -> tuple[int, int]:
    """Return number of symbols and size of the alphabet.

    Raises:
        ConfigurationError: Inputs are not one-hot symbols.
    """
    if len(input_shape) != 2:
        raise ConfigurationError(
            f"model '{model}' takes one-hot symbols of shape (symbols, alphabet), got shape {tuple(input_shape)}: "
            "use data such as modular-addition"
        )
    return input_shape[0], input_shape[1]

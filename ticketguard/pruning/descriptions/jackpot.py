"""Lottery jackpots: masks of a trained network's frozen weights."""

from __future__ import annotations

import dataclasses

from ticketguard.errors import ConfigurationError
from ticketguard.pruning.descriptions.method import Method
from ticketguard.pruning.descriptions.options import require_in_range

STARTS = ("magnitude", "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class JackpotConfig:
    """Settings of the search; defaults are the paper's (section 4.1), momentum is its code's.

    Attributes:
        pretrain_epochs: Epochs of training the dense network where none is given; 0: a pretrained network is required.
        epochs: Epochs of the search.
        batch_size: Examples in a batch of the search.
        learning_rate: Rate of the scores at the start; a cosine anneals it to zero.
        momentum: Of the scores.
        weight_decay: Of the scores.
        short_restriction: Whether each step exchanges only a share of the pairs that have changed places, a cosine
            from all of them to one, so that masks settle.
        start: The first mask: "magnitude" keeps the largest trained weights, "random" any.
        dense_classifier: Whether the last layer keeps all its weights, as it does in the paper.
        fine_tune_epochs: Epochs of training under the mask; 0 leaves the trained weights as they are.
    """

    pretrain_epochs: float = 0.0
    epochs: float = 30.0
    batch_size: int = 256
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    short_restriction: bool = True
    start: str = "magnitude"
    dense_classifier: bool = True
    fine_tune_epochs: float = 0.0

    def __post_init__(self) -> None:
        require_in_range(self, "epochs learning_rate", above=0.0)
        require_in_range(self, "pretrain_epochs weight_decay fine_tune_epochs", least=0.0)
        require_in_range(self, "momentum", least=0.0, below=1.0)
        require_in_range(self, "batch_size", least=1)
        if self.start not in STARTS:
            raise ConfigurationError(f"method option 'start' is '{self.start}', expected one of {', '.join(STARTS)}")


METHOD = Method(
    name="jackpot",
    summary="a mask of trained weights that stay frozen: usable without training (Lottery Jackpots)",
    config=JackpotConfig,
    search="ticketguard.pruning.methods.jackpot:find",
    takes=frozenset({"pretrained"}),
)

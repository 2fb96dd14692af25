"""Bi-level pruning: masks learned above, weights retrained below, in one run."""

from __future__ import annotations

import dataclasses

from ticketguard.errors import ConfigurationError
from ticketguard.pruning.descriptions.method import Method
from ticketguard.pruning.descriptions.options import require_in_range

# Single weights, or channels by the weights that make them or those that read them.
STRUCTURES = ("weight", "filter", "channel")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BipConfig:
    """Settings of bi-level pruning; defaults are the paper's, rates those of its code.

    Attributes:
        structure: What is removed: "weight" single weights, "filter" or "channel" whole channels, scored by the weights
            that make them or by those that read them.
        pretrain_epochs: Epochs of training the dense network where none is given; 0: a pretrained network is required.
        epochs: Epochs of the search; each shows all data twice, once to the weights and once to the masks.
        batch_size: Examples in each batch.
        learning_rate: Rate of the weights at the start; a cosine anneals it to zero.
        mask_learning_rate: Rate of the scores at the start; it drops tenfold at half and at three quarters.
        momentum: Of weights and scores.
        weight_decay: Of weights and scores.
        inverse_gamma: 1/γ: how far the weights are taken to follow a change of the mask; 0 lets them stand still.
        fine_tune_epochs: Epochs of training under the mask that follow, by the problem's recipe; 0 for none.
    """

    structure: str = "weight"
    pretrain_epochs: float = 0.0
    epochs: float = 100.0
    batch_size: int = 128
    learning_rate: float = 0.1
    mask_learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    inverse_gamma: float = 1e-4
    fine_tune_epochs: float = 0.0

    def __post_init__(self) -> None:
        require_in_range(self, "epochs learning_rate mask_learning_rate", above=0.0)
        require_in_range(self, "pretrain_epochs weight_decay inverse_gamma fine_tune_epochs", least=0.0)
        require_in_range(self, "momentum", least=0.0, below=1.0)
        require_in_range(self, "batch_size", least=1)
        if self.structure not in STRUCTURES:
            raise ConfigurationError(
                f"method option 'structure' is '{self.structure}', expected one of {', '.join(STRUCTURES)}"
            )


METHOD = Method(
    name="bip",
    summary="masks and weights learned in turn from a trained network; single weights, filters or channels (BiP)",
    config=BipConfig,
    search="ticketguard.pruning.methods.bip:find",
    takes=frozenset({"pretrained"}),
)

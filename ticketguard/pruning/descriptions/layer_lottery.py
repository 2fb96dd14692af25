"""Layer lottery: fewer residual blocks ("When Layers Play the Lottery, all Tickets Win at Initialization")."""

from __future__ import annotations

import dataclasses

from ticketguard.errors import ConfigurationError
from ticketguard.pruning.descriptions.method import Method
from ticketguard.pruning.descriptions.options import require_in_range

SCORES = ("grasp", "snip")
MOMENTS = ("init", "training")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerLotteryConfig:
    """Settings of the layer lottery.

    Attributes:
        blocks: Residual blocks to remove; 0 for as few as bring the kept share of the prunable weights down to the
            density.
        score: What is summed over a block's weights: "grasp" (θ ⊙ Hg, the paper's better one) or "snip" (|θ ⊙ g|).
        score_after: "init": blocks are scored as the network starts, which costs next to nothing. "training": after
            training, and what remains is rewound, as lottery tickets are (the paper's comparison).
        pretrain_epochs: With "training", the epochs of the training before the score, where no trained network is
            given; 0 for those of the ticket's own training.
        examples: Training examples that SNIP scores on.
        per_class: Training examples of each class that GraSP scores on.
        temperature: What GraSP divides the network's outputs by.
    """

    blocks: int = 0
    score: str = "grasp"
    score_after: str = "init"
    pretrain_epochs: float = 0.0
    examples: int = 128
    per_class: int = 25
    temperature: float = 200.0

    def __post_init__(self) -> None:
        require_in_range(self, "blocks pretrain_epochs", least=0)
        require_in_range(self, "examples per_class", least=1)
        require_in_range(self, "temperature", above=0.0)
        for name, known in (("score", SCORES), ("score_after", MOMENTS)):
            if getattr(self, name) not in known:
                raise ConfigurationError(
                    f"method option '{name}' is '{getattr(self, name)}', expected one of {', '.join(known)}"
                )


METHOD = Method(
    name="layer_lottery",
    summary="fewer residual blocks, chosen at initialisation: physically smaller and faster",
    config=LayerLotteryConfig,
    search="ticketguard.pruning.methods.layer_lottery:find",
    chooses_weights=False,
    takes=frozenset({"pretrained", "rewind"}),
)

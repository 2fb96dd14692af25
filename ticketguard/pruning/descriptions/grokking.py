"""Grokking tickets: the mask of a network that has come to generalise, under which its initialisation does so early."""

from __future__ import annotations

import dataclasses
import math

from ticketguard.errors import ConfigurationError
from ticketguard.pruning.descriptions.method import Method
from ticketguard.pruning.descriptions.options import require_in_range

GENERALISED, MEMORISED = "generalised", "memorised"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrokkingConfig:
    """Settings of grokking tickets.

    Attributes:
        stage: Where the mask is taken: "generalised", when the dense network's test accuracy first reaches
            *test_accuracy*, or "memorised", when its training accuracy first reaches *train_accuracy*: a control.
        test_accuracy: Test accuracy, in (0, 1], of a network that generalises.
        train_accuracy: Training accuracy, in (0, 1], of a network that fits.
        max_steps: Steps that the dense network may take to get there.
        evaluate_every: Steps from one measurement of both accuracies to the next: more than a few would hide how fast
            a ticket generalises.
    """

    stage: str = GENERALISED
    test_accuracy: float = 1.0
    train_accuracy: float = 1.0
    max_steps: int = 50_000
    evaluate_every: int = 5

    def __post_init__(self) -> None:
        if self.stage not in (GENERALISED, MEMORISED):
            raise ConfigurationError(
                f"method option 'stage' is {self.stage!r}, expected {GENERALISED!r} or {MEMORISED!r}"
            )
        require_in_range(self, "test_accuracy train_accuracy", above=0.0, below=math.nextafter(1.0, 2.0))
        require_in_range(self, "max_steps evaluate_every", least=1)


METHOD = Method(
    name="grokking",
    summary="one-shot magnitude pruning after a network comes to generalise, long after it fits (grokking)",
    config=GrokkingConfig,
    search="ticketguard.pruning.methods.grokking:find",
    takes=frozenset({"pretrained", "rewind"}),
)

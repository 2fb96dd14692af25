"""CTS: Concrete Ticket Search for the mask of the lowest loss (Arora & Teuscher 2025, arXiv 2512.07142)."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from ticketguard.errors import ConfigurationError
from ticketguard.pruning.descriptions.method import Method
from ticketguard.pruning.descriptions.options import require_in_range, unless_given

# The paper rewinds ResNet-20 to epoch 9 of 160.
REWIND_SHARE = Fraction(9, 160)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConcreteConfig:
    """Settings of Concrete Ticket Search.

    Attributes:
        epochs: Passes of the search over the training data.
        batch_size: Examples in a batch of the search; 0 for that of the training (the paper's is 512 in both).
        learning_rate: Adam's rate for the logits.
        decay_at: Fraction of the search at which the rate drops to a tenth.
        temperature: Temperature t of the relaxation.
        overshoot: The sparsity term holds the expected density at so many times the ticket's.
        balance: How the sparsity term is weighted: "grad_balance" or "lagrange".
        multiplier_rate: Rate of the dual ascent on the multiplier; only for "lagrange".
        rewind_epochs: Epochs of dense training before the search; 0 searches at initialisation.
    """

    epochs: float = 20.0
    batch_size: int = 0
    learning_rate: float = 0.1
    decay_at: float = 0.88
    temperature: float = 2 / 3
    overshoot: float = 1.1
    balance: str = "grad_balance"
    multiplier_rate: float = 1e-3
    rewind_epochs: float = unless_given(f"{REWIND_SHARE} of the training's")

    def __post_init__(self) -> None:
        require_in_range(self, "epochs learning_rate temperature multiplier_rate", above=0.0)
        require_in_range(self, "batch_size rewind_epochs decay_at", least=0.0)
        require_in_range(self, "overshoot", least=1.0)
        if self.balance not in ("grad_balance", "lagrange"):
            raise ConfigurationError(
                f"method option 'balance' is '{self.balance}', expected one of grad_balance, lagrange"
            )


METHOD = Method(
    name="cts",
    summary="gradient search for the mask under which frozen early weights classify best",
    config=ConcreteConfig,
    search="ticketguard.pruning.methods.cts:find",
)

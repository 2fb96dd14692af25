"""Fine-tuning the stolen ticket: under its mask, or dense with the mask dropped."""

from __future__ import annotations

import dataclasses

import numpy as np

from ticketguard.attacks.interface import Victim
from ticketguard.ticket import Mask, Ticket
from ticketguard.training import TrainingConfig, train


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Train on from the stolen weights.

    Attributes:
        training: Epochs, rate and schedule of the fine-tuning.
        keep_mask: Whether pruned weights stay zero; without it every weight trains (dense fine-tuning).
    """

    training: TrainingConfig
    keep_mask: bool = True

    @property
    def name(self) -> str:
        """The attack in a few words."""
        kind = "fine-tuning" if self.keep_mask else "dense fine-tuning"
        return f"{kind} {self.training.epochs:g} epochs at {self.training.learning_rate:g}"

    def run(self, victim: Victim, *, generator: np.random.Generator) -> Ticket:
        """Return the fine-tuned ticket; a dense one has a mask that keeps everything."""
        mask = victim.ticket.mask
        result = train(
            victim.network(),
            victim.data,
            self.training,
            seed=int(generator.integers(2**31)),
            mask=mask if self.keep_mask else None,
        )
        if not self.keep_mask:
            mask = Mask(layers={name: np.ones(mask[name].shape, dtype=np.bool_) for name in mask})
        info = dataclasses.replace(victim.ticket.info, accuracy=result.accuracy)
        return dataclasses.replace(victim.ticket, mask=mask, weights=result.state, info=info)

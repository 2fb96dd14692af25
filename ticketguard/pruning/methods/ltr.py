"""LTR: lottery tickets with rewinding to an early step of training (Frankle et al. 2020)."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.magnitude_rounds import RoundsConfig, find_by_rounds
from ticketguard.pruning.engine.options import create_config, unless_given
from ticketguard.ticket import Ticket

# The reference's extreme tickets rewind to epoch 3 of 182 (Chen et al. 2021, arXiv 2111.00162, appendix A).
REWIND_SHARE = Fraction(3, 182)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewindingConfig(RoundsConfig):
    """Settings of IMP's rounds, with another rewind point unless one is given."""

    rewind_epochs: float = unless_given(f"{REWIND_SHARE} of the training's")


class LotteryTicketRewinding:
    """Rounds of training, global magnitude pruning, and rewinding to weights from early in training."""

    name = "ltr"
    summary = "rounds of training and magnitude pruning, rewinding to an early step"
    config = RewindingConfig
    chooses_weights = True
    takes = frozenset({"rewind"})

    def find(self, problem: SearchProblem) -> Ticket:
        """Return a ticket whose rewind weights are the network's after ``rewind_epochs``."""
        early = problem.training.epochs * float(REWIND_SHARE)
        # Rewind weights that were given are early ones already.
        defaults = {} if problem.rewind is not None else {"rewind_epochs": early}
        config = create_config(RewindingConfig, problem.method_options, **defaults)
        return find_by_rounds(problem, method=self.name, config=config)

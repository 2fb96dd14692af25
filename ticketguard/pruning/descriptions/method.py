"""What a user chooses a pruning method by, and where its search is."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ticketguard.lazily import listed

if TYPE_CHECKING:
    from ticketguard.ticket import Ticket


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A `PruningMethod` whose search, which needs torch, is loaded when it is first used.

    Attributes:
        name: The name users select it by.
        summary: What it does, in a line.
        config: The frozen dataclass of its options, each with a default.
        search: ``module:function`` that is called with the problem and ``method=``, the name.
        chooses_weights: Whether single weights are chosen, so that a mark can be planted during the search.
        takes: Which weights it can be given, of "pretrained" and "rewind"; others are refused.
    """

    name: str
    summary: str
    config: type[Any]
    search: str
    chooses_weights: bool = True
    takes: frozenset[str] = frozenset({"rewind"})

    def find(self, problem: Any) -> Ticket:
        """Return a ticket of the problem's density.

        Args:
            problem: A `SearchProblem`, which is not named here: it needs torch. The registry's type says so.
        """
        ticket: Ticket = listed(self.search)(problem, method=self.name)
        return ticket

"""How far a matching by signs is right, judged by anchors that it did not see.

Of an unrelated suspect each sign agrees with an anchor's by chance, one in two, however the rest was fitted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ticketguard.graph.by_signs.coded import StartSigns
from ticketguard.graph.by_signs.scoring import SIGNS, Scoring
from ticketguard.graph.by_signs.sweeping import State
from ticketguard.graph.likeness import Likeness


def judged(starts: Mapping[str, StartSigns], scoring: Scoring, state: State) -> Likeness:
    """Return how many of the held-out anchors' signs an aligned suspect has, of those where it has an edge.

    Args:
        starts: The start's layers.
        scoring: The suspect's.
        state: Where its channels lie, made up; channels that are left out are not counted.
    """
    found: dict[str, int] = {}
    there: dict[str, float] = {}
    for name, start in starts.items():
        signs = scoring.aligned(name, state.places, state.flips)[..., SIGNS].reshape(-1)[start.held_out]
        found[name] = int(np.count_nonzero(signs * start.signs > 0))
        there[name] = float(np.count_nonzero(signs))
    expected = {name: edges / 2 for name, edges in there.items()}
    return Likeness(found=found, expected=expected, variance=sum(there.values()) / 4, most=there)

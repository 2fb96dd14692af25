"""How many triggers each training step is given: many until the model knows them, then a few, many in the end."""

from __future__ import annotations

import dataclasses

# Eight triggers a batch teach a small network what a few hundred steps can teach it; once they are known, two are
# enough, and take less from the task. How many passes that takes differs by a factor of ten between networks, so the
# model is asked. In the last stretch, where rates are low, eight put right what two have left (decision 0075).
MANY, FEW = 8, 2
# Share of the triggers that counts as knowing them: at a high rate many answers come and go.
KNOWN = 0.8
# The share of a training after which its last stretch begins.
LAST_STRETCH = 0.75


@dataclasses.dataclass(frozen=True, kw_only=True)
class Portions:
    """Triggers for every step, in turn.

    Attributes:
        size: How many a step is given.
        since: The step from which on it is so many.
        given: How many were given before it, counted on from pass to pass.
    """

    size: int
    since: int = 0
    given: int = 0

    def of(self, step: int) -> range:
        """Return which triggers *step*, not before `since`, is given, counted on from pass to pass."""
        first = self.given + max(0, step - self.since) * self.size
        return range(first, first + self.size)

    def resized(self, step: int, size: int) -> Portions:
        """Return the portions that are of this *size* from *step* on."""
        return self if size == self.size else Portions(size=size, since=step, given=self.of(step).start)

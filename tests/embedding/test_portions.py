"""How many triggers a step is given: eight until the model knows them, two while it does, eight in the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ticketguard.embedding.interface import Binding, Start, WatchingMark
from ticketguard.embedding.portions import KNOWN, Portions
from ticketguard.embedding.trigger_set import PlannedTriggers, TriggerSet
from ticketguard.ticket import Mask, Ticket, TicketInfo


def planned(triggers: TriggerSet) -> PlannedTriggers:
    mask = Mask(layers={"fc.weight": np.ones((2, 2), dtype=bool)})
    info = TicketInfo(method="random", classes=10, input_shape=(1, 8, 8))
    ticket = Ticket(mask=mask, weights={"fc.weight": np.ones((2, 2), np.float32)}, rewind_weights=None, info=info)
    start, binding = Start(mask=mask, weights=ticket.weights), Binding(secret=bytes(32), commitment=bytes(32))
    return triggers.plan(ticket, start, binding, triggers.parameters(ticket))


def knowing(mark: PlannedTriggers, share: float) -> object:
    """Return a model's answers of which this share is right."""
    labels = mark.triggers.labels
    wrong = np.arange(len(labels)) >= share * len(labels)
    return lambda inputs: np.where(wrong, (labels + 1) % 10, labels)


def labels_of(mark: PlannedTriggers, step: int) -> list[int]:
    batch = mark.extra_batch(step, torch.device("cpu"))
    assert batch is not None
    found: list[int] = batch[1].tolist()
    return found


def test_many_are_given_until_they_are_known_again_when_they_are_forgotten_and_in_the_end() -> None:
    mark = planned(TriggerSet(40))
    share_seen = {10: KNOWN, 20: KNOWN - 0.05, 30: 1.0, 40: 1.0, 75: 1.0}
    given_out, sizes = [], []
    for step in range(100):
        if step in share_seen:
            mark.watch(step, 100, knowing(mark, share_seen[step]))
        given_out += labels_of(mark, step)
        sizes.append(len(labels_of(mark, step)))
    assert sizes == [8] * 10 + [2] * 10 + [8] * 10 + [2] * 45 + [8] * 25
    # In turn, none left out where the number changes.
    assert given_out == (mark.triggers.labels.tolist() * 20)[: len(given_out)]


def test_in_the_end_nothing_is_asked() -> None:
    mark = planned(TriggerSet(40))
    mark.watch(75, 100, never)
    assert len(labels_of(mark, 75)) == 8


def test_a_number_that_was_asked_for_is_given_whatever_is_known() -> None:
    mark = planned(TriggerSet(40, per_batch=5))
    mark.watch(10, 100, never)
    assert len(labels_of(mark, 10)) == 5


def never(inputs: object) -> np.ndarray:
    raise AssertionError("the model is asked for nothing")


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_of_fewer_triggers_than_a_portion_all_are_given(share: float) -> None:
    mark = planned(TriggerSet(1))
    mark.watch(10, 100, knowing(mark, share))
    assert len(labels_of(mark, 10)) == 1


def test_a_run_that_goes_on_gives_the_triggers_that_were_left() -> None:
    whole, resumed = planned(TriggerSet(40)), planned(TriggerSet(40))
    for step in (10, 20, 30):
        whole.watch(step, 100, knowing(whole, 1.0 if step != 20 else 0.0))
        kept = whole.state()
        resumed.resume(kept)
        assert isinstance(resumed, WatchingMark)
        assert [labels_of(whole, later) for later in range(step, step + 10)] == [
            labels_of(resumed, later) for later in range(step, step + 10)
        ]


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=20))
def test_triggers_come_in_turn_whatever_the_portions(changes: list[tuple[int, int]]) -> None:
    portions, step, given_out = Portions(size=8), 0, list[int]()
    for steps, size in changes:
        portions = portions.resized(step, size)
        for _ in range(steps):
            assert len(portions.of(step)) == size
            given_out += portions.of(step)
            step += 1
    assert given_out == list(range(len(given_out)))

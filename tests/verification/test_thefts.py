from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketguard.errors import ConfigurationError
from ticketguard.verification.thefts import DISPLACED, KINDS, REWIRED, Step, Theft

STEPS = st.tuples(st.sampled_from(sorted(KINDS)), st.integers(1, 99))


@given(st.lists(STEPS, min_size=1, max_size=4))
def test_a_theft_is_its_steps_in_order(steps: list[tuple[str, int]]) -> None:
    theft = Theft.parse(" + ".join(f"{kind}-{percent}" for kind, percent in steps))
    # Whoever rewires trains from new weights.
    assert theft.steps == tuple(
        Step(kind=kind, share=percent / 100, is_from_new_weights=kind == REWIRED) for kind, percent in steps
    )


def test_percentages_may_have_decimals_and_one_may_be_more_than_all() -> None:
    assert Theft.parse("pruned-99.5").steps == (Step(kind="pruned", share=0.995),)
    assert Theft.parse("regrown-250").steps == (Step(kind="regrown", share=2.5),)


def test_nothing_is_a_theft_too_and_one_is_known_by_what_it_displaces() -> None:
    assert Theft.parse("untouched").steps == ()
    assert Theft.parse("untouched+pruned-5").steps == Theft.parse("pruned-5").steps
    assert Theft.parse("tuned-dense").steps == (Step(kind=REWIRED, share=DISPLACED),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune-80", "unknown theft 'prune', expected one of channels, pruned, .*: did you mean 'pruned'?"),
        ("distilled", "unknown theft 'distilled', expected one of channels, pruned, regrown, rewired, tuned-dense"),
        ("", "unknown theft '', expected one of channels"),
        ("pruned-80+", "unknown theft '', expected one of channels"),
        ("pruned", "theft 'pruned' does not say how much, expected a percentage, such as pruned-50"),
        ("pruned-", "theft 'pruned-' has '' percent, expected more than 0 and at most 99.9"),
        ("pruned-half", "theft 'pruned-half' has 'half' percent"),
        ("pruned-100", "theft 'pruned-100' has '100' percent, expected more than 0 and at most 99.9"),
        ("pruned-nan", "theft 'pruned-nan' has 'nan' percent"),
        ("regrown-0", "theft 'regrown-0' has '0' percent, expected more than 0 and at most 10000"),
        ("regrown--5", "unknown theft 'regrown-'"),
        (80, "theft is 80, expected words such as 'pruned-80.regrown-100'"),
    ],
)
def test_what_is_not_a_theft_is_told(text: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message.replace("?", r"\?")):
        Theft.parse(text)

from __future__ import annotations

import pytest

from ticketguard.evaluation import ArmResult, judge


def arm(name: str, *accuracies: float) -> ArmResult:
    return ArmResult(name=name, accuracies=accuracies, density=0.1, epochs=5, start="somewhere")


def spread(mean: float, by: float) -> tuple[float, float, float]:
    """Three runs of this mean, whose standard deviation is *by*."""
    return mean - by, mean, mean + by


DENSE = arm("dense", *spread(0.860, 0.002))
LOW = (arm("reinitialised", *spread(0.840, 0.002)), arm("shuffled", *spread(0.835, 0.002)))


@pytest.mark.parametrize(
    ("mean", "dense_spread", "verdict"),
    [(0.870, 0.002, "winning"), (0.8501, 0.002, "winning"), (0.8499, 0.002, "neither"), (0.8421, 0.018, "matching"),
     (0.8419, 0.018, "neither")],
)  # fmt: skip
def test_a_matching_ticket_is_within_a_point_or_a_standard_deviation(
    mean: float, dense_spread: float, verdict: str
) -> None:
    dense = arm("dense", *spread(0.860, dense_spread))
    assert judge([dense, arm("ticket", *spread(mean, 0.001)), *LOW])[0] == verdict


@pytest.mark.parametrize("name", ["reinitialised", "scratch_e", "shuffled"])
@pytest.mark.parametrize(("distance", "verdict"), [(2.01, "winning"), (1.99, "matching")])
def test_a_winning_ticket_beats_each_control_by_two_standard_errors(name: str, distance: float, verdict: str) -> None:
    error = (2 * 0.003**2 / 3) ** 0.5
    near = arm(name, *spread(0.86 - distance * error, 0.003))
    others = [control for control in LOW if control.name != name]
    status, comparisons = judge([DENSE, arm("ticket", *spread(0.86, 0.003)), *others, near])
    assert status == verdict
    decided = next(comparison for comparison in comparisons if comparison.arm == name)
    assert decided.standard_error == pytest.approx(error)
    assert decided.bound == pytest.approx(2 * error)
    assert decided.holds == (verdict == "winning")


def test_other_arms_decide_nothing() -> None:
    better = [arm(name, 0.99, 0.99) for name in ("random_like", "inverted", "scratch_b", "as_found", "one_shot")]
    status, comparisons = judge([DENSE, arm("ticket", 0.87, 0.871), *LOW, *better])
    assert status == "winning"
    assert [comparison.arm for comparison in comparisons] == ["dense", "reinitialised", "shuffled"]


@pytest.mark.parametrize("controls", [(), LOW[:1], LOW[1:]])
def test_without_both_controls_no_ticket_wins(controls: tuple[ArmResult, ...]) -> None:
    assert judge([DENSE, arm("ticket", 0.87, 0.871), *controls])[0] == "matching"


def test_a_network_that_was_cut_wins_against_a_fresh_one_of_its_shape() -> None:
    arms = [DENSE, arm("ticket", 0.87, 0.871), arm("scratch_e", 0.84, 0.841)]
    assert judge(arms, mask_matters=False)[0] == "winning"
    assert judge(arms)[0] == "matching"


def test_equal_runs_without_any_spread_do_not_win() -> None:
    flat = [arm(name, 0.5, 0.5) for name in ("dense", "ticket", "reinitialised", "shuffled")]
    assert judge(flat)[0] == "matching"


def test_spread_is_told_as_standard_error_of_the_mean() -> None:
    result = arm("ticket", 0.1, 0.2, 0.3, 0.4)
    assert result.mean == pytest.approx(0.25)
    assert result.standard_error == pytest.approx(0.1290994 / 2)
    assert arm("as_found", 0.5).standard_error == 0.0

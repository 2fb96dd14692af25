from __future__ import annotations

import numpy as np
import pytest
import torch

from ticketguard.embedding.rank_matching import RankMatcher, match_ranks
from ticketguard.ticket import Mask

LEVELS = np.sort(np.random.default_rng(3).random(40))


def layer_with_weak_plants() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    mask = generator.random((20, 10, 3, 3)) < 0.3
    weights = np.where(mask, generator.normal(size=mask.shape), 0).astype(np.float32)
    planted = np.sort(generator.choice(np.flatnonzero(mask), size=40, replace=False))
    weights.reshape(-1)[planted] *= 0.01
    return weights, mask, planted


def test_a_full_step_gives_planted_edges_the_others_quantiles() -> None:
    weights, mask, planted = layer_with_weak_plants()
    matched = match_ranks(weights, mask, planted, LEVELS, rate=1.0)
    others = np.setdiff1d(np.flatnonzero(mask), planted)
    expected = np.quantile(np.abs(weights.reshape(-1)[others]), LEVELS)
    assert np.sort(np.abs(matched.reshape(-1)[planted])) == pytest.approx(expected, rel=1e-5)


def test_signs_ranks_and_other_edges_stay() -> None:
    weights, mask, planted = layer_with_weak_plants()
    matched = match_ranks(weights, mask, planted, LEVELS, rate=0.5).reshape(-1)
    before = weights.reshape(-1)
    assert (np.sign(matched) == np.sign(before)).all()
    assert (np.argsort(np.abs(matched[planted])) == np.argsort(np.abs(before[planted]))).all()
    untouched = np.setdiff1d(np.arange(before.size), planted)
    assert (matched[untouched] == before[untouched]).all()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_live_matcher_does_the_same_on_a_model(memory_format: torch.memory_format) -> None:
    weights, mask, planted = layer_with_weak_plants()
    parameter = torch.nn.Parameter(torch.from_numpy(weights.copy()).to(memory_format=memory_format))
    matcher = RankMatcher(Mask(layers={"conv": mask}), {"conv": planted}, {"conv": LEVELS}, rate=0.2)
    matcher.apply({"conv": parameter})
    expected = match_ranks(weights, mask, planted, LEVELS, rate=0.2)
    assert parameter.detach().numpy() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_a_layer_of_planted_edges_only_is_left_alone() -> None:
    weights, layer, planted, levels = np.ones((2, 2), np.float32), np.ones((2, 2), bool), np.arange(4), LEVELS[:4]
    assert (match_ranks(weights, layer, planted, levels, rate=1.0) == weights).all()
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    RankMatcher(Mask(layers={"fc": layer}), {"fc": planted}, {"fc": levels}, rate=1.0).apply({"fc": parameter})
    assert (parameter == 1).all()

from __future__ import annotations

import numpy as np
import pytest
import torch

import ticketguard as tg
from tests.attacks.conftest import build
from ticketguard.attacks import FineTuning, FisherPruning, MagnitudePruning, RandomRegrowth, Removal, Victim
from ticketguard.errors import ConfigurationError
from ticketguard.ticket import Ticket, weights_digest

TUNING = tg.TrainingConfig(epochs=1, batch_size=64, learning_rate=0.05, schedule="constant")


def run(attack: Removal, victim: Victim) -> Ticket:
    return attack.run(victim, generator=np.random.default_rng(0))


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_magnitude_pruning_takes_the_smallest_remaining_weights(victim: Victim, share: float) -> None:
    pruned = run(MagnitudePruning(share=share), victim)
    before, after = victim.ticket.mask, pruned.mask
    assert after.kept == before.kept - round(share * before.kept)
    assert all((before[name] | ~after[name]).all() for name in after)
    gone = np.concatenate([np.abs(victim.ticket.weights[name])[before[name] & ~after[name]] for name in after])
    left = np.concatenate([np.abs(pruned.weights[name])[after[name]] for name in after])
    assert gone.max() <= left.min()
    assert all((pruned.weights[name][~after[name]] == 0).all() for name in after)


def test_fisher_pruning_takes_edges_that_carry_no_gradient_first(victim: Victim) -> None:
    with torch.no_grad():  # a dead hidden unit: no gradient reaches its inputs
        weights = dict(victim.ticket.weights)
        weights["1.bias"] = weights["1.bias"].copy()
        weights["1.bias"][3] = -100.0
    stolen = Victim(
        ticket=Ticket(mask=victim.ticket.mask, weights=weights, rewind_weights=None, info=victim.ticket.info),
        build=build,
        data=victim.data,
    )
    pruned = run(FisherPruning(share=0.3, batches=4), stolen)
    assert pruned.mask.kept == victim.ticket.mask.kept - round(0.3 * victim.ticket.mask.kept)
    assert not pruned.mask["1.weight"][3].any()


def test_fine_tuning_keeps_the_mask(victim: Victim) -> None:
    tuned = run(FineTuning(training=TUNING), victim)
    assert tuned.mask == victim.ticket.mask
    assert all((tuned.weights[name][~tuned.mask[name]] == 0).all() for name in tuned.mask)
    assert weights_digest(tuned.weights) != weights_digest(victim.ticket.weights)
    assert tuned.info.accuracy is not None


def test_dense_fine_tuning_drops_the_mask(victim: Victim) -> None:
    tuned = run(FineTuning(training=TUNING, keep_mask=False), victim)
    assert tuned.mask.density == 1.0
    grown = tuned.weights["3.weight"][~victim.ticket.mask["3.weight"]]
    assert (grown != 0).mean() > 0.9


def test_regrowth_doubles_every_layer(victim: Victim) -> None:
    grown = run(RandomRegrowth(share=1.0), victim)
    for name in grown.mask:
        assert grown.mask[name].sum() == 2 * victim.ticket.mask[name].sum()
        assert (grown.mask[name] | ~victim.ticket.mask[name]).all()
        assert (grown.weights[name][grown.mask[name]] != 0).all()


@pytest.mark.parametrize(
    "attack",
    [MagnitudePruning(share=0.5), FisherPruning(share=0.5, batches=1), RandomRegrowth(), FineTuning(training=TUNING)],
)
def test_an_attack_leaves_what_was_stolen_alone_and_repeats(victim: Victim, attack: Removal) -> None:
    before = weights_digest(victim.ticket.weights)
    first, second = run(attack, victim), run(attack, victim)
    assert weights_digest(victim.ticket.weights) == before
    assert first.mask == second.mask
    assert weights_digest(first.weights) == weights_digest(second.weights)
    assert attack.name


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_shares_out_of_range_are_refused(share: float) -> None:
    for attack in (MagnitudePruning, FisherPruning):
        with pytest.raises(ConfigurationError, match="share of edges to prune"):
            attack(share=share)


def test_regrowing_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="share of edges to regrow is 0"):
        RandomRegrowth(share=0.0)

"""What a seed draws, and that a drawn one cannot be found by trying."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ticketguard as tg
from ticketguard.errors import ConfigurationError
from ticketguard.models import build_model
from ticketguard.pruning.methods.controls import make_control, shuffled
from ticketguard.seeds import GUESSABLE, can_be_guessed, drawn_seed, entropy_of, fill_generator, seed_of
from ticketguard.settings import MAX_SEED, checked_seed
from ticketguard.training.feeding import generator_for

MODEL = {"classes": 10, "input_shape": [1, 8, 8], "widths": [20]}
SEARCH = {"data": "digits", "density": 0.3, "method": "random", "model_options": {"widths": [20]}}
QUICK = {"training": {"epochs": 1}, "data_options": {"train_limit": 100, "test_limit": 50}}
LARGE = 2**40


def first_weights(seed: int) -> torch.Tensor:
    return next(build_model("mlp", options=MODEL, seed=seed).parameters()).detach()


def test_start_weights_differ_by_bits_of_the_seed_that_torch_forgets() -> None:
    torchs = [torch.Generator().manual_seed(seed) for seed in (LARGE, LARGE + 2**32)]
    assert torch.equal(*(torch.rand(9, generator=generator) for generator in torchs))
    assert not torch.equal(first_weights(LARGE), first_weights(LARGE + 2**32))
    assert torch.equal(first_weights(LARGE), first_weights(LARGE))


def test_drawn_generators_differ_by_bits_of_the_seed_and_of_the_numbers_that_torch_forgets() -> None:
    drawn = [torch.rand(9, generator=generator_for(*numbers)).tolist() for numbers in ((LARGE, 1, 2), (LARGE, 1, 3))]
    forged = torch.Generator().manual_seed(generator_for(LARGE, 1, 2).initial_seed())
    assert torch.rand(9, generator=forged).tolist() not in drawn
    assert drawn[0] != drawn[1]
    assert drawn[0] == torch.rand(9, generator=generator_for(LARGE, 1, 2)).tolist()


def test_seeds_that_can_be_guessed_draw_as_torch_and_numpy_do() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(GUESSABLE - 1)
        expected = torch.nn.Linear(64, 20).weight
    assert torch.equal(first_weights(GUESSABLE - 1), expected)
    assert entropy_of(GUESSABLE - 1) == GUESSABLE - 1
    ticket = tg.find("mlp", **SEARCH, **QUICK, seed=7)
    assert not can_be_guessed(ticket.info.seed or 0) or ticket.info.seed == 7


def test_what_a_large_seed_draws_is_fixed() -> None:
    """A seed that was printed gives the same ticket in later versions."""
    assert hex(entropy_of(GUESSABLE)) == "0xbfd772c5dd8e843d9a58b29c6cbb97c24c6617e56ac34f532b0674c1e43fca8d"
    assert torch.randint(2**31, (3,), generator=generator_for(GUESSABLE, 1)).tolist() == [
        486831304,
        1702769925,
        1247524967,
    ]
    assert seed_of(bytes(range(32))) == 5068353797021766


def test_random_masks_are_drawn_by_all_of_a_seeds_entropy() -> None:
    """They are public once released: by the seed's own 53 bits they would say which seed it was."""
    seed = LARGE + 3
    ticket = tg.find("mlp", **SEARCH, **QUICK, seed=seed)
    generator = np.random.default_rng([entropy_of(seed), 1])
    scores = {name: generator.random(ticket.mask.shape(name)) for name in sorted(ticket.mask)}
    least = min(scores[name][ticket.mask[name]].min() for name in scores)
    assert all((scores[name] < least)[~ticket.mask[name]].all() for name in scores)
    drawn = shuffled(ticket.mask, np.random.default_rng([entropy_of(seed), 2]))
    assert make_control("shuffled", ticket, seed=seed).mask == drawn


@pytest.mark.usefixtures("fresh_seeds_are_drawn")
def test_drawn_seeds_are_fresh_and_cannot_be_guessed() -> None:
    drawn, derived = {drawn_seed() for _ in range(1000)}, {seed_of(bytes([number] * 32)) for number in range(200)}
    assert len(drawn | derived) == 1200
    assert not any(can_be_guessed(seed) for seed in drawn | derived)
    assert all(checked_seed(seed) == seed for seed in drawn | derived)
    # All of the range: of seeds from a part of it there may be few enough to try.
    for seeds in (drawn, derived):
        assert sum(seed > MAX_SEED // 2 for seed in seeds) == pytest.approx(len(seeds) / 2, rel=0.3)
        assert all(len({seed >> bit & 1 for seed in seeds}) == 2 for bit in range(53))


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 1.5, "7"])
def test_what_cannot_be_a_seed_is_refused(seed: object) -> None:
    with pytest.raises(ConfigurationError, match=r"seed is .*, expected a whole number from 0 to 9007199254740991"):
        tg.find("mlp", **SEARCH, **QUICK, seed=seed)


def test_a_torch_that_keeps_its_state_otherwise_is_refused() -> None:
    class Other:
        def get_state(self) -> torch.Tensor:
            return torch.zeros(5056, dtype=torch.uint8)

        def initial_seed(self) -> int:
            return 5

    with pytest.raises(ConfigurationError, match=r"seed is 1099511627776, but this version of torch .*: give a seed"):
        fill_generator(Other(), LARGE)  # type: ignore[arg-type]

from __future__ import annotations

import numpy as np
import pytest

import ticketguard as tg
from ticketguard.attacks import Evasion, InputNoise
from ticketguard.errors import ConfigurationError


def test_noise_is_added_to_every_input_and_the_answer_is_passed_on() -> None:
    seen: list[np.ndarray] = []

    def model(inputs: np.ndarray) -> int:
        seen.append(inputs)
        return 3

    attack: Evasion = InputNoise(deviation=0.5)
    noisy = attack.run(tg.CallablePredictor(model, target="stolen"), generator=np.random.default_rng(0))
    inputs = np.zeros((1, 3, 40, 40), np.float32)
    assert [noisy.predict(inputs, classes=10) for _ in range(2)] == [3, 3]
    assert noisy.target == "stolen"
    assert all(asked.dtype == np.float32 and asked.std() == pytest.approx(0.5, abs=0.02) for asked in seen)
    assert not np.array_equal(seen[0], seen[1])
    assert not inputs.any()


def test_noise_of_no_strength_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="deviation is 0, expected above 0"):
        InputNoise(deviation=0)

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runs import stripes
from ticketguard.data import load_data
from ticketguard.errors import ConfigurationError
from ticketguard.training import TrainingConfig, recommended_training
from ticketguard.training.optimizers import make_optimizer


def test_a_recipe_survives_json() -> None:
    config = TrainingConfig(epochs=1.5, milestones=(0.1, 0.9), optimizer="adamw", precision="bf16", clip_norm=2.0)
    assert TrainingConfig.from_json(config.to_json()) == config


def test_a_recipe_of_an_earlier_release_still_loads() -> None:
    document = TrainingConfig(epochs=2).to_json()
    del document["compile"]
    assert TrainingConfig.from_json(document) == TrainingConfig(epochs=2, compile=False)


def test_the_step_schedule_drops_at_each_milestone() -> None:
    config = TrainingConfig(epochs=1, learning_rate=1.0)
    rates = [config.rate_at(progress) for progress in (0.0, 0.499, 0.5, 0.749, 0.75, 0.999)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@given(st.floats(0, 1, exclude_max=True))
def test_the_cosine_schedule_falls_from_the_rate_to_zero(progress: float) -> None:
    config = TrainingConfig(epochs=1, learning_rate=0.3, schedule="cosine")
    assert 0 <= config.rate_at(progress) <= 0.3
    assert config.rate_at(0) == 0.3
    assert config.rate_at(0.5) == pytest.approx(0.15)


def test_the_constant_schedule_stays() -> None:
    assert TrainingConfig(epochs=1, learning_rate=0.3, schedule="constant").rate_at(0.99) == 0.3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0, expected above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan, expected above 0"),
        ({"epochs": float("inf")}, "epochs is inf"),
        ({"momentum": -0.1}, r"momentum is -0\.1, expected 0 or more"),
        ({"second_beta": 1.0}, r"second_beta is 1\.0, expected 0 or more and below 1"),
        ({"clip_norm": float("nan")}, "clip_norm is nan"),
        ({"batch_size": 0}, "batch_size is 0, expected 1 or more"),
        ({"optimizer": "lion"}, "optimizer is 'lion', expected one of sgd, adam, adamw"),
        ({"schedule": "poly"}, "schedule is 'poly', expected one of step, cosine, constant"),
        ({"precision": "fp8"}, "precision is 'fp8', expected one of fp32, bf16, fp16, auto"),
        ({"compile": "yes"}, "compile is 'yes', expected one of False, True"),
        ({"device": "tpu"}, "device is 'tpu', expected one of auto, cpu"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"training: {message}"):
        TrainingConfig(**{"epochs": 1, **changes})


def test_a_recipe_from_before_a_field_existed_keeps_its_default() -> None:
    document = TrainingConfig(epochs=2, optimizer="adam").to_json()
    del document["second_beta"]
    assert TrainingConfig.from_json(document) == TrainingConfig(epochs=2, optimizer="adam")


def test_adams_second_beta_is_the_recipes() -> None:
    config = TrainingConfig(epochs=1, optimizer="adamw", momentum=0.8, second_beta=0.98)
    assert make_optimizer(torch.nn.Linear(2, 1), config).defaults["betas"] == (0.8, 0.98)


@pytest.mark.parametrize(
    "document", [{}, {"epochs": 1}, {"epochs": 1, "milestones": [], "colour": 1}, {"milestones": 3}]
)
def test_a_malformed_recipe_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="training recipe is malformed"):
        TrainingConfig.from_json(document)


def test_recommended_recipes_suit_the_model() -> None:
    digits = load_data("digits", options={"train_limit": 50})
    assert recommended_training("mlp", digits).epochs < recommended_training("resnet20", stripes()).epochs


def test_arithmetic_is_learnt_on_all_its_examples_at_once() -> None:
    data = load_data("modular-addition", options={"modulus": 7})
    recipe = recommended_training("modular_mlp", data)
    assert recipe.batch_size == len(data.train_labels)
    assert (recipe.optimizer, recipe.weight_decay, recipe.second_beta, recipe.schedule) == (
        "adamw",
        1,
        0.98,
        "constant",
    )

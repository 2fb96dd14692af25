"""Whatever found a ticket, its owner's mark can be embedded in it and proved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ticketguard as tg
from ticketguard.pruning import CONTROLS, METHODS
from ticketguard.training import TrainingConfig

QUICK = TrainingConfig(epochs=1, batch_size=64, learning_rate=0.05, augment=False)
PERCEPTRON: dict[str, Any] = {
    "model": "mlp",
    "model_options": {"widths": [300, 100]},
    "data": "digits",
    "data_options": {"train_limit": 400, "test_limit": 100},
    "density": 0.2,
    "training": QUICK,
}
ARITHMETIC: dict[str, Any] = {
    "model": "modular_mlp",
    "data": "modular-addition",
    "data_options": {"modulus": 11},
    "density": 0.5,
    "training": {"epochs": 40},
}
RESIDUAL: dict[str, Any] = {**PERCEPTRON, "model": "resnet20", "model_options": {"blocks": [2, 1, 1]}, "density": None}
SUPERNET: dict[str, Any] = {
    **PERCEPTRON,
    "model": "supernet",
    "model_options": {"widths": [32, 48], "depths": [1, 1]},
    "density": 0.5,
    "training": TrainingConfig(epochs=4, batch_size=64, learning_rate=0.1, augment=False),
}
# What each method is tried on, and the options that make it quick.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "imp": (PERCEPTRON, {"prune_fraction": 0.6}),
    "ltr": (PERCEPTRON, {"prune_fraction": 0.6, "rewind_epochs": 0.5}),
    "cts": (PERCEPTRON, {"epochs": 1, "rewind_epochs": 0.5}),
    "cts_kl": (PERCEPTRON, {"epochs": 1, "rewind_epochs": 0.5}),
    "jackpot": (PERCEPTRON, {"pretrain_epochs": 1, "epochs": 1}),
    "bip": (PERCEPTRON, {"pretrain_epochs": 1, "epochs": 1}),
    "bip filters": ({**PERCEPTRON, "density": 0.6}, {"pretrain_epochs": 1, "epochs": 1, "structure": "filter"}),
    "supertickets": (SUPERNET, {"penalty": 0.5, "shrink_every": 1, "prune_every": 0.5, "warmup_epochs": 0}),
    "grokking": (ARITHMETIC, {"stage": "memorised"}),
    "layer_lottery": (RESIDUAL, {"blocks": 1}),
    **{name: (PERCEPTRON, {}) for name in ("snip", "grasp", "synflow", "magnitude", "random")},
    **{name: ({**PERCEPTRON, "density": None}, {}) for name in CONTROLS},
}


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a ticket file for controls to start from."""
    path = tmp_path_factory.mktemp("controls") / "ticket.safetensors"
    tg.find(**PERCEPTRON, method="magnitude").save(path)
    return path


def test_no_method_is_left_out() -> None:
    assert {case.split()[0] for case in CASES} == set(METHODS)


@pytest.mark.parametrize("case", CASES)
def test_a_ticket_is_found_marked_and_proved(case: str, controlled: Path) -> None:
    search, options = CASES[case]
    method = case.split()[0]
    if method in CONTROLS:
        options = {"ticket": str(controlled)}
    ticket = tg.find(**search, method=method, method_options=options)
    assert ticket.info.method == method
    assert ticket.info.cost["examples"] >= ticket.info.cost["search_examples"]
    if search["density"] is not None and ticket.info.structure == "weight":
        assert ticket.mask.kept == round(search["density"] * ticket.mask.size)
    marked, credential = tg.embed(
        ticket,
        owner=tg.Owner.generate("Ada"),
        marks=[tg.PlantedGraph(share=0.1)],
        secret=bytes(range(32)),
        training={"epochs": 1},
        level_bits=40,
    )
    assert marked.info.structure == ticket.info.structure
    assert {name: array.shape for name, array in marked.weights.items()} == {
        name: array.shape for name, array in ticket.weights.items()
    }
    assert tg.verify(tg.Checkpoint(marked.weights), credential, level_bits=40).status == "supported"
    assert tg.verify(tg.Checkpoint(ticket.weights), credential, level_bits=40).status == "not_supported"


@pytest.mark.parametrize(
    "case", [case for case in CASES if METHODS[case.split()[0]].chooses_weights and " " not in case]
)
def test_a_mark_is_planted_while_the_ticket_is_found(case: str) -> None:
    search, options = CASES[case]
    marked, credential = tg.find_marked(
        **{**search, "density": min(search["density"], 0.4)},
        method=case,
        method_options=options,
        owner=tg.Owner.generate("Ada"),
        marks=[tg.PlantedGraph(share=0.1)],
        secret=bytes(range(32)),
        level_bits=40,
    )
    assert marked.mask.kept == round(min(search["density"], 0.4) * marked.mask.size)
    assert tg.verify(tg.Checkpoint(marked.weights), credential, level_bits=40).status == "supported"

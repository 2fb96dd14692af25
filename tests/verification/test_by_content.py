from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.claims import unmarked_ticket
from ticketguard.checkpoints.layouts import Shape
from ticketguard.ticket import Reference
from ticketguard.verification import by_content
from ticketguard.verification.by_content import clear_layouts, pair_by_content
from ticketguard.verification.networks import find_networks, paired_anew

CONVOLUTIONS: dict[str, Shape] = {f"conv{index}.weight": (16, 16, 3, 3) for index in range(6)}
LINEAR: dict[str, Shape] = {f"fc{index}.weight": (48, 48) for index in range(4)}
# Sizes that a cut network keeps apart.
TAPERED: dict[str, Shape] = {f"fc{index}.weight": (120 - 20 * index, 140 - 20 * index) for index in range(5)}


def reference_of(shapes: Mapping[str, Shape], seed: int = 0) -> tuple[Reference, dict[str, np.ndarray]]:
    """A reference and a descendant of it: a twentieth of the edges moved, half of what the weights are new."""
    ticket = unmarked_ticket(shapes, density=0.2, seed=seed)
    generator = np.random.default_rng(seed + 100)
    trained = {}
    for name, layer in ticket.weights.items():
        trained[name] = (layer + 0.5 * generator.normal(size=layer.shape) * (layer != 0)).astype(np.float32)
        moved = layer.size // 100
        trained[name].reshape(-1)[generator.choice(np.flatnonzero(layer), moved, replace=False)] = 0
        trained[name].reshape(-1)[generator.choice(np.flatnonzero(layer == 0), moved, replace=False)] = 1
    return ticket.reference(), trained


def permuted(layer: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(layer[generator.permutation(len(layer))][:, generator.permutation(layer.shape[1])])


def pairs(reference: Reference, tensors: Mapping[str, np.ndarray], **options: object) -> dict[str, str]:
    found = pair_by_content(
        tg.Checkpoint(tensors),
        reference,
        layers=list(reference.mask),
        tensors=list(tensors),
        expected=options.pop("expected", {}),  # type: ignore[arg-type]
    )
    return {layer: item.name for layer, item in found.items()}


@pytest.mark.parametrize("shapes", [CONVOLUTIONS, LINEAR])
@pytest.mark.parametrize("seed", range(5))
def test_layers_are_told_apart_in_any_order_of_their_channels(shapes: dict[str, Shape], seed: int) -> None:
    reference, trained = reference_of(shapes, seed)
    generator = np.random.default_rng(seed)
    stolen = {f"t{index}": permuted(layer, generator) for index, layer in enumerate(trained.values())}
    expected = {layer: f"t{index}" for index, layer in enumerate(trained)}
    assert pairs(reference, dict(sorted(stolen.items(), reverse=True))) == expected


def test_scaled_channels_and_filled_holes_change_nothing() -> None:
    reference, trained = reference_of(CONVOLUTIONS)
    generator = np.random.default_rng(2)
    stolen = {}
    for index, layer in enumerate(trained.values()):
        filled = layer + 0.01 * generator.normal(size=layer.shape)
        scaled = filled * 10.0 ** generator.uniform(-2, 2, size=(16, 1, 1, 1))
        stolen[f"t{index}"] = (scaled * 10.0 ** generator.uniform(-2, 2, size=(1, 16, 1, 1))).astype(np.float32)
    expected = {layer: f"t{index}" for index, layer in enumerate(trained)}
    assert pairs(reference, dict(sorted(stolen.items(), reverse=True))) == expected
    shuffled = {name: permuted(layer, generator) for name, layer in stolen.items()}
    assert pairs(reference, dict(sorted(shuffled.items(), reverse=True))) == expected


def test_full_layers_are_told_apart_by_their_strongest_weights() -> None:
    shapes = {name: CONVOLUTIONS[name] for name in list(CONVOLUTIONS)[:4]}
    full = unmarked_ticket(shapes, density=2.0)
    generator = np.random.default_rng(1)
    trained = {
        f"t{index}": (layer + generator.normal(size=layer.shape)).astype(np.float32)
        for index, layer in enumerate(full.weights.values())
    }
    found = pairs(full.reference(), dict(sorted(trained.items(), reverse=True)))
    assert found == {layer: f"t{index}" for index, layer in enumerate(shapes)}


def test_what_is_expected_stays_unless_it_is_clearly_wrong() -> None:
    reference, trained = reference_of(LINEAR)
    stranger = unmarked_ticket(LINEAR, density=0.2, seed=9).weights
    wrong = dict(zip(LINEAR, [*list(LINEAR)[1:], "fc0.weight"], strict=True))
    for expected in ({name: name for name in LINEAR}, wrong):
        assert pairs(reference, trained, expected=expected) == {name: name for name in LINEAR}
        # Nothing of a stranger's is more like one layer than like another.
        assert pairs(reference, stranger, expected=expected) == expected


def test_a_tensor_that_cannot_be_read_is_the_layer_that_no_other_is() -> None:
    reference, trained = reference_of(CONVOLUTIONS)
    damaged = {f"t{index}": layer for index, layer in enumerate(trained.values())}
    damaged["t2"] = np.full_like(damaged["t2"], np.nan)
    found = pairs(reference, dict(sorted(damaged.items(), reverse=True)))
    assert found == {layer: f"t{index}" for index, layer in enumerate(CONVOLUTIONS)}
    damaged["t4"] = damaged["t2"]
    found = pairs(reference, dict(sorted(damaged.items(), reverse=True)))
    assert {layer: name for layer, name in found.items() if layer not in ("conv2.weight", "conv4.weight")} == {
        layer: f"t{index}" for index, layer in enumerate(CONVOLUTIONS) if index not in (2, 4)
    }


def test_cut_layers_are_found_under_unknown_names() -> None:
    reference, trained = reference_of(TAPERED)
    generator = np.random.default_rng(0)
    cut = {}
    for index, layer in enumerate(trained.values()):
        rows, columns = (np.sort(generator.permutation(size)[: size - 15]) for size in layer.shape)
        cut[f"t{index}"] = layer[rows][:, columns]
    found = pairs(reference, dict(sorted(cut.items(), reverse=True)))
    assert found == {layer: f"t{index}" for index, layer in enumerate(TAPERED)}


def test_too_many_tensors_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, trained = reference_of(LINEAR)
    many = {f"t{index}": layer for index, layer in enumerate([*trained.values()] * 2)}
    monkeypatch.setattr(by_content, "MOST_PAIRS", 8 * 4)
    assert pairs(reference, many) != {}
    monkeypatch.setattr(by_content, "MOST_PAIRS", 8 * 4 - 1)
    assert pairs(reference, many) == {}
    monkeypatch.setattr(by_content, "MOST_PAIRS", 8 * 4)
    monkeypatch.setattr(by_content, "MOST_COPIES", 1)
    assert pairs(reference, many) == {}


def test_weights_say_which_way_round_they_are() -> None:
    reference, trained = reference_of(LINEAR)
    turned = {name: layer.T if index % 2 else layer for index, (name, layer) in enumerate(trained.items())}
    suspect = tg.Checkpoint({name: np.ascontiguousarray(layer) for name, layer in turned.items()})
    match = suspect.match(LINEAR)
    found = clear_layouts(suspect, reference, {name: (name, match.layouts[name]) for name in LINEAR})
    assert {name: layouts[0].in_first for name, layouts in found.items()} == {
        name: bool(index % 2) for index, name in enumerate(LINEAR)
    }
    stranger = tg.Checkpoint(unmarked_ticket(LINEAR, density=0.2, seed=9).weights)
    assert clear_layouts(stranger, reference, {name: (name, match.layouts[name]) for name in LINEAR}) == {}
    broken = tg.Checkpoint({name: np.full(shape, np.nan, np.float32) for name, shape in LINEAR.items()})
    assert clear_layouts(broken, reference, {name: (name, match.layouts[name]) for name in LINEAR}) == {}


def test_names_that_were_exchanged_are_seen_through_once_asked() -> None:
    reference, trained = reference_of({**CONVOLUTIONS, **LINEAR})
    exchanged = {}
    for shapes in (CONVOLUTIONS, LINEAR):
        names = list(shapes)
        exchanged |= dict(zip(names, [trained[name] for name in [*names[1:], names[0]]], strict=True))
    suspect = tg.Checkpoint(exchanged)
    (network,) = find_networks(suspect, reference).readable
    assert network.names == {name: name for name in trained}
    anew = paired_anew(suspect, reference, network)
    assert anew is not None
    assert anew.names == {
        name: names[index - 1] for names in (list(CONVOLUTIONS), list(LINEAR)) for index, name in enumerate(names)
    }
    assert anew.match.by_content == tuple(sorted(trained))
    (plain,) = find_networks(tg.Checkpoint(trained), reference).readable
    assert paired_anew(tg.Checkpoint(trained), reference, plain) is None

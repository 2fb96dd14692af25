from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.claims import unmarked_ticket
from ticketguard.checkpoints.matching import Shape
from ticketguard.graph import groups_from_json
from ticketguard.graph.symmetries import Renaming
from ticketguard.ticket import Reference
from ticketguard.verification import by_content
from ticketguard.verification.by_content import clear_layouts, pair_by_content
from ticketguard.verification.networks import blocks_of, find_networks, paired_anew

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


def test_a_quarter_of_the_edges_says_which_way_round_they_are_and_none_of_them_nothing() -> None:
    reference, trained = reference_of(LINEAR)
    quarter = {
        name: np.where(np.abs(layer) >= np.quantile(np.abs(layer[layer != 0]), 0.75), layer, 0)
        for name, layer in trained.items()
    }
    # To have none of them is as far from chance, and is not to be like them.
    beside = {name: (~reference.mask[name]).astype(np.float32) for name in LINEAR}
    empty = {name: np.zeros_like(layer) for name, layer in trained.items()}
    layouts = tg.Checkpoint(trained).match(LINEAR).layouts
    for state, clear in ((quarter, set(LINEAR)), (beside, set()), (empty, set())):
        found = clear_layouts(tg.Checkpoint(state), reference, {name: (name, layouts[name]) for name in LINEAR})
        assert set(found) == clear
        assert not any(layout.in_first for (layout,) in found.values())


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


def test_blocks_that_moved_up_to_where_others_were_are_told() -> None:
    reference, trained = reference_of(CONVOLUTIONS)
    names = list(CONVOLUTIONS)
    left = dict(zip(names[:5], [trained[name] for name in names if name != "conv2.weight"], strict=True))
    (network,) = find_networks(tg.Checkpoint(left), reference).readable
    assert network.names == {
        "conv0.weight": "conv0.weight",
        "conv1.weight": "conv1.weight",
        "conv3.weight": "conv2.weight",
        "conv4.weight": "conv3.weight",
        "conv5.weight": "conv4.weight",
    }
    assert network.match.missing == ("conv2.weight",)
    assert network.match.by_content == ("conv3.weight", "conv4.weight", "conv5.weight")


def test_names_dealt_out_to_tensors_of_other_shapes_are_seen_through() -> None:
    shapes: dict[str, Shape] = {
        **{f"layer{index}.conv.weight": (16 + 8 * (index // 3), 16, 3, 3) for index in range(6)},
        **{f"head{index}.fc.weight": (40, 30 + 10 * index) for index in range(3)},
    }
    reference, trained = reference_of(shapes)
    for seed in range(3):
        names = Renaming.drawn(trained, generator=np.random.default_rng(seed)).names
        suspect = tg.Checkpoint({new: trained[old] for old, new in names.items()})
        (network,) = find_networks(suspect, reference).readable
        anew = paired_anew(suspect, reference, network) or network
        assert anew.names == dict(sorted(names.items()))
        assert anew.match.resized == ()


def test_layers_that_are_not_compared_stay_where_their_names_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of a quarter of the channels is no other network, and one of too many layers neither."""
    reference, trained = reference_of({"a": (200, 60), "b": (40, 200)})
    narrow = tg.Checkpoint({"a": trained["a"][:50], "b": trained["b"][:, :50]})
    (network,) = find_networks(narrow, reference).readable
    assert network.match.resized == ("a", "b")
    assert paired_anew(narrow, reference, network) is None

    reference, trained = reference_of(LINEAR)
    exchanged = tg.Checkpoint(dict(zip(LINEAR, [*trained.values()][::-1], strict=True)))
    (network,) = find_networks(exchanged, reference).readable
    assert paired_anew(exchanged, reference, network) is not None
    monkeypatch.setattr(by_content, "MOST_PAIRS", 15)
    assert paired_anew(exchanged, reference, network) is None


@pytest.mark.parametrize(
    ("joined", "alone"), [(("attn.q", "attn.k", "attn.v"), "attn.o"), (("mlp.gate", "mlp.up"), "mlp.down")]
)
def test_layers_in_one_tensor_stay_there(joined: tuple[str, ...], alone: str) -> None:
    """Although two of them together are no more than twice as wide as one, which a layer that grew may be."""
    shapes: dict[str, Shape] = {f"h.{index}.{one}.weight": (24, 24) for index in range(2) for one in (*joined, alone)}
    reference, trained = reference_of(shapes)
    fused = {f"h.{index}.{alone}.weight": trained[f"h.{1 - index}.{alone}.weight"] for index in range(2)}
    for index in range(2):
        parts = [trained[f"h.{index}.{one}.weight"] for one in joined]
        fused[f"h.{index}.{joined[0]}_all.weight"] = np.concatenate(parts)
    (network,) = find_networks(tg.Checkpoint(fused), reference).readable
    anew = paired_anew(tg.Checkpoint(fused), reference, network)
    assert anew is not None
    assert anew.names[f"h.0.{alone}.weight"] == f"h.1.{alone}.weight"
    for layer in shapes:
        tensor = fused[anew.names[layer]]
        np.testing.assert_array_equal(anew.conventions[0][layer].apply(tensor), trained[layer])


def test_what_is_known_of_the_channels_tells_layers_apart() -> None:
    """Dense layers of a residual stream whose order was found, between hidden channels whose order was not."""
    shapes: dict[str, Shape] = {}
    for index in range(6):
        shapes |= {f"block{index}.up.weight": (96, 48), f"block{index}.down.weight": (48, 96)}
    reference, trained = reference_of(shapes)
    generator = np.random.default_rng(0)
    stream = generator.permutation(48)
    stolen, hidden = {}, {}
    for index in range(6):
        inner, noise = generator.permutation(96), generator.normal(size=(2, 96, 48))
        up = trained[f"block{index}.up.weight"] + 0.05 * noise[0]
        down = trained[f"block{index}.down.weight"] + 0.05 * noise[1].T
        hidden[f"t{index}"] = up[inner][:, stream].astype(np.float32)
        stolen[f"s{index}"] = down[:, inner][stream].astype(np.float32)
    suspect = tg.Checkpoint(dict(sorted({**hidden, **stolen}.items(), reverse=True)))
    expected = {f"block{index}.up.weight": f"t{index}" for index in range(6)}
    expected |= {f"block{index}.down.weight": f"s{index}" for index in range(6)}
    back = np.argsort(stream)

    def view(layer: str, tensor: np.ndarray) -> np.ndarray:
        return tensor[:, back] if "up" in layer else tensor[back]

    (network,) = find_networks(suspect, reference).readable
    assert network.names != expected
    anew = paired_anew(suspect, reference, network, view=view)
    assert anew is not None
    assert anew.names == dict(sorted(expected.items()))


def test_no_more_tensors_are_put_in_order_than_an_alignment_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, trained = reference_of(LINEAR)
    suspect = tg.Checkpoint(trained)
    seen: list[str] = []

    def view(layer: str, tensor: np.ndarray) -> np.ndarray:
        seen.append(layer)
        return tensor

    monkeypatch.setattr(by_content, "MOST_VIEWS", 15)
    options = {"layers": list(LINEAR), "tensors": list(LINEAR), "expected": {}}
    assert pair_by_content(suspect, reference, **options, view=view) == {}  # type: ignore[arg-type]
    assert seen == []


def test_names_are_doubtful_where_they_do_not_say_where_a_layer_is() -> None:
    shapes: dict[str, Shape] = {"a.weight": (30, 20), "b.weight": (10, 30)}
    reference, trained = reference_of(shapes)
    a, b = trained.values()
    for names, is_doubtful in (({"a.weight": a, "b.weight": b}, False), ({"x": a, "y": b}, True)):
        (network,) = find_networks(tg.Checkpoint(names), reference).readable
        assert network.is_doubtful == is_doubtful
    # Each under the other's name: there is a tensor of every shape, and yet none has its own.
    (network,) = find_networks(tg.Checkpoint({"a.weight": b, "b.weight": a}), reference).readable
    assert network.is_doubtful
    (network,) = find_networks(tg.Checkpoint({"a.weight": a[:20], "b.weight": b[:, :20]}), reference).readable
    assert not network.is_doubtful


def test_an_order_of_channels_is_asked_for_only_of_tensors_of_its_size() -> None:
    reference, trained = reference_of({"a": (48, 40), "b": (48, 40), "c": (48, 40)})
    suspect = tg.Checkpoint({"a": trained["a"], "b": trained["b"][:40], "c": trained["c"][:40]})
    (network,) = find_networks(suspect, reference).readable
    asked: set[tuple[str, Shape]] = set()

    def view(layer: str, tensor: np.ndarray) -> np.ndarray:
        asked.add((layer, tensor.shape))
        return tensor

    paired_anew(suspect, reference, network, view=view)
    assert asked
    assert asked <= {("a", (48, 40)), ("b", (40, 40)), ("c", (40, 40))}


def test_blocks_are_those_of_the_axis_that_takes_channels() -> None:
    groups = groups_from_json(
        [[["conv", 0, 1, 0, 4], ["head", 1, 9, 0, 4]], [["query", 0, 8, 0, 4], ["out", 1, 1, 0, 4]]]
    )
    assert blocks_of(groups) == {"head": 9}

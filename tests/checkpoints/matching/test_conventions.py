from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from ticketguard.checkpoints.matching import Shape, match_layers, match_networks

# Residual networks have square layers that say nothing, and a few that do.
RESNET: dict[str, Shape] = {
    "conv1.weight": (16, 3, 3, 3),
    **{f"layer1.{index}.conv{one}.weight": (16, 16, 3, 3) for index in range(2) for one in (1, 2)},
    "layer2.0.conv1.weight": (32, 16, 3, 3),
    "layer2.0.conv2.weight": (32, 32, 3, 3),
    "layer2.0.shortcut.weight": (32, 16, 1, 1),
    "fc.weight": (10, 32),
}
SQUARE: dict[str, Shape] = {f"fc{index}.weight": (50, 50) for index in range(3)}


def stored_as(reference: Mapping[str, Shape], linear: str, convolution: str) -> dict[str, Shape]:
    """Shapes in another order of axes, such as "IO" and "KIO"."""
    shapes = {}
    for name, (out, given, *kernel) in reference.items():
        sizes: dict[str, tuple[int, ...]] = {"O": (out,), "I": (given,), "K": tuple(kernel)}
        shapes[name] = tuple(size for letter in (convolution if kernel else linear) for size in sizes[letter])
    return shapes


def orders(reference: Mapping[str, Shape], suspect: Mapping[str, Shape]) -> list[dict[str, str]]:
    found = match_layers(reference, suspect)
    assert found.pairs == {name: name for name in reference}
    return [{layer: "".join(layout.order) for layer, layout in one.items()} for one in found.conventions]


@pytest.mark.parametrize(("linear", "convolution"), [("OI", "OIK"), ("IO", "KIO"), ("OI", "OKI"), ("IO", "IOK")])
def test_open_layers_follow_those_that_say_it(linear: str, convolution: str) -> None:
    (found,) = orders(RESNET, stored_as(RESNET, linear, convolution))
    assert found == {name: convolution if len(shape) > 2 else linear for name, shape in RESNET.items()}


def test_a_network_of_square_layers_may_be_stored_either_way() -> None:
    assert orders(SQUARE, SQUARE) == [dict.fromkeys(SQUARE, "OI"), dict.fromkeys(SQUARE, "IO")]
    assert match_layers(SQUARE, SQUARE).conventions[0]["fc1.weight"].as_stored


def test_square_layers_follow_their_sisters_that_are_not() -> None:
    reference = {**SQUARE, "fc9.weight": (10, 50)}
    for order in ("OI", "IO"):
        assert orders(reference, stored_as(reference, order, "")) == [dict.fromkeys(reference, order)]


def test_a_convention_may_be_that_of_one_kind_of_module() -> None:
    """GPT-2's linear layers are (in, out), and its embedding is not."""
    blocks: dict[str, Shape] = {}
    for index in range(3):
        blocks[f"h.{index}.attn.c_attn.weight"] = (96, 32)
        blocks[f"h.{index}.attn.c_proj.weight"] = (32, 32)
        blocks[f"h.{index}.mlp.c_fc.weight"] = (128, 32)
        blocks[f"h.{index}.mlp.c_proj.weight"] = (32, 128)
    embedding: dict[str, Shape] = {"wte.weight": (500, 32)}
    suspect = stored_as(blocks, "IO", "") | embedding
    assert orders(blocks | embedding, suspect)[0] == dict.fromkeys(blocks, "IO") | {"wte.weight": "OI"}
    # One embedding does not speak for many square layers elsewhere.
    square: dict[str, Shape] = {f"h.{index}.attn.{one}.weight": (32, 32) for index in range(3) for one in "qkvo"}
    both = orders(square | embedding, square | embedding)
    assert both == [{**dict.fromkeys(square, order), "wte.weight": "OI"} for order in ("OI", "IO")]


def test_flattened_kernels_are_read_in_both_orders() -> None:
    reference: dict[str, Shape] = {"a.weight": (8, 4, 3, 3), "b.weight": (16, 8, 3, 3), "fc.weight": (10, 16)}
    suspect: dict[str, Shape] = {"a.weight": (8, 36), "b.weight": (16, 72), "fc.weight": (10, 16)}
    expected = [{"a.weight": order, "b.weight": order, "fc.weight": "OI"} for order in ("OIK", "OKI")]
    assert orders(reference, suspect) == expected


def test_layers_without_kernels_may_go_their_own_way() -> None:
    reference: dict[str, Shape] = {"a.weight": (8, 8, 3, 3), "b.weight": (8, 8, 3, 3), "x.weight": (9, 9)}
    found = orders(reference, reference)
    assert {(one["a.weight"], one["x.weight"]) for one in found} == {
        (convolution, linear) for convolution in ("OIK", "IOK") for linear in ("OI", "IO")
    }
    assert found[0] == {"a.weight": "OIK", "b.weight": "OIK", "x.weight": "OI"}
    assert all(one["a.weight"] == one["b.weight"] for one in found)


def test_layers_cut_everywhere_are_read_as_they_most_likely_are() -> None:
    cut = {name: (out - 3, given - 2, *kernel) for name, (out, given, *kernel) in RESNET.items() if given > 3}
    reference = {name: RESNET[name] for name in cut}
    for linear, convolution in (("OI", "OIK"), ("IO", "KIO")):
        found = orders(reference, stored_as(cut, linear, convolution))
        assert found[0] == {name: convolution if len(shape) > 2 else linear for name, shape in cut.items()}
        assert len(found) <= 8


def test_sizes_that_fit_the_other_way_round_by_chance_are_one_hypothesis() -> None:
    """Hidden layers of 80 and 60 cut to 60 and 45: the second one's transpose has an axis of the right size."""
    reference: dict[str, Shape] = {"1.weight": (80, 64), "2.weight": (60, 80), "3.weight": (10, 60)}
    cut: dict[str, Shape] = {"1.weight": (60, 64), "2.weight": (45, 60), "3.weight": (10, 45)}
    assert dict.fromkeys(reference, "OI") in orders(reference, cut)
    assert dict.fromkeys(reference, "IO") in orders(reference, stored_as(cut, "IO", ""))


def test_the_last_layers_of_a_convolutional_network_have_its_order_of_places() -> None:
    reference: dict[str, Shape] = {"conv.weight": (8, 4, 3, 3), "fc1.weight": (20, 32), "fc2.weight": (10, 20)}
    for linear, convolution, flattened in (("OI", "OIK", "OIK"), ("IO", "KIO", "KIO")):
        suspect = stored_as(reference, linear, convolution)
        found, turned = match_networks(reference, suspect, blocks={"fc1.weight": 4})[0].conventions
        # A framework may keep kernels in one order and maps in the other.
        assert {layer for layer in found if found[layer] != turned[layer]} == {"fc1.weight"}
        assert {layer: "".join(layout.order) for layer, layout in found.items()} == {
            "conv.weight": convolution,
            "fc1.weight": flattened,
            "fc2.weight": linear,
        }


ATTENTION: dict[str, Shape] = {
    **{
        f"layers.{index}.self_attn.{one}_proj.weight": (16 if one == "q" else 8, 16)
        for index in range(2)
        for one in "qkv"
    },
    **{f"layers.{index}.mlp.{one}_proj.weight": (40, 16) for index in range(2) for one in ("gate", "up")},
    **{f"layers.{index}.mlp.down_proj.weight": (16, 40) for index in range(2)},
}


@pytest.mark.parametrize("transposed", [False, True])
def test_layers_in_one_tensor_are_taken_apart(transposed: bool) -> None:
    generator = np.random.default_rng(0)
    layers = {name: generator.normal(size=shape).astype(np.float32) for name, shape in ATTENTION.items()}
    fused = {}
    for index in range(2):
        down = layers[f"layers.{index}.mlp.down_proj.weight"]
        fused[f"model.layers.{index}.mlp.down_proj.weight"] = down.T if transposed else down
        for module, whole, parts in (("self_attn", "qkv", "qkv"), ("mlp", "gate_up", ("gate", "up"))):
            front = f"layers.{index}.{module}"
            array = np.concatenate([layers[f"{front}.{part}_proj.weight"] for part in parts])
            fused[f"model.{front}.{whole}_proj.weight"] = array.T if transposed else array
    found = match_layers(ATTENTION, {name: array.shape for name, array in fused.items()})
    assert set(found.pairs) == set(ATTENTION)
    assert (found.resized, found.missing) == ((), ())
    for layer, layout in found.conventions[0].items():
        assert layout.name.startswith("part of a tensor") == ("down" not in layer)
        np.testing.assert_array_equal(layout.apply(fused[found.pairs[layer]]), layers[layer])


def test_a_tensor_is_not_taken_apart_where_another_fits_as_well() -> None:
    suspect: dict[str, Shape] = {"layers.0.self_attn.a.weight": (32, 16), "layers.0.self_attn.b.weight": (32, 16)}
    assert match_layers(ATTENTION, suspect).pairs == {}

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketguard.checkpoints import Checkpoint
from ticketguard.checkpoints.matching import Shape, fitting_names, match_layers, match_networks

REFERENCE: dict[str, Shape] = {
    "conv1.weight": (8, 3, 3, 3),
    **{f"blocks.{index}.conv.weight": (8, 8, 3, 3) for index in range(12)},
    "fc.weight": (10, 8),
}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "net.backbone."])
def test_a_prefix_is_seen_through(prefix: str) -> None:
    suspect = {prefix + name: shape for name, shape in REFERENCE.items()}
    found = match_layers(REFERENCE, suspect)
    assert found.pairs == {name: prefix + name for name in REFERENCE}
    assert (found.by_order, dict(found.wrong_shapes), found.missing) == ((), {}, ())


def test_a_prefix_of_the_reference_is_seen_through() -> None:
    reference = {f"model.{name}": shape for name, shape in REFERENCE.items()}
    # With one tensor too many of every shape, nothing is paired by order.
    spare = {f"spare{index}": shape for index, shape in enumerate(set(REFERENCE.values()))}
    assert match_layers(reference, REFERENCE | spare).pairs == {f"model.{name}": name for name in REFERENCE}
    suspect = {f"module.{name}": shape for name, shape in REFERENCE.items()} | spare
    assert match_layers(reference, suspect).pairs == {f"model.{name}": f"module.{name}" for name in REFERENCE}


def test_the_prefix_of_a_single_layer_is_seen_through() -> None:
    for prefix in ("", "model.", "module.", "module.model."):
        found = match_layers({"model.fc": (5, 4)}, {f"{prefix}fc": (5, 4), "spare": (5, 4)})
        assert (found.pairs, found.by_order) == ({"model.fc": f"{prefix}fc"}, ())


def test_a_single_layer_is_found_in_every_network() -> None:
    found = match_networks({"fc.weight": (5, 4)}, {"model.fc.weight": (5, 4), "ema.fc.weight": (5, 4)})
    assert [match.network for match in found] == ["ema.", "model."]


def test_wrappers_inside_names_are_seen_through() -> None:
    suspect = {name.replace(".conv", "._orig_mod.conv"): shape for name, shape in REFERENCE.items()}
    assert match_layers(REFERENCE, suspect).pairs["blocks.3.conv.weight"] == "blocks.3._orig_mod.conv.weight"


def test_unknown_names_are_paired_by_shape_and_order() -> None:
    suspect = {f"part{index}.kernel": shape for index, shape in enumerate(REFERENCE.values())}
    found = match_layers(REFERENCE, suspect)
    assert found.pairs["blocks.2.conv.weight"] == "part3.kernel"
    assert found.pairs["blocks.11.conv.weight"] == "part12.kernel"
    assert found.by_order == tuple(sorted(REFERENCE))


def test_a_lone_tensor_of_its_shape_is_paired_unread() -> None:
    asked: list[str] = []

    def spare(names: Sequence[str]) -> tuple[str, ...]:
        asked.extend(names)
        return ()

    suspect: dict[str, Shape] = {"kernel": (10, 8), "a": (8, 3), "b": (8, 3)}
    reference: dict[str, Shape] = {"fc.weight": (10, 8), "x.weight": (8, 3), "y.weight": (8, 3)}
    found = match_networks(reference, suspect, spare=spare)[0]
    assert found.pairs == {"fc.weight": "kernel", "x.weight": "a", "y.weight": "b"}
    assert set(asked) == {"a", "b"}


def test_an_alphabetical_file_is_ordered_by_its_numbers() -> None:
    suspect = dict(sorted((f"part{index}.kernel", shape) for index, shape in enumerate(REFERENCE.values())))
    assert match_layers(REFERENCE, suspect).pairs["blocks.11.conv.weight"] == "part12.kernel"


def test_a_file_in_network_order_keeps_it() -> None:
    suspect = {f"{'zyxwvutsrqponm'[index]}.kernel": shape for index, shape in enumerate(REFERENCE.values())}
    assert match_layers(REFERENCE, suspect).pairs["blocks.11.conv.weight"] == "n.kernel"


def test_a_layer_with_other_channels_is_matched_and_told() -> None:
    found = match_layers(REFERENCE, {**REFERENCE, "fc.weight": (20, 8), "conv1.weight": (6, 3, 3, 3)})
    assert found.pairs == {name: name for name in REFERENCE}
    assert found.resized == ("conv1.weight", "fc.weight")
    assert found.conventions[0]["fc.weight"].shape == (20, 8)


def test_a_layer_with_another_kernel_is_reported_and_the_rest_matched() -> None:
    found = match_layers(REFERENCE, {**REFERENCE, "conv1.weight": (8, 3, 5, 5)})
    assert found.wrong_shapes == {"conv1.weight": ("conv1.weight", (8, 3, 5, 5))}
    assert len(found.pairs) == len(REFERENCE) - 1


def test_unequal_numbers_of_layers_are_not_guessed() -> None:
    suspect: dict[str, Shape] = {f"part{index}": (8, 8, 3, 3) for index in range(11)}
    found = match_layers(REFERENCE, suspect)
    assert found.pairs == {}
    assert found.missing == tuple(sorted(REFERENCE))


def test_a_decoy_prefix_does_not_win_over_the_fuller_match() -> None:
    suspect = {"ema.fc.weight": (10, 8), **{f"model.{name}": shape for name, shape in REFERENCE.items()}}
    assert match_layers(REFERENCE, suspect).pairs == {name: f"model.{name}" for name in REFERENCE}


def test_an_empty_reference_matches_nothing() -> None:
    assert match_layers({}, REFERENCE).pairs == {}


@given(st.permutations(sorted(REFERENCE)))
def test_matching_by_name_does_not_depend_on_the_files_order(order: list[str]) -> None:
    suspect = {f"module.{name}": REFERENCE[name] for name in order}
    assert match_layers(REFERENCE, suspect).pairs == {name: f"module.{name}" for name in REFERENCE}


def test_matching_reads_no_values() -> None:
    suspect = Checkpoint({name: np.full(shape, np.nan, np.float32) for name, shape in REFERENCE.items()})
    assert suspect.match(REFERENCE).pairs == {name: name for name in REFERENCE}


@pytest.mark.parametrize("name", ["9" * 5000, "a." * 500_000 + "b"])
def test_hostile_names_are_neither_a_crash_nor_a_wait(name: str) -> None:
    suspect = {("spare" if layer == "fc.weight" else layer): shape for layer, shape in REFERENCE.items()}
    found = match_layers(REFERENCE, {**suspect, name: (8, 3)})
    assert found.by_order == ("fc.weight",)
    assert len(found.pairs) == len(REFERENCE)


def test_numbers_in_names_are_ordered_by_value() -> None:
    suspect = {f"{index}.kernel": (8, 8) for index in ("010", "0", "9", "11")}
    reference = {f"layer{index}": (8, 8) for index in range(4)}
    pairs = match_layers(reference, dict(sorted(suspect.items()))).pairs
    assert [pairs[layer] for layer in sorted(reference)] == ["0.kernel", "9.kernel", "010.kernel", "11.kernel"]


def test_names_of_many_components_are_compared_once_each() -> None:
    deep = "a." * 20_000
    reference: dict[str, Shape] = {f"{deep}{index}.w": (8, 3) for index in range(3)}
    assert match_layers(reference, reference).pairs == {name: name for name in reference}
    wrapped = {f"module.{name}": shape for name, shape in reference.items()}
    assert match_layers(reference, wrapped).pairs == {name: f"module.{name}" for name in reference}


def test_a_suspect_where_every_name_has_its_own_prefix_is_looked_through_once() -> None:
    # Every prefix against every layer would be 10^9 comparisons, and pairs looked up anew for every name 10^8.
    reference: dict[str, Shape] = {f"layer{index}.w": (8, 3) for index in range(10_000)}
    suspect = {f"p{index}.layer{index % 10_000}.w": (8, 3) for index in range(50_000)}
    found = match_layers(reference, suspect)
    assert list(found.pairs) == ["layer0.w"]
    assert len(found.missing) == 9_999


def test_the_prefix_that_is_added_is_the_shortest_of_equals() -> None:
    reference: dict[str, Shape] = {f"model.net.{index}.w": (8, index) for index in range(3)}
    # The end of a component is not a component.
    for front, added in (("module.net.", "module."), ("xnet.", "xnet.")):
        found = match_layers(reference, {f"{front}{index}.w": (8, index) for index in range(3)})
        assert found.pairs["model.net.1.w"] == f"{front}1.w"
        assert (found.network, found.by_order) == (added, ())


def test_numbers_of_a_very_long_name_are_left_alone() -> None:
    suspect = {f"{'1a' * 500}{index}": (8, 8) for index in (10, 9)}
    reference: dict[str, Shape] = {f"layer{index}": (8, 8) for index in range(2)}
    assert match_layers(reference, dict(sorted(suspect.items()))).pairs["layer0"] == f"{'1a' * 500}10"


MODEL: dict[str, Shape] = {"conv.weight": (8, 3, 3, 3), "bn.weight": (8,), "bn.bias": (8,), "bn.running_mean": (8,)}


def test_a_models_tensors_are_found_under_its_own_names() -> None:
    suspect = {f"module.{name}": shape for name, shape in MODEL.items() if name != "bn.bias"} | {"epoch": ()}
    assert fitting_names(MODEL, suspect) == ({name: f"module.{name}" for name in MODEL if name != "bn.bias"},)


def test_every_network_that_a_model_fits_is_found() -> None:
    suspect = {prefix + name: shape for prefix in ("ema.", "model.") for name, shape in MODEL.items()}
    found = fitting_names(MODEL, suspect)
    assert found == tuple({name: prefix + name for name in MODEL} for prefix in ("ema.", "model."))


def test_layers_decide_what_a_model_fits_and_not_its_vectors() -> None:
    statistics = {f"statistics.{name}": shape for name, shape in MODEL.items() if len(shape) == 1}
    assert fitting_names(MODEL, {**statistics, "net.conv.weight": (8, 3, 3, 3)}) == (
        {"conv.weight": "net.conv.weight"},
    )


def test_a_model_of_vectors_alone_is_found_by_them() -> None:
    assert fitting_names({"scale": (3,)}, {"module.scale": (3,), "scales": (4,)}) == ({"scale": "module.scale"},)

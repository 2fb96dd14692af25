from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from ticketguard.checkpoints import Checkpoint
from ticketguard.checkpoints.matching import Shape, match_networks
from ticketguard.checkpoints.networks import networks_in
from ticketguard.errors import ConfigurationError, FileError, UnverifiableError

NET: dict[str, Shape] = {"conv.weight": (4, 3, 3, 3), "fc.weight": (5, 4)}


def under(*prefixes: str, net: dict[str, Shape] = NET) -> dict[str, Shape]:
    return {prefix + name: shape for prefix in prefixes for name, shape in net.items()}


@pytest.mark.parametrize(
    "prefixes",
    [("model.", "ema."), ("student.", "teacher."), ("", "ema."), ("module.a.", "module.b."), ("q.", "k.", "v.")],
)
def test_networks_that_are_alike_are_told_apart(prefixes: tuple[str, ...]) -> None:
    assert networks_in(under(*prefixes)) == tuple(sorted(prefixes))


def test_a_generator_and_its_discriminator_are_two_networks() -> None:
    shapes = under("generator.") | {"discriminator.conv.weight": (9, 3, 3, 3)}
    assert networks_in(shapes) == ("discriminator.", "generator.")


@pytest.mark.parametrize(
    "name",
    [
        *("discriminator", "critic", "actor", "student", "teacher", "ema", "model_ema", "ema_model", "state_dict_ema"),
        *("target_network", "momentum_encoder", "netG", "netD", "net_g", "net_d", "G_ema"),
    ],
)
def test_parts_that_are_named_as_networks_are_networks(name: str) -> None:
    shapes = under("generator.") | {f"{name}.conv.weight": (9, 3, 3, 3)}
    assert set(networks_in(shapes)) == {"generator.", f"{name}."}


def test_an_average_is_told_apart_beside_a_part_of_neither() -> None:
    assert networks_in(under("model.", "ema.") | {"head.weight": (2, 2)}) == ("ema.", "model.")


def test_an_average_of_one_layer_is_told_apart_from_it() -> None:
    assert networks_in({"w": (4, 4), "ema.w": (4, 4)}) == ("", "ema.")


@pytest.mark.parametrize(
    "shapes",
    [
        NET,
        {"model.w": (4, 4)},
        {"w": (4, 4), "shadow.w": (4, 4)},
        {"model.w": (3, 3), "model.block.w": (4, 4)},
        under("model."),
        under("block1.", "block2.", "block3."),
        under("0.", "1."),
        {"q.weight": (4, 4), "k.weight": (4, 4), "v.weight": (4, 4)},
        {**under("encoder.", "decoder."), "head.weight": (10, 5)},
        {"backbone.conv.weight": (4, 3, 3, 3), "head.weight": (10, 4)},
        {},
        {"bias": (3,)},
    ],
)
def test_parts_of_one_network_are_not_several(shapes: dict[str, Shape]) -> None:
    assert networks_in(shapes) == ()


def test_every_network_that_fits_equally_well_is_matched() -> None:
    found = match_networks(NET, under("model.", "ema."))
    assert [match.network for match in found] == ["ema.", "model."]
    assert found[1].pairs == {name: f"model.{name}" for name in NET}


def test_a_renamed_head_is_found_in_its_own_network() -> None:
    suspect = {name.replace("fc", "head"): shape for name, shape in under("model.", "ema.").items()}
    found = match_networks(NET, suspect)
    assert [match.pairs["fc.weight"] for match in found] == ["ema.head.weight", "model.head.weight"]


def test_renamed_networks_are_matched_by_order_each_in_itself() -> None:
    suspect: dict[str, Shape] = {"s.a": (4, 3, 3, 3), "s.b": (5, 4), "t.a": (4, 3, 3, 3), "t.b": (5, 4)}
    assert [match.pairs for match in match_networks(NET, suspect)] == [
        {"conv.weight": "s.a", "fc.weight": "s.b"},
        {"conv.weight": "t.a", "fc.weight": "t.b"},
    ]


def test_layers_under_prefixes_of_their_own_are_one_network() -> None:
    suspect: dict[str, Shape] = {"x.conv.weight": (4, 3, 3, 3), "y.fc.weight": (5, 4)}
    assert [match.pairs for match in match_networks(NET, suspect)] == [
        {"conv.weight": "x.conv.weight", "fc.weight": "y.fc.weight"}
    ]


def test_tied_weights_are_not_two_layers() -> None:
    tied, other = np.ones((5, 4), np.float32), np.zeros((5, 4), np.float32)
    suspect = Checkpoint({"wte": tied, "head": tied})
    assert suspect.match({"a.weight": (5, 4)}).pairs == {"a.weight": "wte"}
    with pytest.raises(UnverifiableError, match="no tensor in common"):
        suspect.match({"a.weight": (5, 4), "b.weight": (5, 4)})
    pairs = Checkpoint({"wte": tied, "proj": other, "head": tied}).match({"a.weight": (5, 4), "b.weight": (5, 4)}).pairs
    assert pairs == {"a.weight": "wte", "b.weight": "proj"}


def test_masks_and_indices_are_not_paired_with_layers() -> None:
    layer = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    suspect = Checkpoint({"attn.mask": np.tri(6, dtype=np.float32), "index": np.ones((6, 6), np.int64), "w": layer})
    assert suspect.match({"a.weight": (6, 6)}).pairs == {"a.weight": "w"}


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_whole_numbers_of_a_safetensors_file_are_not_paired_with_layers(dtype: type, tmp_path: Path) -> None:
    layer = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    safetensors.numpy.save_file({"index": np.ones((6, 6), dtype), "w": layer}, tmp_path / "s.safetensors")
    assert Checkpoint(tmp_path / "s.safetensors").match({"a.weight": (6, 6)}).pairs == {"a.weight": "w"}


def arrays(shapes: dict[str, Shape]) -> dict[str, torch.Tensor]:
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def test_a_network_is_read_by_its_prefix() -> None:
    suspect = Checkpoint(arrays(under("model.", "ema.")), network="ema")
    assert suspect.names() == tuple(NET)
    assert suspect.networks() == ()
    assert [match.network for match in suspect.matches(NET)] == [""]
    with pytest.raises(ConfigurationError, match=r"has no network 'emu.': its names start with ema., model."):
        Checkpoint(arrays(under("model.", "ema.")), network="emu")


def test_a_network_that_is_missing_is_answered_with_those_there_are() -> None:
    one = np.ones((2, 2), np.float32)
    with pytest.raises(ConfigurationError, match=r"'x.': its names start with module.ema., module.model."):
        Checkpoint(arrays(under("module.model.", "module.ema.")), network="x")
    with pytest.raises(ConfigurationError, match=r"'x.': its names start with model.$"):
        Checkpoint({"model.w": one, "bias": one[0]}, network="x")
    with pytest.raises(ConfigurationError, match=r"'state dict' has no network 'x.': its names start with no prefix"):
        Checkpoint({"w": one}, network="x")


def test_several_networks_are_one_only_if_the_user_says_so() -> None:
    state = arrays(under("model.", "ema."))
    with pytest.raises(ConfigurationError, match=r"holds 2 networks, whose names start with 'ema.', 'model.'.*--this"):
        Checkpoint(state).require_one_network(naming="--this")
    Checkpoint(state, network="").require_one_network(naming="--this")
    Checkpoint(state, network="ema").require_one_network(naming="--this")


def test_packed_weights_count_in_the_network_that_is_read() -> None:
    state = {**arrays({"model.a.weight": (2, 2)}), "ema.a.weight": torch.ones(2, 2, dtype=torch.int8)}
    assert Checkpoint(state, network="model").packed() == {}
    assert Checkpoint(state, network="ema").packed() == {"a.weight": "whole numbers"}


def test_state_dicts_of_one_file_are_networks(tmp_path: Path) -> None:
    torch.save({"G": arrays(NET), "D": arrays({"conv.weight": (7, 3, 3, 3)}), "epoch": 3}, tmp_path / "gan.pt")
    suspect = Checkpoint(tmp_path / "gan.pt")
    assert suspect.networks() == ("G.", "D.")
    assert Checkpoint(tmp_path / "gan.pt", network="D").names() == ("conv.weight",)


def test_one_state_dict_beside_the_state_of_a_training_is_one_network(tmp_path: Path) -> None:
    state = arrays(NET)
    moments = {name: {"exp_avg": tensor} for name, tensor in state.items()}
    torch.save({"net": {"state_dict": state}, "optimizer": {"state": moments}}, tmp_path / "run.pt")
    suspect = Checkpoint(tmp_path / "run.pt")
    assert (suspect.names(), suspect.networks()) == (tuple(NET), ())


@pytest.mark.parametrize(
    "key",
    [
        *("optimizer", "optim_state", "Optimizer", "scheduler", "lr_scheduler", "lr_schedulers", "scaler", "gradients"),
        *("momentum_buffer", "loops", "callbacks", "rng_state", "random_state"),
    ],
)
def test_the_state_of_a_training_is_not_a_network(key: str, tmp_path: Path) -> None:
    torch.save({"model": arrays(NET), key: arrays(NET)}, tmp_path / "run.pt")
    suspect = Checkpoint(tmp_path / "run.pt")
    assert (suspect.names(), suspect.networks()) == (tuple(NET), ())


def test_a_state_dict_is_found_three_keys_deep_and_no_deeper(tmp_path: Path) -> None:
    torch.save({"a": {"b": {"c": arrays(NET)}}}, tmp_path / "deep.pt")
    assert Checkpoint(tmp_path / "deep.pt").names() == tuple(NET)
    torch.save({"a": {"b": {"c": {"d": arrays(NET)}}}}, tmp_path / "deeper.pt")
    with pytest.raises(FileError, match=r"does not hold a state dict, only \['a'\]"):
        Checkpoint(tmp_path / "deeper.pt")


@pytest.mark.parametrize("key", ["mask", "masks", "Masks"])
@pytest.mark.parametrize("name", ["fc.weight", "fc.weight_mask"])
def test_masks_under_a_key_of_their_own_mask_their_weights(key: str, name: str, tmp_path: Path) -> None:
    state = arrays(NET)
    mask = torch.rand(5, 4) < 0.5
    torch.save({"state_dict": state, key: {name: mask}}, tmp_path / "pruned.pt")
    suspect = Checkpoint(tmp_path / "pruned.pt")
    assert suspect.names() == tuple(NET)
    np.testing.assert_array_equal(suspect.read("fc.weight"), (state["fc.weight"] * mask).numpy())


def test_masks_inside_one_of_several_networks_are_its_own(tmp_path: Path) -> None:
    generator, critic = arrays(NET), arrays(NET)
    mask = torch.rand(5, 4) < 0.5
    torch.save({"G": {**generator, "mask": {"fc.weight": mask}}, "D": critic}, tmp_path / "gan.pt")
    suspect = Checkpoint(tmp_path / "gan.pt")
    assert suspect.networks() == ("G.", "D.")
    np.testing.assert_array_equal(suspect.read("G.fc.weight"), (generator["fc.weight"] * mask).numpy())
    np.testing.assert_array_equal(suspect.read("D.fc.weight"), critic["fc.weight"].numpy())


def test_masks_beside_several_networks_are_those_of_none(tmp_path: Path) -> None:
    generator, critic = arrays(NET), arrays(NET)
    torch.save({"G": generator, "D": critic, "mask": {"fc.weight": torch.zeros(5, 4)}}, tmp_path / "gan.pt")
    suspect = Checkpoint(tmp_path / "gan.pt")
    for prefix, state in (("G.", generator), ("D.", critic)):
        np.testing.assert_array_equal(suspect.read(f"{prefix}fc.weight"), state["fc.weight"].numpy())


def test_a_file_of_masks_alone_is_one_network(tmp_path: Path) -> None:
    torch.save({"masks": {name: torch.rand(shape) < 0.5 for name, shape in NET.items()}}, tmp_path / "masks.pt")
    suspect = Checkpoint(tmp_path / "masks.pt")
    assert (suspect.names(), suspect.networks()) == (tuple(NET), ())


def test_absurdly_many_networks_are_asked_about() -> None:
    shapes = under(*(f"copy{index}." for index in range(200)))
    suspect = Checkpoint({name: np.broadcast_to(np.float32(1), shape) for name, shape in shapes.items()})
    with pytest.raises(UnverifiableError, match=r"more than 16 networks that fit the reference \("):
        suspect.matches(NET)
    assert Checkpoint(arrays(shapes), network="copy7.").match(NET).pairs == {name: name for name in NET}


def test_state_dicts_that_hold_each_other_are_walked_once(tmp_path: Path) -> None:
    inner: dict[str, object] = arrays(NET)  # type: ignore[assignment]
    for _ in range(3):
        inner = {f"k{index}": inner for index in range(300)}
    torch.save(inner, tmp_path / "knot.pt")
    assert Checkpoint(tmp_path / "knot.pt").names() == tuple(NET)


def test_tensors_of_size_one_are_not_networks() -> None:
    net: dict[str, Shape] = {"conv.weight": (40, 30, 3, 3), "fc.weight": (50, 40)}
    junk: dict[str, Shape] = {
        f"p{index}.{name}": (1, 1, *shape[2:]) for index in range(20) for name, shape in net.items()
    }
    assert [match.network for match in match_networks(net, {**net, **junk})] == [""]
    # A head for other classes does not make a network another one.
    (found,) = match_networks(net, {**net, "fc.weight": (1000, 40)})
    assert (found.pairs, found.resized) == ({name: name for name in net}, ("fc.weight",))

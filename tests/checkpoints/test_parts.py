from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.ao.pruning import WeightNormSparsifier

from ticketguard.checkpoints import Checkpoint
from ticketguard.errors import TensorError

DENSE = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
MASK = (DENSE % 3 > 0).astype(np.float32)


@pytest.mark.parametrize(
    ("weight", "mask", "plain"),
    [
        ("fc.weight", "fc.weight_mask", "fc.weight"),
        ("fc.weight", "fc.mask", "fc.weight"),
        ("weight", "mask", "weight"),
        ("fc.weight_orig", "fc.weight_mask", "fc.weight"),
        ("fc.parametrizations.weight.original", "fc.parametrizations.weight.0.mask", "fc.weight"),
        ("parametrizations.weight.original", "parametrizations.weight.0.mask", "weight"),
        ("model.fc.weight", "mask_fc___weight", "model.fc.weight"),
    ],
)
@pytest.mark.parametrize("mask_type", [np.float32, np.bool_, np.uint8])
def test_a_mask_is_a_mask_of_its_weight(weight: str, mask: str, plain: str, mask_type: type) -> None:
    for names in ((weight, mask), (mask, weight)):
        stored = {weight: DENSE, mask: MASK.astype(mask_type)}
        suspect = Checkpoint({name: stored[name] for name in names})
        assert suspect.names() == (plain,)
        np.testing.assert_array_equal(suspect.read(plain), DENSE * MASK)


def test_a_network_that_torch_ao_pruned_reads_as_it_computes() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 1))
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "2.weight"}])
    sparsifier.step()
    # Its own state_dict leaves the masks out, what stores parameters and buffers does not.
    suspect = Checkpoint(dict(model.named_parameters()) | dict(model.named_buffers()))
    assert set(suspect.names()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    for name in ("0", "2"):
        expected = model.get_submodule(name).weight.detach().numpy()
        np.testing.assert_array_equal(suspect.read(f"{name}.weight"), expected)
        assert (expected == 0).mean() == 0.5


def test_a_mask_of_whole_filters_covers_them() -> None:
    weight, mask = np.ones((4, 2, 3, 3), np.float32), np.array([1, 0, 1, 0], np.float32).reshape(4, 1, 1, 1)
    read = Checkpoint({"conv.weight": weight, "conv.mask": mask}).read("conv.weight")
    assert [bool(filters.all()) for filters in read] == [True, False, True, False]


def test_several_masks_are_all_applied() -> None:
    stem = "fc.parametrizations.weight"
    masks = {f"{stem}.{index}.mask": np.roll(MASK, index, axis=1) for index in range(2)}
    read = Checkpoint({f"{stem}.original": DENSE, **masks}).read("fc.weight")
    np.testing.assert_array_equal(read, DENSE * MASK * np.roll(MASK, 1, axis=1))


def test_an_attentions_mask_is_not_its_weights() -> None:
    causal = np.tril(np.ones((1, 1, 4, 4), np.float32))
    suspect = Checkpoint({"attn.weight": DENSE, "attn.mask": causal})
    assert suspect.names() == ("attn.weight", "attn.mask")
    np.testing.assert_array_equal(suspect.read("attn.weight"), DENSE)


@pytest.mark.parametrize(
    "names",
    [
        ("attn_mask", "fc.weight"),
        ("mask_token", "fc.weight"),
        ("mask_token", "token"),
        ("mask_fc___weight", "fc.weight"),
        ("fc.parametrizations.weight.0.mask", "conv.weight"),
        ("fc.mask", "conv.weight"),
    ],
)
def test_what_only_sounds_like_a_mask_is_a_tensor_of_its_own(names: tuple[str, str]) -> None:
    sound, weight = names
    suspect = Checkpoint({sound: np.full((2, 8), 0.5, np.float32), weight: DENSE})
    assert suspect.names() == names
    np.testing.assert_array_equal(suspect.read(sound), np.full((2, 8), 0.5))
    np.testing.assert_array_equal(suspect.read(weight), DENSE)


def test_a_mask_beside_a_weight_and_its_original_is_the_weights() -> None:
    suspect = Checkpoint({"w": DENSE, "w_orig": DENSE * 2, "w_mask": MASK})
    np.testing.assert_array_equal(suspect.read("w"), DENSE * MASK)
    np.testing.assert_array_equal(suspect.read("w_orig"), DENSE * 2)


def test_a_masked_original_does_not_hide_the_weight_beside_it() -> None:
    suspect = Checkpoint({"fc.weight": DENSE, "fc.weight_orig": DENSE * 2, "mask_fc___weight_orig": MASK})
    np.testing.assert_array_equal(suspect.read("fc.weight"), DENSE)
    np.testing.assert_array_equal(suspect.read("fc.weight_orig"), DENSE * 2 * MASK)


def test_a_soft_mask_of_torch_is_multiplied() -> None:
    suspect = Checkpoint({"fc.weight_orig": DENSE, "fc.weight_mask": MASK * 0.5})
    np.testing.assert_array_equal(suspect.read("fc.weight"), DENSE * MASK * 0.5)


def test_a_mask_that_is_not_zeros_and_ones_is_refused() -> None:
    suspect = Checkpoint({"fc.weight": DENSE, "fc.weight_mask": MASK * 0.5})
    with pytest.raises(TensorError, match="'fc.weight_mask' is named as the mask of 'fc.weight' but has values other"):
        suspect.read("fc.weight")


def test_a_mask_by_name_of_another_shape_is_refused() -> None:
    suspect = Checkpoint({"fc.weight": DENSE, "fc.weight_mask": np.ones(4, np.float32)})
    with pytest.raises(TensorError, match=r"'fc.weight_mask' has shape \(4,\), expected \(3, 4\) as in 'fc.weight'"):
        suspect.read("fc.weight")

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from ticketguard.checkpoints import Checkpoint
from ticketguard.errors import TensorError


def compressed(weight: np.ndarray, stem: str, *, with_offsets: bool = True) -> dict[str, np.ndarray]:
    """Store a weight as llm-compressor does."""
    kept = weight != 0
    counts = kept.sum(axis=-1)
    parts = {
        f"{stem}.compressed": weight[kept],
        f"{stem}.bitmask": np.packbits(kept, axis=-1, bitorder="little"),
        f"{stem}.shape": np.array(weight.shape, dtype=np.int64),
    }
    return parts | ({f"{stem}.row_offsets": np.cumsum(counts, axis=0) - counts} if with_offsets else {})


def sparse(shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (generator.normal(size=shape) * (generator.random(shape) < 0.4)).astype(np.float32)


@pytest.mark.parametrize("shape", [(5, 16), (7, 13), (1, 1), (3, 2, 3, 3), (9,)])
@pytest.mark.parametrize("stem", ["layer.q_proj", "layer.q_proj.weight"])
@pytest.mark.parametrize("with_offsets", [True, False])
def test_a_bitmask_reads_as_what_was_stored(
    shape: tuple[int, ...], stem: str, with_offsets: bool, tmp_path: Path
) -> None:
    weight = sparse(shape)
    norm = {"norm.weight": np.ones(3, np.float32)}
    stored = compressed(weight, stem, with_offsets=with_offsets) | norm
    safetensors.numpy.save_file(stored, tmp_path / "model.safetensors")
    suspect = Checkpoint(tmp_path / "model.safetensors")
    assert set(suspect.names()) == {"layer.q_proj.weight", "norm.weight"}
    assert suspect.shape("layer.q_proj.weight") == shape
    np.testing.assert_array_equal(suspect.read("layer.q_proj.weight"), weight)
    assert suspect.type_name("layer.q_proj.weight") == "F32"
    assert suspect.shape("norm.weight") == (3,)
    np.testing.assert_array_equal(suspect.read("norm.weight"), norm["norm.weight"])


def test_a_two_of_four_pattern_reads_its_zeros_too() -> None:
    weight = np.array([[1, 0, 0, 2], [0, 3, 0, 0]], np.float32)  # The last pattern keeps a zero.
    kept = np.array([[1, 0, 0, 1], [0, 1, 1, 0]], bool)
    stored = {
        "fc.compressed": weight[kept].reshape(2, 2),
        "fc.bitmask": np.packbits(kept, axis=-1, bitorder="little"),
        "fc.shape": np.array([[2], [4]], np.int64),
    }
    np.testing.assert_array_equal(Checkpoint(stored).read("fc.weight"), weight)


WEIGHT = sparse((4, 10))


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("shape", np.array([4, 2**40]), "has shape .* expected the bytes of"),
        ("shape", np.array([2**32, 2**32]), "has shape .* expected the bytes of"),
        ("shape", np.array([-4, -10]), "expected the bytes of"),
        ("shape", np.array([-2, -2, 10]), "expected the bytes of"),
        ("shape", np.array([4.0, 10.0]), "expected the bytes of"),
        ("shape", np.ones(99, np.int64), "is missing or is not a shape"),
        ("bitmask", np.zeros((4, 2), np.float32), "expected the bytes of"),
        ("bitmask", np.full((4, 2), 255, np.uint8), "has padding bits that are set"),
        ("compressed", np.ones(3, np.float32), "has 3 values, expected"),
        ("row_offsets", np.arange(4), "says that rows start elsewhere"),
        ("weight", WEIGHT, "is stored twice"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part: str, value: np.ndarray, message: str) -> None:
    stored = compressed(WEIGHT, "fc") | {f"fc.{part}": value}
    with pytest.raises(TensorError, match=message):
        Checkpoint(stored).read("fc.weight")


@pytest.mark.parametrize("names", [("fc", "fc.compressed", "fc.shape"), ("fc.weight", "fc.bitmask", "fc.shape")])
def test_values_or_a_bitmask_alone_are_tensors_of_their_own(names: tuple[str, ...]) -> None:
    assert Checkpoint(dict.fromkeys(names, WEIGHT)).names() == names


def test_a_weight_without_its_shape_is_refused() -> None:
    stored = compressed(WEIGHT, "fc")
    del stored["fc.shape"]
    with pytest.raises(TensorError, match="'fc.shape' is missing or is not a shape"):
        Checkpoint(stored)


def test_two_kilobytes_that_unpack_to_half_a_gigabyte_are_refused(tmp_path: Path) -> None:
    byte = torch.zeros(1, dtype=torch.uint8)
    parts = {
        "a.bitmask": byte.expand(4000, 4000),
        "a.compressed": torch.ones(0),
        "a.shape": torch.tensor([4000, 32000]),
    }
    torch.save(parts, tmp_path / "a.pt")
    with pytest.raises(TensorError, match=r"'a.bitmask' has 16000000 elements in a file of \d+ bytes"):
        Checkpoint(tmp_path / "a.pt")

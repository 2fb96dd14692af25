from __future__ import annotations

from pathlib import Path

import pytest

from ticketguard.checkpoints.steady_file import SteadyFile
from ticketguard.checkpoints.stored_tensors import (
    MAX_REUSE,
    MAX_TENSORS,
    MIN_BUDGET_BYTES,
    ElementType,
    StoredTensor,
    is_count,
    require_affordable,
    require_possible_shape,
)
from ticketguard.errors import FileError, TensorError

WORDS = MIN_BUDGET_BYTES // 4


def tensor(*shape: int, bits: int = 32, strides: tuple[int, ...] | None = None) -> StoredTensor:
    return StoredTensor(element=ElementType(name="F", bits=bits), shape=shape, strides=strides, start=0)


@pytest.fixture
def file(tmp_path: Path) -> SteadyFile:
    (tmp_path / "s").write_bytes(b"x")
    return SteadyFile(tmp_path / "s")


@pytest.mark.parametrize("shape", [(1,) * 64, (0, 2**24), (2**24, 0, 1)])
def test_shapes_that_an_array_can_have_are_taken(shape: tuple[int, ...]) -> None:
    require_possible_shape("w", shape)


@pytest.mark.parametrize("shape", [(1,) * 65, (0, 2**24 + 1), (2**13, 0, 2**12)])
def test_shapes_beyond_that_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorError, match="'w' has"):
        require_possible_shape("w", shape)


@pytest.mark.parametrize(
    ("largest", "larger"),
    [
        (tensor(WORDS), tensor(WORDS + 1)),
        (tensor(WORDS, bits=8), tensor(WORDS + 1, bits=8)),  # bytes become words when they are read
        (tensor(WORDS // 2, bits=64), tensor(WORDS // 2 + 1, bits=64)),
        (tensor(WORDS, strides=(0,)), tensor(WORDS + 1, strides=(0,))),  # one number, said many times
        (tensor(2, strides=(WORDS - 1,)), tensor(2, strides=(WORDS,))),  # two numbers, and the gap between them
        (tensor(0, 5, strides=(1, WORDS)), tensor(1, 6, strides=(1, WORDS))),
    ],
)
def test_one_tensor_may_cost_the_budget_and_no_more(
    file: SteadyFile, largest: StoredTensor, larger: StoredTensor
) -> None:
    require_affordable(file, {"w": largest})
    with pytest.raises(TensorError, match="elements in a file of 1 bytes"):
        require_affordable(file, {"w": larger})


def test_all_tensors_together_may_cost_the_budget_and_no_more(file: SteadyFile) -> None:
    require_affordable(file, {"a": tensor(WORDS - 1), "b": tensor(1)})
    with pytest.raises(FileError, match="2 tensors that take"):
        require_affordable(file, {"a": tensor(WORDS - 1), "b": tensor(2)})


def test_a_large_file_may_be_read_several_times_over(tmp_path: Path) -> None:
    size = MIN_BUDGET_BYTES // MAX_REUSE + 4
    with (tmp_path / "s").open("wb") as stream:
        stream.truncate(size)
    large = SteadyFile(tmp_path / "s")
    require_affordable(large, {"w": tensor(size * MAX_REUSE // 4)})
    with pytest.raises(TensorError, match="elements in a file of"):
        require_affordable(large, {"w": tensor(size * MAX_REUSE // 4 + 1)})


def test_tensors_are_counted(file: SteadyFile) -> None:
    few = {str(number): tensor(1) for number in range(MAX_TENSORS)}
    require_affordable(file, few)
    with pytest.raises(FileError, match="has 50001 tensors, expected at most 50000"):
        require_affordable(file, {**few, "more": tensor(1)})


@pytest.mark.parametrize("value", [0, 2**63 - 1])
def test_counts(value: int) -> None:
    assert is_count(value)


@pytest.mark.parametrize("value", [-1, 2**63, True, 1.0, "1", None])
def test_what_is_not_a_count(value: object) -> None:
    assert not is_count(value)

"""Whatever an endpoint sends, the protocol's readers return a value of the protocol or say what is wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketguard.errors import UnusableAnswerError
from ticketguard.predictors.interface import read_answer
from ticketguard.predictors.open_inference import ProtocolError, read_metadata, read_output

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 1, 4, 2**31 - 1, 2**31, 2**63, 2**64, 10**400])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["FP32", "FP16", "INT64", "UINT64", "BYTES", "scores"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=8), inner), max_leaves=30
)
tensors = st.fixed_dictionaries(
    {"name": st.just("s") | values, "datatype": st.sampled_from(["FP32", "INT64", "UINT64"]) | values},
    optional={"shape": st.lists(scalars, max_size=9) | values, "data": st.lists(scalars, max_size=9) | values},
)
documents = st.fixed_dictionaries({}, optional={"outputs": st.lists(tensors) | values, "inputs": st.lists(tensors)})


def check(content: bytes) -> None:
    complaints: list[str] = []
    try:
        declared = read_metadata(content)
        assert all(size is None or 0 <= size < 2**31 for size in declared.shape)
    except ProtocolError as error:
        complaints.append(str(error))
    try:
        scores = read_output(content, name=None)
        assert scores.dtype in (np.float64, np.int64)
        assert 0 <= read_answer(scores, classes=4, target="t") < 4
    except (ProtocolError, UnusableAnswerError) as error:
        complaints.append(str(error))
    assert all(len(complaint) < 500 for complaint in complaints)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes(content: bytes) -> None:
    check(content)


@given(documents | values)
def test_any_document(document: Any) -> None:
    check(json.dumps(document).encode())


@given(st.data())
def test_any_damage_to_an_answer(data: st.DataObject) -> None:
    tensor = {"name": "s", "datatype": "FP32", "shape": [1, 4], "data": [0.0, 0.5, 1.0, -3.25]}
    content = bytearray(json.dumps({"inputs": [tensor], "outputs": [tensor]}).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(content))


@pytest.mark.parametrize("value", ["9" * 100_000, "NaN", "Infinity", "-Infinity", "1e999", "[" * 10_000, "{" * 10_000])
@pytest.mark.parametrize("place", ["shape", "data", "name"])
def test_numbers_and_nesting_without_measure(value: str, place: str) -> None:
    parts = {"name": '"s"', "datatype": '"FP32"', "shape": "[1, 4]", "data": "[0, 1, 2, 3]"}
    parts[place] = {"shape": f"[{value}]", "data": f"[{value}, 1, 2, 3]", "name": value}[place]
    tensor = "{" + ", ".join(f'"{key}": {text}' for key, text in parts.items()) + "}"
    content = f'{{"inputs": [{tensor}], "outputs": [{tensor}]}}'.encode()
    check(content)
    with pytest.raises((ProtocolError, UnusableAnswerError)):
        read_answer(read_output(content, name=None), classes=4, target="t")


def test_a_shape_is_bounded_as_a_product_too() -> None:
    largest = 2**31 - 1
    for shape in ([0, largest, largest, largest], [largest] * 8, [largest, largest]):
        tensor = {"name": "s", "datatype": "FP32", "shape": shape, "data": []}
        with pytest.raises(ProtocolError, match="sent the shape"):
            read_output(json.dumps({"outputs": [tensor]}).encode(), name=None)
        with pytest.raises(ProtocolError, match="sent the shape"):
            read_metadata(json.dumps({"inputs": [tensor]}).encode())
        assert math.prod(shape) in (0, largest**8, largest**2)

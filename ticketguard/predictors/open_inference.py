"""The Open Inference Protocol v2's three documents: model metadata, inference request, inference response.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md; pure, no I/O.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ticketguard.ticket import Array, FloatArray

_FLOAT_TYPES = ("FP32", "FP64", "FP16")
_INTEGER_TYPES = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
_MAX_AXES = 8
# numpy counts elements in a signed 64-bit integer, zero sizes left out.
_MAX_ELEMENTS = 2**40


class ProtocolError(Exception):
    """An answer is not what the protocol says; its text completes "the endpoint …"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelInput:
    """A model's one input, as its metadata declares it.

    Attributes:
        name: The input's name.
        datatype: FP16, FP32 or FP64.
        shape: Sizes, None where any size is taken.
    """

    name: str
    datatype: str
    shape: tuple[int | None, ...]


def read_metadata(content: bytes) -> ModelInput:
    """Read a model metadata response.

    Raises:
        ProtocolError: It is not one, or the model does not take exactly one float tensor.
    """
    inputs = _member(_document(content), "inputs", list, where="metadata")
    if len(inputs) != 1:
        raise ProtocolError(f"takes {len(inputs)} inputs, expected one")
    declared = inputs[0]
    name = _member(declared, "name", str, where="metadata")
    datatype = _member(declared, "datatype", str, where="metadata")
    shape = _sizes(_member(declared, "shape", list, where="metadata"), smallest=-1)
    if datatype not in _FLOAT_TYPES:
        raise ProtocolError(f"takes {datatype[:20]!r} inputs, expected one of {', '.join(_FLOAT_TYPES)}")
    return ModelInput(name=name, datatype=datatype, shape=tuple(None if size == -1 else size for size in shape))


def request_body(inputs: FloatArray, model_input: ModelInput) -> bytes:
    """Write an inference request for one input, values in row-major order.

    Args:
        inputs: Float32, shape (1, *input_shape).
        model_input: What the model takes.
    """
    tensor = {
        "name": model_input.name,
        "shape": list(inputs.shape),
        "datatype": model_input.datatype,
        "data": inputs.reshape(-1).tolist(),
    }
    return json.dumps({"inputs": [tensor]}, allow_nan=False).encode()


def read_output(content: bytes, *, name: str | None) -> Array:
    """Read one output of an inference response: float64 scores or int64 labels.

    Args:
        content: The response.
        name: The output's name; None for the first.

    Raises:
        ProtocolError: It is not an inference response, lacks the output, or its data do not fit its shape or type.
    """
    outputs = _member(_document(content), "outputs", list, where="answer")
    names = [_member(output, "name", str, where="answer") for output in outputs]
    if not outputs or (name is not None and name not in names):
        raise ProtocolError(f"answered with outputs {reprlib.repr(names)}, expected {name or 'at least one'!r}")
    output = outputs[0 if name is None else names.index(name)]
    datatype = _member(output, "datatype", str, where="answer")
    shape = _sizes(_member(output, "shape", list, where="answer"), smallest=0)
    values = _flat(_member(output, "data", list, where="answer"), depth=len(shape))
    if len(values) != math.prod(shape):
        raise ProtocolError(f"answered {len(values)} values for shape {shape}")
    if datatype not in _FLOAT_TYPES + _INTEGER_TYPES:
        raise ProtocolError(f"answered with type {datatype[:20]!r}, expected numbers")
    accepted = (int,) if datatype in _INTEGER_TYPES else (int, float)
    if any(isinstance(value, bool) or not isinstance(value, accepted) for value in values):
        raise ProtocolError(f"answered values that are not of its type {datatype}")
    try:
        return np.array(values, dtype=np.int64 if datatype in _INTEGER_TYPES else np.float64).reshape(shape)
    # OverflowError: an integer that its type has no room for.
    except (OverflowError, ValueError) as error:
        raise ProtocolError("answered numbers that are too large") from error


def _document(content: bytes) -> Any:
    try:
        return json.loads(content, object_pairs_hook=_object)
    # RecursionError: a million opening brackets.
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"answered something that is not JSON ({str(error)[:100]})") from error


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that comes twice: readers differ in which one they take."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key comes twice")
    return document


def _member(document: Any, key: str, kind: type, *, where: str) -> Any:
    if not isinstance(document, dict) or not isinstance(document.get(key), kind):
        raise ProtocolError(f"sent {where} without '{key}' of type {kind.__name__}")
    return document[key]


def _sizes(shape: list[Any], *, smallest: int) -> tuple[int, ...]:
    # Types are compared exactly: True is an int to isinstance.
    if (
        len(shape) > _MAX_AXES
        or any(type(size) is not int or not smallest <= size < 2**31 for size in shape)
        or math.prod(size for size in shape if size > 0) > _MAX_ELEMENTS
    ):
        raise ProtocolError(f"sent the shape {reprlib.repr(shape)}, expected up to {_MAX_AXES} sizes that fit a tensor")
    return tuple(shape)


def _flat(data: list[Any], *, depth: int) -> list[Any]:
    """Flatten nested rows, which the protocol allows beside flat data."""
    for _ in range(depth - 1):
        if not data or not all(isinstance(row, list) for row in data):
            break
        data = [value for row in data for value in row]
    return data

"""Black-box suspects: an ONNX file, and what an endpoint answers."""

from __future__ import annotations

import json

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.fuzzing.target import Scratch, Target
from ticketguard.errors import PredictorError
from ticketguard.suspects.predictors.interface import read_answer
from ticketguard.suspects.predictors.open_inference import ProtocolError, read_metadata, read_output


def suspect_targets(_: Scratch) -> tuple[Target, ...]:
    """Return the targets that ask a suspect for answers."""
    metadata = {
        "name": "m", "platform": "onnx", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 8, 8]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }  # fmt: skip
    answer = {
        "model_name": "m",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [0.1, 2, 0, -1e3]}],
    }
    return (
        Target(name="endpoint's metadata", seeds=(json.dumps(metadata).encode(),), read=_metadata, is_json=True),
        Target(name="endpoint's answer", seeds=(json.dumps(answer).encode(),), read=_answer, is_json=True),
    )


def _metadata(content: bytes) -> object:
    try:
        return read_metadata(content)
    except ProtocolError as error:
        raise PredictorError(target="fuzzed", reason=str(error), hint="none") from error


def _answer(content: bytes) -> object:
    try:
        scores = read_output(content, name=None)
    except ProtocolError as error:
        raise PredictorError(target="fuzzed", reason=str(error), hint="none") from error
    return read_answer(scores, classes=4, target="fuzzed")


def onnx_models() -> tuple[bytes, ...]:
    """Return a linear model, one with a loop, and one that makes its constants while it runs."""
    weights = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    shape = numpy_helper.from_array(np.array([4, 4], dtype=np.int64), "shape")
    graphs = (
        ([helper.make_node("MatMul", ["x", "w"], ["y"])], [weights]),
        (
            [helper.make_node("ConstantOfShape", ["shape"], ["c"]), helper.make_node("MatMul", ["x", "c"], ["y"])],
            [shape],
        ),
    )
    return tuple(
        helper.make_model(
            helper.make_graph(nodes, "g", inputs, outputs, constants),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        ).SerializeToString()
        for nodes, constants in graphs
    )

"""Small ONNX models, good and bad, and the process that runs one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ticketguard.predictors import OnnxPredictor

IDENTITY = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"])
INPUT = np.array([[0, 0, 3, 0]], dtype=np.float32)


def value(name: str, shape: Sequence[int | str] | None = None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def save(
    path: Path,
    nodes: list[Any],
    *,
    constants: Sequence[Any] = (IDENTITY,),
    inputs: Sequence[Any] = (value("x", ["n", 4]),),
    outputs: Sequence[Any] = (value("y"),),
    operators: Sequence[Any] = (helper.make_opsetid("", 17),),
) -> Path:
    graph = helper.make_graph(nodes, "g", list(inputs), list(outputs), list(constants))
    path.write_bytes(helper.make_model(graph, opset_imports=list(operators), ir_version=8).SerializeToString())
    return path


def loop(path: Path, *, scans: bool, rows: int = 1) -> Path:
    """Write a model that goes on for ever over *rows* of its input, and gathers what it computes if *scans*."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["c"], ["c2"]),
            helper.make_node("Add", ["v", "v"], ["v2"]),
            helper.make_node("Identity", ["v"], ["scan"]),
        ],
        "body",
        [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), value("v")],
        [value("c2", [], TensorProto.BOOL), value("v2"), *([value("scan")] if scans else [])],
    )
    constants = [numpy_helper.from_array(np.array(2**62), "n"), numpy_helper.from_array(np.array(True), "go")]
    outputs = ["last", "y"] if scans else ["y"]
    nodes = [
        helper.make_node("Expand", ["x", "s"], ["v0"]),
        helper.make_node("Loop", ["n", "go", "v0"], outputs, body=body),
    ]
    return save(path, nodes, constants=[*constants, sizes(rows, 4)])


def sizes(*values: int) -> Any:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), "s")


def pid_of(predictor: OnnxPredictor) -> int:
    assert predictor._running is not None
    return predictor._running.process._process.pid

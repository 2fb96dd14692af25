"""ONNX suspects, loaded and asked in a child under the limits of the real one.

The child is forked instead of started, and takes one model after the other until one of them ends it: a fresh
interpreter for each of 100 000 models would take a day.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime  # noqa: F401  # before the fork, as in the real child
from onnx import TensorProto, helper, numpy_helper

from benchmarks.fuzzing.target import Scratch, Target
from ticketguard.predictors import onnx_child
from ticketguard.predictors.onnx import OnnxPredictor
from ticketguard.predictors.onnx_process import ChildError

ANSWER_SECONDS = 1.0
CHILD_BYTES = 200 * 10**6
MODELS_A_CHILD = 500


class ForkedProcess:
    """A child like `ticketguard.predictors.onnx_process.OnnxProcess`, forked from this process.

    Args:
        memory_bytes: As there.
    """

    def __init__(self, *, memory_bytes: int) -> None:
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._serve(theirs_in, theirs_out, memory_bytes)
        os.close(theirs_in)
        os.close(theirs_out)

    def _serve(self, source: int, sink: int, memory_bytes: int) -> None:
        try:
            os.close(self._to)
            os.close(self._from)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            onnx_child.confine(memory_bytes)
            with os.fdopen(source, "rb", buffering=0) as requests, os.fdopen(sink, "wb", buffering=0) as answers:
                onnx_child.serve(lambda count: _all_of(requests.read, count), answers.write)
        finally:
            os._exit(0)

    def ask(self, header: dict[str, Any], body: bytes, *, seconds: float) -> onnx_child.Frame:
        """Send a request and return the answer, as the real child's parent does."""
        deadline = time.monotonic() + min(seconds, ANSWER_SECONDS)

        def read(count: int) -> bytes:
            content = b""
            while len(content) < count:
                ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise EOFError("late")
                part = os.read(self._from, count - len(content))
                if not part:
                    break
                content += part
            return content

        try:
            onnx_child.send(lambda content: os.write(self._to, content), {**header, "cpu_s": seconds}, body)
            answer = onnx_child.receive(read, limit_bytes=onnx_child.MAX_ANSWER_BYTES)
        except (OSError, EOFError, ValueError) as error:
            answer = None
            reason = str(error)
        else:
            reason = "ended without an answer"
        if answer is None or "out_of_memory" in answer[0]:
            self.end()
            raise ChildError(reason if answer is None else "needs more memory than it is allowed")
        return answer

    @property
    def ended(self) -> bool:
        """Whether there is no child any more."""
        return not self._pid

    def close(self) -> None:
        """Leave the child to the next model."""

    def end(self) -> None:
        """End the child; calling this again does nothing."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._to)
            os.close(self._from)
            self._pid = 0


class Children:
    """One child at a time, which lives until a model ends it or it has taken many."""

    def __init__(self) -> None:
        self._child: ForkedProcess | None = None
        self._models = 0

    def one(self, *, memory_bytes: int) -> ForkedProcess:
        """Return the child, or a new one."""
        self._models += 1
        if self._child is not None and self._models % MODELS_A_CHILD == 0:
            self._child.end()
        if self._child is None or self._child.ended:
            self._child = ForkedProcess(memory_bytes=memory_bytes)
        return self._child


def _all_of(read: Any, count: int) -> bytes:
    content = b""
    while len(content) < count and (part := read(count - len(content))):
        content += part
    return content


def targets(scratch: Scratch) -> tuple[Target, ...]:
    """Return the one target that runs models."""
    path = scratch.folder / "fuzzed.onnx"
    inputs = np.ones((1, 4), dtype=np.float32)
    children = Children()

    def ask(content: bytes) -> object:
        path.write_bytes(content)
        with (
            mock.patch("ticketguard.predictors.onnx.OnnxProcess", children.one),
            OnnxPredictor(path, timeout_s=ANSWER_SECONDS, memory_bytes=CHILD_BYTES) as predictor,
        ):
            return predictor.predict(inputs, classes=4)

    return (Target(name="model", seeds=models(), read=ask),)


def models() -> tuple[bytes, ...]:
    """Return a linear model, one that makes its constants while it runs, and one with a loop."""
    weights = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    shape = numpy_helper.from_array(np.array([4, 4], dtype=np.int64), "shape")
    times = numpy_helper.from_array(np.array(3, dtype=np.int64), "times")
    going = numpy_helper.from_array(np.array(True), "going")
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Add", ["state", "state"], ["twice"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["n", 4]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["n", 4]),
        ],
    )
    graphs = (
        ([helper.make_node("MatMul", ["x", "w"], ["y"])], [weights]),
        (
            [helper.make_node("ConstantOfShape", ["shape"], ["c"]), helper.make_node("MatMul", ["x", "c"], ["y"])],
            [shape],
        ),
        ([helper.make_node("Loop", ["times", "going", "x"], ["y"], body=body)], [times, going]),
    )
    return tuple(
        helper.make_model(
            helper.make_graph(
                nodes,
                "g",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
                constants,
            ),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        ).SerializeToString()
        for nodes, constants in graphs
    )

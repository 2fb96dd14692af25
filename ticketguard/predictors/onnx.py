"""An ONNX file as a black-box suspect, run by onnxruntime on the CPU, in a process of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import math
import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np

from ticketguard.errors import FileError, MissingExtraError, PredictorError, UnusableAnswerError
from ticketguard.files import read_whole
from ticketguard.predictors.interface import check_input_shape, read_answer
from ticketguard.predictors.onnx_child import MAX_AXES, MAX_MODEL_BYTES
from ticketguard.predictors.onnx_process import ChildError, OnnxProcess
from ticketguard.printable import printable
from ticketguard.ticket import Array, FloatArray

# Beside the model a child needs room for what its layers compute: a ResNet-50's answer to one image takes 100 MB.
_ROOM_BYTES = 2**30
# The file, its parsed message, and the weights in the form that they are used in.
_COPIES_OF_A_MODEL = 4
# Starting an interpreter on a busy machine takes seconds, reading a model of 2 GB too.
_LOAD_TIMEOUT_S = 60.0
_INPUT_TYPES = ("tensor(float)", "tensor(double)", "tensor(float16)")
_ANSWER_TYPES = frozenset(
    ("bool", "float16", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
)
_HINT = "check the model on an ordinary input"


class OnnxPredictor:
    """The first output of an ONNX model with one input.

    The file is loaded as bytes, in a process of its own that has limits on memory and time and can open no files:
    whatever the model does, it ends there. The process lives from question to question and ends with `close`, with this
    object, or with the program. After a crash or a limit the next question loads the model into a fresh one.

    Args:
        path: The file.
        timeout_s: Seconds one answer may take.
        memory_bytes: Memory the model may take, its weights included; default: 1 GiB and four times the file.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        FileError: The file cannot be read, or is not a model that onnxruntime loads within the limits.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, timeout_s: float = 30.0, memory_bytes: int | None = None
    ) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._digest: bytes | None = None
        self._one_at_a_time = threading.Lock()
        self._running: _Running | None = self._start()

    @property
    def target(self) -> str:
        """Return the file's name."""
        return os.fspath(self._path)

    def predict(self, inputs: FloatArray, *, classes: int) -> int:
        """Answer one input.

        Raises:
            UnusableAnswerError: The model fails on this input, or its answer is not a prediction.
            PredictorError: It takes something else, crashes, or takes too long or too much memory.
            FileError: The model had to be loaded again, and the file has changed.
        """
        with self._one_at_a_time:
            if self._running is None:
                self._running = self._start()
            running = self._running
            declared = running.inputs
            if running.input_count != 1 or declared[0].kind not in _INPUT_TYPES:
                raise self._error(
                    f"takes {[value.kind for value in declared]}, expected one float tensor",
                    "export the classifier with its image as the only input",
                )
            check_input_shape(inputs, declared[0].shape, target=self.target)
            header = {"do": "run", "shape": list(inputs.shape)}
            try:
                answer, payload = running.process.ask(
                    header, np.ascontiguousarray(inputs, dtype=np.float32).tobytes(), seconds=self._timeout_s
                )
            except ChildError as error:
                self._forget()
                raise self._error(str(error), _HINT) from error
        return read_answer(self._read(answer, payload, classes), classes=classes, target=self.target)

    def close(self) -> None:
        """End the model's process; a later question starts a fresh one."""
        with self._one_at_a_time:
            self._forget()

    def __enter__(self) -> OnnxPredictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, answer: dict[str, Any], payload: bytes, classes: int) -> Array:
        """Return the answer's array; the child is not trusted to send one."""
        if "error" in answer:
            raise self._unusable(f"failed ({printable(answer['error'], limit=200)})", _HINT)
        if "kind" in answer:
            raise self._unusable(
                f"answered with a {printable(answer['kind'], limit=50)}, expected a tensor",
                "export the classifier with its scores as the first output",
            )
        kind, sizes = printable(answer.get("dtype"), limit=50), _read_shape(answer.get("shape")) or ()
        shape = tuple(-1 if size is None else size for size in sizes)
        if kind not in _ANSWER_TYPES:
            raise self._unusable(
                f"answered with type {kind}, expected numbers", "it must return scores (1, classes) or a label"
            )
        # Of a size of zero numpy multiplies the others all the same, and may find them too large.
        if min(shape, default=1) < 1 or math.prod(shape) * np.dtype(kind).itemsize != len(payload):
            raise self._unusable(
                f"answered with shape {shape}, expected (1, {classes})",
                f"check that the suspect solves the credential's task with {classes} classes",
            )
        return np.frombuffer(payload, dtype=kind).reshape(shape)

    def _start(self) -> _Running:
        if importlib.util.find_spec("onnxruntime") is None:
            raise MissingExtraError(package="onnxruntime", extra="onnx")
        content = read_whole(self._path, limit_bytes=MAX_MODEL_BYTES)
        digest = hashlib.sha256(content).digest()
        if self._digest not in (None, digest):
            raise FileError(
                path=self._path, reason="has changed since it was first read", hint="verify it again, unchanged"
            )
        self._digest = digest
        memory_bytes = self._memory_bytes or _ROOM_BYTES + _COPIES_OF_A_MODEL * len(content)
        try:
            process = OnnxProcess(memory_bytes=memory_bytes)
            answer, _ = process.ask({"do": "load"}, content, seconds=_LOAD_TIMEOUT_S + self._timeout_s)
        except ChildError as error:
            raise self._not_a_model(str(error)) from error
        ends = weakref.finalize(self, process.close)
        if "missing" in answer:
            ends()
            raise MissingExtraError(package="onnxruntime", extra="onnx")
        declared = answer.get("inputs")
        if "error" in answer or not isinstance(declared, list):
            ends()
            raise self._not_a_model(printable(answer.get("error"), limit=200))
        inputs = [
            _Input(kind=printable(value.get("type"), limit=100), shape=_read_shape(value.get("shape")))
            for value in declared
            if isinstance(value, dict)
        ]
        count = len(inputs) if answer.get("count") == len(inputs) else 0
        return _Running(process=process, ends=ends, inputs=inputs, input_count=count)

    def _forget(self) -> None:
        if self._running is not None:
            self._running.ends()
            self._running = None

    def _error(self, reason: str, hint: str) -> PredictorError:
        return PredictorError(target=self.target, reason=reason, hint=hint)

    def _unusable(self, reason: str, hint: str) -> UnusableAnswerError:
        return UnusableAnswerError(target=self.target, reason=reason, hint=hint)

    def _not_a_model(self, reason: str) -> FileError:
        return FileError(
            path=self._path,
            reason=f"is not an ONNX model that can be run ({reason})",
            hint="expected one self-contained .onnx file with standard operators; "
            "torch.onnx.export writes one with external_data=False",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Input:
    """What a model declares of an input: onnxruntime's name of its type, and its shape; None for any."""

    kind: str
    shape: tuple[int | None, ...] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Running:
    """A loaded model: its process, what ends it, and the inputs it declares; only the first few are listed."""

    process: OnnxProcess
    ends: Callable[[], object]
    inputs: list[_Input]
    input_count: int


def _read_shape(value: object) -> tuple[int | None, ...] | None:
    """Return a shape that a child sent; None for one that is unknown or is not a shape."""
    if not isinstance(value, list) or len(value) > MAX_AXES:
        return None
    return tuple(size if type(size) is int and 0 <= size < 2**63 else None for size in value)

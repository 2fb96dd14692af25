"""An ONNX file as a black-box suspect, run by onnxruntime on the CPU."""

from __future__ import annotations

import os
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from ticketguard.errors import FileError, MissingExtraError, PredictorError
from ticketguard.files import read_whole
from ticketguard.suspects.predictors.interface import check_input_shape, read_answer
from ticketguard.ticket import FloatArray

if TYPE_CHECKING:
    import onnxruntime

# A protobuf message, and so a model without external files, cannot be larger.
MAX_MODEL_BYTES = 2**31 - 1
_FATAL_ONLY = 4
_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


class OnnxPredictor:
    """The first output of an ONNX model with one input.

    The file is loaded as bytes: operators of its own and files beside it are not followed.

    Args:
        path: The file.
        timeout_s: Seconds one answer may take.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        FileError: The file cannot be read or is no model that onnxruntime runs.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout_s: float = 30.0) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._session = _load(path)

    @property
    def target(self) -> str:
        """Return the file's name."""
        return os.fspath(self._path)

    def predict(self, inputs: FloatArray, *, classes: int) -> int:
        """Answer one input.

        Raises:
            PredictorError: The model takes something else, fails, takes too long, or answers no prediction.
        """
        declared = self._session.get_inputs()
        if len(declared) != 1 or declared[0].type not in _INPUT_TYPES:
            raise PredictorError(
                target=self.target,
                reason=f"takes {[value.type for value in declared]}, expected one float tensor",
                hint="export the classifier with its image as the only input",
            )
        shape = tuple(size if isinstance(size, int) else None for size in declared[0].shape)
        check_input_shape(inputs, shape, target=self.target)
        answer = self._run({declared[0].name: inputs.astype(_INPUT_TYPES[declared[0].type])})
        if not isinstance(answer, np.ndarray):
            raise PredictorError(
                target=self.target,
                reason=f"answered with a {type(answer).__name__}, expected a tensor",
                hint="export the classifier with its scores as the first output",
            )
        return read_answer(answer, classes=classes, target=self.target)

    def _run(self, feeds: dict[str, Any]) -> Any:
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.log_severity_level = _FATAL_ONLY
        # A model may loop for ever; onnxruntime looks at this flag between its operators.
        timer = threading.Timer(self._timeout_s, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            return self._session.run([self._session.get_outputs()[0].name], feeds, options)[0]
        # onnxruntime's exceptions share no base class but Exception.
        except Exception as error:
            reason = f"failed ({_first_line(error)})"
            if not timer.is_alive():
                reason = f"did not answer within {self._timeout_s:g} s"
            raise PredictorError(
                target=self.target, reason=reason, hint="check the model on an ordinary input"
            ) from error
        finally:
            timer.cancel()


def _load(path: str | os.PathLike[str]) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(package="onnxruntime", extra="onnx") from error
    content = read_whole(path, limit_bytes=MAX_MODEL_BYTES)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    # Optimising would run parts of the graph before any time limit is in force.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        # A model's external files are looked up in this folder: it is empty.
        with tempfile.TemporaryDirectory() as nothing:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", nothing)
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # onnxruntime's exceptions share no base class but Exception.
    except Exception as error:
        raise FileError(
            path=path,
            reason=f"is no ONNX model that can be run ({_first_line(error)})",
            hint="expected one self-contained .onnx file with standard operators; "
            "torch.onnx.export writes one with external_data=False",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

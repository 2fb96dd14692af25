"""What an endpoint sends: its metadata and its answers."""

from __future__ import annotations

import json

from benchmarks.fuzzing.target import Scratch, Target
from ticketguard.errors import PredictorError
from ticketguard.suspects.predictors.interface import read_answer
from ticketguard.suspects.predictors.open_inference import ProtocolError, read_metadata, read_output


def targets(_: Scratch) -> tuple[Target, ...]:
    """Return the targets that read what an endpoint sends."""
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

"""What an endpoint sends, its metadata and its answers, and the journal that answers are kept in."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.fuzzing.target import Scratch, Target
from ticketguard.errors import PredictorError
from ticketguard.predictors.interface import read_answer
from ticketguard.predictors.open_inference import ProtocolError, read_metadata, read_output
from ticketguard.verification.journal import Questioned, open_journal

QUESTIONED = Questioned(commitment="00" * 32, trigger_root="11" * 32, suspect="fuzzed")


def targets(scratch: Scratch) -> tuple[Target, ...]:
    """Return the targets that read what an endpoint sends, or sent."""
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
        Target(name="journal", seeds=(_kept(scratch.folder / "kept"),), read=scratch.reader("journal", _journal)),
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


def _kept(path: Path) -> bytes:
    """Return a journal of three answers."""
    with open_journal(path, QUESTIONED, classes=4) as journal:
        for answer in (3, None, 0):
            journal.add_trigger(answer)
    return path.read_bytes()


def _journal(path: Path) -> object:
    with open_journal(path, QUESTIONED, classes=4) as journal:
        return journal.triggers

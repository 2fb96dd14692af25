"""The process that runs a model: it has little time, memory and trust, and the verifier outlives it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.predictors.onnx_models import INPUT, MATMUL, loop, pid_of, save, sizes
from ticketguard.errors import FileError, MissingExtraError, PredictorError
from ticketguard.predictors import OnnxPredictor, onnx_child
from ticketguard.predictors.onnx_process import OnnxProcess


def test_an_endless_loop_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(PredictorError, match=r"did not answer within 0.2 s"):
        OnnxPredictor(loop(tmp_path / "m", scans=False), timeout_s=0.2).predict(INPUT, classes=4)


def test_one_long_operator_is_stopped(tmp_path: Path) -> None:
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["a"]), helper.make_node("MatMul", ["a", "a"], ["y"])]
    path = save(tmp_path / "m", nodes, constants=[sizes(8000, 8000)])
    with pytest.raises(PredictorError, match=r"did not answer within 0.5 s"):
        OnnxPredictor(path, timeout_s=0.5).predict(INPUT, classes=4)


@pytest.mark.parametrize("operator", ["ConstantOfShape", "Expand", "Tile"])
def test_an_answer_larger_than_memory_is_an_error(operator: str, tmp_path: Path) -> None:
    inputs, size = (["s"], sizes(600_000_000)) if operator == "ConstantOfShape" else (["x", "s"], sizes(10**8, 1))
    path = save(tmp_path / "m", [helper.make_node(operator, inputs, ["y"])], constants=[size])
    assert path.stat().st_size < 140
    with pytest.raises(PredictorError, match=r"needs more than 1024 MiB of memory"):
        OnnxPredictor(path).predict(INPUT, classes=4)


def test_memory_that_grows_step_by_step_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PredictorError, match=r"(needs more than|crashed .SIG\w+. under its limit of) 100 MiB"):
        OnnxPredictor(loop(tmp_path / "m", scans=True), memory_bytes=100 * 2**20).predict(INPUT, classes=4)


def test_what_a_loop_gathers_is_an_error(tmp_path: Path) -> None:
    """In the verifier's own process onnxruntime ended that process when there was no more memory."""
    predictor = OnnxPredictor(loop(tmp_path / "m", scans=True, rows=2**20), timeout_s=60)
    with pytest.raises(PredictorError, match=r"(needs more than|crashed .SIG\w+. under its limit of) 1024 MiB"):
        predictor.predict(INPUT, classes=4)


def test_weights_larger_than_the_limit_are_refused(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.zeros((4, 2**20), np.float32), "w")
    path = save(tmp_path / "m", [MATMUL], constants=[weight])
    with pytest.raises(FileError, match=r"is not an ONNX model that can be run \(needs more than 24 MiB of memory"):
        OnnxPredictor(path, memory_bytes=24 * 2**20)
    with pytest.raises(FileError, match="needs more than 4 MiB of memory"):
        OnnxPredictor(path, memory_bytes=4 * 2**20)


def test_a_crash_is_an_error_and_the_next_question_is_answered(tmp_path: Path) -> None:
    predictor = OnnxPredictor(save(tmp_path / "m", [MATMUL]))
    os.kill(pid_of(predictor), signal.SIGSEGV)
    with pytest.raises(PredictorError, match=r"crashed \(SIGSEGV\) under its limit of 1024 MiB"):
        predictor.predict(INPUT, classes=4)
    assert predictor.predict(INPUT, classes=4) == 2


def test_the_process_ends_with_the_predictor(tmp_path: Path) -> None:
    path = save(tmp_path / "m", [MATMUL])
    with OnnxPredictor(path) as predictor:
        closed = pid_of(predictor)
    forgotten = OnnxPredictor(path)
    left = pid_of(forgotten)
    del forgotten
    for pid in (closed, left):  # a zombie would still be there
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_process_ends_with_its_parent_in_the_middle_of_a_question(tmp_path: Path) -> None:
    program = (
        "import sys, threading, numpy as np\n"
        "from ticketguard.predictors import OnnxPredictor\n"
        "predictor = OnnxPredictor(sys.argv[1], timeout_s=60)\n"
        "threading.Timer(0.3, lambda: print(predictor._running.process._process.pid, flush=True)).start()\n"
        "predictor.predict(np.zeros((1, 4), np.float32), classes=4)\n"
    )
    path = loop(tmp_path / "m", scans=False)
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path("/proc") / parent.stdout.readline().strip()
        assert child.exists()
        parent.kill()
    for _ in range(600):
        # Where nobody reaps orphans it stays as a zombie, which runs nothing.
        if not child.exists() or (child / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the model runs on without its verifier")


def test_modules_beside_the_suspect_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("numpy", "onnxruntime", "json", "sitecustomize"):
        (tmp_path / f"{module}.py").write_text("open('/proc/self/cwd/../hit', 'w')\nraise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    # An empty entry means the working folder.
    monkeypatch.setenv("PYTHONPATH", os.pathsep + os.environ.get("PYTHONPATH", ""))
    assert OnnxPredictor(save(tmp_path / "m.onnx", [MATMUL])).predict(INPUT, classes=4) == 2


def test_the_process_is_told_no_passphrase_and_imports_no_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKETGUARD_PASSPHRASE", "hush")
    folder = Path("/proc") / str(pid_of(predictor := OnnxPredictor(save(tmp_path / "m", [MATMUL]))))
    assert b"hush" not in (folder / "environ").read_bytes()
    assert "torch" not in (folder / "maps").read_text()
    limits = (folder / "limits").read_text()
    assert all(f"Max {name}".ljust(26) + "0 " in limits for name in ("open files", "file size", "core file size"))
    assert predictor.predict(INPUT, classes=4) == 2


@pytest.mark.parametrize(
    ("answer", "payload", "message"),
    [
        ({}, b"", "answered with type None, expected numbers"),
        ({"dtype": "object", "shape": [1]}, bytes(8), "answered with type object, expected numbers"),
        ({"dtype": "float32", "shape": [1, 4]}, bytes(15), r"answered with shape \(1, 4\), expected"),
        ({"dtype": "float32", "shape": [-1, 4]}, bytes(16), r"answered with shape \(-1, 4\), expected"),
        ({"dtype": "float32", "shape": [True, 4]}, bytes(16), r"answered with shape \(-1, 4\), expected"),
        ({"dtype": "float32", "shape": [2**62, 2**62]}, b"", "answered with shape"),
        ({"dtype": "float32", "shape": [0, 2**62, 2**62]}, b"", r"answered with shape \(0, \d{19}, \d{19}\), expected"),
        ({"dtype": "float32", "shape": "1"}, b"", "answered with shape"),
        ({"dtype": "float32", "shape": [1] * 99}, bytes(4), r"answered with shape \(\), expected"),
        ({"error": ["x"] * 1000}, b"", r"failed \(\['x', .{,210}\): check"),
        ({"error": "\x1b[2Jgone"}, b"", r"failed \(\\x1b\[2Jgone\)"),
        ({"kind": "k" * 1000}, b"", "answered with a k{20}.{1,40}, expected a tensor"),
    ],
)
def test_a_process_that_lies_is_not_believed(
    answer: dict[str, Any], payload: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = OnnxPredictor(save(tmp_path / "m", [MATMUL]))
    monkeypatch.setattr(OnnxProcess, "ask", lambda *_, **__: (answer, payload))
    with pytest.raises(PredictorError, match=message):
        predictor.predict(INPUT, classes=4)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"inputs": {"a": 1}, "count": 1},
        {"inputs": [[]], "count": 1},
        {"inputs": [{"type": 3, "shape": {}}], "count": "1"},
        {"inputs": [{"type": "tensor(float)"}] * 3, "count": 1},
    ],
)
def test_a_process_that_lies_about_its_model_is_not_believed(
    answer: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "m", [MATMUL])
    monkeypatch.setattr(OnnxProcess, "ask", lambda *_, **__: (answer, b""))
    with pytest.raises((FileError, PredictorError), match=r"is not an ONNX model|expected one float tensor"):
        OnnxPredictor(path).predict(INPUT, classes=4)


def pack(header_bytes: int, body_bytes: int, sent: bytes = b"") -> bytes:
    return onnx_child.LENGTHS.pack(header_bytes, body_bytes) + sent


CUT_SHORT = r"ended its process \(status 0\) without an answer|crashed \(SIGKILL\)"


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"", CUT_SHORT),
        (b"short", CUT_SHORT),
        (pack(2, 9, b"{}"), CUT_SHORT),
        (pack(2**16, 0, b"{}"), CUT_SHORT),
        (pack(2**16 + 1, 0), r"is not in the child's protocol \(answered with 65537 and 0 bytes\)"),
        (pack(2, onnx_child.MAX_ANSWER_BYTES, b"{}"), CUT_SHORT),
        (pack(2, onnx_child.MAX_ANSWER_BYTES + 1), r"protocol \(answered with 2 and 1048577 bytes\)"),
        (pack(2, 0, b"[]"), r"protocol \(header is not an object\)"),
        (pack(2, 0, b"\xff\xff"), r"is not in the child's protocol \("),
        (pack(60000, 0, b"[" * 60000), r"protocol \(header is nested too deep\)"),
    ],
)
def test_bytes_outside_the_protocol_are_an_error(
    sent: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar = tmp_path / "liar.py"
    liar.write_text(f"import sys\nsys.stdout.buffer.write({sent!r})\n")
    monkeypatch.setattr(onnx_child, "__file__", str(liar))
    with pytest.raises(FileError, match=message):
        OnnxPredictor(save(tmp_path / "m", [MATMUL]))


@pytest.mark.parametrize("answer", [b'{"out_of_memory": "x"}', b'{"error": "x"}', b'{"missing": "numpy"}', b"[]"])
def test_a_process_whose_model_is_refused_ends(answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lingering, pid = tmp_path / "lingering.py", tmp_path / "pid"
    lingering.write_text(
        "import os, sys, time\n"
        f"open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        f"sys.stdout.buffer.write({pack(len(answer), 0, answer)!r})\n"
        "sys.stdout.flush()\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(onnx_child, "__file__", str(lingering))
    with pytest.raises((FileError, MissingExtraError)):
        OnnxPredictor(save(tmp_path / "m", [MATMUL]))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_harness_serves_under_the_same_limits(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "import onnxruntime\n"
        "from ticketguard.predictors import onnx_child\n"
        "onnx_child.confine(100 * 2**20)\n"
        "onnx_child.serve(sys.stdin.buffer.read, sys.stdout.buffer.write)\n"
    )
    path = save(tmp_path / "m", [helper.make_node("ConstantOfShape", ["s"], ["y"])], constants=[sizes(10**9)])
    frames: list[bytes] = []
    onnx_child.send(frames.append, {"do": "load", "cpu_s": 2}, path.read_bytes())
    onnx_child.send(frames.append, {"do": "run", "cpu_s": 2, "shape": [1, 4]}, INPUT.tobytes())
    done = subprocess.run([sys.executable, "-c", program], input=b"".join(frames), capture_output=True, check=True)
    answers = io.BytesIO(done.stdout)
    loaded = onnx_child.receive(answers.read, limit_bytes=100)
    asked = onnx_child.receive(answers.read, limit_bytes=100)
    assert loaded is not None
    assert asked is not None
    assert loaded[0] == {"inputs": [{"type": "tensor(float)", "shape": [None, 4]}], "count": 1}
    assert "out_of_memory" in asked[0]

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ticketguard.errors import FileError, MissingExtraError, PredictorError
from ticketguard.predictors import OnnxPredictor, onnx_child
from ticketguard.predictors.onnx_process import OnnxProcess

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


def test_a_model_answers(tmp_path: Path) -> None:
    predictor = OnnxPredictor(save(tmp_path / "m.onnx", [MATMUL]))
    assert predictor.predict(INPUT, classes=4) == 2
    assert predictor.target.endswith("m.onnx")


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_precisions_are_fed_as_declared(kind: int, tmp_path: Path) -> None:
    path = save(tmp_path / "m", [helper.make_node("Identity", ["x"], ["y"])], constants=(),
                inputs=[value("x", [1, 4], kind)], outputs=[value("y", None, kind)])  # fmt: skip
    assert OnnxPredictor(path).predict(INPUT, classes=4) == 2


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PredictorError, match=r"answered with shape \(1, 4\), expected \(1, 10\)"):
        OnnxPredictor(save(tmp_path / "m", [MATMUL])).predict(INPUT, classes=10)


def test_another_input_shape_is_refused(tmp_path: Path) -> None:
    predictor = OnnxPredictor(save(tmp_path / "m", [MATMUL]))
    with pytest.raises(PredictorError, match=r"takes inputs of shape \('any', 4\), expected \(1, 3\)"):
        predictor.predict(np.zeros((1, 3), np.float32), classes=4)
    with pytest.raises(PredictorError, match=r"takes inputs of shape \('any', 4\), expected \(1, 1, 4\)"):
        predictor.predict(np.zeros((1, 1, 4), np.float32), classes=4)


@pytest.mark.parametrize(
    "inputs", [[value("x", ["n", 4]), value("x2", [4, 4])], [value("x", ["n", 4], TensorProto.INT64)]]
)
def test_a_model_that_does_not_take_one_float_tensor_is_refused(inputs: list[Any], tmp_path: Path) -> None:
    path = save(tmp_path / "m", [helper.make_node("Shape", ["x"], ["y"])], constants=(), inputs=inputs,
                outputs=[value("y", None, TensorProto.INT64)])  # fmt: skip
    with pytest.raises(PredictorError, match=r"takes \[.*\], expected one float tensor"):
        OnnxPredictor(path).predict(INPUT, classes=4)


def test_nan_answers_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m", [helper.make_node("Log", ["x"], ["y"])], constants=())
    with pytest.raises(PredictorError, match="answered NaN or infinity"):
        OnnxPredictor(path).predict(-np.ones((1, 4), np.float32), classes=4)


def test_a_sequence_is_no_prediction(tmp_path: Path) -> None:
    output = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    path = save(tmp_path / "m", [helper.make_node("SequenceConstruct", ["x"], ["y"])], constants=(), outputs=[output])
    with pytest.raises(PredictorError, match="answered with a list, expected a tensor"):
        OnnxPredictor(path).predict(INPUT, classes=4)


def test_a_model_that_fails_did_not_answer(tmp_path: Path) -> None:
    constant = numpy_helper.from_array(np.array([7, 7]), "s")
    path = save(tmp_path / "m", [helper.make_node("Reshape", ["x", "s"], ["y"])], constants=[constant])
    with pytest.raises(PredictorError, match=r"failed \(.*Reshape"):
        OnnxPredictor(path).predict(INPUT, classes=4)


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


def test_a_large_answer_is_known_by_its_shape_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "m", [helper.make_node("Expand", ["x", "s"], ["y"])], constants=[sizes(10**6, 4)])
    with pytest.raises(PredictorError, match=r"answered with shape \(1000000, 4\), expected \(1, 4\)"):
        OnnxPredictor(path).predict(INPUT, classes=4)


def test_a_crash_is_an_error_and_the_next_question_is_answered(tmp_path: Path) -> None:
    predictor = OnnxPredictor(save(tmp_path / "m", [MATMUL]))
    os.kill(pid_of(predictor), signal.SIGSEGV)
    with pytest.raises(PredictorError, match=r"crashed \(SIGSEGV\) under its limit of 1024 MiB"):
        predictor.predict(INPUT, classes=4)
    assert predictor.predict(INPUT, classes=4) == 2


def test_a_file_that_changes_between_two_questions_is_refused(tmp_path: Path) -> None:
    predictor = OnnxPredictor(save(tmp_path / "m", [MATMUL]))
    predictor.close()
    save(tmp_path / "m", [helper.make_node("Identity", ["x"], ["y"])])
    with pytest.raises(FileError, match="has changed since it was first read"):
        predictor.predict(INPUT, classes=4)


def pid_of(predictor: OnnxPredictor) -> int:
    assert predictor._running is not None
    return predictor._running.process._process.pid


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


def test_a_model_of_unknown_input_shape_is_asked(tmp_path: Path) -> None:
    assert OnnxPredictor(save(tmp_path / "m", [MATMUL], inputs=[value("x")])).predict(INPUT, classes=4) == 2


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


@pytest.mark.parametrize("place", ["secret.bin", "{folder}/secret.bin", "../{name}/secret.bin"])
def test_files_beside_a_model_are_not_read(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", place.format(folder=tmp_path, name=tmp_path.name)), ("length", "64")):
        outside.external_data.add(key=key, value=text)
    with pytest.raises(
        FileError, match=r"is not an ONNX model that can be run .*one self-contained \.onnx file.*external_data=False"
    ):
        OnnxPredictor(save(tmp_path / "m.onnx", [MATMUL], constants=[outside]))


def test_operators_that_need_foreign_code_are_refused(tmp_path: Path) -> None:
    own = helper.make_node("Evil", ["x"], ["y"], domain="evil.example")
    path = save(tmp_path / "m", [own], operators=[helper.make_opsetid("", 17), helper.make_opsetid("evil.example", 1)])
    with pytest.raises(FileError, match="is not an ONNX model that can be run"):
        OnnxPredictor(path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04" + bytes(40)])
def test_foreign_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(FileError, match="is not an ONNX model that can be run"):
        OnnxPredictor(tmp_path / "m.onnx")


def test_truncated_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [MATMUL])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileError, match="is not an ONNX model that can be run"):
        OnnxPredictor(path)
    with pytest.raises(FileError, match="cannot be read"):
        OnnxPredictor(tmp_path / "nowhere.onnx")


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ticketguard\[onnx\]'"):
        OnnxPredictor(tmp_path / "m.onnx")


def test_the_sample_is_a_valid_model(tmp_path: Path) -> None:
    onnx.checker.check_model(onnx.load(save(tmp_path / "m.onnx", [MATMUL], outputs=[value("y", ["n", 4])])))

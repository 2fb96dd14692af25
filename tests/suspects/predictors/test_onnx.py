from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ticketguard.errors import FileError, MissingExtraError, PredictorError
from ticketguard.suspects import OnnxPredictor

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


def test_an_endless_loop_is_stopped(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "v"], ["v2"])],
        "body",
        [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), value("v")],
        [value("c2", [], TensorProto.BOOL), value("v2")],
    )
    constants = [numpy_helper.from_array(np.array(2**62), "n"), numpy_helper.from_array(np.array(True), "go")]
    path = save(tmp_path / "m", [helper.make_node("Loop", ["n", "go", "x"], ["y"], body=body)], constants=constants)
    with pytest.raises(PredictorError, match=r"did not answer within 0.2 s"):
        OnnxPredictor(path, timeout_s=0.2).predict(INPUT, classes=4)


@pytest.mark.parametrize("place", ["secret.bin", "{folder}/secret.bin", "../{name}/secret.bin"])
def test_files_beside_a_model_are_not_read(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", place.format(folder=tmp_path, name=tmp_path.name)), ("length", "64")):
        outside.external_data.add(key=key, value=text)
    with pytest.raises(
        FileError, match=r"is no ONNX model that can be run .*one self-contained \.onnx file.*external_data=False"
    ):
        OnnxPredictor(save(tmp_path / "m.onnx", [MATMUL], constants=[outside]))


def test_operators_that_need_foreign_code_are_refused(tmp_path: Path) -> None:
    own = helper.make_node("Evil", ["x"], ["y"], domain="evil.example")
    path = save(tmp_path / "m", [own], operators=[helper.make_opsetid("", 17), helper.make_opsetid("evil.example", 1)])
    with pytest.raises(FileError, match="is no ONNX model that can be run"):
        OnnxPredictor(path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04" + bytes(40)])
def test_foreign_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(FileError, match="is no ONNX model that can be run"):
        OnnxPredictor(tmp_path / "m.onnx")


def test_truncated_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [MATMUL])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileError, match="is no ONNX model that can be run"):
        OnnxPredictor(path)
    with pytest.raises(FileError, match="cannot be read"):
        OnnxPredictor(tmp_path / "nowhere.onnx")


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ticketguard\[onnx\]'"):
        OnnxPredictor(tmp_path / "m.onnx")


def test_the_sample_is_a_valid_model(tmp_path: Path) -> None:
    onnx.checker.check_model(onnx.load(save(tmp_path / "m.onnx", [MATMUL], outputs=[value("y", ["n", 4])])))

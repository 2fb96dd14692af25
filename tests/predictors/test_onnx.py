from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.predictors.onnx_models import INPUT, MATMUL, save, sizes, value
from ticketguard.errors import FileError, MissingExtraError, PredictorError
from ticketguard.predictors import OnnxPredictor


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


def test_a_large_answer_is_known_by_its_shape_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "m", [helper.make_node("Expand", ["x", "s"], ["y"])], constants=[sizes(10**6, 4)])
    with pytest.raises(PredictorError, match=r"answered with shape \(1000000, 4\), expected \(1, 4\)"):
        OnnxPredictor(path).predict(INPUT, classes=4)


def test_a_file_that_changes_between_two_questions_is_refused(tmp_path: Path) -> None:
    predictor = OnnxPredictor(save(tmp_path / "m", [MATMUL]))
    predictor.close()
    save(tmp_path / "m", [helper.make_node("Identity", ["x"], ["y"])])
    with pytest.raises(FileError, match="has changed since it was first read"):
        predictor.predict(INPUT, classes=4)


def test_a_model_of_unknown_input_shape_is_asked(tmp_path: Path) -> None:
    assert OnnxPredictor(save(tmp_path / "m", [MATMUL], inputs=[value("x")])).predict(INPUT, classes=4) == 2


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

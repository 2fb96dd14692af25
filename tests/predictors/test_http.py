from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

import numpy as np
import pytest

from ticketguard.errors import ConfigurationError, MissingExtraError, NoAnswerError, PredictorError, UnusableAnswerError
from ticketguard.predictors import HttpPredictor
from ticketguard.predictors.http import MAX_ANSWER_BYTES

from .conftest import GOOD, INPUT, METADATA, Endpoint, Handler, reply, scores


def test_an_endpoint_answers_and_is_asked_by_the_protocol(endpoint: Endpoint) -> None:
    predictor = endpoint.predictor(headers={"Authorization": "Bearer t"})
    assert [predictor.predict(INPUT, classes=4) for _ in range(2)] == [2, 2]
    assert [(method, path) for method, path, _, _ in endpoint.requests] == [
        ("GET", "/v2/models/m"),
        ("POST", "/v2/models/m/infer"),
        ("POST", "/v2/models/m/infer"),
    ]
    (sent,) = json.loads(endpoint.requests[1][2])["inputs"]
    assert (sent["name"], sent["datatype"], sent["shape"]) == ("image", "FP32", [1, 1, 2, 2])
    np.testing.assert_array_equal(np.array(sent["data"], dtype=np.float32), INPUT.reshape(-1))
    headers = {key.lower(): text for key, text in endpoint.requests[1][3].items()}
    assert headers["authorization"] == "Bearer t"
    assert headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "document",
    [
        scores([[0, 0, 1, 0]]),
        scores([2], shape=[1], datatype="INT64"),
        scores([2], shape=[1, 1], datatype="INT32"),
    ],
)
def test_nested_rows_and_labels_are_read(document: Any, endpoint: Endpoint) -> None:
    endpoint.infer = lambda handler: reply(handler, document)
    assert endpoint.predictor().predict(INPUT, classes=4) == 2


def test_a_named_output_is_read(endpoint: Endpoint) -> None:
    both = {"outputs": scores([1, 0, 0, 0], name="other")["outputs"] + GOOD["outputs"]}
    endpoint.infer = lambda handler: reply(handler, both)
    assert endpoint.predictor(output="scores").predict(INPUT, classes=4) == 2
    assert endpoint.predictor().predict(INPUT, classes=4) == 0
    with pytest.raises(PredictorError, match=r"answered with outputs \['other', 'scores'\], expected 'labels'"):
        endpoint.predictor(output="labels").predict(INPUT, classes=4)


def test_it_works_inside_a_running_event_loop(endpoint: Endpoint) -> None:
    async def notebook() -> int:
        return endpoint.predictor().predict(INPUT, classes=4)

    assert asyncio.run(notebook()) == 2


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        (b"", "is not JSON"),
        (b"<html>busy</html>", "is not JSON"),
        (b"\xff\xfe\x00garbage", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"outputs":' + b"9" * 10_000 + b"}", "is not JSON"),
        ([], "sent answer without 'outputs' of type list"),
        ({"outputs": {}}, "sent answer without 'outputs' of type list"),
        ({"outputs": []}, r"answered with outputs \[\], expected 'at least one'"),
        ({"outputs": [3]}, "sent answer without 'name' of type str"),
        ({"outputs": [{"name": "s", "datatype": "FP32", "shape": [1, 4]}]}, "sent answer without 'data' of type list"),
        (scores([0, 1, 2]), r"answered 3 values for shape \(1, 4\)"),
        (scores([0, 1, 2, 3], shape=[2**31]), "sent the shape"),
        (scores([0, 1, 2, 3], shape=[-1, 4]), "sent the shape"),
        (scores([0, 1, 2, 3], shape=[1] * 9), "sent the shape"),
        (scores([], shape=[0, 2**31 - 1, 2**31 - 1, 2**31 - 1]), "sent the shape"),
        (scores([0.5] * 4, shape=[2**31 - 1] * 8), "sent the shape"),
        (scores([0.5] * 4, shape=[True, 4]), "sent the shape"),
        (scores([0.5] * 4, shape=[1, 4.0]), "sent the shape"),
        (b'{"outputs": [{"name": "s", "datatype": "FP32", "shape": ' + b"[" * 900 + b"]" * 900 + b"}]}", "sent"),
        (b'{"outputs": [], "outputs": []}', r"is not JSON \(a key comes twice\)"),
        (b'{"outputs": [' + b'{"name": "' + b"n" * 500_000 + b'"}]}', "sent answer without 'datatype'"),
        (scores(["a", "b", "c", "d"]), "values that are not of its type FP32"),
        (scores([True, False, False, False]), "values that are not of its type FP32"),
        (scores([0.5, 0, 0, 0], datatype="INT64"), "values that are not of its type INT64"),
        (scores(["cat"], shape=[1], datatype="BYTES"), "answered with type 'BYTES', expected numbers"),
        (scores([10**400, 0, 0, 0]), "numbers that are too large"),
        (scores([10**40], shape=[1], datatype="INT64"), "numbers that are too large"),
        (scores([float("nan"), 0, 0, 0]), "answered NaN or infinity"),
        (scores([1e999, 0, 0, 0]), "answered NaN or infinity"),
        (scores([0.0] * 10, shape=[1, 10]), r"answered with shape \(1, 10\), expected \(1, 4\)"),
        (scores([0.0] * 8, shape=[2, 4]), r"answered with shape \(2, 4\), expected \(1, 4\)"),
        (scores([7], shape=[1], datatype="INT64"), "answered class 7, expected 0 to 3"),
    ],
)
def test_garbage_is_refused(document: Any, complaint: str, endpoint: Endpoint) -> None:
    endpoint.infer = lambda handler: reply(handler, document)
    with pytest.raises(UnusableAnswerError, match=complaint):
        endpoint.predictor().predict(INPUT, classes=4)


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ([], "takes 0 inputs, expected one"),
        (METADATA["inputs"] * 2, "takes 2 inputs, expected one"),
        ([{"name": "x", "datatype": "UINT8", "shape": [-1, 1, 2, 2]}], "takes 'UINT8' inputs, expected one of FP32"),
        ([{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], r"shape \('any', 4\), expected \(1, 1, 2, 2\)"),
        ([{"name": "x", "datatype": "FP32", "shape": [-1, 3, 2, 2]}], r"takes inputs of shape \('any', 3, 2, 2\)"),
        ([{"name": "x", "datatype": "FP32", "shape": "any"}], "sent metadata without 'shape' of type list"),
        ([{"name": "x", "datatype": "FP32", "shape": [-2]}], "sent the shape"),
        ([{"name": "x", "datatype": "FP32", "shape": [0, 2**31 - 1, 2**31 - 1]}], "sent the shape"),
        ([{"name": "x", "datatype": "F" * 100_000, "shape": [1]}], "takes 'FFFFFFFFFFFFFFFFFFFF' inputs"),
    ],
)
def test_models_that_take_something_else_are_refused(inputs: Any, complaint: str, endpoint: Endpoint) -> None:
    endpoint.metadata = lambda handler: reply(handler, {**METADATA, "inputs": inputs})
    with pytest.raises(PredictorError, match=complaint):
        endpoint.predictor().predict(INPUT, classes=4)


def test_errors_are_quoted_without_control_characters(endpoint: Endpoint) -> None:
    endpoint.infer = lambda handler: reply(handler, {"error": "model \x1b[31mnot ready\n"}, status=400)
    with pytest.raises(PredictorError, match=r"answered 400 \(model \\x1b\[31mnot ready\)"):
        endpoint.predictor().predict(INPUT, classes=4)


@pytest.mark.parametrize("document", [b"", b"\xff\xff", [3]])
def test_errors_without_the_protocols_text_are_told(document: Any, endpoint: Endpoint) -> None:
    endpoint.metadata = lambda handler: reply(handler, document, status=404)
    with pytest.raises(PredictorError, match="answered 404 "):
        endpoint.predictor().predict(INPUT, classes=4)


def test_redirects_are_not_followed(endpoint: Endpoint) -> None:
    elsewhere = {"Location": "http://169.254.169.254/latest/meta-data"}
    endpoint.infer = lambda handler: reply(handler, b"", status=307, headers=elsewhere)
    with pytest.raises(PredictorError, match=r"redirects to 'http://169.254.169.254/latest/meta-data', which is not"):
        endpoint.predictor().predict(INPUT, classes=4)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2**22 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2**19 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\x1b[2J garbage",
        b"\x1b[2J\x1b[31mSUPPORTED\n" * 1000,
    ],
    ids=["header", "headers", "chunk", "line"],
)
def test_an_answer_that_is_not_http_is_told_in_short(endpoint: Endpoint, answer: bytes) -> None:
    def raw(handler: Handler) -> None:
        handler.wfile.write(answer)
        handler.close_connection = True

    endpoint.infer = raw
    with pytest.raises(NoAnswerError, match="cannot be reached") as caught:
        endpoint.predictor().predict(INPUT, classes=4)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_an_endless_body_is_cut_off(endpoint: Endpoint) -> None:
    sent = 0

    def flood(handler: Handler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        for _ in range(4096):
            sent += handler.wfile.write(bytes(2**16))

    endpoint.infer = flood
    with pytest.raises(PredictorError, match=f"answered with more than {MAX_ANSWER_BYTES} bytes"):
        endpoint.predictor().predict(INPUT, classes=4)
    assert sent < 64 * MAX_ANSWER_BYTES


def test_a_compressed_answer_is_refused(endpoint: Endpoint) -> None:
    endpoint.infer = lambda handler: reply(handler, GOOD, headers={"Content-Encoding": "gzip"})
    with pytest.raises(PredictorError, match="sent a compressed answer that was not asked for"):
        endpoint.predictor().predict(INPUT, classes=4)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_what_is_no_http_answer_is_refused(answer: bytes, endpoint: Endpoint) -> None:
    def raw(handler: Handler) -> None:
        handler.wfile.write(answer)
        handler.close_connection = True

    endpoint.metadata = raw
    with pytest.raises(PredictorError, match=r"cannot be reached \(.+\): check the address"):
        endpoint.predictor().predict(INPUT, classes=4)


def test_an_endpoint_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        with pytest.raises(PredictorError, match=rf"127.0.0.1:{port}/v2/models/m' cannot be reached"):
            HttpPredictor(f"http://127.0.0.1:{port}/v2/models/m").predict(INPUT, classes=4)


@pytest.mark.parametrize(
    "url",
    ["", "model", "ftp://host/m", "http://", "http://host:port/m", "file:///etc/passwd", "http://host/m?x=1",
     "http://host/m#x"],
)  # fmt: skip
def test_what_is_no_models_address_is_a_usage_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="give http://host/v2/models/NAME"):
        HttpPredictor(url)


def test_passwords_stay_out_of_messages() -> None:
    assert HttpPredictor("http://me:secret@host:8000/v2/models/m/infer").target == "http://host:8000/v2/models/m"
    assert HttpPredictor("https://[::1]:8000/v2/models/m/").target == "https://[::1]:8000/v2/models/m"


@pytest.mark.parametrize(
    "url",
    ["http://me:se@cret@host:port/m", "ftp://me:secret@host/m", "http://host/m?token=secret", "http://[me:secret@"],
)
def test_passwords_in_a_wrong_address_are_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        HttpPredictor(url)
    assert "secret" not in str(refused.value)
    assert "se@cret" not in str(refused.value)


def test_without_httpx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ticketguard\[http\]'"):
        HttpPredictor("http://host/v2/models/m")

from __future__ import annotations

import asyncio
import dataclasses
import http.server
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from ticketguard.errors import ConfigurationError, MissingExtraError, NoAnswerError, PredictorError, UnusableAnswerError
from ticketguard.predictors import HttpPredictor, patience
from ticketguard.predictors.http import MAX_ANSWER_BYTES
from ticketguard.predictors.patience import Patience

INPUT = np.array([[[[0.25, -1.5], [3.0, 1e-8]]]], dtype=np.float32)
METADATA = {
    "name": "m",
    "platform": "test",
    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 2, 2]}],
    "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 4]}],
}

Handler = http.server.BaseHTTPRequestHandler


def scores(data: Any, *, shape: Any = (1, 4), datatype: Any = "FP32", name: str = "scores") -> dict[str, Any]:
    return {"outputs": [{"name": name, "datatype": datatype, "shape": list(shape), "data": data}]}


GOOD = scores([0.0, 0.0, 1.0, 0.0])


def reply(handler: Handler, document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    handler.send_response(status)
    for key, text in {"Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(key, text)
    handler.end_headers()
    handler.wfile.write(body)


class Endpoint:
    """A real server on the loopback; *metadata* and *infer* answer the two kinds of request."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.over = threading.Event()
        self.gave_up = False
        self.metadata: Callable[[Handler], None] = lambda handler: reply(handler, METADATA)
        self.infer: Callable[[Handler], None] = lambda handler: reply(handler, GOOD)
        endpoint = self

        class Answers(Handler):
            def do_GET(self) -> None:
                self._answer(endpoint.metadata)

            def do_POST(self) -> None:
                self._answer(endpoint.infer)

            def _answer(self, answer: Callable[[Handler], None]) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                endpoint.requests.append((self.command, self.path, body, dict(self.headers)))
                try:
                    answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client hung up, as it should

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v2/models/m"

    def go_on(self, act: Callable[[], object]) -> None:
        """Act every now and then until the test is over, or for two minutes."""
        for _ in range(6000):
            if self.over.wait(0.02):
                return
            act()
        self.gave_up = True

    def predictor(self, **options: Any) -> HttpPredictor:
        return HttpPredictor(self.url, **{"timeout_s": 5.0, **options})


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    started = Endpoint()
    thread = threading.Thread(target=started.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield started
    started.over.set()
    started.server.shutdown()
    started.server.server_close()
    thread.join()


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


@dataclasses.dataclass
class Clock:
    """A clock that only waiting moves."""

    now_s: float = 0.0
    pauses: list[float] = dataclasses.field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "sleep", clock.sleep)
    monkeypatch.setattr(patience, "monotonic", lambda: clock.now_s)
    return clock


def cut_off(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")
    handler.close_connection = True


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


TRANSIENT = [408, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529]


def status_of(status: int, **headers: str) -> Callable[[Handler], None]:
    return lambda handler: reply(
        handler, b"x" * 2 * MAX_ANSWER_BYTES, status=status, headers={"Content-Encoding": "gzip", **headers}
    )


@pytest.mark.parametrize("fault", [*map(status_of, TRANSIENT), hang_up, cut_off], ids=[*map(str, TRANSIENT), "a", "b"])
@pytest.mark.parametrize("place", ["metadata", "infer"])
def test_a_transient_fault_is_asked_again(
    endpoint: Endpoint, clock: Clock, fault: Callable[[Handler], None], place: str
) -> None:
    answer, faults = getattr(endpoint, place), [fault, fault]
    setattr(endpoint, place, lambda handler: (faults.pop() if faults else answer)(handler))
    told: list[str] = []
    assert Patience(10.0, note=told.append).ask(endpoint.predictor(), INPUT, classes=4) == 2
    assert clock.pauses == [0.25, 0.5]
    assert "asking again in 0.25 s, 10 s of patience left" in told[0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 422, 501, 505])
def test_a_refusal_is_not_asked_again(endpoint: Endpoint, clock: Clock, status: int) -> None:
    endpoint.infer = lambda handler: reply(handler, {"error": "no"}, status=status)
    with pytest.raises(PredictorError, match=rf"answered {status} \(no\)") as caught:
        Patience().ask(endpoint.predictor(), INPUT, classes=4)
    assert not isinstance(caught.value, NoAnswerError)
    assert clock.pauses == []


def test_patience_ends_with_one_last_question(endpoint: Endpoint, clock: Clock) -> None:
    endpoint.infer = lambda handler: reply(handler, {"error": "overloaded"}, status=503)
    with pytest.raises(NoAnswerError, match=r"answered 503 \(overloaded\)"):
        Patience(100.0).ask(endpoint.predictor(), INPUT, classes=4)
    assert clock.pauses == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 8.25]
    assert len(endpoint.requests) == 1 + 11


def test_patience_is_for_all_questions_together(endpoint: Endpoint, clock: Clock) -> None:
    shared = Patience(1.0)
    endpoint.infer = status_of(502)
    with pytest.raises(NoAnswerError):
        shared.ask(endpoint.predictor(), INPUT, classes=4)
    with pytest.raises(NoAnswerError):
        shared.ask(endpoint.predictor(), INPUT, classes=4)
    assert clock.pauses == [0.25, 0.5, 0.25]


@pytest.mark.parametrize("seconds", [-1.0, 86_401.0, float("nan"), float("inf")])
def test_patience_has_bounds(seconds: float) -> None:
    Patience(0.0)
    Patience(86_400.0)
    with pytest.raises(ConfigurationError, match="expected 0 to 86400"):
        Patience(seconds)


@pytest.mark.parametrize(
    ("asked", "pause_s"),
    [
        ("7", 7.0),
        ("0", 0.25),
        ("9" * 40, 100.0),
        ("Thu, 26 Nov 2026 20:00:42 GMT", 42.0),
        ("Thursday, 26-Nov-26 20:00:42 GMT", 42.0),
        ("Thu, 26 Nov 2026 20:00:42 -0000", 42.0),
        ("Thu, 26 Nov 2026 19:00:00 GMT", 0.25),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 100.0),
        ("-5", 0.25),
        ("soon", 0.25),
        ("nan", 0.25),
        ("Thu, 99 Nov 99999999 99:99:99 GMT", 0.25),
        ("\xb2", 0.25),
    ],
)
def test_retry_after_is_a_number_or_a_date(
    endpoint: Endpoint, clock: Clock, monkeypatch: pytest.MonkeyPatch, asked: str, pause_s: float
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1795723200.0)  # Thu, 26 Nov 2026 20:00:00 GMT
    answers = iter([status_of(429, **{"Retry-After": asked})])
    endpoint.infer = lambda handler: next(answers, lambda handler: reply(handler, GOOD))(handler)
    assert Patience(100.0).ask(endpoint.predictor(), INPUT, classes=4) == 2
    assert clock.pauses == [pause_s]


def test_an_unproved_identity_is_not_asked_again() -> None:
    error = httpx.ConnectError("certificate verify failed")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    predictor = HttpPredictor("https://host/v2/models/m")
    assert not isinstance(predictor._failure(error), NoAnswerError)
    assert isinstance(predictor._failure(httpx.ConnectError("reset")), NoAnswerError)
    assert not isinstance(predictor._failure(httpx.LocalProtocolError("illegal header")), NoAnswerError)


def assert_stops(endpoint: Endpoint) -> None:
    """The endpoint goes on until the test is over; the predictor does not."""
    with pytest.raises(NoAnswerError, match=r"did not answer within 0.3 s: raise the timeout"):
        endpoint.predictor(timeout_s=0.3).predict(INPUT, classes=4)
    assert not endpoint.gave_up


def test_a_silent_endpoint_ends_at_the_deadline(endpoint: Endpoint) -> None:
    endpoint.infer = lambda handler: endpoint.go_on(lambda: None)
    assert_stops(endpoint)


def test_a_name_server_that_never_answers_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: stop.wait(5))
    monkeypatch.setattr("ticketguard.predictors.http._GRACE_S", 0.1)
    try:
        with pytest.raises(PredictorError, match=r"did not answer within 0\.2 s"):
            HttpPredictor("http://endpoint.invalid/v2/models/m", timeout_s=0.2).predict(INPUT, classes=4)
    finally:
        stop.set()


def test_metadata_that_never_comes_ends_at_the_deadline(endpoint: Endpoint) -> None:
    endpoint.metadata = lambda handler: endpoint.go_on(lambda: None)
    assert_stops(endpoint)


def test_metadata_and_answer_share_one_deadline(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines: list[float] = []
    exchange = HttpPredictor._exchange

    def watched(*args: Any, deadline: float) -> bytes:
        deadlines.append(deadline)
        return exchange(*args, deadline=deadline)

    monkeypatch.setattr(HttpPredictor, "_exchange", watched)
    assert endpoint.predictor().predict(INPUT, classes=4) == 2
    assert len(deadlines) == 2
    assert len(set(deadlines)) == 1


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFF\r\n",
    ],
    ids=["body", "headers", "chunk"],
)
def test_an_answer_that_drips_ends_at_the_deadline(endpoint: Endpoint, start: bytes) -> None:
    def drip(handler: Handler) -> None:
        handler.wfile.write(start)
        endpoint.go_on(lambda: handler.wfile.write(b"1"))

    endpoint.infer = drip
    assert_stops(endpoint)


def test_endless_interim_answers_end_at_the_deadline(endpoint: Endpoint) -> None:
    endpoint.infer = lambda handler: endpoint.go_on(lambda: handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n"))
    assert_stops(endpoint)


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

"""Endpoints that fail, are slow or never end: what is asked again, and where patience and the deadline end."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ticketguard.errors import ConfigurationError, NoAnswerError, PredictorError
from ticketguard.predictors import HttpPredictor, patience
from ticketguard.predictors.http import MAX_ANSWER_BYTES
from ticketguard.predictors.patience import Patience

from .conftest import GOOD, INPUT, Endpoint, Handler, reply


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

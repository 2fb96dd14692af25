"""A real endpoint on the loopback, which answers as a test wants it to."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ticketguard.predictors import HttpPredictor

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

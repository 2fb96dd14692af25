"""An HTTP endpoint that speaks the Open Inference Protocol v2 as a black-box suspect.

https://github.com/kserve/open-inference-protocol (HTTP/REST): model metadata is read from the model's URL,
answers come from its ``/infer``. The endpoint is hostile: every answer has a size limit, every prediction one
deadline that covers connecting, waiting, retries and the last byte.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from ticketguard.errors import ConfigurationError, MissingExtraError, PredictorError
from ticketguard.suspects.predictors.interface import check_input_shape, read_answer
from ticketguard.suspects.predictors.open_inference import (
    ModelInput,
    ProtocolError,
    read_metadata,
    read_output,
    request_body,
)
from ticketguard.ticket import FloatArray

if TYPE_CHECKING:
    import httpx

# Scores of ten thousand classes as JSON take a fifth of it.
MAX_ANSWER_BYTES = 2**20
_BUSY = (429, 503)
_FIRST_PAUSE_S = 0.25
_GRACE_S = 1.0


class HttpPredictor:
    """A model behind an Open Inference Protocol v2 endpoint.

    Args:
        url: The model's URL, such as ``http://host:8000/v2/models/m`` or ``…/m/versions/1``.
        timeout_s: Seconds one prediction may take from connecting to the last byte, retries included.
        retries: How often a request is repeated that was answered with 429 or 503.
        headers: Extra request headers, such as an authorisation.
        output: Name of the output to read; default: the first.

    Raises:
        ConfigurationError: *url* is no HTTP address of a model.
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 30.0,
        retries: int = 3,
        headers: Mapping[str, str] | None = None,
        output: str | None = None,
    ) -> None:
        self._url, self._target = _check_url(url)
        self._timeout_s = timeout_s
        self._retries = retries
        # Compression is declined: a small body that grows without bound would escape the size limit.
        self._headers = {**(headers or {}), "Accept": "application/json", "Accept-Encoding": "identity"}
        self._output = output
        self._model_input: ModelInput | None = None
        try:
            import httpx
        except ImportError as error:
            raise MissingExtraError(package="httpx", extra="http") from error
        self._tls = httpx.create_ssl_context()

    @property
    def target(self) -> str:
        """Return the model's URL without any password."""
        return self._target

    def predict(self, inputs: FloatArray, *, classes: int) -> int:
        """Answer one input.

        Raises:
            PredictorError: The endpoint is down, slow, busy, refuses, redirects, or answers no prediction.
        """
        deadline = time.monotonic() + self._timeout_s
        try:
            if self._model_input is None:
                self._model_input = read_metadata(self._exchange("GET", self._url, None, deadline=deadline))
            check_input_shape(inputs, self._model_input.shape, target=self.target)
            body = request_body(inputs, self._model_input)
            answer = self._exchange("POST", f"{self._url}/infer", body, deadline=deadline)
            scores = read_output(answer, name=self._output)
        except ProtocolError as error:
            raise PredictorError(
                target=self.target, reason=str(error), hint="expected an Open Inference Protocol v2 model"
            ) from error
        return read_answer(scores, classes=classes, target=self.target)

    def _exchange(self, method: str, url: str, body: bytes | None, *, deadline: float) -> bytes:
        """Run one request with its retries until *deadline* (monotonic seconds), in a thread of its own.

        A per-read timeout lets an endpoint that sends a byte now and then go on for ever; cancelling a task does not.
        The thread makes it work where the caller already runs an event loop (a notebook).
        """
        left_s = max(0.0, deadline - time.monotonic())
        outcome: list[bytes | Exception] = []

        def work() -> None:
            try:
                outcome.append(asyncio.run(asyncio.wait_for(self._request(method, url, body), left_s)))
            except Exception as error:  # handed to the caller's thread below
                outcome.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        # A name server that never answers cannot be cancelled; its thread is left behind.
        thread.join(left_s + _GRACE_S)
        result = outcome[0] if outcome else TimeoutError()
        if isinstance(result, bytes):
            return result
        raise self._failure(result) from result

    def _failure(self, error: Exception) -> PredictorError:
        if isinstance(error, PredictorError):
            return error
        if isinstance(error, TimeoutError):
            return PredictorError(
                target=self.target,
                reason=f"did not answer within {self._timeout_s:g} s",
                hint="raise the timeout or try later",
            )
        return PredictorError(
            target=self.target,
            reason=f"cannot be reached ({str(error) or type(error).__name__})",
            hint="check the address and that the endpoint is up",
        )

    async def _request(self, method: str, url: str, body: bytes | None) -> bytes:
        import httpx

        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        async with httpx.AsyncClient(
            follow_redirects=False, timeout=self._timeout_s, headers=headers, verify=self._tls
        ) as client:
            for attempt in range(self._retries + 1):
                async with client.stream(method, url, content=body) as response:
                    if response.status_code not in _BUSY or attempt == self._retries:
                        return await self._body(response)
                    pause_s = _pause(response, attempt)
                await asyncio.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    async def _body(self, response: httpx.Response) -> bytes:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise self._refusal("sent a compressed answer that was not asked for")
        chunks: list[bytes] = []
        received = 0
        async for chunk in response.aiter_raw():
            received += len(chunk)
            if received > MAX_ANSWER_BYTES:
                raise self._refusal(f"answered with more than {MAX_ANSWER_BYTES} bytes")
            chunks.append(chunk)
        content = b"".join(chunks)
        if response.is_redirect:
            raise self._refusal(
                f"redirects to {response.headers.get('location', 'nowhere')[:200]!r}, which is not followed"
            )
        if response.status_code != 200:
            raise self._refusal(f"answered {response.status_code} ({_error_text(content)})")
        return content

    def _refusal(self, reason: str) -> PredictorError:
        return PredictorError(target=self.target, reason=reason, hint="check the model's address and its server's log")


def _check_url(url: str) -> tuple[str, str]:
    """Return the model's URL, and the same without user and password for messages."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(
            f"endpoint {url!r} is no address ({error}): give http://host/v2/models/NAME"
        ) from error
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise ConfigurationError(f"endpoint {url!r} is no model's HTTP address: give http://host/v2/models/NAME")
    path = parts.path.rstrip("/").removesuffix("/infer")
    bare = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    return (
        urlunsplit((parts.scheme, parts.netloc, path, "", "")),
        urlunsplit((parts.scheme, bare, path, "", "")),
    )


def _pause(response: httpx.Response, attempt: int) -> float:
    """Return the seconds to wait: as the endpoint asks (RFC 9110, 10.2.3), else twice as long each time."""
    asked = response.headers.get("retry-after", "")
    if asked.isascii() and asked.isdecimal():
        return float(asked[:6])  # More digits than that are past every deadline anyway.
    return float(_FIRST_PAUSE_S * 2**attempt)


def _error_text(content: bytes) -> str:
    try:
        document: Any = json.loads(content)
        text = str(document["error"])
    except (ValueError, RecursionError, TypeError, KeyError):
        text = content.decode("utf-8", errors="replace")
    # It ends up on a terminal: no control characters.
    return "".join(character if character.isprintable() else " " for character in text[:200]).strip() or "no text"

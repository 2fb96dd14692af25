"""An HTTP endpoint that speaks the Open Inference Protocol v2 as a black-box suspect.

https://github.com/kserve/open-inference-protocol (HTTP/REST): model metadata is read from the model's URL,
answers come from its ``/infer``. The endpoint is hostile: every answer has a size limit, every prediction one
deadline that covers connecting, waiting and the last byte. Each request is made once; `NoAnswerError` says that
asking again may help, and `Patience` does so.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from ticketguard.errors import (
    ConfigurationError,
    MissingExtraError,
    NoAnswerError,
    PredictorError,
    UnusableAnswerError,
)
from ticketguard.predictors.interface import check_input_shape, read_answer
from ticketguard.predictors.open_inference import (
    ModelInput,
    ProtocolError,
    read_metadata,
    read_output,
    request_body,
)
from ticketguard.printable import printable
from ticketguard.ticket import FloatArray

if TYPE_CHECKING:
    import httpx

# Scores of ten thousand classes as JSON take a fifth of it.
MAX_ANSWER_BYTES = 2**20
# Timeouts, too early, too many requests, and what servers and the proxies before them say when they are in trouble.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 530)})
_GRACE_S = 1.0


class HttpPredictor:
    """A model behind an Open Inference Protocol v2 endpoint.

    Args:
        url: The model's URL, such as ``http://host:8000/v2/models/m`` or ``…/m/versions/1``.
        timeout_s: Seconds one prediction may take from connecting to the last byte.
        headers: Extra request headers, such as an authorisation.
        output: Name of the output to read; default: the first.

    Raises:
        ConfigurationError: *url* is not the HTTP address of a model.
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 30.0,
        headers: Mapping[str, str] | None = None,
        output: str | None = None,
    ) -> None:
        self._url, self._target = _check_url(url)
        self._timeout_s = timeout_s
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
            NoAnswerError: The endpoint is down, slow, busy or in trouble.
            UnusableAnswerError: It answers something that is not a prediction.
            PredictorError: It refuses, redirects, or takes something else.
        """
        deadline = time.monotonic() + self._timeout_s
        if self._model_input is None:
            self._model_input = self._ask_metadata(deadline)
        check_input_shape(inputs, self._model_input.shape, target=self.target)
        body = request_body(inputs, self._model_input)
        answer = self._exchange("POST", f"{self._url}/infer", body, deadline=deadline)
        try:
            scores = read_output(answer, name=self._output)
        except ProtocolError as error:
            raise UnusableAnswerError(
                target=self.target, reason=str(error), hint="expected an Open Inference Protocol v2 model"
            ) from error
        return read_answer(scores, classes=classes, target=self.target)

    def _ask_metadata(self, deadline: float) -> ModelInput:
        try:
            return read_metadata(self._exchange("GET", self._url, None, deadline=deadline))
        except (ProtocolError, UnusableAnswerError) as error:
            reason = str(error) if isinstance(error, ProtocolError) else error.reason
            raise PredictorError(
                target=self.target, reason=reason, hint="expected an Open Inference Protocol v2 model"
            ) from error

    def _exchange(self, method: str, url: str, body: bytes | None, *, deadline: float) -> bytes:
        """Run one request until *deadline* (monotonic seconds), in a thread of its own.

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
        import httpx

        if isinstance(error, PredictorError):
            return error
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            return NoAnswerError(
                target=self.target,
                reason=f"did not answer within {self._timeout_s:g} s",
                hint="raise the timeout or try later",
            )
        transient = isinstance(error, httpx.TransportError | OSError) and not _is_lasting(error)
        return (NoAnswerError if transient else PredictorError)(
            target=self.target,
            reason=f"cannot be reached ({printable(error, limit=200) or type(error).__name__})",
            hint="check the address and that the endpoint is up",
        )

    async def _request(self, method: str, url: str, body: bytes | None) -> bytes:
        import httpx

        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        async with (
            httpx.AsyncClient(
                follow_redirects=False, timeout=self._timeout_s, headers=headers, verify=self._tls
            ) as client,
            client.stream(method, url, content=body) as response,
        ):
            return await self._body(response)

    async def _body(self, response: httpx.Response) -> bytes:
        status = response.status_code
        if response.is_redirect:
            location = response.headers.get("location", "nowhere")[:200]
            raise self._refusal(f"redirects to {location!r}, which is not followed")
        content = await _read(response)
        if status in _TRANSIENT:
            raise NoAnswerError(
                target=self.target,
                reason=f"answered {status} ({_error_text(content)})",
                hint="try later, or with more patience",
                retry_after_s=_retry_after(response.headers.get("retry-after", ""), now_s=time.time()),
            )
        if status != 200:
            raise self._refusal(f"answered {status} ({_error_text(content)})")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise self._unusable("sent a compressed answer that was not asked for")
        if len(content) > MAX_ANSWER_BYTES:
            raise self._unusable(f"answered with more than {MAX_ANSWER_BYTES} bytes")
        return content

    def _refusal(self, reason: str) -> PredictorError:
        return PredictorError(target=self.target, reason=reason, hint="check the model's address and its server's log")

    def _unusable(self, reason: str) -> UnusableAnswerError:
        return UnusableAnswerError(target=self.target, reason=reason, hint="check the server's log")


async def _read(response: httpx.Response) -> bytes:
    """Return the body as it was sent; of one that is too long, a little more than the limit."""
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            break
    return bytes(content)


def _is_lasting(error: BaseException) -> bool:
    """Say whether a request would fail in the same way again: an unproved identity, or a request that is wrong."""
    import httpx

    if isinstance(error, httpx.LocalProtocolError):
        return True
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _check_url(url: str) -> tuple[str, str]:
    """Return the model's URL, and the same without user and password for messages."""
    # What may be a password or a token is not repeated; nor is the parser's own message, which quotes it.
    shown = re.sub(r"(?<=//).*@", "", url.partition("?")[0])
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"endpoint {shown!r} is not an address: give http://host/v2/models/NAME") from error
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise ConfigurationError(f"endpoint {shown!r} is not a model's HTTP address: give http://host/v2/models/NAME")
    path = parts.path.rstrip("/").removesuffix("/infer")
    bare = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    return (
        urlunsplit((parts.scheme, parts.netloc, path, "", "")),
        urlunsplit((parts.scheme, bare, path, "", "")),
    )


def _retry_after(asked: str, *, now_s: float) -> float:
    """Return the seconds that an endpoint asks to be left alone: a number or a date (RFC 9110, 10.2.3), else 0."""
    if asked.isascii() and asked.isdecimal():
        return float(asked[:9])  # More digits than that are past every patience anyway.
    try:
        moment = parsedate_to_datetime(asked[:64])
        # A date without a zone is read as the standard has it: in Greenwich's time.
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return max(0.0, aware.timestamp() - now_s)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


def _error_text(content: bytes) -> str:
    try:
        document: Any = json.loads(content)
        text = str(document["error"])
    except (ValueError, RecursionError, TypeError, KeyError):
        text = content.decode("utf-8", errors="replace")
    return printable(text.strip(), limit=200) or "no text"

"""Black-box verifications of an intact copy behind a server that fails now and then, and behind one with a quota.

The server is a real one on the loopback that speaks the Open Inference Protocol v2. Each request fails with a stated
probability: an error of the server or of a proxy, an exhausted limit, or a connection that is cut.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import ticketguard as tg
from benchmarks.shared.results import Bar, write_result
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.trigger_set import TriggerRecipe, draw_triggers
from ticketguard.models import build_model

RATES = (0.01, 0.05, 0.2)
RUNS = 60
TRIGGERS = 100
QUOTA = 8
SEED = 0
MODEL_OPTIONS = {"classes": 10, "input_shape": [1, 8, 8]}
STATUSES = (429, 500, 502, 503, 504)

Handler = http.server.BaseHTTPRequestHandler


class Server:
    """Answers every trigger with its label, unless *fails* says otherwise.

    Args:
        labels: The label of each trigger, by its bytes.
        fails: How the next request fails: a status, 0 for a cut connection, None for not at all; is told whether it is
            a question or asks for metadata.
    """

    def __init__(self, labels: dict[bytes, int], fails: Callable[[bool], int | None]) -> None:
        self.labels = labels
        self.fails = fails
        self.answered: list[bytes] = []

    def answer(self, handler: Handler) -> None:
        """Answer one request."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        status = self.fails(bool(body))
        if status == 0:
            handler.close_connection = True
            return
        document: dict[str, Any] = {"error": "try later"}
        if status is None and body:
            inputs = np.array(json.loads(body)["inputs"][0]["data"], dtype=np.float32).tobytes()
            self.answered.append(inputs)
            document = {"outputs": [{"name": "y", "datatype": "INT64", "shape": [1], "data": [self.labels[inputs]]}]}
        elif status is None:
            document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]}
        content = json.dumps(document).encode()
        handler.send_response(status or 200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Serve; give the model's URL."""
        server = self

        class Answers(Handler):
            def do_GET(self) -> None:
                server.answer(self)

            def do_POST(self) -> None:
                server.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listener:
            threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            try:
                yield f"http://127.0.0.1:{listener.server_address[1]}/v2/models/m"
            finally:
                listener.shutdown()


def make_credential() -> tuple[tg.Credential, dict[bytes, int]]:
    """Return a claim of a trigger set, and the label of each trigger by its bytes."""
    model = build_model("mlp", options=MODEL_OPTIONS, seed=SEED)
    generator = np.random.default_rng(SEED)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    sparse = {
        name: np.where(generator.random(array.shape) < 0.2, array, np.float32(0)) if array.ndim > 1 else array
        for name, array in state.items()
    }
    ticket = tg.import_checkpoint(sparse, classes=10, input_shape=(1, 8, 8))
    plan = tg.prepare(ticket, owner=tg.Owner.generate("Ada"), marks=[tg.TriggerSet(TRIGGERS)])
    plan.start(model)
    plan.after_step(model)
    credential = plan.finish(model, check=False)[1]
    mark = credential.mark("trigger-set")
    binding = Binding(secret=credential.vault.secret, commitment=mark.commitment)
    triggers = draw_triggers(binding, TriggerRecipe.from_json(mark.parameters))
    labels = {inputs.tobytes(): int(label) for inputs, label in zip(triggers.inputs(), triggers.labels, strict=True)}
    return credential, labels


def share_supported(
    credential: tg.Credential, labels: dict[bytes, int], rate: float, *, patience_s: float
) -> dict[str, Any]:
    """Verify an intact copy *RUNS* times behind a server of which a share *rate* of all requests fails."""
    generator = np.random.default_rng(SEED)

    def fails(_: bool) -> int | None:
        return int(generator.choice((0, *STATUSES))) if generator.random() < rate else None

    statuses: list[str] = []
    server = Server(labels, fails)
    with server.running() as url:
        for _ in range(RUNS):
            try:
                statuses.append(tg.verify(tg.HttpPredictor(url), credential, patience_s=patience_s).status)
            except tg.TicketguardError:
                statuses.append("could not be checked")
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    return {"rate": rate, "patience_s": patience_s, "runs": RUNS, "statuses": counts}


def verify_under_a_quota(credential: tg.Credential, labels: dict[bytes, int]) -> dict[str, Any]:
    """Verify an intact copy behind a server that answers *QUOTA* questions a day, resuming the journal every day."""
    left = [0]

    def fails(is_question: bool) -> int | None:
        left[0] -= is_question
        return 429 if is_question and left[0] < 0 else None

    server = Server(labels, fails)
    statuses: list[str] = []
    with server.running() as url, tempfile.TemporaryDirectory() as folder:
        while len(statuses) < 10 and "supported" not in statuses:
            left[0] = QUOTA
            verdict = tg.verify(tg.HttpPredictor(url), credential, patience_s=0, journal=Path(folder) / "journal")
            statuses.append(verdict.status)
    return {
        "quota": QUOTA,
        "statuses_by_day": statuses,
        "answered": len(server.answered),
        "answered_twice": len(server.answered) - len(set(server.answered)),
    }


def main() -> None:
    """Measure and write results/endpoint_faults.json."""
    credential, labels = make_credential()
    rows = [
        share_supported(credential, labels, rate, patience_s=patience_s)
        for rate in RATES
        for patience_s in (0.0, 300.0)
    ]
    quota = verify_under_a_quota(credential, labels)
    bars = {
        f"share supported at {row['rate']:.0%} faults": Bar(
            value=row["statuses"].get("supported", 0) / RUNS, bound=1.0, at_most=False
        )
        for row in rows
        if row["patience_s"]
    }
    bars["share not supported, with and without patience"] = Bar(
        value=sum(row["statuses"].get("not_supported", 0) for row in rows) / (RUNS * len(rows)), bound=0.0, at_most=True
    )
    bars[f"days until supported at {QUOTA} answers a day"] = Bar(
        value=len(quota["statuses_by_day"]), bound=3, at_most=True
    )
    bars["questions answered twice"] = Bar(value=quota["answered_twice"], bound=0, at_most=True)
    setting = {"triggers": TRIGGERS, "classes": 10, "statuses": [*STATUSES, "cut"], "server": "loopback"}
    write_result("endpoint_faults", setting=setting, seeds=[SEED], raw={"rows": rows, "quota": quota}, bars=bars)


if __name__ == "__main__":
    main()

"""Suspects behind an endpoint: servers that fail, quotas that end, and the journal that a later run goes on from."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.server
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ticketguard as tg
from tests.verification import claims
from ticketguard.credentials.vault_key import VaultKey
from ticketguard.predictors import patience
from ticketguard.verification import registry
from ticketguard.verification.journal import Questioned, open_journal

from .conftest import PASSPHRASE, Files, Run, credentials

Handler = http.server.BaseHTTPRequestHandler


def reply(handler: Handler, document: Any, *, status: int = 200) -> None:
    body = json.dumps(document).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@contextlib.contextmanager
def serving(infer: Callable[[Handler], None], metadata: Any) -> Iterator[str]:
    """Run a server on the loopback; give the model's URL."""

    class Answers(Handler):
        def do_GET(self) -> None:
            reply(self, metadata)

        def do_POST(self) -> None:
            infer(self)

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v2/models/m"
        finally:
            server.shutdown()


def test_an_endpoint_that_is_down_cannot_be_checked(run: Run, files: Files) -> None:
    result = run("verify", "--endpoint", "http://127.0.0.1:9/v2/models/m", *credentials(files), "--patience", 0, code=3)
    assert "predictor 'http://127.0.0.1:9/v2/models/m'" in result.stderr
    assert not list(files.vault.parent.glob("*.answers-*"))


def test_answers_that_cannot_be_kept_beside_the_vault_are_asked_for_all_the_same(
    run: Run, files: Files, tmp_path: Path
) -> None:
    vault = tmp_path / f"{'v' * 245}.age"  # as long as the system allows: a longer name cannot be written
    vault.write_bytes(files.vault.read_bytes())
    line = ("verify", "--endpoint", "http://127.0.0.1:9/v2/models/m", "--claim", files.claim, "--vault", vault)
    said = run(*line, "--patience", 0, code=3).stderr
    assert "answers are not kept (" in said
    assert "--journal names a file for them" in said
    assert "predictor 'http://127.0.0.1:9/v2/models/m'" in said


def test_an_endpoint_that_fails_is_asked_again_and_a_later_run_goes_on(
    run: Run,
    files: Files,
    trigger_answers: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "sleep", lambda seconds: None)
    known = {inputs.tobytes(): int(label) for inputs, label in zip(*trigger_answers, strict=True)}
    asked: list[bytes] = []
    down_from = [10]

    def infer(handler: Handler) -> None:
        document = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        asked.append(np.array(document["inputs"][0]["data"], dtype=np.float32).tobytes())
        if len(asked) in (3, 4) or len(set(asked)) > down_from[0]:
            reply(handler, {"error": "\x1b[2Jno backend"}, status=502)
        else:
            output = {"name": "label", "datatype": "INT64", "shape": [1], "data": [known[asked[-1]]]}
            reply(handler, {"outputs": [output]})

    metadata = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]}
    vault = tmp_path / "vault.age"
    vault.write_bytes(files.vault.read_bytes())
    options = ("--claim", files.claim, "--vault", vault, "--patience", 20)
    with serving(infer, metadata) as url:
        first = run("verify", "--endpoint", url, *options, code=3)
        assert first.stdout.startswith("INCONCLUSIVE")
        assert "after 10 of 100 triggers, because predictor" in first.stdout
        assert r"answered 502 (\x1b[2Jno backend): asking again in 0.25 s" in first.stderr
        assert "\x1b" not in first.stderr + first.stdout
        (kept,) = tmp_path.glob("vault.age.answers-*.jsonl")
        assert f"the answers so far are in '{kept}': continue from there with --journal {kept}" in first.stderr
        down_from[0] = 100
        before = len(asked)
        second = json.loads(run("verify", "--endpoint", url, *options, "--journal", kept, "--json").stdout)
        assert second["status"] == "supported"
        assert second["evidence"][0]["details"]["answers_from_journal"] == 10
        assert not set(asked[before:]) & set(asked[: before - 10])
        kept.unlink()
        run("verify", "--endpoint", url, *options)
        assert list(tmp_path.iterdir()) == [vault]
        run("verify", "--endpoint", url, *options, "--journal", tmp_path / "mine.jsonl")
        assert (tmp_path / "mine.jsonl").exists()


def of_labels(trigger_answers: tuple[np.ndarray, np.ndarray]) -> Callable[[Handler], dict[str, Any]]:
    """Return what reads a request and makes a copy's answer to it."""
    known = {inputs.tobytes(): int(label) for inputs, label in zip(*trigger_answers, strict=True)}

    def answer(handler: Handler) -> dict[str, Any]:
        document = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        label = known[np.array(document["inputs"][0]["data"], dtype=np.float32).tobytes()]
        return {"outputs": [{"name": "label", "datatype": "INT64", "shape": [1], "data": [label]}]}

    return answer


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def failing(status: int, **headers: str) -> Callable[[Handler], None]:
    def fail(handler: Handler) -> None:
        handler.send_response(status)
        for name, text in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), text)
        handler.end_headers()

    return fail


METADATA = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]}


@pytest.mark.parametrize(
    "fault", [failing(500), failing(502), failing(504), hang_up], ids=["500", "502", "504", "connection cut"]
)
def test_a_copy_whose_server_fails_now_and_then_is_supported(
    run: Run, files: Files, trigger_answers: tuple[np.ndarray, np.ndarray], fault: Callable[[Handler], None]
) -> None:
    answer, asked = of_labels(trigger_answers), itertools.count(1)

    def infer(handler: Handler) -> None:
        document = answer(handler)
        if next(asked) == 5:
            fault(handler)
        else:
            reply(handler, document)

    with serving(infer, METADATA) as url:
        run("verify", "--endpoint", url, *credentials(files))


def test_a_server_that_names_the_time_to_come_back_is_left_alone_until_then(
    run: Run, files: Files, trigger_answers: tuple[np.ndarray, np.ndarray]
) -> None:
    answer, asked = of_labels(trigger_answers), itertools.count(1)
    again: list[float] = []
    early: list[float] = []

    def infer(handler: Handler) -> None:
        document = answer(handler)
        if next(asked) == 5:
            again.append(int(time.time()) + 2)
            failing(429, Retry_After=email.utils.formatdate(again[0], usegmt=True))(handler)
            return
        if again and time.time() < again[0]:
            early.append(time.time())
        reply(handler, document)

    with serving(infer, METADATA) as url:
        run("verify", "--endpoint", url, *credentials(files))
    assert again
    assert not early


def test_a_quota_that_ends_leaves_a_verdict_and_the_next_run_asks_what_is_left(
    run: Run, files: Files, trigger_answers: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """The second run is the first with what the first one said to add."""
    answer, asked, quota = of_labels(trigger_answers), [], [10]

    def infer(handler: Handler) -> None:
        document = answer(handler)
        if quota[0] == 0:
            reply(handler, {"error": "quota exceeded"}, status=403)
        else:
            quota[0] -= 1
            asked.append(document["outputs"][0]["data"][0])
            reply(handler, document)

    vault = tmp_path / "vault.age"
    vault.write_bytes(files.vault.read_bytes())
    with serving(infer, METADATA) as url:
        line = ("verify", "--endpoint", url, "--claim", files.claim, "--vault", vault)
        first = run(*line, code=3)
        said = re.findall(r"--journal \S+", first.stderr)
        quota[0] = 100
        second = run(*line, *(part for option in said[:1] for part in option.split()), "--json")
    labels = [int(label) for label in trigger_answers[1]]
    assert asked == labels[: len(asked)]
    assert json.loads(second.stdout)["evidence"][0]["details"]["queries"] == len(asked)
    assert first.stdout.startswith("INCONCLUSIVE")
    assert "after 10 of 100 triggers" in first.stdout


def test_a_journal_that_came_with_the_vault_is_not_believed(
    run: Run, files: Files, trigger_answers: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    credential = tg.load_credential(files.claim, files.vault, PASSPHRASE)
    mark = credential.mark("trigger-set")
    vault = tmp_path / "vault.age"
    vault.write_bytes(files.vault.read_bytes())
    url = "http://127.0.0.1:9/v2/models/innocent"
    name = hashlib.sha256(mark.commitment + url.encode()).hexdigest()[:12]
    forged = tmp_path / f"vault.age.answers-{name}.jsonl"
    questioned = Questioned(commitment=mark.commitment.hex(), trigger_root=(mark.merkle_root or b"").hex(), suspect=url)
    with open_journal(forged, questioned, classes=10) as journal:
        for label in trigger_answers[1]:
            journal.add_trigger(int(label))
    result = run("verify", "--endpoint", url, "--claim", files.claim, "--vault", vault, "--patience", 0, code=3)
    assert "SUPPORTED" not in result.stdout
    assert "has answers of this endpoint to this claim" in result.stderr
    assert f"--journal {forged}" in result.stderr
    assert forged.exists()
    # Whoever names it vouches for it, and the verdict says where the answers are from.
    told = run(
        "verify", "--endpoint", url, "--claim", files.claim, "--vault", vault, "--journal", forged, code=0
    ).stdout
    assert re.search(r"answers from journal +[1-9]", told)


def test_a_second_marks_journal_that_came_with_the_vault_is_not_believed_either(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.SCHEMES, "other-answers", registry.SCHEMES["trigger-set"])
    marks = (claims.trigger_mark(), claims.mark("other-answers", claims.RECIPE.to_json()))
    key = VaultKey.generate()
    key.save(tmp_path / "vault.key")
    claim, vault = tmp_path / "claim.json", tmp_path / "vault.age"
    claims.signed(*marks).save(claim, vault, claims.EVE, recipient=key.recipient)
    url = "http://127.0.0.1:9/v2/models/innocent"
    name = hashlib.sha256(marks[0].commitment + marks[1].commitment + url.encode()).hexdigest()[:12]
    forged = tmp_path / f"vault.age.answers-{name}.jsonl.other-answers"
    forged.touch()
    options = ("--claim", claim, "--vault", vault, "--vault-key", tmp_path / "vault.key", "--patience", 0)
    result = run("verify", "--endpoint", url, *options, code=3)
    assert f"'{forged}': has answers of this endpoint to this claim" in result.stderr
    assert forged.exists()

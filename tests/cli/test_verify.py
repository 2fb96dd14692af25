from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.server
import itertools
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import safetensors.numpy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import ticketguard as tg
from ticketguard.predictors import patience
from ticketguard.verification.journal import Questioned, open_journal

from .conftest import PASSPHRASE, Files, Run, unmarked_ticket, validate

Handler = http.server.BaseHTTPRequestHandler

FUNCTIONS = """
import zlib

import numpy as np

known = np.load("triggers.npz")

def copy(inputs):
    matches = (known["inputs"] == inputs).reshape(len(known["inputs"]), -1).all(axis=1)
    return int(known["labels"][matches.argmax()])

def constant(inputs):
    return np.eye(10)[[3]]

def odd(inputs):
    return zlib.crc32(inputs.tobytes()) % 10

answered = []

def tired(inputs):
    if len(answered) == 12:
        raise RuntimeError("enough")
    answered.append(copy(inputs))
    return answered[-1]

def chatty(inputs):
    print("thinking")
    return copy(inputs)

def broken(inputs):
    raise RuntimeError("no weights here")

number = 3
"""


@pytest.fixture
def functions(tmp_path: Path, trigger_answers: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of black-box suspects in the working folder."""
    name = f"suspects_{tmp_path.name}"
    np.savez(tmp_path / "triggers.npz", inputs=trigger_answers[0], labels=trigger_answers[1])
    (tmp_path / f"{name}.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    return name


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


def credentials(files: Files) -> tuple[object, ...]:
    return ("--claim", files.claim, "--vault", files.vault)


def test_a_copy_is_supported_and_exits_with_0(run: Run, files: Files) -> None:
    result = run("verify", files.marked, *credentials(files), "--owner-key", f"{files.key}.pub", "--json")
    document = json.loads(result.stdout)
    validate(document, "verdict")
    assert document["status"] == "supported"
    assert document["evidence"][0]["log10_p"] < -19.3


def test_an_unmarked_ticket_is_not_supported_and_exits_with_1(run: Run, files: Files) -> None:
    result = run("verify", files.unmarked, *credentials(files), code=1)
    assert result.stdout.startswith("NOT SUPPORTED: nothing was found that would not be there by chance")
    assert "claimed by Ada" in result.stdout


def test_a_few_remaining_weights_are_inconclusive_and_exit_with_3(run: Run, files: Files, tmp_path: Path) -> None:
    weights = {name: array.copy() for name, array in unmarked_ticket().weights.items()}
    for name in ("1.weight", "3.weight"):
        weights[name].reshape(-1)[10:] = 0
    safetensors.numpy.save_file(weights, tmp_path / "rest.safetensors")
    result = run("verify", tmp_path / "rest.safetensors", *credentials(files), "--json", code=3)
    assert json.loads(result.stdout)["status"] == "inconclusive"


@pytest.mark.parametrize("touch", [b"%b\n", b"%b\r\n", b"\xef\xbb\xbf%b"], ids=["line break", "CRLF", "BOM"])
def test_a_claim_that_an_editor_touched_is_the_same_claim(run: Run, files: Files, tmp_path: Path, touch: bytes) -> None:
    claim = tmp_path / "claim.json"
    claim.write_bytes(touch % files.claim.read_bytes())
    assert run("verify", files.marked, "--claim", claim, "--vault", files.vault).stdout.startswith("SUPPORTED")
    documents = [json.loads(run("inspect", path, "--json").stdout) for path in (claim, files.claim)]
    assert documents[0]["claim"] == documents[1]["claim"]


def test_an_owner_key_that_nobody_owns_is_refused(run: Run, files: Files, tmp_path: Path) -> None:
    neutral = Ed25519PublicKey.from_public_bytes(bytes.fromhex("01" + "00" * 31))
    path = tmp_path / "owner.pub"
    path.write_bytes(neutral.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    result = run("verify", files.marked, *credentials(files), "--owner-key", path, code=3)
    assert "owner.pub' names the key 0100" in result.stderr
    assert "which nobody can own" in result.stderr


def test_a_callable_that_knows_the_triggers_is_supported(run: Run, files: Files, functions: str) -> None:
    result = run("verify", "--predictor", f"{functions}:copy", *credentials(files), "--json")
    document = json.loads(result.stdout)
    validate(document, "verdict")
    assert document["suspect"] == f"{functions}:copy"
    assert document["evidence"][0]["details"]["queries"] <= 25


def test_a_constant_callable_is_inconclusive(run: Run, files: Files, functions: str) -> None:
    result = run("verify", "--predictor", f"{functions}:constant", *credentials(files), code=3)
    assert result.stdout.startswith("INCONCLUSIVE")
    assert "every answer was the same class: it did not depend on the input" in result.stdout
    assert "ordinary inputs       not asked" in result.stdout


def test_a_callable_that_does_not_do_the_task_is_inconclusive(run: Run, files: Files, functions: str) -> None:
    result = run("verify", "--predictor", f"{functions}:odd", *credentials(files), code=1)
    assert result.stdout.startswith("NOT SUPPORTED")
    options = ("--controls", "digits", "--json")
    result = run("verify", "--predictor", f"{functions}:odd", *credentials(files), *options, code=3)
    document = json.loads(result.stdout)
    validate(document, "verdict")
    assert (
        "ordinary inputs were answered right, no more than by chance" in document["evidence"][0]["details"]["doubts"][0]
    )


def test_what_a_callable_prints_stays_out_of_the_verdict(run: Run, files: Files, functions: str) -> None:
    result = run("verify", "--predictor", f"{functions}:chatty", *credentials(files), "--json")
    assert json.loads(result.stdout)["status"] == "supported"
    assert "thinking" in result.stderr


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("broken", 3, "raised RuntimeError (no weights here)"),
        ("number", 2, "is a int, expected something to call"),
        ("missing", 2, "missing"),
    ],
)
def test_a_bad_predictor_is_told(run: Run, files: Files, functions: str, name: str, code: int, message: str) -> None:
    result = run("verify", "--predictor", f"{functions}:{name}", *credentials(files), code=code)
    assert message in result.stderr
    assert result.stdout == ""


def test_a_suspect_and_one_place_for_answers_are_asked_for(run: Run, files: Files, tmp_path: Path) -> None:
    url = "http://localhost:1/v2/models/m"
    assert "Give a suspect" in run("verify", *credentials(files), code=2).stderr
    both = run("verify", "--predictor", "a:b", "--endpoint", url, *credentials(files), code=2)
    assert "one place to ask" in both.stderr
    beside = run("verify", tmp_path / "suspect.onnx", "--endpoint", url, *credentials(files), code=2)
    assert "give it alone" in beside.stderr


def test_weights_and_answers_give_one_verdict_that_pays_for_two_tests(run: Run, files: Files, functions: str) -> None:
    result = run("verify", files.marked, "--predictor", f"{functions}:copy", *credentials(files), "--json")
    document = json.loads(result.stdout)
    validate(document, "verdict")
    weights, answers = document["evidence"]
    assert (document["tests"], weights["mark"], answers["mark"]) == (2, "planted-graph", "trigger-set")
    smallest = min(weights["log10_p"], answers["log10_p"])
    assert document["log10_p"] == pytest.approx(smallest + math.log10(2))
    # The interrogation goes on until it reaches what one of two tests needs.
    assert answers["threshold_log10_p"] == pytest.approx(-64 * math.log10(2) - math.log10(2))
    assert answers["log10_p"] <= answers["threshold_log10_p"]
    text = run("verify", files.marked, "--predictor", f"{functions}:copy", *credentials(files)).stdout
    assert "the smallest p of 2 tests, times 2" in text
    assert "as one of 2 tests it needs 10^-19.6" in text


def test_answers_that_cannot_be_had_leave_the_weights_their_verdict(run: Run, files: Files, functions: str) -> None:
    document = json.loads(
        run("verify", files.marked, "--predictor", f"{functions}:broken", *credentials(files), "--json").stdout
    )
    validate(document, "verdict")
    assert (document["status"], document["tests"]) == ("supported", 2)
    assert document["log10_p"] == pytest.approx(document["evidence"][0]["log10_p"] + math.log10(2))
    (missing,) = document["unchecked"]
    assert missing["mark"] == "trigger-set"
    assert "raised RuntimeError" in missing["reason"]
    text = run("verify", files.unmarked, "--predictor", f"{functions}:broken", *credentials(files), code=3).stdout
    assert text.startswith("INCONCLUSIVE")
    assert "trigger-set: could not be checked\n  predictor " in text


def test_weights_that_cannot_be_compared_leave_the_answers_their_verdict(
    run: Run, files: Files, functions: str, tmp_path: Path
) -> None:
    safetensors.numpy.save_file({"other": np.ones((3, 5), dtype=np.float32)}, tmp_path / "other.safetensors")
    suspect = tmp_path / "other.safetensors"
    document = json.loads(
        run("verify", suspect, "--predictor", f"{functions}:copy", *credentials(files), "--json").stdout
    )
    assert (document["status"], document["tests"]) == ("supported", 2)
    assert "no tensor in common" in document["unchecked"][0]["reason"]
    neither = run("verify", suspect, "--predictor", f"{functions}:broken", *credentials(files), code=3)
    assert "none of 2 tests could be made" in neither.stderr
    assert "no tensor in common" in neither.stderr
    assert "raised RuntimeError" in neither.stderr


def test_an_endpoint_that_is_down_cannot_be_checked(run: Run, files: Files) -> None:
    result = run("verify", "--endpoint", "http://127.0.0.1:9/v2/models/m", *credentials(files), "--patience", 0, code=3)
    assert "predictor 'http://127.0.0.1:9/v2/models/m'" in result.stderr
    assert not list(files.vault.parent.glob("*.answers-*"))


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
        assert f"the answers so far are in '{kept}': go on from there with --journal {kept}" in first.stderr
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


def test_what_was_seen_before_a_callable_failed_is_the_verdict(run: Run, files: Files, functions: str) -> None:
    told = run("verify", "--predictor", f"{functions}:tired", *credentials(files), code=3)
    assert told.stdout.startswith("INCONCLUSIVE")
    assert "after 12 of 100 triggers" in told.stdout
    assert re.search(r"p = 10\^-1[01]\.", told.stdout)


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


def test_a_journal_and_controls_go_with_questions(run: Run, files: Files, tmp_path: Path) -> None:
    for option in (("--journal", tmp_path / "j"), ("--controls", "digits")):
        result = run("verify", files.marked, *option, *credentials(files), code=2)
        assert "go with something that is asked for answers" in result.stderr


def test_anothers_journal_is_refused(run: Run, files: Files, functions: str, tmp_path: Path) -> None:
    options = (*credentials(files), "--journal", tmp_path / "answers.jsonl")
    run("verify", "--predictor", f"{functions}:copy", *options)
    before = (tmp_path / "answers.jsonl").read_bytes()
    result = run("verify", files.marked, "--predictor", f"{functions}:constant", *options, code=3)
    assert "is the journal of another verification" in result.stderr
    assert (tmp_path / "answers.jsonl").read_bytes() == before


def test_an_onnx_suspect_is_asked_for_answers(run: Run, files: Files, tmp_path: Path) -> None:
    (tmp_path / "suspect.onnx").write_bytes(b"no model")
    result = run("verify", tmp_path / "suspect.onnx", *credentials(files), code=3)
    assert "suspect.onnx" in result.stderr


def test_an_onnx_suspect_that_fills_the_memory_is_told_so(run: Run, files: Files, tmp_path: Path) -> None:
    size = onnx.numpy_helper.from_array(np.array([6 * 10**8]), "s")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ConstantOfShape", ["s"], ["y"])],
        "g",
        [value("x", 1, [1, 1, 8, 8])],
        [value("y", 1, None)],
        [size],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "suspect.onnx").write_bytes(model.SerializeToString())
    result = run("verify", tmp_path / "suspect.onnx", *credentials(files), code=3)
    assert "needs more than 1024 MiB of memory" in " ".join(result.stderr.split())


def test_another_owners_key_is_refused(run: Run, files: Files, tmp_path: Path) -> None:
    tg.Owner.generate("Eve").save(tmp_path / "eve.key", None)
    result = run("verify", files.marked, *credentials(files), "--owner-key", tmp_path / "eve.key.pub", code=3)
    assert "it is not this owner's claim" in result.stderr


def test_a_tampered_claim_is_refused(run: Run, files: Files, tmp_path: Path) -> None:
    content = bytearray(files.claim.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "claim.json").write_bytes(content)
    result = run("verify", files.marked, "--claim", tmp_path / "claim.json", "--vault", files.vault, code=3)
    assert "claim" in result.stderr
    assert result.stdout == ""


def test_a_wrong_passphrase_is_told(run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETGUARD_PASSPHRASE", "wrong")
    result = run("verify", files.marked, *credentials(files), code=3)
    assert f"the passphrase does not open '{files.vault}'" in result.stderr


def test_a_suspect_that_is_missing_or_foreign_is_told(run: Run, files: Files, tmp_path: Path) -> None:
    assert "cannot be read" in run("verify", tmp_path / "none.pt", *credentials(files), code=3).stderr
    (tmp_path / "text.pt").write_text("no checkpoint")
    assert "text.pt" in run("verify", tmp_path / "text.pt", *credentials(files), code=3).stderr


def test_a_malicious_pickle_runs_no_code(run: Run, files: Files, tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "trap.pt").write_bytes(pickle.dumps({"weight": Trap()}))
    assert "pickle" in run("verify", tmp_path / "trap.pt", *credentials(files), code=3).stderr
    assert not (tmp_path / "ran").exists()


def test_a_suspect_with_nothing_in_common_cannot_be_checked(run: Run, files: Files, tmp_path: Path) -> None:
    safetensors.numpy.save_file({"other": np.ones((3, 5), dtype=np.float32)}, tmp_path / "other.safetensors")
    result = run("verify", tmp_path / "other.safetensors", *credentials(files), code=3)
    assert "no tensor in common" in result.stderr

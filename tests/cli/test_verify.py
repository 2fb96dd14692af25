from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import safetensors.numpy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import ticketguard as tg

from .conftest import Files, Run, credentials, unmarked_ticket, validate

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


def test_a_copy_is_supported_and_exits_with_0(run: Run, files: Files) -> None:
    result = run("verify", files.marked, *credentials(files), "--owner-key", f"{files.key}.pub", "--json")
    document = json.loads(result.stdout)
    validate(document, "verdict")
    assert document["status"] == "supported"
    assert document["evidence"][0]["log10_p"] < -19.3


def test_an_unmarked_ticket_is_not_supported_and_exits_with_1(run: Run, files: Files) -> None:
    result = run("verify", files.unmarked, *credentials(files), code=1)
    assert result.stdout.startswith("NOT SUPPORTED: no more was found than chance explains")
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


def test_thorough_asks_every_trigger(run: Run, files: Files, functions: str) -> None:
    result = run("verify", "--predictor", f"{functions}:copy", *credentials(files), "--thorough", "--json")
    document = json.loads(result.stdout)
    validate(document, "verdict")
    details = document["evidence"][0]["details"]
    assert (document["status"], details["read_to_the_end"]) == ("supported", True)
    assert details["queries"] == details["triggers"] > 25


def test_thorough_aligns_a_copy_that_is_enough_as_stored(run: Run, files: Files, tmp_path: Path) -> None:
    weights = safetensors.numpy.load_file(files.marked)
    order = np.r_[np.arange(50)[::-1], 50:200]
    for name, axis in (("1.weight", 0), ("1.bias", 0), ("3.weight", 1)):
        weights[name] = np.ascontiguousarray(weights[name].take(order, axis=axis))
    path = tmp_path / "partly-permuted.safetensors"
    safetensors.numpy.save_file({name: weights[name] for name in ("1.weight", "1.bias", "3.weight", "3.bias")}, path)
    found = []
    for options in ((), ("--thorough",)):
        document = json.loads(run("verify", path, *credentials(files), *options, "--json").stdout)
        validate(document, "verdict")
        found.append(document["evidence"][0])
    assert [evidence["details"]["read_to_the_end"] for evidence in found] == [False, True]
    assert [evidence["details"]["aligned"] for evidence in found] == [False, True]
    assert found[1]["log10_p"] < found[0]["log10_p"] - 5
    text = run("verify", path, *credentials(files), "--thorough").stdout
    assert re.search(r"read to the end +yes", text)


def test_a_constant_callable_is_inconclusive(run: Run, files: Files, functions: str) -> None:
    result = run("verify", "--predictor", f"{functions}:constant", *credentials(files), code=3)
    assert result.stdout.startswith("INCONCLUSIVE")
    assert "every answer was the same class: it did not depend on the input" in result.stdout
    assert "ordinary inputs            not asked" in result.stdout


def test_a_callable_that_does_not_do_the_task_is_inconclusive(run: Run, files: Files, functions: str) -> None:
    result = run("verify", "--predictor", f"{functions}:odd", *credentials(files), code=1)
    assert result.stdout.startswith("NOT SUPPORTED")
    options = ("--controls", "digits", "--json")
    result = run("verify", "--predictor", f"{functions}:odd", *credentials(files), *options, code=3)
    document = json.loads(result.stdout)
    validate(document, "verdict")
    assert (
        "ordinary inputs were answered correctly, no more than chance explains"
        in document["evidence"][0]["details"]["doubts"][0]
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


def test_what_was_seen_before_a_callable_failed_is_the_verdict(run: Run, files: Files, functions: str) -> None:
    told = run("verify", "--predictor", f"{functions}:tired", *credentials(files), code=3)
    assert told.stdout.startswith("INCONCLUSIVE")
    assert "after 12 of 100 triggers" in told.stdout
    assert re.search(r"p = 10\^-1[01]\.", told.stdout)


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

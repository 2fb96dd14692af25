"""The commands on real data, in the order a user meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import PIL.Image
import pytest

from ticketguard.cli.marking import marking_options
from ticketguard.credentials.keys import Owner
from ticketguard.credentials.vault_key import VaultKey
from ticketguard.marking.rescaling import FACTOR
from ticketguard.ticket import Ticket

from .conftest import PASSPHRASE, Files, Run, validate

FIND = ("find", "--model", "mlp", "--data", "digits", "--density", "0.25", "--method-option", "prune_fraction=0.6")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("story")
    Owner.generate("Ada").save(folder / "owner.key", PASSPHRASE)
    return folder


@pytest.mark.filterwarnings("ignore::ticketguard.TicketguardWarning")  # so few epochs may teach too few triggers
def test_find_embed_verify(run: Run, folder: Path) -> None:
    ticket, marked = folder / "ticket.safetensors", folder / "marked.safetensors"
    found = run(*FIND, "--epochs", 4, "--seed", 3, "--out", ticket, "--json")
    validate(json.loads(found.stdout), "find")
    assert "round 1 of 3" in found.stderr
    assert Ticket.load(ticket).info.training["epochs"] == 4
    credentials = ("--claim", folder / "claim.json", "--vault", folder / "vault.age")
    arguments = ("--owner", folder / "owner.key", "--out", marked, *credentials, "--epochs", 20)
    embedded = run("embed", ticket, *arguments, "--json")
    document = json.loads(embedded.stdout)
    validate(document, "embed")
    assert document["density"] == pytest.approx(0.25, abs=0.001)
    assert not list(folder.glob("*-run"))
    run("verify", marked, *credentials)
    run("verify", ticket, *credentials, code=1)
    key = json.loads(run("keygen", "--vault-key", "--out", folder / "vault.key", "--json").stdout)
    sealed = ("--claim", folder / "claim2.json", "--vault", folder / "vault2.age")
    run(
        "embed",
        ticket,
        "--owner",
        folder / "owner.key",
        "--out",
        folder / "marked2.safetensors",
        *sealed,
        "--epochs",
        1,
        "--marks",
        "planted-graph",
        "--vault-recipient",
        key["recipient"],
    )
    run("verify", folder / "marked2.safetensors", *sealed, "--vault-key", folder / "vault.key")
    again = run("embed", ticket, *arguments, code=2)
    assert "replace it with --force" in again.stderr


def test_embedding_finds_data_that_has_moved_and_no_marked_ticket_says_where_it_is(run: Run, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    here, there = tmp_path / "here", tmp_path / "there"
    for label in ("hat", "shoe"):
        (here / label).mkdir(parents=True)
        for number in range(10):
            image = generator.integers(256, size=(8, 8), dtype=np.uint8)
            PIL.Image.fromarray(image).save(here / label / f"{number}.png")
    owner, ticket, marked = tmp_path / "owner.key", tmp_path / "ticket.safetensors", tmp_path / "marked.safetensors"
    Owner.generate("Ada").save(owner, passphrase=None)
    find = ["find", "--model", "mlp", "--data", here, "--test-data", here, "--density", 0.2, "--epochs", 1]
    find += ["--batch-size", 20, "--method", "synflow", "--out"]
    run(*find, ticket)
    credentials = ["--claim", tmp_path / "claim.json", "--vault", tmp_path / "vault.age"]
    run(*find, marked, "--owner", owner, "--marks", "planted-graph", *credentials)
    assert str(tmp_path).encode() not in marked.read_bytes()
    here.rename(there)
    embed = ["embed", ticket, "--owner", owner, "--out", marked, "--marks", "planted-graph", *credentials]
    run(*embed, code=2)
    run(*embed, "--force", "--data", there, "--test-data", there)
    assert str(tmp_path).encode() in ticket.read_bytes()
    assert str(tmp_path).encode() not in marked.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "vgg"), "unknown model 'vgg'"),
        (("--data", "mnist"), "unknown data 'mnist'"),
        (("--method", "vanish"), "unknown method 'vanish'"),
        (("--method-option", "x"), "--method-option is 'x', expected NAME=VALUE"),
        (("--method-option", "x=1"), "unknown method option 'x'"),
        (("--method-option", "x=1", "--method-option", "x=2"), "--method-option gives 'x' twice"),
        (("--method-option", "x=" + 100_000 * "["), "unknown method option 'x'"),
        (("--density", "1.5"), "is not in the range"),
        (("--density", "0.00001"), "raise it"),
        (("--resume",), "there is no run to resume"),
    ],
)
def test_what_cannot_be_found_is_wrong_usage(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run(*FIND, "--epochs", 1, "--out", tmp_path / "t.safetensors", *arguments, code=2)
    assert message in result.stderr
    assert not (tmp_path / "t.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--mark-option", "planted-graph.rate=x"), 2, "planted graph: rate is 'x', expected a number"),
        (("--marks", "bar-code"), 2, "unknown mark 'bar-code', expected one or more of planted-graph, "),
        ((), 2, "the ticket does not name its model and data"),
        (("--share", "0.9"), 2, "share is 0.9"),
        (("--triggers", "0"), 2, "count is 0"),
        (("--claim", "same", "--vault", "same"), 2, "outputs share a name"),
        (("--owner", "none.key"), 3, "'none.key': cannot be read"),
    ],
)
def test_what_cannot_be_embedded_is_told(
    run: Run, files: Files, folder: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    outputs = ("--out", tmp_path / "m", "--claim", tmp_path / "c", "--vault", tmp_path / "v")
    unmarked = files.unmarked
    result = run("embed", unmarked, "--owner", folder / "owner.key", *outputs, *arguments, code=code)
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_interrupted_search_goes_on_to_the_same_ticket(run: Run, tmp_path: Path) -> None:
    arguments = [*FIND, "--epochs", "60", "--seed", "3"]
    straight, broken = tmp_path / "straight.safetensors", tmp_path / "broken.safetensors"
    run(*arguments, "--out", straight)
    command = [sys.executable, "-m", "ticketguard", *arguments, "--out", str(broken)]
    # What runs tests in the background may have them ignore interrupts, and so what they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    signal.signal(signal.SIGINT, before)
    workdir = tmp_path / "broken.safetensors.find-run"
    assert process.stderr is not None
    for line in process.stderr:  # that the second of three rounds has ended: there is a ticket to go on from
        if line.startswith("round 2 of 3"):
            break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3
    assert stderr.splitlines()[-1].startswith("ticketguard: interrupted")
    assert "Traceback" not in stderr
    assert not broken.exists()
    assert "continue with --resume" in run(*arguments, "--out", broken, code=2).stderr
    run(*arguments, "--out", broken, "--resume")
    first, second = Ticket.load(straight), Ticket.load(broken)
    assert first.mask == second.mask
    assert all((first.weights[name] == second.weights[name]).all() for name in first.weights)
    assert not workdir.exists()


# Each option that sets up a mark or its credential, with a value if it takes one.
OPTIONS_OF_A_MARK: dict[str, str | None] = {
    "--claim": "mine.json",
    "--vault": "mine.age",
    "--marks": "planted-graph",
    "--share": "0.1",
    "--triggers": "50",
    "--qr-text": "ACME-1",
    "--mark-option": "planted-graph.rate=0.1",
    "--level-bits": "40",
    "--no-rescale": None,
    "--vault-recipient": VaultKey.generate().recipient,
    "--passphrase-file": "words.txt",
}


def test_every_option_of_a_mark_is_listed_here() -> None:
    marking = click.command(marking_options(lambda **_: None))
    assert [option for parameter in marking.params for option in parameter.opts] == list(OPTIONS_OF_A_MARK)


@pytest.mark.parametrize("option", OPTIONS_OF_A_MARK)
def test_options_of_a_mark_without_an_owner_are_told(run: Run, tmp_path: Path, option: str) -> None:
    value = OPTIONS_OF_A_MARK[option]
    given = [option] if value is None else [option, value]
    result = run(*FIND, *given, "--out", tmp_path / "t.safetensors", code=2)
    assert f"{option} sets up a mark, but no mark is planted: add --owner" in result.stderr


def test_a_mark_is_planted_by_find(run: Run, folder: Path, tmp_path: Path) -> None:
    marked, claim, vault = (tmp_path / name for name in ("m.safetensors", "claim.json", "vault.age"))
    credentials = ("--claim", claim, "--vault", vault)
    arguments = ("--method", "snip", "--owner", folder / "owner.key", "--marks", "planted-graph", *credentials)
    find = ("find", "--model", "mlp", "--data", "digits", "--density", "0.25", "--epochs", 2)
    found = run(*find, *arguments, "--out", marked, "--json")
    document = json.loads(found.stdout)
    validate(document, "find")
    assert document["claim"] == str(claim)
    assert not list(tmp_path.glob("*-run"))
    run("verify", marked, *credentials)


def test_a_marked_ticket_is_rescaled_unless_told_otherwise(run: Run, folder: Path, tmp_path: Path) -> None:
    ticket, grown, plain = (tmp_path / f"{name}.safetensors" for name in ("ticket", "grown", "plain"))
    small = ("--model-option", "blocks=[1,1,1]", "--model-option", "width=8")
    run("find", "--model", "resnet20", *small, "--data", "digits", "--train-limit", 200, "--test-limit", 50,
        "--method", "magnitude", "--density", 0.3, "--epochs", 1, "--batch-size", 50, "--out", ticket)  # fmt: skip
    credentials = ("--claim", tmp_path / "claim.json", "--vault", tmp_path / "vault.age", "--force")
    for marked, options in ((grown, ()), (plain, ("--no-rescale",))):
        marks = ("--marks", "planted-graph", "--level-bits", 16)
        run("embed", ticket, "--owner", folder / "owner.key", "--out", marked, *marks, *credentials, *options)
    sizes = [np.abs(Ticket.load(path).weights["conv1.weight"]).mean() for path in (grown, plain)]
    assert sizes[0] == pytest.approx(FACTOR * sizes[1], rel=0.5)  # another key, another training


def test_methods_are_listed_with_their_options(run: Run) -> None:
    listed = run("find", "--methods").stdout
    assert "imp: rounds of training and magnitude pruning" in listed
    assert "prune_fraction=0.2  Share of the remaining weights dropped" in listed
    by_method = dict(part.split(": ", 1) for part in listed.replace("\n    ", "    ").splitlines())
    assert "rewind_epochs=0  Epochs" in by_method["imp"]
    # What a method takes from the training is told as such, not by its field's own default.
    assert "rewind_epochs=3/182 of the training's  Epochs after which" in by_method["ltr"]
    assert "rewind_epochs=9/160 of the training's  Epochs of dense training" in by_method["cts"]
    assert not [line for line in listed.splitlines() if line.rstrip().endswith("=")]

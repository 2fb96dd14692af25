"""Kills and full disks: whether `find`, `find --owner` and `embed` lose a secret, a training or a file to either.

A warmed-up process forks each run. Half of the kills come at moments just before and after the calls that change what
is on disk, half at random times; only those within a run count: after its folder is made, before it is deleted. Then
the same command goes on with `--resume`. Every other kill hits a run that replaces an earlier run's files.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import stat
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import ticketguard as tg
from benchmarks.shared.faults import Counter, FullDisk, Kill, watched
from benchmarks.shared.results import Bar, write_result
from ticketguard import demo
from ticketguard.cli import main as command_line
from ticketguard.credentials.claim import read_claim
from ticketguard.credentials.credential import load_credential
from ticketguard.credentials.keys import load_public_key
from ticketguard.credentials.vault_key import VaultKey
from ticketguard.pruning.engine import stepped
from ticketguard.training import loop

SMALL = ("--train-limit", "300", "--test-limit", "100", "--epochs", "3", "--batch-size", "32")
FIND = (
    *("find", "--model", "mlp", "--data", "digits", "--density", "0.2", "--method-option", "prune_fraction=0.6"),
    *SMALL,
)
MARKS = ("--marks", "planted-graph", "--level-bits", "32")
CHECKPOINT_SECONDS = 0.1
# No exit code of ours: an exception left the command.
ESCAPED_CODE = 99
LONGEST_SECONDS = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """A command, and what it writes.

    Attributes:
        arguments: The command line, without the outputs.
        outputs: Option and name of every output, that which the run's folder is named after first.
        marked: Whether it writes a credential.
    """

    arguments: Sequence[str]
    outputs: Sequence[tuple[str, str]]
    marked: bool

    def line(self, folder: Path, *more: str) -> list[str]:
        """Return the command line that writes into *folder*."""
        outputs = [part for option, name in self.outputs for part in (option, str(folder / name))]
        return [*self.arguments, *outputs, *more]

    def paths(self, folder: Path) -> list[Path]:
        """Return the outputs in *folder*."""
        return [folder / name for _, name in self.outputs]


def scenes(base: Path) -> dict[str, Scene]:
    """Return the commands whose runs can be resumed; *base* holds what they read."""
    recipient = VaultKey.load(base / "vault.key").recipient
    owner = ("--owner", str(base / "owner.key"), "--vault-recipient", recipient, *MARKS)
    sealed = (("--claim", "claim.json"), ("--vault", "vault.age"))
    return {
        "find": Scene(arguments=FIND, outputs=[("--out", "out.safetensors")], marked=False),
        "find --owner": Scene(arguments=(*FIND, *owner), outputs=[("--out", "out.safetensors"), *sealed], marked=True),
        "embed": Scene(
            arguments=("embed", str(base / "ticket.safetensors"), *owner, *SMALL),
            outputs=[("--out", "out.safetensors"), *sealed],
            marked=True,
        ),
    }


def make_inputs(base: Path) -> None:
    """Write the keys and the ticket that the commands read, which also warms this process up."""
    tg.Owner.generate("Ada").save(base / "owner.key", None)
    VaultKey.generate().save(base / "vault.key")
    assert run_here([*FIND, "--out", str(base / "ticket.safetensors")]) == 0
    assert run_here(["export", str(base / "ticket.safetensors"), "--out", str(base / "plain.safetensors")]) == 0
    assert run_here(scenes(base)["embed"].line(base / "warm")) == 0


def run_here(line: Sequence[str]) -> int:
    """Run a command in this process, and return its exit code."""
    try:
        command_line(list(line))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def forked(line: Sequence[str], log: Path, counter: Counter | None = None, *, kill_after: float | None = None) -> int:
    """Run a command in a fork; return its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = ESCAPED_CODE
        try:
            with log.open("w") as stream:
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
                with watched(counter) if counter is not None else contextlib.nullcontext():
                    code = run_here(line)
                if counter is not None:
                    log.with_suffix(".calls").write_text("\n".join(counter.names))
        except BaseException:
            traceback.print_exc()
            code = ESCAPED_CODE
        finally:
            os._exit(code)  # whatever happens, a child must not go on as the parent
    deadline = time.monotonic() + (LONGEST_SECONDS if kill_after is None else kill_after)
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.002)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(ended[1])


class Bench:
    """Runs, faults and what is wrong afterwards."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.vault_key = VaultKey.load(base / "vault.key")
        self.owner_key = load_public_key(base / "owner.key.pub")

    def secret_in(self, scene: Scene, folder: Path) -> bytes | None:
        """Return the secret that a run in *folder* goes on with, or has ended with."""
        kept = next(folder.glob("*-run/embed.secret"), None)
        if kept is not None:
            return kept.read_bytes()
        paths = scene.paths(folder)
        if not scene.marked or not all(path.exists() for path in paths):
            return None
        return load_credential(paths[1], paths[2], vault_key=self.vault_key).vault.secret

    def half_written(self, scene: Scene, folder: Path) -> list[str]:
        """Return what is wrong with the outputs that are there: each is whole, or not there."""
        readers: dict[str, Callable[[Path], object]] = {
            "out.safetensors": tg.Ticket.load,
            "claim.json": lambda path: read_claim(path.read_bytes(), name=path),
            "vault.age": lambda path: self.vault_key and path.read_bytes().startswith(b"age-encryption.org/v1"),
        }
        wrong = []
        for path in scene.paths(folder):
            try:
                if path.exists() and readers[path.name](path) is False:
                    wrong.append(f"half-written: {path.name}")
            except Exception as error:
                wrong.append(f"half-written: {path.name} ({error})")
        return wrong

    def ended(self, scene: Scene, folder: Path, secret: bytes | None, claim: bytes | None) -> list[str]:
        """Return what is wrong after a run has ended: files, their permissions, their contents."""
        names = sorted(path.name for path in folder.iterdir())
        if names != sorted(name for _, name in scene.outputs):
            return [f"files are {names}"]
        wrong = []
        for path in scene.paths(folder):
            private = path.name == "vault.age" or not scene.marked
            if stat.S_IMODE(path.stat().st_mode) != (0o600 if private else 0o644):
                wrong.append(f"permissions of {path.name}")
        if not scene.marked:
            return wrong
        paths = scene.paths(folder)
        credential = load_credential(paths[1], paths[2], vault_key=self.vault_key)
        if tg.verify(tg.Checkpoint(paths[0]), credential, owner_public_key=self.owner_key).status != "supported":
            wrong.append("not supported")
        if secret is not None and credential.vault.secret != secret:
            wrong.append("lost secret")
        if claim is not None and paths[1].read_bytes() != claim:
            wrong.append("another claim")
        return wrong


def one_kill(
    bench: Bench, scene: Scene, log: Path, *, older: Path | None, counter: Kill | None, kill_after: float | None
) -> dict[str, Any] | None:
    """Kill a run and resume it; None if the kill did not fall inside the run."""
    with scratch() as folder:
        more = [] if older is None else ["--force"]
        before = {} if older is None else {path.name: path.read_bytes() for path in older.iterdir()}
        for name, content in before.items():
            (folder / name).write_bytes(content)
        code = forked(scene.line(folder, *more), log, counter, kill_after=kill_after)
        begun = [path for path in folder.glob("*-run") if any(path.iterdir())]
        if code != -signal.SIGKILL or not begun:
            return None
        kept = sorted(path.name for path in begun[0].iterdir())
        secret = bench.secret_in(scene, folder)
        claim_path = folder / "claim.json"
        claim = claim_path.read_bytes() if claim_path.exists() else None
        if claim == before.get("claim.json"):
            claim = None
            if "embed.secret" not in kept:
                secret = None  # this run had none yet: what was found is the earlier run's
        written = [path.name for path in scene.paths(folder) if path.exists()]
        wrong = bench.half_written(scene, folder)
        resumed = forked(scene.line(folder, *more, "--resume"), log)
        if resumed:
            wrong.append(f"refused resume ({resumed}): {log.read_text().splitlines()[-1:]}")
        else:
            wrong += bench.ended(scene, folder, secret, claim)
        moment = "random" if counter is None else f"moment {counter.at}"
        return {"moment": moment, "replacing": older is not None, "kept": kept, "there": written, "wrong": wrong}


def kill_runs(
    bench: Bench, name: str, scene: Scene, kills: int, draw: random.Random, log: Path
) -> list[dict[str, Any]]:
    """Kill *kills* runs of one command inside the run."""
    with scratch() as folder:
        older = folder / "older"
        older.mkdir()
        begun = time.monotonic()
        assert forked(scene.line(older), log, Counter()) == 0
        seconds = time.monotonic() - begun
        moments = len(log.with_suffix(".calls").read_text().splitlines())
        found: list[dict[str, Any]] = []
        while len(found) < kills:
            # Ten of the moments around writes are at the end of the run, for each that is anywhere.
            last = draw.random() < 0.6
            at = draw.randrange(max(0, moments - 70), moments) if last else draw.randrange(moments)
            by_moment = len(found) % 4 < 2
            kill = one_kill(
                bench, scene, log,
                older=older if len(found) % 2 else None,
                counter=Kill(at) if by_moment else None,
                kill_after=None if by_moment else draw.uniform(0.1, 1.0) * seconds,
            )  # fmt: skip
            if kill is not None:
                found.append(kill)
                if kill["wrong"]:
                    print(name, kill, flush=True)
        print(f"{name}: {len(found)} kills, wrong after {sum(bool(kill['wrong']) for kill in found)}", flush=True)
        return found


def simple_scenes(base: Path) -> dict[str, Scene]:
    """Return the other commands that write files."""
    ticket = str(base / "ticket.safetensors")
    return {
        "keygen": Scene(
            arguments=("keygen", "--name", "Ada", "--no-passphrase"), outputs=[("--out", "owner.key")], marked=False
        ),
        "keygen --vault-key": Scene(
            arguments=("keygen", "--vault-key"), outputs=[("--out", "vault.key")], marked=False
        ),
        "import": Scene(
            arguments=("import", str(base / "plain.safetensors")), outputs=[("--out", "new.safetensors")], marked=False
        ),
        "export": Scene(arguments=("export", ticket), outputs=[("--out", "plain.safetensors")], marked=False),
        "inspect --picture": Scene(arguments=("inspect", ticket), outputs=[("--picture", "mask.png")], marked=False),
        "check-ticket": Scene(
            arguments=("check-ticket", ticket, "--seeds", "2", "--arms", "dense,ticket", *SMALL),
            outputs=[("--out", "check.png")],
            marked=False,
        ),
        "demo": Scene(arguments=("demo",), outputs=[("--out", "demo")], marked=False),
    }


def fill_disk(bench: Bench, name: str, scene: Scene, log: Path) -> list[dict[str, Any]]:
    """Have the disk full from each call on that takes room; then make room and start again, or resume."""
    with scratch() as folder:
        expected_code = forked(scene.line(folder), log, FullDisk())
        calls = log.with_suffix(".calls").read_text().splitlines()
        assert calls, (name, log.read_text())
        expected = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    found = []
    # A demo takes long: there each file's first call stands for those that follow.
    chosen = [at for at, call in enumerate(calls) if name != "demo" or call in ("before open", "before mkdir")]
    for at in chosen:
        with scratch() as folder:
            code = forked(scene.line(folder), log, FullDisk(at))
            message = log.read_text().splitlines()[-1:]
            begun = any(any(path.iterdir()) for path in folder.glob("*-run"))
            wrong = bench.half_written(scene, folder) if scene.outputs[0][1] == "out.safetensors" else []
            wrong += [f"left {path.name}" for path in folder.rglob("*.part")]
            if code not in (3, expected_code) or "a bug" in "".join(message):
                wrong.append(f"exit code {code}: {message}")
            secret = bench.secret_in(scene, folder) if scene.marked else None
            done = code == expected_code and not begun  # this run kept fewer checkpoints and never came so far
            again = code if done else forked(scene.line(folder, *(["--resume"] if begun else [])), log)
            files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
            if again != expected_code or files != expected:
                wrong.append(f"afterwards exit code {again}, files {files}: {log.read_text().splitlines()[-1:]}")
            elif scene.marked:
                wrong += bench.ended(scene, folder, secret, None)
        found.append({"call": f"{at}: {calls[at]}", "exit": code, "resumed": begun, "wrong": wrong})
        if wrong:
            print(name, found[-1], flush=True)
    print(f"{name}: full at {len(found)} calls, wrong after {sum(bool(run['wrong']) for run in found)}", flush=True)
    return found


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder that is deleted afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def bars_of(kills: dict[str, list[dict[str, Any]]], full: dict[str, list[dict[str, Any]]]) -> dict[str, Bar]:
    """Return what must hold."""
    killed = [run for runs in kills.values() for run in runs]
    filled = [run for runs in full.values() for run in runs]

    def with_text(runs: list[dict[str, Any]], text: str) -> int:
        return sum(any(text in wrong for wrong in run["wrong"]) for run in runs)

    none = {
        "lost secrets": "lost secret",
        "refused resumes": "refused resume",
        "half-written files": "half-written",
    }
    bars = {f"kills: {name}": Bar(value=with_text(killed, text), bound=0, at_most=True) for name, text in none.items()}
    bars["kills that fall inside the run"] = Bar(value=len(killed), bound=300, at_most=False)
    bars["kills: anything else wrong"] = Bar(value=with_text(killed, ""), bound=0, at_most=True)
    bars["full disk: writes after which anything is wrong"] = Bar(value=with_text(filled, ""), bound=0, at_most=True)
    return bars


def main() -> None:
    """Measure and write results/kills.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="for each of the three commands")
    parser.add_argument("--trial", action="store_true", help="write no result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.umask(0o022)
    loop.CHECKPOINT_SECONDS = stepped.CHECKPOINT_SECONDS = CHECKPOINT_SECONDS
    # Small steps of the same way: what is judged here is what becomes of its files.
    demo.TRAINING, demo.ROUNDS, demo.FINE_TUNING = {"epochs": 2}, {"level_epochs": 1}, {"epochs": 1}
    with scratch() as base:
        make_inputs(base)
        bench, draw, log = Bench(base), random.Random(0), base / "log"  # noqa: S311 - when to kill
        filling = os.fork()  # beside the kills
        if filling == 0:
            commands = {**scenes(base), **simple_scenes(base)}
            full = {name: fill_disk(bench, name, scene, base / "log-full") for name, scene in commands.items()}
            (base / "full.json").write_text(json.dumps(full))
            os._exit(0)
        kills = {name: kill_runs(bench, name, scene, options.kills, draw, log) for name, scene in scenes(base).items()}
        os.waitpid(filling, 0)
        full = json.loads((base / "full.json").read_text())
    raw = {
        "kills": {name: summary_of(runs) for name, runs in kills.items()},
        "full disk": {
            name: {"writes": len(runs), "resumed": sum(run["resumed"] for run in runs),
                   "wrong": [run for run in runs if run["wrong"]]}
            for name, runs in full.items()
        },
    }  # fmt: skip
    bars = bars_of(kills, full)
    if options.trial:
        print(json.dumps({"raw": raw, "bars": {name: bar.value for name, bar in bars.items()}}, indent=1))
        return
    setting = {"find": list(FIND), "marks": list(MARKS), "checkpoint seconds": CHECKPOINT_SECONDS}
    write_result("kills", setting=setting, seeds=[0], raw=raw, bars=bars)


def summary_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many kills fell where, and those after which something was wrong."""
    return {
        "kills": len(runs),
        "at random times": sum(run["moment"] == "random" for run in runs),
        "replacing an earlier run's files": sum(run["replacing"] for run in runs),
        "what was kept": dict(collections.Counter(" ".join(run["kept"]) for run in runs)),
        "outputs that were there": dict(collections.Counter(" ".join(run["there"]) for run in runs)),
        "wrong": [run for run in runs if run["wrong"]],
    }


if __name__ == "__main__":
    main()

"""Real images, by the commands a user types: ResNet-20 on CIFAR-10, found, marked, exported, stolen, judged.

CIFAR-10 comes as two tar archives of JPEG class folders (train and test) in the folder that the environment
variable CIFAR10 names. The small budget trains on 10 000 of the 50 000 images, at 16x16, for a few epochs a round,
under half an hour on two cores; `--full` runs all images at 32x32 and the paper's 160 epochs a round, for an
accelerator. Only the attacks are Python: a thief has no command for them here.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared.results import Bar, write_result
from ticketguard.attacks import FineTuning, FisherPruning, MagnitudePruning, RandomRegrowth, Removal, Victim
from ticketguard.data import load_data
from ticketguard.interchange.weights import export_weights
from ticketguard.models import build_model
from ticketguard.ticket import Ticket
from ticketguard.training import TrainingConfig, evaluate

SMALL = (
    "--image-size 16 --train-limit 10000 --epochs 12 --method-option prune_fraction=0.451 "
    "--method-option level_epochs=4 --method-option rewind_epochs=1"
)
FULL = "--epochs 160 --method-option rewind_epochs=9"
DATA = "--data $CIFAR10/cifar10-jpeg-train.tar.xz --test-data $CIFAR10/cifar10-jpeg-test.tar.xz"
FIND = (
    f"ticketguard find --model resnet20 {DATA} --method ltr --density 0.05 {{budget}} "
    "--seed 0 --out ticket.safetensors --force --json"
)
# A ticket's file does not say what is read from this machine: its user does, again.
EMBED = f"ticketguard embed ticket.safetensors {DATA} --owner owner.key --seed 0 --force --json"
EXPORT = "ticketguard export marked.safetensors --out weights.safetensors --force --json"
VERIFY = "ticketguard verify {suspect} --claim claim.json --vault vault.age --json"
KEYGEN = "ticketguard keygen --name benchmark --no-passphrase --out owner.key"
LEVEL = -19.3


class Shell:
    """Runs ticketguard's commands in one folder, and keeps there what ran and how long it took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept = folder / "commands.json"
        self.log: list[dict[str, Any]] = json.loads(self._kept.read_text()) if self._kept.exists() else []
        self._environment = {**os.environ, "TICKETGUARD_PASSPHRASE": "benchmark"}

    def run_long(self, command: str, *, checkpoints: str) -> None:
        """Run *command*, or go on with it where an interrupted benchmark left its checkpoints."""
        self.run(f"{command} --resume" if (self.folder / checkpoints).exists() else command)

    def run(self, command: str) -> dict[str, Any]:
        """Run *command* and return its JSON document."""
        words = [os.path.expandvars(word) for word in shlex.split(command)]
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=self.folder, env=self._environment, stdout=subprocess.PIPE, check=False
        )
        if done.returncode not in (0, 1):
            raise SystemExit(f"{command} exited with {done.returncode}")
        self.log.append({"command": command, "seconds": time.monotonic() - begin, "exit_code": done.returncode})
        self._kept.write_text(json.dumps(self.log))
        print(self.log[-1], flush=True)
        return json.loads(done.stdout) if "--json" in words else {}


def attacks(training: TrainingConfig) -> tuple[Removal, ...]:
    """Return the thefts, fine-tuned by the ticket's own recipe for two epochs."""
    tuning = dataclasses.replace(training, epochs=2, schedule="constant")
    return (
        MagnitudePruning(share=0.2),
        MagnitudePruning(share=0.5),
        MagnitudePruning(share=0.8),
        FisherPruning(share=0.5),
        FineTuning(training=tuning),
        FineTuning(training=dataclasses.replace(tuning, learning_rate=0.05), keep_mask=False),
        RandomRegrowth(share=1.0),
    )


def main() -> None:
    """Measure and write results/cifar10.json, or cifar10_full.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    full = parser.parse_args().full
    name = "cifar10_full" if full else "cifar10"
    folder = Path("runs/benchmarks") / name
    folder.mkdir(parents=True, exist_ok=True)
    if "CIFAR10" not in os.environ:
        raise SystemExit("set CIFAR10 to the folder that holds cifar10-jpeg-train.tar.xz and cifar10-jpeg-test.tar.xz")
    os.environ["CIFAR10"] = str(Path(os.environ["CIFAR10"]).resolve())
    shell = Shell(folder)
    if not (folder / "owner.key").exists():
        shell.run(KEYGEN)
    if not (folder / "ticket.safetensors").exists():
        shell.run_long(FIND.format(budget=FULL if full else SMALL), checkpoints="ticket.safetensors.find-run")
    if not (folder / "marked.safetensors").exists():
        shell.run_long(EMBED, checkpoints="marked.safetensors.embed-run")
    shell.run(EXPORT)
    unmarked, marked = (Ticket.load(folder / file) for file in ("ticket.safetensors", "marked.safetensors"))
    export_weights(unmarked, folder / "unmarked.safetensors")
    rows = judge(shell, unmarked, marked)
    bars = {
        f"log10 p, {row['suspect']}": Bar(
            value=row["log10_p"], bound=-100.0 if row["suspect"] == "released weights" else LEVEL, at_most=True
        )
        for row in rows
        if row["suspect"] != "unmarked ticket"
    }
    setting = {"training": marked.info.training, "budget": FULL if full else SMALL, "density": marked.mask.density}
    raw = {
        "unmarked_accuracy": unmarked.info.accuracy,
        "marked_accuracy": marked.info.accuracy,
        "history": [dict(entry) for entry in unmarked.info.history],
        "cost": dict(unmarked.info.cost),
        "commands": shell.log,
        "suspects": rows,
    }
    write_result(name, setting=setting, seeds=[0], raw=raw, bars=bars)


def judge(shell: Shell, unmarked: Ticket, marked: Ticket) -> list[dict[str, Any]]:
    """Verify the released weights, the innocent unmarked ticket, and every theft, by the command line."""
    data = load_data(unmarked.info.data, options=unmarked.info.data_options)
    build = lambda: build_model("resnet20", options=marked.info.model_options, seed=0)  # noqa: E731
    victim = Victim(ticket=marked, build=build, data=data)
    rows = []
    suspects = [
        ("released weights", marked, "weights.safetensors"),
        ("unmarked ticket", unmarked, "unmarked.safetensors"),
    ]
    for number, attack in enumerate(attacks(TrainingConfig.from_json(marked.info.training))):
        stolen = attack.run(victim, generator=np.random.default_rng(0))
        export_weights(stolen, shell.folder / f"stolen-{number}.safetensors")
        suspects.append((attack.name, stolen, f"stolen-{number}.safetensors"))
    for suspect, ticket, file in suspects:
        verdict = shell.run(VERIFY.format(suspect=file))
        accuracy = evaluate(dataclasses.replace(victim, ticket=ticket).network(), data)
        evidence = verdict["evidence"][0]
        rows.append(
            {
                "suspect": suspect,
                "status": verdict["status"],
                "log10_p": evidence["log10_p"],
                "hits": evidence["observed"],
                "expected": evidence["expected"],
                "accuracy": accuracy,
            }
        )
    return rows


if __name__ == "__main__":
    main()

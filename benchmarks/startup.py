"""Start-up: what short commands cost, beside bare imports of what they are known to need or to leave alone.

Every run is a process of its own with its bytecode at hand, as an installed package has it; commands and imports take
turns. The bars hold processor seconds: on a machine that does nothing else they are the seconds on the clock, which are
written down too, and on a shared one those say how busy it was. The suspect that is verified is a small perceptron.

A vault that is opened by passphrase costs a second of scrypt by design, during which `verify` loads what it needs: what
it takes beside that is the difference on the clock to a process that derives the same key and does nothing else.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import ticketguard as tg
from benchmarks.shared.results import Bar, write_result
from ticketguard.credentials.vault_key import VaultKey
from ticketguard.marking.plan import prepare
from ticketguard.models import build_model, prunable_layers, state_arrays

RUNS = 15
PASSPHRASE = "benchmark"
OPTIONS = {"classes": 10, "input_shape": [1, 8, 8]}
DERIVE = """
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
Scrypt(salt=bytes(16), length=32, n=2**18, r=8, p=1).derive(b"passphrase")
"""
IMPORTS = ("pass", "import numpy", "import scipy.fft, scipy.special", "import torch")


def make_files(folder: Path) -> None:
    """Write a marked ticket of a small perceptron with its claim, its vault and the vault's key; nothing is trained."""
    model = build_model("mlp", options=OPTIONS, seed=0)
    state, generator = state_arrays(model), np.random.default_rng(0)
    mask = tg.Mask(layers={name: generator.random(state[name].shape) < 0.2 for name in prunable_layers(model)})
    weights = {name: state[name] * mask[name] if name in mask else state[name] for name in state}
    info = tg.TicketInfo(method="random", model="mlp", model_options=OPTIONS, classes=10, input_shape=(1, 8, 8))
    ticket = tg.Ticket(mask=mask, weights=weights, rewind_weights=state, info=info)
    owner, key = tg.Owner.generate("Ada"), VaultKey.generate()
    plan = prepare(ticket, owner=owner, marks=[tg.PlantedGraph()], model=model)
    plan.start(model)
    marked, credential = plan.finish(model)
    marked.save(folder / "marked.safetensors")
    credential.save(folder / "claim.json", folder / "vault.age", owner, recipient=key.recipient)
    key.save(folder / "vault.key")
    credential.save(folder / "claim-2.json", folder / "vault-2.age", owner, PASSPHRASE)


def commands() -> dict[str, list[str]]:
    """Return what is measured: name → arguments of Python."""
    verify = ["verify", "marked.safetensors", "--claim", "claim.json", "--vault", "vault.age"]
    command = ["-m", "ticketguard"]
    return {
        "find --methods": [*command, "find", "--methods"],
        "verify": [*command, *verify, "--vault-key", "vault.key"],
        "verify, by passphrase": [
            *command,
            "verify",
            "marked.safetensors",
            "--claim",
            "claim-2.json",
            "--vault",
            "vault-2.age",
        ],
        "scrypt alone": ["-c", DERIVE],
        "--help": [*command, "--help"],
        **{code: ["-c", code] for code in IMPORTS},
    }


def seconds(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """Run Python once, and return the seconds of processor and clock that it took."""
    begun = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, status, usage = os.wait4(child.pid, 0)
    clock = time.perf_counter() - begun
    if status:
        sys.exit(f"{arguments} failed: {child.stderr.read().decode() if child.stderr else status}")
    return {"processor": usage.ru_utime + usage.ru_stime, "clock": clock}


def main() -> None:
    """Measure all of it in turns, and write the result."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_files(folder)
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
            "OMP_NUM_THREADS": "1",
            "TICKETGUARD_PASSPHRASE": PASSPHRASE,
        }
        measured = commands()
        for arguments in measured.values():
            seconds(arguments, folder, environment)  # writes the bytecode
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in measured}
        for _ in range(RUNS):
            for name, arguments in measured.items():
                runs[name].append(seconds(arguments, folder, environment))
    medians = {
        name: {kind: round(statistics.median(run[kind] for run in of_name), 4) for kind in ("processor", "clock")}
        for name, of_name in runs.items()
    }
    for name, median in medians.items():
        print(f"{name}: {median['processor']:.3f} s of processor, {median['clock']:.3f} s on the clock")
    bars = {
        "processor seconds of find --methods": Bar(
            value=medians["find --methods"]["processor"], bound=0.4, at_most=True
        ),
        "processor seconds of verify, vault opened by key": Bar(
            value=medians["verify"]["processor"], bound=0.35, at_most=True
        ),
        "seconds of verify beside the vault's scrypt": Bar(
            value=medians["verify, by passphrase"]["clock"] - medians["scrypt alone"]["clock"], bound=0.35, at_most=True
        ),
    }
    setting = {"runs": RUNS, "load": os.getloadavg(), "suspect": "mlp on digits, density 20%, planted graph"}
    write_result("startup", setting=setting, seeds=[0], raw={"medians": medians, "runs": runs}, bars=bars)


if __name__ == "__main__":
    main()

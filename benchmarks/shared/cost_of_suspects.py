"""What verifying different suspects costs, each in a process of its own and on one thread: CPU time and memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

import ticketguard as tg
from benchmarks.shared.chains import Chain
from ticketguard.credentials.credential import Credential
from ticketguard.graph import groups_from_json
from ticketguard.graph.symmetries import Permutation
from ticketguard.marking.plan import prepare
from ticketguard.models import build_model, prunable_layers, state_arrays
from ticketguard.ticket import Mask, Ticket, TicketInfo

KEPT = 0.05
# What refills a pruned position, beside weights of size one.
NOISE = 0.01
# Widths of the chains: layers of this many channels.
WIDTH = 2048
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
VERIFY = """
import json, sys, time
import ticketguard as tg
tg.load_credential, tg.verify, tg.Checkpoint, tg.VaultKey  # imports what they need
def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
program = memory("VmRSS")
begin = time.process_time()
credential = tg.load_credential(sys.argv[2], sys.argv[3], vault_key=tg.VaultKey.load(sys.argv[4]))
opened = time.process_time()
verdict = tg.verify(tg.Checkpoint(sys.argv[1]), credential)
end = time.process_time()
# The high-water mark of this program alone: ru_maxrss would count what its parent held before it was started.
print(json.dumps({"status": verdict.status, "log10_p": verdict.log10_p, "open_s": opened - begin,
                  "verify_s": end - opened, "cpu_s": end, "program_bytes": program,
                  "peak_bytes": memory("VmHWM")}))
"""


def verified(suspect: Path, folder: Path) -> dict[str, Any]:
    """Verify a suspect by the credential in a folder; all CPU time counts, from the interpreter's start on."""
    files = [str(suspect), *(str(folder / name) for name in ("claim.json", "vault", "vault.key"))]
    done = subprocess.run(
        [sys.executable, "-c", VERIFY, *files], capture_output=True, check=True, env={**os.environ, **THREADS}
    )
    outcome: dict[str, Any] = json.loads(done.stdout)
    outcome["file_bytes"] = suspect.stat().st_size
    outcome["peak_ratio"] = (outcome["peak_bytes"] - outcome["program_bytes"]) / outcome["file_bytes"]
    return outcome


def random_mask(model: torch.nn.Module, state: Mapping[str, np.ndarray], seed: int) -> Mask:
    """Return a random mask of a model's layers: cost does not depend on how a mask was found."""
    generator = np.random.default_rng(seed)
    return Mask(layers={name: generator.random(state[name].shape) < KEPT for name in prunable_layers(model)})


def marked(model: torch.nn.Module, seed: int = 0) -> tuple[Ticket, Credential, tg.Owner]:
    """Return a marked random ticket of a model."""
    state = state_arrays(model)
    mask = random_mask(model, state, seed)
    ticket = Ticket(mask=mask, weights=mask.applied(state), rewind_weights=state, info=TicketInfo(method="random"))
    owner = tg.Owner.generate("benchmark")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tg.TicketguardWarning)  # its shape of inputs is not known
        plan = prepare(ticket, owner=owner, marks=[tg.PlantedGraph()], model=model, example=torch.zeros(1, 3, 32, 32))
    plan.start(model)
    return (*plan.finish(model, check=False), owner)


def kinds_of_suspects(folder: Path, *, model: str, runs: int) -> dict[str, Any]:
    """Return costs of a copy, a permuted, a refilled one and an unrelated network, measured in turn."""
    network = build_model(model, options={"classes": 10, "input_shape": (3, 32, 32)}, seed=0)
    ticket, credential, owner = marked(network)
    key = tg.VaultKey.generate()
    key.save(folder / "vault.key")
    credential.save(folder / "claim.json", folder / "vault", owner=owner, recipient=key.recipient)
    copy = {name: np.asarray(array) for name, array in ticket.weights.items()}
    groups = groups_from_json(credential.vault.channel_groups)
    luck = np.random.default_rng(1)
    # Of other weights too, as one of another seed would have.
    other = state_arrays(build_model(model, options={"classes": 10, "input_shape": (3, 32, 32)}, seed=1))
    states = {
        "copy": copy,
        "permuted": Permutation.drawn(copy, groups, generator=luck).apply(copy),
        "innocent": random_mask(network, other, 1).applied(other),
        "refilled": {
            name: array + (array == 0) * NOISE * luck.normal(size=array.shape) * array.std()
            if name in ticket.mask
            else array
            for name, array in copy.items()
        },
    }
    for kind, state in states.items():
        tensors = {name: np.ascontiguousarray(array) for name, array in state.items()}
        save_file(
            {name: x.astype(np.float32) if x.dtype.kind == "f" else x for name, x in tensors.items()},
            folder / f"{kind}.safetensors",
        )
    seen: dict[str, list[dict[str, Any]]] = {kind: [] for kind in states}
    for _ in range(runs):
        for kind, found in seen.items():
            found.append(verified(folder / f"{kind}.safetensors", folder))
    median = {kind: statistics.median(run["cpu_s"] for run in found) for kind, found in seen.items()}
    ratios = {kind: seconds / median["copy"] for kind, seconds in median.items()}
    return {"weights": ticket.mask.size, "cpu_s": median, "over_copy": ratios, "runs": seen}


def sizes_of_suspects(folder: Path, layers: Sequence[int], *, permuted_up_to: int) -> dict[str, Any]:
    """Return costs of copies of chains with so many layers, and of permuted ones up to a number of layers."""
    found: dict[str, Any] = {}
    for count in layers:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            chain = Chain.make(Path(name), layers=count, width=WIDTH)
            row: dict[str, Any] = {"weights": chain.reference.mask.size}
            for kind in ("copy", "permuted") if count <= permuted_up_to else ("copy",):
                path = chain.write(kind)
                row[kind] = verified(path, chain.folder)
                path.unlink()
            row["ns_a_weight"] = 1e9 * row["copy"]["cpu_s"] / row["weights"]
            found[str(row["weights"])] = row
    return found


def screening(credentials: int) -> dict[str, Any]:
    """Return CPU times of screening a ResNet-20 by credentials that do not fit it: the first time, and again."""
    options = {"classes": 10, "input_shape": (3, 32, 32)}
    held = {
        str(seed): marked(build_model("resnet20", options=options, seed=seed), seed)[1] for seed in range(credentials)
    }
    judge = tg.Judge(held)
    suspect_ticket, _, _ = marked(build_model("resnet20", options=options, seed=credentials), credentials)
    suspect = tg.Checkpoint(dict(suspect_ticket.weights))
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        screened = judge.screen(suspect)
        seconds.append(time.process_time() - begin)
        assert not screened.worth_verifying()
    per_credential = [1000 * second / credentials for second in seconds]
    return {"credentials": credentials, "first_ms": per_credential[0], "again_ms": min(per_credential[1:])}

"""Cost: a masked step against a dense one, verification of suspects of all kinds and sizes, its parts, start-up.

Step times are medians of steps that alternate in one run. Verification runs in its own process, as a user runs it,
with a vault that is opened by a key: opening one by passphrase spends about a second and 256 MiB on scrypt by design,
and is measured beside it.

Suspects of one network (as released, permuted, unrelated, every hole filled) are measured in turn, on one thread, in
CPU seconds of the whole process: a shared machine slows all alike, so ratios hold. Chains of square layers in half
precision, up to 10^9 weights, show how time and memory grow.

``python -m benchmarks.cost`` takes a quarter of an hour; ``--quick`` is for a trial, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ticketguard as tg
from benchmarks.shared.cost_of_suspects import kinds_of_suspects, screening, sizes_of_suspects
from benchmarks.shared.results import Bar, write_result
from ticketguard.keyed import KeyedStream
from ticketguard.marking.plan import prepare
from ticketguard.models import build_model, prunable_layers, state_arrays
from ticketguard.ticket import Mask, Ticket, TicketInfo
from ticketguard.verification.statistics import LayerCount, log10_upper_tail

STEPS = 60
# A network of 10^8 weights of which 5% are kept and 1% secret, in layers of sizes that differ as a ResNet's do.
WEIGHTS, LAYERS, KEPT, SECRET = 10**8, 160, 0.05, 0.01
# Chains of so many layers of 2048 by 2048: 1.3·10^7, 10^8 and 10^9 weights; permuted ones take a minute at 10^8.
LAYERS_OF_CHAINS, PERMUTED_UP_TO = (3, 24, 240), 24
VERIFY = """
import json, sys, time
begin = time.perf_counter()
import ticketguard as tg
credential = tg.load_credential(sys.argv[2], sys.argv[3], {opened_by})
opened = time.perf_counter()
verdict = tg.verify(tg.Checkpoint(sys.argv[1]), credential)
end = time.perf_counter()
# The high-water mark of this program alone: ru_maxrss would count what its parent held before it was started.
lines = open("/proc/self/status").read().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print(json.dumps({{"status": verdict.status, "log10_p": verdict.log10_p, "open_s": opened - begin,
                  "verify_s": end - opened, "total_s": end - begin, "peak_bytes": peak,
                  "torch": "torch" in sys.modules}}))
"""
# What a credential takes beside the program: arrays and bytes are counted where Python's are.
OPEN = """
import json, sys, tracemalloc
import ticketguard as tg
tg.load_credential  # imports what it needs
tracemalloc.start()
credential = tg.load_credential(sys.argv[2], sys.argv[3], {opened_by})
held, peak = tracemalloc.get_traced_memory()
print(json.dumps({{"layers": len(credential.reference.mask), "held_bytes": held, "peak_bytes": peak}}))
"""


def random_ticket(model: torch.nn.Module, *, density: float, info: TicketInfo) -> Ticket:
    """Return a ticket with a random mask: cost does not depend on how a mask was found."""
    generator = np.random.default_rng(0)
    state = state_arrays(model)
    mask = Mask(layers={name: generator.random(state[name].shape) < density for name in prunable_layers(model)})
    weights = {
        name: np.where(mask[name], array, 0).astype(array.dtype) if name in mask else array
        for name, array in state.items()
    }
    return Ticket(mask=mask, weights=weights, rewind_weights=state, info=info)


def masked_step_ratio() -> dict[str, Any]:
    """Return median times of a dense and of a masked, marked step of ResNet-20 at 32x32, batch 128."""
    options = {"classes": 10, "input_shape": (3, 32, 32)}
    models = {kind: build_model("resnet20", options=options, seed=0) for kind in ("dense", "masked")}
    ticket = random_ticket(models["masked"], density=0.05, info=TicketInfo(method="random"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tg.TicketguardWarning)  # nothing of this is reordered
        plan = prepare(ticket, owner=tg.Owner.generate("benchmark"), marks=[tg.PlantedGraph()])
    plan.start(models["masked"])
    optimisers = {kind: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9) for kind, model in models.items()}
    inputs, labels = torch.randn(128, 3, 32, 32), torch.randint(10, (128,))
    seconds: dict[str, list[float]] = {kind: [] for kind in models}
    for _ in range(STEPS):
        for kind, model in models.items():
            begin = time.perf_counter()
            optimisers[kind].zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimisers[kind].step()
            if kind == "masked":
                plan.after_step(model)
            seconds[kind].append(time.perf_counter() - begin)
    medians = {kind: statistics.median(values[5:]) for kind, values in seconds.items()}
    return {"median_step_s": medians, "ratio": medians["masked"] / medians["dense"]}


def verification(folder: Path) -> dict[str, Any]:
    """Return time and memory of verifying a ResNet-50-sized safetensors file, vault opened by key and by passphrase."""
    model = build_model("resnet50", options={"classes": 100, "input_shape": (3, 32, 32)}, seed=0)
    ticket = random_ticket(model, density=0.05, info=TicketInfo(method="random"))
    owner = tg.Owner.generate("benchmark")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tg.TicketguardWarning)  # nor this
        plan = prepare(ticket, owner=owner, marks=[tg.PlantedGraph()])
    plan.start(model)
    marked, credential = plan.finish(model, check=False)
    suspect = folder / "suspect.safetensors"
    tg.export_weights(marked, suspect)
    vault_key = tg.VaultKey.generate()
    vault_key.save(folder / "vault.key")
    credential.save(folder / "claim.json", folder / "by-key.vault", owner=owner, recipient=vault_key.recipient)
    credential.save(folder / "claim.json", folder / "by-passphrase.vault", owner=owner, passphrase="benchmark")
    file_bytes = suspect.stat().st_size
    key_path = str(folder / "vault.key")
    openers = {"key": f"vault_key=tg.VaultKey.load({key_path!r})", "passphrase": "passphrase='benchmark'"}
    runs: dict[str, Any] = {"file_bytes": file_bytes, "weights": ticket.mask.size}
    for kind, opened_by in openers.items():
        arguments = [str(suspect), str(folder / "claim.json"), str(folder / f"by-{kind}.vault")]
        outcomes = [_run(VERIFY.format(opened_by=opened_by), arguments) for _ in range(5)]
        runs[kind] = {
            "total_s": statistics.median(outcome["total_s"] for outcome in outcomes),
            "peak_ratio": max(outcome["peak_bytes"] for outcome in outcomes) / file_bytes,
            "opened": _run(OPEN.format(opened_by=opened_by), arguments),
            "runs": outcomes,
        }
    return runs


def _run(code: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a program in a process of its own, and return what it prints as JSON."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=True)
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def parts_of_a_verdict() -> dict[str, Any]:
    """Return CPU times of a secret set, of the same set by sorting all of it after each round, and of a tail."""
    secret = round(SECRET * WEIGHTS)

    def opened() -> KeyedStream:
        return KeyedStream(secret=bytes(32), commitment=bytes(32), label="edges/weight")

    def by_sorting() -> np.ndarray:
        stream, drawn = opened(), np.empty(0, dtype=np.int64)
        while len(drawn) < secret:
            drawn = np.sort(np.concatenate([drawn, stream.integers(WEIGHTS, secret - len(drawn))]))
            drawn = drawn[np.diff(drawn, prepend=-1) > 0]
        return drawn

    generator = np.random.default_rng(0)
    sizes = (WEIGHTS / LAYERS * np.exp(generator.normal(size=LAYERS) - 0.5)).astype(int).tolist()
    layers = [LayerCount(size=n, kept=round(KEPT * n), secret=round(SECRET * n), hits=0) for n in sizes]
    hits = round(1.5 * sum(layer.expected for layer in layers))
    calls: dict[str, Callable[[], object]] = {
        "draw_s": lambda: opened().distinct(WEIGHTS, secret),
        "draw_as_map_s": lambda: opened().distinct_map(WEIGHTS, secret),
        "draw_by_sorting_s": by_sorting,
        "tail_s": lambda: log10_upper_tail(layers, hits),
    }
    assert np.array_equal(calls["draw_s"](), by_sorting())
    runs: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(5):
        for name, call in calls.items():
            begin = time.thread_time()
            call()
            runs[name].append(time.thread_time() - begin)
    return {**{name: statistics.median(seconds) for name, seconds in runs.items()}, "runs": runs}


def help_seconds() -> list[float]:
    """Return wall times of ``ticketguard --help``."""
    seconds = []
    for _ in range(11):
        begin = time.perf_counter()
        subprocess.run([str(Path(sys.executable).parent / "ticketguard"), "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - begin)
    return seconds


def suspects(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Return what different suspects cost, and suspects of different sizes."""
    model, runs, layers = ("resnet18", 1, (2, 8)) if quick else ("resnet18", 5, LAYERS_OF_CHAINS)
    kinds = folder / "kinds"
    kinds.mkdir()
    return {
        "kinds": {"model": model, **kinds_of_suspects(kinds, model=model, runs=runs)},
        "sizes": sizes_of_suspects(folder, layers, permuted_up_to=PERMUTED_UP_TO),
        "screening": screening(5 if quick else 50),
    }


def bars_of_suspects(found: dict[str, Any]) -> dict[str, Bar]:
    """Return what different suspects may cost."""
    ratios = found["kinds"]["over_copy"]
    sizes = [found["sizes"][key] for key in sorted(found["sizes"], key=int)]
    largest, before = sizes[-1], sizes[-2]
    copies = [row["copy"] for row in sizes]
    middle = next((row for row in reversed(sizes) if "permuted" in row), before)
    scale = WEIGHTS / middle["weights"]
    return {
        "CPU time of an unrelated network over a copy's": Bar(value=ratios["innocent"], bound=2.0, at_most=True),
        "CPU time of a permuted copy over a copy's": Bar(value=ratios["permuted"], bound=3.0, at_most=True),
        "CPU time of a refilled copy over a copy's": Bar(value=ratios["refilled"], bound=2.0, at_most=True),
        "CPU seconds of a copy of 10^8 weights": Bar(value=middle["copy"]["cpu_s"] * scale, bound=2.5, at_most=True),
        "CPU seconds of a permuted copy of 10^8 weights": Bar(
            value=middle["permuted"]["cpu_s"] * scale, bound=30.0, at_most=True
        ),
        "time a weight, largest over next": Bar(
            value=largest["ns_a_weight"] / before["ns_a_weight"], bound=1.2, at_most=True
        ),
        "peak memory over file size, copies of 10^8 weights and more": Bar(
            value=max(copy["peak_ratio"] for copy in copies[1:]), bound=1.2, at_most=True
        ),
        "milliseconds to screen a credential that does not fit": Bar(
            value=found["screening"]["first_ms"], bound=10.0, at_most=True
        ),
    }


def main() -> None:
    """Measure and write results/cost.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="measure suspects of small sizes once, and write nothing")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        found = suspects(Path(folder), quick=quick)
    if quick:
        for name, bar in bars_of_suspects(found).items():
            print(f"{name}: {bar.value:.4g} (bound {bar.bound:g})")
        return
    with tempfile.TemporaryDirectory() as folder:
        verified = verification(Path(folder))
    step, parts, started = masked_step_ratio(), parts_of_a_verdict(), help_seconds()
    opened = verified["key"]["opened"]
    bars = {
        "masked step over dense step": Bar(value=step["ratio"], bound=1.05, at_most=True),
        "seconds to verify a ResNet-50": Bar(value=verified["key"]["total_s"], bound=3.0, at_most=True),
        "peak memory over file size": Bar(value=verified["key"]["peak_ratio"], bound=3.0, at_most=True),
        "bytes a weight to open a credential": Bar(
            value=opened["peak_bytes"] / verified["weights"], bound=0.5, at_most=True
        ),
        "secret set, times as fast as by sorting": Bar(
            value=parts["draw_by_sorting_s"] / parts["draw_s"], bound=2.4, at_most=False
        ),
        "seconds of the tail of 10^8 weights": Bar(value=parts["tail_s"], bound=0.05, at_most=True),
        "seconds of --help": Bar(value=statistics.median(started), bound=0.3, at_most=True),
        **bars_of_suspects(found),
    }
    raw = {"suspects": found, "step": step, "verification": verified, "parts": parts, "help_s": started}
    setting = {
        "steps": STEPS,
        "threads": torch.get_num_threads(),
        "own_peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    write_result("cost", setting=setting, seeds=[0], raw=raw, bars=bars)


if __name__ == "__main__":
    main()

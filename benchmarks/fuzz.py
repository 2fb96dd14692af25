"""Fuzzing: 100 000 damaged files a parser raise nothing but errors of ours, in two seconds and 200 MB each.

Inputs are made by libFuzzer, guided by what code they reach (atheris, the extra ``fuzz``), from whole files of
every kind (`benchmarks.fuzzing`). Each parser runs in a process of its own, on Linux; ``python -m benchmarks.fuzz NAME
...`` fuzzes some of them, and what was measured of the others is kept.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.target import Target
from benchmarks.shared.results import FOLDER, Bar, write_result

INPUTS = 100_000
LONGEST_SECONDS, LARGEST_BYTES = 2.0, 200 * 10**6
SEED = 1
# Inputs that broke a rule and are written down, at most so many a parser.
EXAMPLES = 5
# libFuzzer's own limits only end what ours could not: they are far beyond the bars.
HANG_SECONDS = 120
LONGEST_INPUT = 2**16


@dataclasses.dataclass(kw_only=True)
class Tally:
    """What the inputs of one parser did.

    Attributes:
        target: The parser.
        inputs: How many were read.
        accepted: How many of them were read to their end.
        refused: How many ended in an error of ours.
        escaped: How many ended in any other exception.
        slowest_seconds: Longest wall time of one input; one that took too long is read twice, the shorter time counts.
        largest_bytes: Most memory that the process grew by during one input.
        examples: Inputs that broke a rule: what happened, and the bytes in base64.
    """

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    escaped: int = 0
    slowest_seconds: float = 0.0
    largest_bytes: int = 0
    examples: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def note(self, what: str, content: bytes) -> None:
        """Keep an input that broke a rule."""
        if len(self.examples) < EXAMPLES:
            self.examples.append({"what": what[:300], "input": base64.b64encode(content[:4096]).decode()})


def resident_bytes(field: str) -> int:
    """Return a memory figure of this process: VmRSS now, VmHWM at its highest since it was last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"this system does not report {field}")


class Probe:
    """Reads inputs of one parser, and counts what they do.

    Args:
        target: The parser.
        ours: What it may raise.
    """

    def __init__(self, target: Target, ours: type[Exception]) -> None:
        self._target, self._ours = target, ours
        self.tally = Tally(target=target.name)

    def read(self, content: bytes) -> None:
        """Read one input, every other one with its checksums put right."""
        if self._target.repair is not None and self.tally.inputs % 2:
            content = self._target.repair(content)
        tally = self.tally
        seconds, grown = self._cost(content)
        if seconds > LONGEST_SECONDS:
            # A machine that was busy with other things is not so twice.
            seconds = min(seconds, self._cost(content)[0])
        if seconds > LONGEST_SECONDS:
            tally.note(f"took {seconds:.1f} s", content)
        if grown > LARGEST_BYTES:
            tally.note(f"took {grown / 10**6:.0f} MB", content)
        tally.slowest_seconds = max(tally.slowest_seconds, seconds)
        tally.largest_bytes = max(tally.largest_bytes, grown)

    def _cost(self, content: bytes) -> tuple[float, int]:
        """Read one input; return its seconds, and the bytes that the process grew by meanwhile."""
        before = resident_bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts from here again
        begun = time.perf_counter()
        try:
            self._target.read(content)
            self.tally.accepted += 1
        except self._ours:
            self.tally.refused += 1
        except BaseException as error:  # the one thing that must not happen
            self.tally.escaped += 1
            self.tally.note(f"{type(error).__name__}: {error}", content)
        self.tally.inputs += 1
        return time.perf_counter() - begun, resident_bytes("VmHWM") - before


def fuzz_one(name: str, inputs: int, out: Path) -> None:
    """Feed one parser until *inputs* were read, write the tally to *out*, and end the process."""
    import atheris

    with atheris.instrument_imports(include=["ticketguard"], enable_loader_override=False):
        from benchmarks.fuzzing import Scratch, targets_of
        from benchmarks.fuzzing.json_damage import damaged
        from ticketguard.errors import TicketguardError

        scratch = Scratch()
        target = targets_of(name.partition(": ")[0], scratch)[name]
    warnings.simplefilter("ignore")
    probe = Probe(target, TicketguardError)

    def one(content: bytes) -> None:
        probe.read(content)
        if probe.tally.inputs >= inputs:
            out.write_text(json.dumps(dataclasses.asdict(probe.tally)))
            os._exit(0)  # libFuzzer has no way to end from within

    def damage(content: bytes, most: int, seed: int) -> bytes:
        found = damaged(content, seed) if seed % 2 else None
        return atheris.Mutate(content, most) if found is None else found[:most]

    corpus = scratch.folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(content)
        one(content)
    limits = [f"-max_len={LONGEST_INPUT}", f"-timeout={HANG_SECONDS}", "-rss_limit_mb=0", "-verbosity=0"]
    mutator = {"custom_mutator": damage} if target.is_json else {}
    atheris.Setup([sys.argv[0], f"-seed={SEED}", *limits, str(corpus)], one, **mutator)
    atheris.Fuzz()


def measure(name: str, inputs: int) -> dict[str, Any]:
    """Fuzz one parser in a process of its own; one that dies is told by how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tally.json"
        command = [sys.executable, "-m", "benchmarks.fuzz", "--one", name, "--inputs", str(inputs), "--out", str(out)]
        ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        if out.exists():
            found: dict[str, Any] = json.loads(out.read_text())
            return {**found, "process": "ended well"}
        return {
            "target": name,
            "inputs": 0,
            "process": f"ended with {ended.returncode}: {ended.stderr[-2000:].decode()}",
        }


def bars_of(tallies: dict[str, dict[str, Any]]) -> dict[str, Bar]:
    """Return the bars over all parsers; a process that died breaks every one of them."""
    whole = [tally for tally in tallies.values() if tally["process"] == "ended well"]
    return {
        "processes that died": Bar(value=len(tallies) - len(whole), bound=0, at_most=True),
        "fewest inputs of a parser": Bar(value=min(t["inputs"] for t in tallies.values()), bound=INPUTS, at_most=False),
        "exceptions that are not ours": Bar(value=sum(t["escaped"] for t in whole), bound=0, at_most=True),
        "slowest input, seconds": Bar(
            value=max(t["slowest_seconds"] for t in whole), bound=LONGEST_SECONDS, at_most=True
        ),
        "largest growth of memory in one input, bytes": Bar(
            value=max(t["largest_bytes"] for t in whole), bound=LARGEST_BYTES, at_most=True
        ),
    }


def main() -> None:
    """Fuzz and write results/fuzz.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="Parsers, or groups of them; by default all.")
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        fuzz_one(given.one, given.inputs, given.out)
        return
    from benchmarks.fuzzing import GROUPS, Scratch, targets_of

    known = [name for group in GROUPS for name in targets_of(group, Scratch())]
    wanted = [name for name in known if not given.names or {name, name.partition(": ")[0]} & set(given.names)]
    fresh: dict[str, dict[str, Any]] = {}
    for name in wanted:
        fresh[name] = measure(name, given.inputs)
        print(json.dumps({**fresh[name], "examples": len(fresh[name].get("examples", []))}), flush=True)
        # Read again each time: another process may have measured others meanwhile.
        tallies = (kept_tallies() if given.names else {}) | fresh
        ordered = {name: tallies[name] for name in known if name in tallies}
        setting = {"inputs a parser": given.inputs, "engine": "atheris (libFuzzer), coverage of ticketguard's code"}
        write_result("fuzz", setting=setting, seeds=[SEED], raw=ordered, bars=bars_of(ordered))


def kept_tallies() -> dict[str, dict[str, Any]]:
    """Return what earlier runs measured, by parser."""
    kept = FOLDER / "fuzz.json"
    found: dict[str, dict[str, Any]] = json.loads(kept.read_text())["raw"] if kept.exists() else {}
    return found


if __name__ == "__main__":
    main()

"""Write a benchmark's result: machine, versions, seeds, raw numbers and bars."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ticketguard.files import write_whole

FOLDER = Path(__file__).parents[1] / "results"
PACKAGES = ("ticketguard", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "safetensors", "cryptography")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """A number that must hold.

    Attributes:
        value: What was measured.
        bound: What it is held against.
        at_most: Whether the value must not be above the bound; otherwise it must not be below.
    """

    value: float
    bound: float
    at_most: bool

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side."""
        return bool(self.value <= self.bound if self.at_most else self.value >= self.bound)


def machine() -> dict[str, Any]:
    """Describe the machine in the words that matter for a number."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "accelerator": _accelerator(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def write_result(
    name: str, *, setting: Mapping[str, Any], seeds: Sequence[int], raw: Any, bars: Mapping[str, Bar]
) -> None:
    """Write ``results/NAME.json`` and print the bars."""
    document = {
        "benchmark": name,
        "command": f"python -m benchmarks.{name}",
        "machine": machine(),
        "versions": {package: _version(package) for package in PACKAGES},
        "setting": dict(setting),
        "seeds": list(seeds),
        "bars": {
            key: {"value": bar.value, "bound": bar.bound, "at_most": bar.at_most, "holds": bar.holds}
            for key, bar in bars.items()
        },
        "raw": raw,
    }
    write_whole(FOLDER / f"{name}.json", (json.dumps(document, indent=1) + "\n").encode())
    for key, bar in bars.items():
        word, sign = "holds " if bar.holds else "MISSED", "≤" if bar.at_most else "≥"
        print(f"{word} {key}: {bar.value:.6g} ({sign} {bar.bound:g})")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _accelerator() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"

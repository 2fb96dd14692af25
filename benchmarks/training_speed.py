"""Training speed: whether feeding holds the loop up, and what compilation and bf16 bring.

One run of the training loop is fed in turns: a block of steps with the real feeding and augmentation, a block with one
batch that is on the device already, and a block with batches that were all prepared before the run, which come from
memory as new ones do, while the repeated one is in the processor's cache. What disturbs the machine disturbs all; the
ratio is that of the blocks' mean times, because only every so many blocks hold the preparation of the next batches. A
block of more than twice the median counts as twice the median: the machine was elsewhere. On a CPU one thread trains,
beside the one that feeds. Steps in bf16, and compiled ones, alternate with plain ones in the same way; compilation
takes minutes on a slow processor, so it is measured where there is a CUDA device, or with ``--compiled``. On a machine
with a CUDA device the same command measures there.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from benchmarks.shared.results import Bar, write_result
from ticketguard.data import Dataset
from ticketguard.models import build_model
from ticketguard.training import NoHooks, TrainingConfig, loop, train
from ticketguard.training.feeding import Feeder
from ticketguard.training.optimizers import make_optimizer

CUDA = torch.cuda.is_available()
KINDS = ("fed", "repeated", "prepared")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A network and its data.

    Attributes:
        model: Its name.
        input_shape: Shape of one input.
        batch_size: Examples in a batch.
        crop_padding: Pixels that images are shifted by.
        block: Steps in a block, measured on a CPU; an accelerator takes ten times as many.
        blocks: Blocks of each kind.
    """

    model: str
    input_shape: tuple[int, int, int]
    batch_size: int
    crop_padding: int
    block: int
    blocks: int


CASES = {
    "resnet20 at 32x32": Case(
        model="resnet20", input_shape=(3, 32, 32), batch_size=128, crop_padding=4, block=1, blocks=14
    ),
    "resnet20 at 14x14": Case(
        model="resnet20", input_shape=(1, 14, 14), batch_size=128, crop_padding=1, block=2, blocks=25
    ),
    "mlp at 28x28": Case(model="mlp", input_shape=(1, 28, 28), batch_size=64, crop_padding=2, block=20, blocks=400),
}


def noise(case: Case, *, examples: int) -> Dataset:
    """Return random images: speed does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (examples, *case.input_shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(10, (examples,), generator=generator)
    channels = case.input_shape[0]
    return Dataset(
        name="noise", train_inputs=inputs, train_labels=labels, test_inputs=inputs[:100], test_labels=labels[:100],
        classes=10, mean=(0.5,) * channels, std=(0.3,) * channels, flip=True, crop_padding=case.crop_padding,
    )  # fmt: skip


class Blocks(NoHooks):
    """Notes when each block of steps ended."""

    def __init__(self, block: int) -> None:
        self._block, self._steps = block, 0
        self.ends: list[float] = []

    def after_step(self, model: torch.nn.Module) -> None:
        """Look at the clock, when all that was begun in the block is done."""
        self._steps += 1
        if self._steps % self._block == 0:
            if CUDA:
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())


def fed_against_repeated(case: Case) -> dict[str, Any]:
    """Return the blocks' times in one run that is fed in turns, and the ratio of the throughputs."""
    block = case.block * (10 if CUDA else 1)

    class Turns(Feeder):
        """Feeds a block, repeats one batch for a block, and goes through batches prepared beforehand for a block."""

        fed = 0
        before: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()

        def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
            if not self.before:
                self.before = tuple(self.fresh(number) for number in range(self.steps_per_epoch))
            kind = KINDS[step // block % len(KINDS)]
            if kind != "fed":
                return self.before[0 if kind == "repeated" else step % len(self.before)]
            self.fed += 1
            return super().batch(self.fed - 1)

        def fresh(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
            inputs, labels = super().batch(number)
            return inputs.clone(), labels.clone()

    data = noise(case, examples=20_000)
    per_epoch = len(data.train_labels) // case.batch_size
    warm = 2 * len(KINDS)
    config = TrainingConfig(
        epochs=(len(KINDS) * case.blocks + warm) * block / per_epoch,
        batch_size=case.batch_size,
        learning_rate=0.01,
        schedule="constant",
    )
    hooks = Blocks(block)
    model = build_model(case.model, options={"classes": 10, "input_shape": case.input_shape}, seed=0)
    with mock.patch.object(loop, "Feeder", Turns):
        train(model, data, config, seed=0, hooks=hooks)
    seconds = [(after - before) / block for before, after in zip(hooks.ends, hooks.ends[1:], strict=False)]
    # The time between the ends of blocks n and n + 1 is that of block n + 1.
    taken = {kind: seconds[warm - 1 + place :: len(KINDS)] for place, kind in enumerate(KINDS)}
    most = 2 * statistics.median(taken["repeated"])
    means = {kind: statistics.mean(min(value, most) for value in values) for kind, values in taken.items()}
    return {
        "median_step_s": {kind: statistics.median(values) for kind, values in taken.items()},
        "mean_step_s": means,
        "uncut_mean_step_s": {kind: statistics.mean(values) for kind, values in taken.items()},
        "throughput_ratio": means["repeated"] / means["fed"],
        "prepared_throughput_ratio": means["repeated"] / means["prepared"],
        "step_s": taken,
    }


def variants(case: Case, *, compiled: bool) -> dict[str, Any]:
    """Return the times of steps in fp32, in bf16 and, where asked for, compiled, which alternate."""
    device = torch.device("cuda" if CUDA else "cpu")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(case.batch_size, *case.input_shape, generator=generator).to(device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (case.batch_size,), generator=generator).to(device)
    steps: dict[str, Callable[[], None]] = {}
    for name in ("fp32", "bf16", *(("fp32 compiled", "bf16 compiled") if compiled else ())):
        model = build_model(case.model, options={"classes": 10, "input_shape": case.input_shape}, seed=0)
        model = model.to(device=device, memory_format=torch.channels_last)
        optimizer = make_optimizer(model, TrainingConfig(epochs=1, learning_rate=0.01))
        forward = torch.compile(model) if "compiled" in name else model

        def step(
            forward: Any = forward, optimizer: torch.optim.Optimizer = optimizer, bf16: bool = "bf16" in name
        ) -> None:
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                logits = forward(inputs)
            torch.nn.functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()

        steps[name] = step
    count = case.block * (50 if CUDA else 1)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    first = {}
    for name, step in steps.items():
        begun = time.perf_counter()
        step()
        first[name] = time.perf_counter() - begun
    for _ in range(max(5, case.blocks // 10)):
        for name, step in steps.items():
            begun = time.perf_counter()
            for _ in range(count):
                step()
            if CUDA:
                torch.cuda.synchronize()
            seconds[name].append((time.perf_counter() - begun) / count)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "first_step_s": first,
        "median_step_s": medians,
        "speed_against_fp32": {name: medians["fp32"] / median for name, median in medians.items()},
    }


def main() -> None:
    """Measure and write results/training_speed.json."""
    torch.set_num_threads(1)
    compiled = CUDA or "--compiled" in sys.argv[1:]
    fed = {name: fed_against_repeated(case) for name, case in CASES.items()}
    others = {name: variants(case, compiled=compiled) for name, case in CASES.items()}
    bars = {
        f"{name}: throughput fed over repeated": Bar(value=entry["throughput_ratio"], bound=0.95, at_most=False)
        for name, entry in fed.items()
    }
    setting = {
        "cases": {name: dataclasses.asdict(case) for name, case in CASES.items()},
        "threads": torch.get_num_threads(),
        "device": "cuda" if CUDA else "cpu",
    }
    write_result("training_speed", setting=setting, seeds=[0], raw={"feeding": fed, "variants": others}, bars=bars)


if __name__ == "__main__":
    main()

"""Dense networks that are trained for long from a signed start: how many of its signs they keep, and when they turn."""

from __future__ import annotations

import dataclasses

import torch

import ticketguard as tg
from benchmarks.shared.thefts.reading import Owned
from benchmarks.shared.thefts.settings import RESNET, Images, Setting
from benchmarks.shared.thefts.signs.reading import kept_signs
from benchmarks.shared.thefts.signs.tickets import keep, work_of
from benchmarks.shared.thefts.tickets import Bench, owner_of, secret_of
from ticketguard.training import train

DECAYS = (1e-4, 5e-4)
# Epochs after which signs are counted, before the last.
COUNTED = (1, 2, 5, 10, 20, 40, 80, 120, 160)
CIFAR_10 = Images(name="cifar32", source="cifar-10", kept=50_000, size=0)
ON_CIFAR_10 = dataclasses.replace(
    RESNET, name="resnet20-cifar10", images=CIFAR_10, training=dataclasses.replace(RESNET.training, augment=True)
)
LONG_SETTINGS: dict[str, Setting] = {"fashion-mnist": RESNET, "cifar-10": ON_CIFAR_10}


def name_of(epochs: float, decay: float) -> str:
    """Return the name of a long training."""
    return f"long, {epochs:g} epochs, weight decay {decay:g}"


def train_long(bench: Bench, epochs: float, decay: float) -> None:
    """Train a dense network from a start of its own, and keep it; an interrupted training goes on."""
    name = name_of(epochs, decay)
    model = bench.setting.build(bench.seed)
    start = tg.sign_start(
        model,
        owner=owner_of(bench.folder, "owner"),
        secret=secret_of("signs", name, bench.setting.name, bench.seed),
        example=torch.zeros(1, *bench.setting.input_shape),
    )
    recipe = dataclasses.replace(bench.recipe(epochs), weight_decay=decay)
    data = bench.data.source
    an_epoch = len(data.train_labels) // min(recipe.batch_size, len(data.train_labels))
    moments = {epoch: epoch * an_epoch for epoch in COUNTED if epoch < recipe.epochs}
    checkpoint = work_of(bench) / f"{name}.checkpoint"
    result = train(
        model,
        data,
        recipe,
        seed=bench.seed,
        snapshot_steps=tuple(moments.values()),
        checkpoint=checkpoint,
        resume=True,
    )
    ticket, credential = start.finish(model.cpu(), accuracy=result.accuracy)
    keep(bench, name, ticket, credential)
    # Where a norm lets a weight decay away, a half-precision copy would lose its sign.
    shelf = Owned(bench=bench, mark=name).shelf
    states = {**{str(epoch): result.snapshots[step] for epoch, step in moments.items()}, "the end": result.state}
    kept = {epoch: kept_signs(credential, state) for epoch, state in states.items()}
    shelf.keep(name, result.state, exact=True, accuracy=result.accuracy, epochs=recipe.epochs, kept=kept)
    checkpoint.unlink()

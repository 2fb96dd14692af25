"""The tickets that are stolen: model, data, recipe and search, and the seeds' data order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.shared.searches import CIFAR10_FOLDER, DATA_FOLDER
from ticketguard.data import Dataset, load_data
from ticketguard.data.dataset import channel_statistics
from ticketguard.models import build_model
from ticketguard.pruning.descriptions.imp import RoundsConfig
from ticketguard.ticket import TicketInfo
from ticketguard.training import TrainingConfig

ARRAYS = ("train_inputs", "train_labels", "test_inputs", "test_labels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """A data set, pooled and shortened.

    Attributes:
        name: Of its arrays' file, kept beside the results: another machine needs nothing else.
        source: "fashion-mnist" or "cifar-10".
        kept: Training images that are kept; all 10 000 test images are.
        size: Side that images are pooled to; 0 for their own.
        used: Training images that are used, the first of those; 0 for all.
    """

    name: str
    source: str
    kept: int
    size: int
    used: int = 0

    def load(self, folder: Path, *, limit: int | None = None) -> Dataset:
        """Return the data, from *folder* if they were kept there before.

        Args:
            folder: Where the arrays are kept.
            limit: Use only so many training and half as many test images: for a trial of the benchmark itself.
        """
        path = folder / f"{self.name}.npz"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            data = self._read()
            with path.open("wb") as file:
                np.savez_compressed(file, **{name: getattr(data, name).numpy() for name in ARRAYS})
        with np.load(path, allow_pickle=False) as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in ARRAYS}
        train = min(self.used or self.kept, limit or self.kept)
        test = len(tensors["test_labels"]) if limit is None else limit // 2
        cut: dict[str, Any] = {
            name: value[: train if name.startswith("train") else test].contiguous() for name, value in tensors.items()
        }
        mean, std = channel_statistics(cut["train_inputs"])
        return Dataset(name=self.source, classes=10, mean=mean, std=std, **cut)

    def _read(self) -> Dataset:
        options: dict[str, Any] = {"train_limit": self.kept, "image_size": self.size}
        if self.source == "fashion-mnist":
            return load_data("fashion-mnist", options={"folder": DATA_FOLDER, **options})
        folder = Path(CIFAR10_FOLDER or ".")
        test = str(folder / "cifar10-jpeg-test.tar.xz")
        return load_data(str(folder / "cifar10-jpeg-train.tar.xz"), options={"test_path": test, **options})


FASHION_14 = Images(name="fashion14", source="fashion-mnist", kept=20_000, size=14)
FASHION_28 = Images(name="fashion28", source="fashion-mnist", kept=20_000, size=0)
CIFAR_16 = Images(name="cifar16", source="cifar-10", kept=5_000, size=16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """A kind of ticket.

    Attributes:
        name: How folders and tables name it.
        model: The model's name.
        images: What it is trained on.
        density: Kept share of the weights.
        training: The recipe of tickets, and of whoever trains from scratch.
        rounds: The search: iterative magnitude pruning, with rewinding if it says so.
        width: Channels of the first stage of a ResNet.
        fine_tuning: A thief's recipe for weights that are trained already; its epochs are the row's.
    """

    name: str
    model: str
    images: Images
    density: float
    training: TrainingConfig
    rounds: RoundsConfig
    fine_tuning: TrainingConfig
    width: int | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        side = self.images.size or (28 if self.images.source == "fashion-mnist" else 32)
        return (1 if self.images.source == "fashion-mnist" else 3, side, side)

    @property
    def model_options(self) -> dict[str, Any]:
        """Arguments of the model's factory."""
        widened = {} if self.width is None else {"width": self.width}
        return {"classes": 10, "input_shape": self.input_shape, **widened}

    def build(self, seed: int) -> nn.Module:
        """Build the network."""
        return build_model(self.model, options=self.model_options, seed=seed)

    def info(self, *, seed: int, accuracy: float, data: Dataset, history: Sequence[dict[str, Any]]) -> TicketInfo:
        """Return what a found ticket says of itself."""
        return TicketInfo(
            method="ltr" if self.rounds.rewind_epochs else "imp",
            model=self.model,
            model_options=self.model_options,
            data=data.name,
            data_options={"train_limit": len(data.train_labels), "image_size": self.images.size},
            training=self.training.to_json(),
            seed=seed,
            classes=10,
            input_shape=self.input_shape,
            input_mean=data.mean,
            input_std=data.std,
            accuracy=accuracy,
            history=tuple(history),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what a result file says of it."""
        told = dataclasses.asdict(self)
        return {**told, "training": self.training.to_json(), "fine_tuning": self.fine_tuning.to_json()}


# The recipe and search of `benchmarks.tickets`.
RESIDUAL = TrainingConfig(epochs=8, batch_size=128, learning_rate=0.1, momentum=0.9, weight_decay=1e-4, augment=False)
TUNING = TrainingConfig(
    epochs=2, batch_size=128, learning_rate=0.05, momentum=0.9, weight_decay=1e-4, schedule="cosine", augment=False
)
RESNET = Setting(
    name="resnet20",
    model="resnet20",
    images=FASHION_14,
    density=0.05,
    training=RESIDUAL,
    rounds=RoundsConfig(prune_fraction=0.451, level_epochs=2, rewind_epochs=0.5),
    fine_tuning=TUNING,
)
# The recipe and search of `benchmarks.winning`.
PERCEPTRON = TrainingConfig(
    epochs=5, batch_size=128, learning_rate=1.2e-3, optimizer="adam", momentum=0.9, weight_decay=0.0,
    schedule="constant", augment=False,
)  # fmt: skip
MLP = Setting(
    name="mlp",
    model="mlp",
    images=FASHION_28,
    density=0.1,
    training=PERCEPTRON,
    rounds=RoundsConfig(prune_fraction=0.37),
    fine_tuning=dataclasses.replace(PERCEPTRON, epochs=2, schedule="cosine"),
)
HEADLINES = (RESNET, MLP)

LONG = dataclasses.replace(RESIDUAL, epochs=20, batch_size=64)
_FEW_ROUNDS = RoundsConfig(prune_fraction=0.451, level_epochs=10, rewind_epochs=2)
# Settings in which a residual ticket might win, those most like `RESNET` first: few images, or harder ones, long enough
# a training for a dense network to learn them by heart, more channels for a ticket to choose among.
CANDIDATES = (
    dataclasses.replace(
        RESNET,
        name="resnet20-few",
        images=dataclasses.replace(FASHION_14, used=4_000),
        training=LONG,
        rounds=_FEW_ROUNDS,
    ),
    dataclasses.replace(
        RESNET,
        name="resnet20-cifar",
        images=CIFAR_16,
        training=LONG,
        rounds=_FEW_ROUNDS,
    ),
    dataclasses.replace(
        RESNET,
        name="resnet20-cifar-wide",
        images=CIFAR_16,
        training=LONG,
        rounds=_FEW_ROUNDS,
        width=32,
    ),
)

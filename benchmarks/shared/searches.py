"""What the benchmarks of searches share: problems by setting, rows that are measured once, means with their errors."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from ticketguard.cli.progress import ProgressBar
from ticketguard.data import Dataset, load_data
from ticketguard.files import write_whole
from ticketguard.models import state_arrays
from ticketguard.pruning import SearchProblem
from ticketguard.ticket import Array, Mask
from ticketguard.training import TrainingConfig

FOLDER = Path("runs/benchmarks")
DATA_FOLDER = os.environ.get("TICKETGUARD_FASHION_MNIST", "/usr/share/datasets/fashion-mnist")
# Holds cifar10-jpeg-train.tar.xz and cifar10-jpeg-test.tar.xz.
CIFAR10_FOLDER = os.environ.get("CIFAR10")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What tickets are searched in.

    Attributes:
        model: The model's name.
        images: "Fashion-MNIST" or "CIFAR-10".
        train_limit: Training images; all 10 000 test images are used.
        image_size: Side that images are pooled to.
        training: The final recipe.
        width: Channels of the first stage of a ResNet; None for the model's own.
        he_start: Whether tickets start from He et al.'s initialisation, instead of the model's own: a search over
            frozen weights cannot scale them, and without batch norm a mask of torch's initialisation (a sixth of the
            variance) has next to no output.
    """

    model: str
    images: Literal["Fashion-MNIST", "CIFAR-10"] = "Fashion-MNIST"
    train_limit: int
    image_size: int
    training: TrainingConfig
    width: int | None = None
    he_start: bool = False

    @property
    def data_name(self) -> str:
        """Name of the data's loader."""
        if self.images == "Fashion-MNIST":
            return "fashion-mnist"
        if CIFAR10_FOLDER is None:
            raise SystemExit("set CIFAR10 to the folder of cifar10-jpeg-train.tar.xz and cifar10-jpeg-test.tar.xz")
        return f"{CIFAR10_FOLDER}/cifar10-jpeg-train.tar.xz"

    @property
    def data_options(self) -> dict[str, Any]:
        """Arguments of the data's loader."""
        options = {"train_limit": self.train_limit, "image_size": self.image_size}
        if self.images == "Fashion-MNIST":
            return {"folder": DATA_FOLDER, **options}
        return {"test_path": f"{CIFAR10_FOLDER}/cifar10-jpeg-test.tar.xz", **options}

    def dataset(self) -> Dataset:
        """Load the data."""
        return load_data(self.data_name, options=self.data_options)

    def problem(self, data: Dataset, *, density: float, seed: int, options: Mapping[str, Any]) -> SearchProblem:
        """Return the search of one ticket."""
        widened = {} if self.width is None else {"width": self.width}
        problem = SearchProblem(
            model=self.model,
            model_options={"classes": 10, "input_shape": data.input_shape, **widened},
            data=data,
            data_name=self.data_name,
            data_options=self.data_options,
            density=density,
            training=self.training,
            seed=seed,
            method_options=options,
            progress=ProgressBar(),
        )
        return dataclasses.replace(problem, rewind=he_state(problem.build(), seed=seed)) if self.he_start else problem

    def to_json(self) -> dict[str, Any]:
        """Return what a result file says of it."""
        images = self.images.lower()
        data = f"{images}, first {self.train_limit} training images, {self.image_size}x{self.image_size}"
        told = {"model": self.model, "data": data, "training": self.training.to_json()}
        if self.width is not None:
            told["width"] = self.width
        return {**told, "start": "He et al.'s initialisation"} if self.he_start else told


def he_state(network: nn.Module, *, seed: int) -> dict[str, Array]:
    """Return weights of variance 2 / fan-in, and biases of zero, for a network of linear layers (He et al. 2015)."""
    generator = np.random.default_rng(seed)
    state = state_arrays(network)
    return {
        name: generator.normal(0.0, np.sqrt(2 / array.shape[1]), array.shape).astype(np.float32)
        if array.ndim == 2
        else np.zeros_like(array)
        for name, array in state.items()
    }


def measured_once(folder: Path, what: Mapping[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what *measure* gives, from its file in *folder* if the same was measured before.

    Args:
        folder: Where rows are kept.
        what: All that the row depends on, as plain JSON values.
        measure: Returns plain JSON values.
    """
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{digest}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps({"what": dict(what), "row": measure()}, indent=1) + "\n").encode())
    row: dict[str, Any] = json.loads(path.read_text())["row"]
    return row


def shuffled(mask: Mask, *, seed: int) -> Mask:
    """Return *mask* with the positions of each layer shuffled: as many are kept in every layer, but others."""
    generator = np.random.default_rng(seed)
    layers = {
        name: generator.permuted(mask[name].reshape(-1)).reshape(mask[name].shape) for name in sorted(mask.layers)
    }
    return Mask(layers=layers)


def paired(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Return mean and standard error, over seeds, of *first* minus *second*."""
    differences = np.asarray(first) - np.asarray(second)
    error = float(differences.std(ddof=1) / np.sqrt(len(differences))) if len(differences) > 1 else float("nan")
    return {"mean": float(differences.mean()), "standard_error": error}

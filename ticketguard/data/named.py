"""Data sets by name: digits (embedded), Fashion-MNIST, CIFAR-10 and CIFAR-100 from local files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from ticketguard.data.dataset import DataOptions, Dataset, channel_statistics, no_data, resized, shortened
from ticketguard.files import open_finite
from ticketguard.torchvision_shim import import_torchvision

# Debian's package dataset-fashion-mnist keeps the four files here.
DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
IDX_LIMIT_BYTES = 256 * 1024 * 1024


def digits(options: DataOptions) -> Dataset:
    """Load scikit-learn's handwritten digits (1797 images, 8x8): nothing is downloaded. A fifth is for testing."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    return assemble("digits", images[train], labels[train], images[test], labels[test], options, crop_padding=1)


def fashion_mnist(options: DataOptions) -> Dataset:
    """Load Fashion-MNIST from its four idx files, compressed or not, or through torchvision."""
    folder = Path(options.folder or DEBIAN_FASHION_MNIST)
    places = (folder, folder / "FashionMNIST" / "raw")
    found = next((place for place in places if any(place.glob("train-images-idx3-ubyte*"))), None)
    if found is None and options.download:
        import_torchvision("torchvision.datasets").FashionMNIST(str(folder), download=True)
        found = places[1]
    if found is None:
        raise no_data(
            folder,
            "does not hold the Fashion-MNIST files (train-images-idx3-ubyte.gz and three more)",
            "name their folder with --data-dir, install Debian's package dataset-fashion-mnist, or allow --download",
        )
    parts = [
        torch.from_numpy(_read_idx(found, name))
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    ]
    return assemble(
        "fashion-mnist", parts[0][:, None], parts[1].long(), parts[2][:, None], parts[3].long(), options,
        flip=True, crop_padding=2,
    )  # fmt: skip


def cifar10(options: DataOptions) -> Dataset:
    """Load CIFAR-10 through torchvision's loader."""
    return _cifar("CIFAR10", "cifar10", options)


def cifar100(options: DataOptions) -> Dataset:
    """Load CIFAR-100 through torchvision's loader."""
    return _cifar("CIFAR100", "cifar100", options)


def _cifar(loader: str, name: str, options: DataOptions) -> Dataset:
    folder = options.folder or "data"
    datasets = import_torchvision("torchvision.datasets")
    try:
        splits = [getattr(datasets, loader)(folder, train=train, download=options.download) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise no_data(
            folder,
            f"does not hold {name} as torchvision unpacks it ({error})",
            "name its folder with --data-dir, allow --download, or give a folder or tar of class folders as --data",
        ) from error
    train, test = ((torch.from_numpy(split.data).permute(0, 3, 1, 2), torch.tensor(split.targets)) for split in splits)
    return assemble(name, train[0], train[1], test[0], test[1], options, flip=True, crop_padding=4)


def assemble(
    name: str,
    train_images: torch.Tensor,
    train_labels: torch.Tensor,
    test_images: torch.Tensor,
    test_labels: torch.Tensor,
    options: DataOptions,
    *,
    flip: bool = False,
    crop_padding: int = 0,
) -> Dataset:
    """Shorten and resize as the options say, and measure the normalisation on the training images."""
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    train_images, train_labels = shortened(train_images, train_labels, options.train_limit, seed=options.seed)
    test_images, test_labels = shortened(test_images, test_labels, options.test_limit, seed=options.seed)
    train_images, test_images = (
        resized(images, options.image_size).contiguous() for images in (train_images, test_images)
    )
    mean, std = channel_statistics(train_images)
    return Dataset(
        name=name,
        train_inputs=train_images,
        train_labels=train_labels,
        test_inputs=test_images,
        test_labels=test_labels,
        classes=classes,
        mean=mean,
        std=std,
        flip=flip,
        crop_padding=min(crop_padding, max(1, round(crop_padding * train_images.shape[-1] / 32)))
        if crop_padding
        else 0,
    )


def _read_idx(folder: Path, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read one idx file (magic 0, 0, 8, axes; big-endian sizes; bytes), as LeCun's MNIST page defines it.

    No more is read, or unpacked, than its header declares; the file's name says how many axes there are.
    """
    path = next(iter(sorted(folder.glob(f"{name}-ubyte*"))), folder / f"{name}-ubyte.gz")
    axes = int(name[-1])
    try:
        with (
            open(path, "rb", opener=open_finite) as file,
            gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file as stream,
        ):
            header = stream.read(4 + 4 * axes)
            sizes = struct.unpack(f">{axes}I", header[4:]) if len(header) == 4 + 4 * axes else ()
            size = math.prod(sizes)
            if header[:4] != bytes((0, 0, 8, axes)) or not sizes or not 0 < size <= IDX_LIMIT_BYTES:
                raise no_data(path, "is not a whole idx file of bytes", "install or copy the data again")
            content = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise no_data(path, f"cannot be read ({error})", "install or copy the data again") from error
    if len(content) != size:
        raise no_data(path, "is not a whole idx file of bytes", "install or copy the data again")
    return np.frombuffer(content, dtype=np.uint8).reshape(sizes).copy()

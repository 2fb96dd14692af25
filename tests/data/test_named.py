from __future__ import annotations

import gzip
import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ticketguard.data import Dataset, load_data, named
from ticketguard.errors import ConfigurationError, FileError

FASHION = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def idx(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write_fashion(folder: Path, *, packed: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for name, count in zip(FASHION, (30, 30, 10, 10), strict=True):
        shape = (count, 28, 28) if "images" in name else (count,)
        content = idx(generator.integers(10, size=shape).astype(np.uint8))
        path = folder / (f"{name}-ubyte.gz" if packed else f"{name}-ubyte")
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


def test_digits_need_no_files() -> None:
    data = load_data("digits", options={})
    assert (data.input_shape, data.classes, len(data.train_labels), len(data.test_labels)) == ((1, 8, 8), 10, 1438, 359)
    assert data.train_inputs.dtype == torch.uint8
    assert int(data.train_inputs.max()) == 255
    assert not data.flip  # a mirrored digit is none


def test_digits_are_split_alike_every_time() -> None:
    first, second = (load_data("digits", options={}) for _ in range(2))
    assert torch.equal(first.test_inputs, second.test_inputs)


@pytest.mark.parametrize(("packed", "inside"), [(True, "."), (False, "FashionMNIST/raw")])
def test_fashion_mnist_is_read_as_debian_and_as_torchvision_keep_it(tmp_path: Path, packed: bool, inside: str) -> None:
    write_fashion(tmp_path / inside, packed=packed)
    data = load_data("fashion-mnist", options={"folder": str(tmp_path)})
    assert (data.input_shape, len(data.train_labels), len(data.test_labels)) == ((1, 28, 28), 30, 10)
    assert data.train_labels.dtype == torch.int64


def test_a_pipe_in_the_place_of_fashion_mnist_is_not_waited_for(tmp_path: Path) -> None:
    (write_fashion(tmp_path, packed=False) / "train-images-idx3-ubyte").unlink()
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(FileError, match="is not a whole idx file"):
        load_data("fashion-mnist", options={"folder": str(tmp_path)})


def test_fashion_mnist_that_is_not_there_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="install Debian's package dataset-fashion-mnist, or allow --download"):
        load_data("fashion-mnist", options={"folder": str(tmp_path)})


def test_fashion_mnist_is_downloaded_only_where_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(root: str, *, download: bool) -> None:
        assert download
        write_fashion(Path(root) / "FashionMNIST" / "raw", packed=False)

    monkeypatch.setattr(named, "import_torchvision", lambda name: SimpleNamespace(FashionMNIST=download))
    data = load_data("fashion-mnist", options={"folder": str(tmp_path), "download": True})
    assert len(data.train_labels) == 30


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0",
        idx(np.zeros(30, np.uint8))[:-1],
        idx(np.zeros(30, np.uint8)) + b"\0",
        idx(np.zeros(0, np.uint8)),
        idx(np.zeros((30, 1), np.uint8)),
        b"\0\0\x08\x01\xff\xff\xff\xff",
        b"\0\0\x08\xff" + b"\0\0\0\x01" * 255 + b"\0",
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes) -> None:
    write_fashion(tmp_path, packed=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(FileError, match="train-labels-idx1-ubyte': is not a whole idx file of bytes"):
        load_data("fashion-mnist", options={"folder": str(tmp_path)})


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"no gzip", id="no gzip"),
        pytest.param(gzip.compress(idx(np.zeros(30, np.uint8)))[:-9], id="cut short"),
        pytest.param(gzip.compress(b"")[:10] + b"\xff" * 40, id="damaged inside"),
    ],
)
def test_a_damaged_gzip_file_is_named(tmp_path: Path, content: bytes) -> None:
    write_fashion(tmp_path, packed=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(FileError, match=r"t10k-labels-idx1-ubyte\.gz': cannot be read"):
        load_data("fashion-mnist", options={"folder": str(tmp_path)})


def test_a_gzip_bomb_is_not_unpacked_beyond_its_header(tmp_path: Path) -> None:
    write_fashion(tmp_path, packed=True)
    bomb = gzip.compress(idx(np.zeros(10, np.uint8)) + bytes(5 * 10**7))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(FileError, match=r"t10k-labels-idx1-ubyte\.gz': is not a whole idx file of bytes"):
        load_data("fashion-mnist", options={"folder": str(tmp_path)})
    assert tracemalloc.get_traced_memory()[1] < 2 * 10**6
    tracemalloc.stop()


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_a_pickle_in_the_place_of_cifar_is_not_opened(tmp_path: Path, name: str, folder: str) -> None:
    code = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    files = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta", "train", "test", "meta"]
    for file in files:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / file).write_bytes(code)
    with pytest.raises(FileError, match=f"does not hold {name} as torchvision unpacks it"):
        load_data(name, options={"folder": str(tmp_path)})
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_comes_through_torchvisions_loader(name: str, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def loader(root: str, *, train: bool, download: bool) -> SimpleNamespace:
        assert (root, download) == ("here", False)
        count = 2 * classes if train else classes
        return SimpleNamespace(
            data=np.full((count, 32, 32, 3), 7, np.uint8), targets=[i % classes for i in range(count)]
        )

    monkeypatch.setattr(named, "import_torchvision", lambda _: SimpleNamespace(CIFAR10=loader, CIFAR100=loader))
    data = load_data(name, options={"folder": "here"})
    assert (data.input_shape, data.classes, data.flip, data.crop_padding) == ((3, 32, 32), classes, True, 4)
    assert data.train_inputs.is_contiguous()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_that_is_not_there_says_what_to_do(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match=f"does not hold {name} as torchvision unpacks it .*allow --download"):
        load_data(name, options={"folder": str(tmp_path)})


def test_limits_take_a_seeded_sample() -> None:
    whole = load_data("digits", options={})
    options = {"train_limit": 100, "test_limit": 50}
    first, same, other = (load_data("digits", options={**options, "seed": seed}) for seed in (1, 1, 2))
    assert (len(first.train_labels), len(first.test_labels)) == (100, 50)
    assert torch.equal(first.train_inputs, same.train_inputs)
    assert not torch.equal(first.train_inputs, other.train_inputs)
    assert len(load_data("digits", options={"train_limit": 10**6}).train_labels) == len(whole.train_labels)


def test_images_grow_and_shrink() -> None:
    assert load_data("digits", options={"image_size": 16}).input_shape == (1, 16, 16)
    small = load_data("digits", options={"image_size": 4})
    whole = load_data("digits", options={})
    means = whole.train_inputs.float().reshape(-1, 1, 4, 2, 4, 2).mean(dim=(3, 5)).round()
    assert torch.equal(small.train_inputs.float(), means)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"size": 3}, "unknown data option 'size', expected one of download, folder"),
        ({"train_limit": -1}, "data option 'train_limit' is -1, expected a valid int"),
        ({"train_limit": "many"}, "data option 'train_limit' is 'many', expected a valid int"),
        ({"download": 1}, "data option 'download' is 1, expected a valid bool"),
    ],
)
def test_bad_options_are_named(option: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_data("digits", options=option)


def test_unknown_data_lists_what_is_known() -> None:
    with pytest.raises(ConfigurationError, match="unknown data 'digit', expected one of cifar10, cifar100, digits"):
        load_data("digit", options={})


def test_a_data_set_and_a_factory_are_taken_as_they_are() -> None:
    data = load_data("digits", options={})
    assert load_data(data, options={}) is data
    assert load_data(lambda: data, options={}) is data

    def chosen(*, name: str) -> Dataset:
        return load_data(name, options={})

    assert load_data(chosen, options={"name": "digits"}).name == "digits"


def test_an_import_path_names_a_factory_or_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from ticketguard.data import load_data\nwhole = load_data('digits', options={})\n"
        "def make(limit=5):\n    return load_data('digits', options={'train_limit': limit})\n"
    )
    (tmp_path / "data_of_a_user.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    assert len(load_data("data_of_a_user:whole", options={}).train_labels) == 1438
    assert len(load_data("data_of_a_user:make", options={"limit": 7}).train_labels) == 7


def test_an_import_path_to_something_else_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="data 'math:pi' gave a float, expected a ticketguard Dataset"):
        load_data("math:pi", options={})


def test_options_a_factory_does_not_take_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"data 'math:floor' does not take the options \['limit'\]"):
        load_data("math:floor", options={"limit": 2})


def test_a_factory_that_raises_is_not_called_a_bug_of_ours() -> None:
    with pytest.raises(ConfigurationError, match=r"data '.*' raised ZeroDivisionError \(division by zero\)"):
        load_data(lambda: 1 / 0, options={})  # type: ignore[arg-type, return-value]

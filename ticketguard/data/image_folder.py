"""Images in class folders, in a folder or a tar archive; an archive is read through, never unpacked."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from ticketguard.data.archives import archive_files, check_size
from ticketguard.data.dataset import DataOptions, Dataset, no_data
from ticketguard.data.image_file import Pixels, decode_image
from ticketguard.data.named import assemble
from ticketguard.errors import ConfigurationError
from ticketguard.files import read_whole

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
IMAGE_LIMIT_BYTES = 64 * 1024 * 1024
# A data set is held in memory whole; an archive that decodes to more than this is not meant for that.
DECODED_LIMIT_BYTES = 16 * 1024**3
# Without test images of its own, a data set gives up every tenth of each class.
HELD_OUT_EVERY = 10


def image_folder(path: Path, options: DataOptions) -> Dataset:
    """Load a folder or tar of class folders.

    Test images are those of ``test_path``, or of a subfolder ``test`` (or ``val``) beside ``train``, or every tenth
    image of each class.

    Raises:
        FileError: There are no images, one cannot be read, or sizes differ and no image size is asked for.
        ConfigurationError: Training and test images have different classes.
    """
    images = _read(path, options.image_size)
    if options.test_path:
        test = _read(Path(options.test_path), options.image_size)
    else:
        images, test = _split(images, path)
    classes = sorted(set(images.classes))
    if classes != sorted(set(test.classes)):
        odd = sorted(set(images.classes) ^ set(test.classes))[0]
        raise ConfigurationError(
            f"class '{odd}' of '{path}' has no images for both training and testing: add some, or name test images "
            "of the same classes"
        )
    return assemble(
        path.name, images.tensor(), images.labels(classes), test.tensor(), test.labels(classes), options,
        flip=True, crop_padding=4,
    )  # fmt: skip


class _Images:
    """Decoded images in one growing buffer, so that no image is held twice; all grey, or all in colour."""

    def __init__(self) -> None:
        self.classes: list[str] = []
        self._buffer = bytearray()
        self._shape: tuple[int, ...] = ()

    def add(self, pixels: Pixels, label: str, *, name: str) -> None:
        """Append an image of shape (channels, height, width)."""
        if self._shape[:1] == (1,) and len(pixels) == 3:  # the first in colour: the grey ones before it become colour
            self._check_room(2 * len(self._buffer), name)
            self._buffer = bytearray(np.repeat(self._pixels(), 3, axis=1).data)
            self._shape = (3, *self._shape[1:])
        elif self._shape[:1] == (3,) and len(pixels) == 1:
            pixels = np.repeat(pixels, 3, axis=0)
        self._shape = self._shape or pixels.shape
        if pixels.shape != self._shape:
            sizes = [f"{shape[2]}x{shape[1]}" for shape in (pixels.shape, self._shape)]
            raise no_data(
                name, f"is an image of {sizes[0]}, those before it have {sizes[1]}", "choose one size with --image-size"
            )
        self._check_room(pixels.size, name)
        self._buffer += np.ascontiguousarray(pixels).data
        self.classes.append(sys.intern(label))

    def _check_room(self, more: int, name: str) -> None:
        if len(self._buffer) + more > DECODED_LIMIT_BYTES:
            raise no_data(
                name,
                f"brings the data set above {DECODED_LIMIT_BYTES} bytes of pixels",
                "choose a smaller --image-size",
            )

    def only(self, chosen: Sequence[int], classes: Sequence[str]) -> _Images:
        """Return the *chosen* images under new class names, one for each of them."""
        part = _Images()
        part.classes, part._shape = list(classes), self._shape
        part._buffer = bytearray(self._pixels()[list(chosen)].tobytes())
        return part

    def tensor(self) -> torch.Tensor:
        """Return the images as a uint8 tensor (images, channels, height, width) that shares the buffer."""
        return torch.from_numpy(self._pixels())

    def labels(self, classes: Sequence[str]) -> torch.Tensor:
        """Return each image's place in *classes*, int64."""
        places = {name: place for place, name in enumerate(classes)}
        return torch.tensor([places[name] for name in self.classes])

    def _pixels(self) -> Pixels:
        return np.frombuffer(self._buffer, dtype=np.uint8).reshape(-1, *self._shape)


def _read(path: Path, size: int) -> _Images:
    images = _Images()
    for name, content in _walk(path):
        full = f"{path}/{name}"
        images.add(decode_image(content, name=full, size=size), PurePosixPath(name).parent.as_posix(), name=full)
    images.classes = _without_common_top(images.classes)
    if len(set(images.classes)) < 2:
        raise no_data(
            path,
            f"holds images in {len(set(images.classes))} class folders, expected 2 or more",
            "put each class into its own folder",
        )
    return images


def _without_common_top(classes: list[str]) -> list[str]:
    """Drop leading folders that all classes share: an archive of "train/cat" and "train/dog" holds cat and dog."""
    paths = {name: name.split("/") for name in set(classes)}
    if len(paths) < 2:
        return classes
    levels = zip(*(path[:-1] for path in paths.values()), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
    short = {name: "/".join(path[shared:]) for name, path in paths.items()}
    return [short[name] for name in classes]


def _walk(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every image's name inside *path* and its content, those of a folder in the order of their names."""
    if not path.is_dir():
        for name, content in archive_files(path, _is_image, limit_bytes=IMAGE_LIMIT_BYTES):
            yield PurePosixPath(name).as_posix(), content
        return
    for file in _files(path):
        name = file.relative_to(path).as_posix()
        inside = _read_regular(file) if _is_image(name) else None
        if inside is not None:
            yield name, inside


def _files(path: Path) -> Iterator[Path]:
    """Yield what lies in a folder and below; linked folders are not entered, so none is entered twice."""
    left = [path]
    while left:
        place = left.pop()
        try:
            if place is path or (place.is_dir() and not place.is_symlink()):
                left += sorted(place.iterdir(), key=lambda inside: inside.name, reverse=True)
            else:
                yield place
        except OSError as error:
            raise no_data(place, f"cannot be read ({error.strerror})", "check its permissions") from error


def _read_regular(file: Path) -> bytes | None:
    """Return a file's content; None for a device, pipe or dangling link. Links to files are followed."""
    try:
        if not file.is_file():
            return None
        check_size(file, file.stat().st_size, IMAGE_LIMIT_BYTES)
    except OSError as error:
        raise no_data(file, f"cannot be read ({error.strerror})", "check its permissions") from error
    return read_whole(file, limit_bytes=IMAGE_LIMIT_BYTES)


def _is_image(name: str) -> bool:
    folder, _, last = name.rpartition("/")
    # Hidden files beside images are other programs' notes: macOS keeps one "._name.jpg" for every "name.jpg".
    if last.startswith(".") or not last.lower().endswith(SUFFIXES):
        return False
    return not set(folder.split("/")) <= {"", "."}


def _split(images: _Images, path: Path) -> tuple[_Images, _Images]:
    tops = {name.split("/", 1)[0] for name in images.classes}
    held_out = next((top for top in ("test", "val") if tops == {"train", top}), None)
    if held_out is not None:
        tested = [name.startswith(f"{held_out}/") for name in images.classes]
        classes = [name.partition("/")[2] for name in images.classes]
    else:
        classes, tested, seen = images.classes, [], dict.fromkeys(images.classes, 0)
        for name in classes:
            tested.append(seen[name] % HELD_OUT_EVERY == 0)
            seen[name] += 1
        scarce = min(seen, key=lambda name: seen[name])
        if seen[scarce] < 2:
            raise no_data(
                f"{path}/{scarce}", "holds 1 image, expected 2 or more: one to train, one to test", "add images"
            )
    halves = [[place for place, is_test in enumerate(tested) if is_test == wanted] for wanted in (False, True)]
    train, test = (images.only(half, [classes[place] for place in half]) for half in halves)
    return train, test

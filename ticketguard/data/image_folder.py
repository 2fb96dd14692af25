"""Images in class folders, in a folder or a tar archive; an archive is read through, never unpacked."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ticketguard.data.dataset import DataOptions, Dataset, no_data, resized
from ticketguard.data.named import assemble
from ticketguard.errors import ConfigurationError

Pixels: TypeAlias = npt.NDArray[np.uint8]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
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
            grey = np.frombuffer(bytes(self._buffer), dtype=np.uint8).reshape(-1, *self._shape)
            self._buffer = bytearray(np.repeat(grey, 3, axis=1).tobytes())
            self._shape = (3, *self._shape[1:])
        elif self._shape[:1] == (3,) and len(pixels) == 1:
            pixels = np.repeat(pixels, 3, axis=0)
        self._shape = self._shape or pixels.shape
        if pixels.shape != self._shape:
            sizes = [f"{shape[2]}x{shape[1]}" for shape in (pixels.shape, self._shape)]
            raise no_data(
                name, f"is an image of {sizes[0]}, those before it have {sizes[1]}", "name one size with --image-size"
            )
        self._buffer += pixels.tobytes()
        if len(self._buffer) > DECODED_LIMIT_BYTES:
            raise no_data(
                name, f"brings the data set above {DECODED_LIMIT_BYTES} bytes of pixels", "name a smaller --image-size"
            )
        self.classes.append(label)

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
        label = PurePosixPath(name).parent.as_posix()
        images.add(_decode(content, f"{path}/{name}", size), label, name=f"{path}/{name}")
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
    while (
        len(set(classes)) > 1 and len({name.split("/", 1)[0] for name in classes}) == 1 and "/" in min(classes, key=len)
    ):
        classes = [name.split("/", 1)[1] if "/" in name else name for name in classes]
    return classes


def _walk(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every image's name inside *path* and its content; links and special files of an archive are passed over."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if _is_image(PurePosixPath(file.relative_to(path).as_posix())) and file.is_file():
                _check_size(file, file.stat().st_size)
                yield file.relative_to(path).as_posix(), file.read_bytes()
        return
    try:
        # A stream is read once from start to end: a compressed archive would be unpacked again for every step back.
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                inside = PurePosixPath(member.name)
                if member.isreg() and _is_image(inside):
                    _check_size(f"{path}/{inside}", member.size)
                    stream = archive.extractfile(member)
                    assert stream is not None
                    yield inside.as_posix(), stream.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise no_data(
            path, f"is neither a folder nor a whole tar archive ({error})", "give a folder or tar of class folders"
        ) from error


def _is_image(name: PurePosixPath) -> bool:
    # Hidden files beside images are other programs' notes: macOS keeps one "._name.jpg" for every "name.jpg".
    return name.suffix.lower() in SUFFIXES and len(name.parts) >= 2 and not name.name.startswith(".")


def _check_size(name: object, size: int) -> None:
    if size > IMAGE_LIMIT_BYTES:
        raise no_data(name, f"has {size} bytes, expected at most {IMAGE_LIMIT_BYTES}", "shrink it or leave it out")


def _decode(content: bytes, name: str, size: int) -> Pixels:
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("L" if image.mode in ("L", "1") else "RGB"), dtype=np.uint8)
    # Pillow's decoders raise SyntaxError for broken PNG chunks.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise no_data(name, f"is no readable image ({error})", "replace it or leave it out") from error
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return resized(torch.from_numpy(np.array(planes))[None], size)[0].numpy() if size else planes


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

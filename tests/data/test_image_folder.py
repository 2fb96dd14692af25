from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from images import png, write_folder, write_tar

from ticketguard.data import load_data
from ticketguard.errors import ConfigurationError, FileError

# The package re-exports a function under the name of this module.
MODULE = sys.modules["ticketguard.data.image_folder"]
PETS = {
    f"{kind}/{number}.png": png(value + number) for kind, value in (("cat", 10), ("dog", 100)) for number in range(20)
}


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz")])
def test_an_archive_and_a_folder_hold_the_same_data(tmp_path: Path, suffix: str, mode: str) -> None:
    from_folder = load_data(str(write_folder(tmp_path / "pets", dict(sorted(PETS.items())))), options={})
    from_archive = load_data(str(write_tar(tmp_path / f"pets.{suffix}", dict(sorted(PETS.items())), mode)), options={})
    assert torch.equal(from_folder.train_inputs, from_archive.train_inputs)
    assert torch.equal(from_folder.test_labels, from_archive.test_labels)
    assert from_archive.input_shape == (3, 8, 8)
    assert from_archive.train_inputs.dtype == torch.uint8


def test_every_tenth_image_of_each_class_is_for_testing(tmp_path: Path) -> None:
    data = load_data(str(write_tar(tmp_path / "pets.tar", PETS)), options={})
    assert (len(data.train_labels), data.test_labels.tolist()) == (36, [0, 0, 1, 1])
    assert data.test_inputs[:, 0, 0, 0].tolist() == [10, 20, 100, 110]


def test_labels_follow_the_class_names_whatever_the_order_in_the_archive(tmp_path: Path) -> None:
    mixed = dict(sorted(PETS.items(), key=lambda item: item[0].split("/")[1] + item[0]))
    data = load_data(str(write_tar(tmp_path / "pets.tar", mixed)), options={})
    assert torch.equal(data.train_inputs[:, 0, 0, 0] >= 100, data.train_labels == 1)


@pytest.mark.parametrize("held_out", ["test", "val"])
@pytest.mark.parametrize("top", ["", "pets/"])
def test_train_and_test_folders_are_taken_as_they_are(tmp_path: Path, held_out: str, top: str) -> None:
    files = {f"{top}train/{name}": content for name, content in PETS.items()}
    files |= {f"{top}{held_out}/{kind}/x.png": png(value) for kind, value in (("cat", 1), ("dog", 2))}
    data = load_data(str(write_tar(tmp_path / "pets.tar", files)), options={})
    assert (len(data.train_labels), data.test_labels.tolist()) == (40, [0, 1])
    assert data.test_inputs[:, 0, 0, 0].tolist() == [1, 2]


def test_a_test_archive_with_another_top_folder_fits(tmp_path: Path) -> None:
    train = write_tar(tmp_path / "train.tar", {f"train/{name}": content for name, content in PETS.items()})
    test = write_tar(tmp_path / "test.tar", {"test/cat/x.png": png(7), "test/dog/x.png": png(8)})
    data = load_data(str(train), options={"test_path": str(test)})
    assert (len(data.train_labels), data.test_labels.tolist()) == (40, [0, 1])


def test_images_are_resized_by_area(tmp_path: Path) -> None:
    data = load_data(str(write_tar(tmp_path / "pets.tar", PETS)), options={"image_size": 4})
    assert data.input_shape == (3, 4, 4)
    assert data.test_inputs[:, 0, 0, 0].tolist() == [10, 20, 100, 110]


def test_grey_images_stay_grey_and_become_colour_beside_coloured_ones(tmp_path: Path) -> None:
    grey = {name: png(9, mode="L") for name in PETS}
    assert load_data(str(write_tar(tmp_path / "g.tar", grey)), options={}).input_shape == (1, 8, 8)
    for odd in ("cat/0.png", "cat/7.png", "dog/19.png"):
        data = load_data(str(write_tar(tmp_path / "m.tar", {**grey, odd: png(9)})), options={})
        assert data.input_shape == (3, 8, 8)
        assert (data.train_inputs == 9).all()


def test_links_devices_and_hidden_files_of_an_archive_are_passed_over(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "pets.tar", {**PETS, "cat/._0.png": b"notes", "README.txt": b"pets"})
    with tarfile.open(path, "a") as archive:
        for kind, name in (
            (tarfile.SYMTYPE, "cat/link.png"),
            (tarfile.LNKTYPE, "cat/hard.png"),
            (tarfile.FIFOTYPE, "cat/p.png"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    data = load_data(str(path), options={})
    assert len(data.train_labels) + len(data.test_labels) == len(PETS)


def test_names_that_climb_out_of_an_archive_touch_no_file(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    path = write_tar(tmp_path / "inside" / "pets.tar", {**PETS, "../../cat/0.png": png(1), "/abs/cat/1.png": png(1)})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileError, match="holds 1 image, expected 2 or more"):
        load_data(str(path), options={})
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"pets\.tar/dog/3\.png': is not a readable image"):
        load_data(str(write_tar(tmp_path / "pets.tar", {**PETS, "dog/3.png": png(3)[:45]})), options={})


def test_images_of_two_sizes_are_refused_unless_one_is_asked_for(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "pets.tar", {**PETS, "dog/9.png": png(1, size=(9, 8))})
    with pytest.raises(
        FileError, match="is an image of 9x8, those before it have 8x8: choose one size with --image-size"
    ):
        load_data(str(path), options={})
    assert load_data(str(path), options={"image_size": 8}).input_shape == (3, 8, 8)


def test_one_class_is_no_data_set(tmp_path: Path) -> None:
    only = {name: content for name, content in PETS.items() if name.startswith("cat")}
    with pytest.raises(FileError, match="holds images in 1 class folders, expected 2 or more"):
        load_data(str(write_tar(tmp_path / "pets.tar", only)), options={})


def test_a_folder_without_images_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="holds images in 0 class folders"):
        load_data(str(tmp_path), options={})


def test_a_class_of_one_image_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"pets\.tar/emu': holds 1 image, expected 2 or more"):
        load_data(str(write_tar(tmp_path / "pets.tar", {**PETS, "emu/0.png": png(1)})), options={})


def test_other_classes_in_the_test_images_are_refused(tmp_path: Path) -> None:
    train = write_tar(tmp_path / "train.tar", PETS)
    test = write_tar(tmp_path / "test.tar", {"cat/0.png": png(1), "emu/0.png": png(1)})
    with pytest.raises(ConfigurationError, match="class 'dog' of '.*' has no images for both training and testing"):
        load_data(str(train), options={"test_path": str(test)})


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00broken gzip"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pets.tar").write_bytes(content)
    with pytest.raises(FileError, match="is neither a folder nor a whole tar archive|holds images in 0"):
        load_data(str(tmp_path / "pets.tar"), options={})


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "pets.tar.gz", PETS, "w:gz").read_bytes()
    (tmp_path / "pets.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match="is neither a folder nor a whole tar archive"):
        load_data(str(tmp_path / "pets.tar.gz"), options={})


@pytest.mark.parametrize("write", [write_folder, write_tar])
def test_an_oversized_file_is_refused_before_it_is_read(
    tmp_path: Path, write: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "IMAGE_LIMIT_BYTES", 10)
    with pytest.raises(FileError, match=r"has \d+ bytes, expected at most 10: shrink it"):
        load_data(str(write(tmp_path / "pets", PETS)), options={})  # type: ignore[operator]


def test_an_archive_that_decodes_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "DECODED_LIMIT_BYTES", 1000)
    with pytest.raises(FileError, match=r"cat/5\.png': brings the data set above 1000 bytes of pixels"):
        load_data(str(write_tar(tmp_path / "pets.tar", PETS)), options={})


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 16)
    with pytest.raises(FileError, match="is not a readable image"):
        load_data(str(write_tar(tmp_path / "pets.tar", PETS)), options={})


def test_an_archive_can_come_through_a_name_without_a_suffix(tmp_path: Path) -> None:
    stream = io.BytesIO(write_tar(tmp_path / "pets.tar.xz", PETS, "w:xz").read_bytes())
    (tmp_path / "download").write_bytes(stream.read())
    assert load_data(str(tmp_path / "download"), options={}).classes == 2

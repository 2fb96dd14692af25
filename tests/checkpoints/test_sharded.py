from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from ticketguard.checkpoints import Checkpoint, sharded
from ticketguard.errors import FileError, TicketguardError

STATE = {
    f"blocks.{index}.weight": np.random.default_rng(index).normal(size=(8, 8)).astype(np.float32) for index in range(4)
}
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
MAP = {name: FIRST if index < 2 else SECOND for index, name in enumerate(STATE)}


def write_index(folder: Path, weight_map: Any, name: str = "model.safetensors.index.json") -> Path:
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1024}, "weight_map": weight_map}))
    return folder / name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in (FIRST, SECOND):
        part = {name: array for name, array in STATE.items() if MAP[name] == file}
        safetensors.numpy.save_file(part, tmp_path / file)
    write_index(tmp_path, MAP)
    return tmp_path


def test_the_index_and_its_folder_read_as_the_whole_network(folder: Path) -> None:
    for path in (folder, folder / "model.safetensors.index.json"):
        suspect = Checkpoint(path)
        assert set(suspect.names()) == set(STATE)
        assert suspect.type_name("blocks.3.weight") == "F32"
        # Back and forth between the files.
        for name in (*STATE, *reversed(STATE)):
            np.testing.assert_array_equal(suspect.read(name), STATE[name])


def test_an_index_may_start_with_white_space(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text("\n  " + index.read_text())
    assert set(Checkpoint(index).names()) == set(STATE)


def test_an_index_is_found_from_inside_its_folder_and_through_a_link(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path_factory.mktemp("links") / "model"
    link.symlink_to(folder)
    assert set(Checkpoint(link).names()) == set(STATE)
    monkeypatch.chdir(folder)
    for path in (".", "model.safetensors.index.json"):
        assert set(Checkpoint(path).names()) == set(STATE)


@pytest.mark.parametrize("tensors", [{"blocks.0.weight": np.ones((8, 9), np.float32)}, {"other": np.ones(3)}])
def test_a_file_that_is_replaced_after_the_index_was_read_is_noticed(
    tensors: dict[str, np.ndarray], folder: Path
) -> None:
    suspect = Checkpoint(folder)
    suspect.read("blocks.3.weight")  # lets go of the first file
    safetensors.numpy.save_file(tensors, folder / FIRST)
    with pytest.raises(
        FileError, match=rf"{FIRST}': has changed while it was read: use a copy that nothing is writing to"
    ):
        suspect.read("blocks.0.weight")


def test_shards_in_torchs_format_are_read(tmp_path: Path) -> None:
    weight_map = {
        name: file.replace("model", "pytorch_model").replace("safetensors", "bin") for name, file in MAP.items()
    }
    for file in set(weight_map.values()):
        part = {name: torch.from_numpy(array) for name, array in STATE.items() if weight_map[name] == file}
        torch.save(part, tmp_path / file)
    write_index(tmp_path, weight_map, "pytorch_model.bin.index.json")
    suspect = Checkpoint(tmp_path)
    for name, array in STATE.items():
        np.testing.assert_array_equal(suspect.read(name), array)


def test_a_lone_shard_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(
        FileError, match=r"model-00001-of-00002.safetensors': is file 1 of 2 of one checkpoint, and not"
    ):
        Checkpoint(folder / FIRST)
    with pytest.raises(FileError, match=r"name the \*.index.json beside it, or the folder"):
        Checkpoint(folder / FIRST)


def test_a_shard_of_another_name_is_refused_by_its_index(folder: Path) -> None:
    (folder / FIRST).rename(folder / "part_a.safetensors")
    write_index(folder, {name: file.replace(FIRST, "part_a.safetensors") for name, file in MAP.items()})
    with pytest.raises(FileError, match=r"is one file of 2 that 'model.safetensors.index.json' names"):
        Checkpoint(folder / "part_a.safetensors")


def test_a_file_beside_an_index_that_does_not_name_it_is_a_network_of_its_own(folder: Path) -> None:
    safetensors.numpy.save_file(STATE, folder / "adapter.safetensors")
    assert set(Checkpoint(folder / "adapter.safetensors").names()) == set(STATE)


def test_the_only_file_of_an_index_is_a_whole_network(tmp_path: Path) -> None:
    safetensors.numpy.save_file(STATE, tmp_path / "model.safetensors")
    write_index(tmp_path, dict.fromkeys(STATE, "model.safetensors"))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert set(Checkpoint(path).names()) == set(STATE)


@pytest.mark.parametrize("content", ["[]", "3", "{", '{"weight_map": ["s.safetensors"]}', '{"weight_map": {"a": 3}}'])
def test_a_file_beside_something_that_is_not_an_index_is_read(content: str, tmp_path: Path) -> None:
    (tmp_path / "other.index.json").write_text(content)
    safetensors.numpy.save_file(STATE, tmp_path / "s.safetensors")
    assert set(Checkpoint(tmp_path / "s.safetensors").names()) == set(STATE)


def test_an_index_of_some_of_the_files_is_not_a_whole_network(folder: Path) -> None:
    index = write_index(folder, {name: file for name, file in MAP.items() if file == FIRST})
    with pytest.raises(
        FileError, match=r"names 1 files, one of them 'model-00001-of-00002.safetensors', expected all 2"
    ):
        Checkpoint(index)
    with pytest.raises(FileError, match="is file 1 of 2 of one checkpoint"):
        Checkpoint(folder / FIRST)


def test_a_checkpoint_in_one_file_of_one_is_whole(tmp_path: Path) -> None:
    safetensors.numpy.save_file(STATE, tmp_path / "model-00001-of-00001.safetensors")
    assert set(Checkpoint(tmp_path / "model-00001-of-00001.safetensors").names()) == set(STATE)


def test_a_folder_with_two_indexes_is_asked_about(folder: Path) -> None:
    write_index(folder, MAP, "other.index.json")
    with pytest.raises(FileError, match="is a folder with 2 checkpoints"):
        Checkpoint(folder)


@pytest.mark.parametrize(
    "file",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "..\\secret",
        "sub/model.safetensors",
        "..",
        ".",
        "",
        "a\0b",
        "C:x",
        "\ud800",
        "a" * 5000,
        "é" * 128,
    ],
)
def test_an_index_never_leads_out_of_its_folder(file: str, folder: Path) -> None:
    safetensors.numpy.save_file(STATE, folder.parent / "secret.safetensors")
    index = write_index(folder, dict.fromkeys(STATE, file))
    with pytest.raises(FileError, match="expected the plain name of a file beside it|surrogates not allowed"):
        Checkpoint(index)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "model.safetensors"
    safetensors.numpy.save_file(STATE, outside)
    (folder / "linked.safetensors").symlink_to(outside)
    with pytest.raises(FileError, match=r"'linked.safetensors', which is a link out of its folder"):
        Checkpoint(write_index(folder, dict.fromkeys(STATE, "linked.safetensors")))


def test_the_hugging_face_caches_links_are_followed(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    safetensors.numpy.save_file(STATE, blobs / "d0d0")
    (snapshot / "model.safetensors").symlink_to("../../blobs/d0d0")
    write_index(snapshot, dict.fromkeys(STATE, "model.safetensors"))
    assert set(Checkpoint(snapshot).names()) == set(STATE)


def test_a_pipe_in_an_index_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.safetensors")
    with pytest.raises(FileError, match="'pipe.safetensors', which is not a regular file"):
        Checkpoint(write_index(folder, dict.fromkeys(STATE, "pipe.safetensors")))


def test_files_that_are_missing_or_disagree_are_told(folder: Path) -> None:
    with pytest.raises(FileError, match=r"'gone.safetensors', which is not there"):
        Checkpoint(write_index(folder, MAP | {"blocks.0.weight": "gone.safetensors"}))
    with pytest.raises(FileError, match=r"says that 'more.weight' is in 'model-00001"):
        Checkpoint(write_index(folder, MAP | {"more.weight": FIRST}))
    with pytest.raises(FileError, match=r"says that 'blocks.3.weight' is not in 'model-00002"):
        Checkpoint(write_index(folder, {name: file for name, file in MAP.items() if name != "blocks.3.weight"}))


@pytest.mark.parametrize(
    "content",
    [
        '{"weight_map": {"a": "x", "a": "y"}}',
        '{"weight_map": ' + "[" * 100_000,
        '{"a":' * 100_000,
        '{"weight_map": {"a": 3}}',
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": ["x"]}}',
        "{}",
        '{"weight_map": ',
        '{"weight_map": {"a": NaN}}',
        json.dumps({"weight_map": {str(number): f"{number}.bin" for number in range(1001)}}),
    ],
)
def test_a_malformed_index_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "model.index.json").write_text(content)
    with pytest.raises(FileError, match=r"model.index.json"):
        Checkpoint(tmp_path / "model.index.json")


def test_an_index_names_so_many_files_and_no_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "MAX_SHARDS", 2)
    assert set(Checkpoint(folder).names()) == set(STATE)
    monkeypatch.setattr(sharded, "MAX_SHARDS", 1)
    with pytest.raises(FileError, match="names 2 files, expected at most 1"):
        Checkpoint(folder)


def test_a_huge_index_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "model.index.json").open("wb") as stream:
        stream.write(b"{")
        stream.truncate(2**34)
    with pytest.raises(TicketguardError, match=r"model.index.json"):
        Checkpoint(tmp_path / "model.index.json")


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot be read \(File name too long\)"):
        Checkpoint(tmp_path / ("a" * 5000))


def test_an_index_within_an_index_is_not_followed(folder: Path) -> None:
    write_index(folder, dict.fromkeys(STATE, "model.safetensors.index.json"))
    with pytest.raises(FileError, match="safetensors"):
        Checkpoint(folder / "model.safetensors.index.json")

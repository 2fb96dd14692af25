from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ticketguard.errors import FileError, TensorError
from ticketguard.suspects import Checkpoint
from ticketguard.suspects.torch_file import MAX_INSTRUCTION_BYTES, TorchFile

STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)}


class TouchesAFile:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.witness),)


class Calls:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_torch_file_is_not_run(zipped: bool, tmp_path: Path) -> None:
    witness, path = tmp_path / "witness", tmp_path / "evil.pt"
    torch.save({**STATE, "x": TouchesAFile(witness)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileError, match=r"holds more than tensors \('(posix|nt).mkdir'\); its code was not run"):
        Checkpoint(path)
    assert not witness.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_plain_pickle_is_not_run(protocol: int, tmp_path: Path) -> None:
    witness, path = tmp_path / "witness", tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"w": TouchesAFile(witness)}, protocol=protocol))
    with pytest.raises(FileError, match=r"is a pickle, which can hold code|expected a safetensors or torch checkpoint"):
        Checkpoint(path)
    assert not witness.exists()
    pickle.loads(path.read_bytes())
    assert witness.exists()  # so the file would have run its code


@pytest.mark.parametrize("protocol", range(2, 6))
def test_code_in_every_pickle_protocol_inside_a_torch_file_is_not_run(protocol: int, tmp_path: Path) -> None:
    witness, path = tmp_path / "witness", tmp_path / "evil.pt"
    torch.save({**STATE, "x": TouchesAFile(witness)}, path, pickle_protocol=protocol)
    with pytest.raises(FileError, match="holds more than tensors"):
        Checkpoint(path)
    assert not witness.exists()


def test_what_torch_was_told_to_trust_is_still_refused(tmp_path: Path) -> None:
    witness, path = tmp_path / "witness", tmp_path / "evil.pt"
    torch.save({**STATE, "x": TouchesAFile(witness)}, path)
    with torch.serialization.safe_globals([os.mkdir]), pytest.raises(FileError, match="holds more than tensors"):
        Checkpoint(path)
    assert not witness.exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(FileError, match=r"torch.nn.modules.linear.Linear.*save model.state_dict\(\) alone"):
        Checkpoint(tmp_path / "model.pt")


def test_an_instruction_that_eats_memory_is_refused(tmp_path: Path) -> None:
    torch.save({**STATE, "x": Calls(bytearray, 2**50)}, tmp_path / "bomb.pt")
    with pytest.raises(FileError, match="bytearray"):
        Checkpoint(tmp_path / "bomb.pt")


def with_instructions(folder: Path, instructions: bytes) -> Path:
    with zipfile.ZipFile(folder / "made.pt", "w") as archive:
        archive.writestr("made/data.pkl", instructions)
        archive.writestr("made/version", "3")
    return folder / "made.pt"


@pytest.mark.parametrize("detour", [b"", b"(u", b"(e"])
def test_tuples_that_take_for_ever_to_hash_are_never_hashed(detour: bytes, tmp_path: Path) -> None:
    level = b"h\x01h\x01\x86" + detour + b"q\x01"
    path = with_instructions(tmp_path, b"\x80\x02}(K\x01\x85q\x01" + 60 * level + b"tK\x01s.")
    with pytest.raises(FileError, match=r"holds no state dict, only \[\]|its instructions are damaged"):
        Checkpoint(path)


def test_instructions_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    path = with_instructions(tmp_path, b"\x80\x02}0.")
    with pytest.raises(FileError, match=r"is not a whole torch checkpoint \(its instructions are damaged\)"):
        Checkpoint(path)


def test_torchscript_is_refused_not_run(tmp_path: Path) -> None:
    # torch.jit.save compresses the program's text.
    with zipfile.ZipFile(tmp_path / "script.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("script/constants.pkl", b"")
        archive.writestr("script/data.pkl", b"")
    with pytest.raises(FileError, match="is a TorchScript program, which is never run"):
        Checkpoint(tmp_path / "script.pt")


def test_a_zip_bomb_is_refused_unopened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10**6))
    with pytest.raises(FileError, match="has compressed entries"):
        Checkpoint(tmp_path / "bomb.pt")


def test_another_zip_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", w=np.ones((2, 2)))
    with pytest.raises(FileError, match=r"is a zip file with 0 entries 'data.pkl', expected one"):
        Checkpoint(tmp_path / "arrays.npz")


def test_endless_names_and_shapes_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "long.pt", "w") as archive:
        archive.writestr("long/data.pkl", bytes(MAX_INSTRUCTION_BYTES + 1))
    with pytest.raises(FileError, match="bytes of names and shapes"):
        Checkpoint(tmp_path / "long.pt")


def test_endless_instructions_in_the_old_format_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(STATE, buffer, _use_new_zipfile_serialization=False)
    magic_end = buffer.getvalue().index(b".") + 1
    padding = pickle.dumps(bytes(MAX_INSTRUCTION_BYTES + 1), protocol=3)
    (tmp_path / "long.pt").write_bytes(buffer.getvalue()[:magic_end] + padding + buffer.getvalue()[magic_end:])
    with pytest.raises(FileError, match="bytes of names and shapes"):
        Checkpoint(tmp_path / "long.pt")


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(2**20, 2**20)}, tmp_path / "expanded.pt")
    with pytest.raises(TensorError, match=rf"'w' has {2**40} elements in a file of \d+ bytes"):
        Checkpoint(tmp_path / "expanded.pt")


def test_a_storage_that_claims_more_than_the_file_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1, 3)}, tmp_path / "s.pt")
    with zipfile.ZipFile(tmp_path / "s.pt") as honest, zipfile.ZipFile(tmp_path / "lies.pt", "w") as lying:
        for entry in honest.infolist():
            content = honest.read(entry)
            if entry.filename.endswith("data.pkl"):
                # BININT1 3 is the storage's length and the shape's last axis; BININT 2^30 elements are not in the file.
                content = content.replace(b"K\x03", b"J\x00\x00\x00\x40")
            lying.writestr(entry.filename, content)
    with pytest.raises((FileError, TensorError), match=r"is not a whole torch checkpoint|elements in a file of"):
        Checkpoint(tmp_path / "lies.pt")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_a_nested_state_dict_is_found(key: str, tmp_path: Path) -> None:
    momentum = {
        "state": {0: {"exp_avg": torch.ones(2, 3)}},
        "param_groups": 2 * [{"betas": (0.9, 0.999), "params": [0]}],
    }
    torch.save({"epoch": 3, "optimizer": momentum, key: STATE}, tmp_path / "c.pt")
    assert TorchFile(tmp_path / "c.pt").names() == ("fc.weight", "fc.bias")


@pytest.mark.parametrize("document", [{"epoch": 3}, [1, 2], {"bias": torch.ones(3)}])
def test_a_file_without_a_state_dict_says_what_it_holds(document: Any, tmp_path: Path) -> None:
    torch.save(document, tmp_path / "c.pt")
    with pytest.raises(FileError, match=r"holds no state dict, only (\['(epoch|bias)'\]|list)"):
        Checkpoint(tmp_path / "c.pt")


def test_reduced_precision_transposed_and_tied_tensors_read(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    state = {"b": base.bfloat16(), "t": base.t(), "tied": base, "p": torch.nn.Parameter(base.half())}
    torch.save(state, tmp_path / "c.pt")
    suspect = Checkpoint(tmp_path / "c.pt")
    assert suspect.type_name("b") == "bfloat16"
    for name in ("b", "tied", "p"):
        np.testing.assert_array_equal(suspect.read(name), base.numpy())
    np.testing.assert_array_equal(suspect.read("t"), base.t().numpy())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        TorchFile(tmp_path / "nowhere.pt")


def test_a_whole_training_checkpoint_is_read(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    groups = [{"params": model[0].parameters()}, {"params": [model[1].bias]}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    states = {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    torch.save({**states, "epoch": 3, "random": torch.get_rng_state()}, tmp_path / "c.pt")
    suspect = Checkpoint(tmp_path / "c.pt")
    np.testing.assert_array_equal(suspect.read("1.weight"), model[0].weight.detach().numpy())

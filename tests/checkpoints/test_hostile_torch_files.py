"""Torch files that run code, lie about what they hold or ask for more than they are: refused, and none of it is run."""

from __future__ import annotations

import collections
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

from tests.checkpoints.torch_files import STATE, tensor, with_instructions, with_tensor
from ticketguard.checkpoints import Checkpoint, stored_tensors
from ticketguard.checkpoints.torch_file import LEGACY_MAGIC, MAX_INSTRUCTION_BYTES, TorchFile
from ticketguard.checkpoints.torch_pickle import MAX_INSTRUCTIONS
from ticketguard.errors import FileError, TensorError


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
    # The first two protocols are text, and start like one.
    reason = "is a pickle, which can hold code" if protocol >= 2 else "expected a safetensors or torch checkpoint"
    with pytest.raises(FileError, match=reason):
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


@pytest.mark.parametrize("detour", [b"", b"(u", b"(e"])
def test_tuples_that_take_for_ever_to_hash_are_never_hashed(detour: bytes, tmp_path: Path) -> None:
    level = b"h\x01h\x01\x86" + detour + b"q\x01"
    path = with_instructions(tmp_path, b"\x80\x02}(K\x01\x85q\x01" + 60 * level + b"tK\x01s.")
    with pytest.raises(FileError, match=r"does not hold a state dict, only \[\]|its instructions are damaged"):
        Checkpoint(path)


def test_instructions_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    path = with_instructions(tmp_path, b"\x80\x02}0.")
    with pytest.raises(FileError, match=r"is not a whole torch checkpoint \(its instructions are damaged\)"):
        Checkpoint(path)


@pytest.mark.parametrize("entry", ["archive/archive_format", "serialized_exported_program.json"])
def test_a_program_of_torch_export_is_named(tmp_path: Path, entry: str) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("archive/data/weights/weight_0", b"1234")
        archive.writestr(entry, b"pt2")
    with pytest.raises(FileError, match=r"is a program of torch.export \(.pt2\), which is never run: .*state_dict"):
        Checkpoint(tmp_path / "m.pt2")


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


def rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """Write a checkpoint again with other contents of its entries."""
    with zipfile.ZipFile(path) as honest:
        contents = {entry.filename: honest.read(entry) for entry in honest.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, change(name.partition("/")[2], content))
    return path


@pytest.mark.parametrize(
    ("record", "content", "reason"),
    [
        ("byteorder", b"big", "its record 'byteorder' says b'big', expected b'little'"),
        ("version", b"11\n", "its record 'version' says b'11'"),
        ("data/0", bytes(23), "storage '0' has 23 bytes, expected 24"),
        ("data/0", bytes(25), "storage '0' has 25 bytes, expected 24"),
    ],
)
def test_records_that_change_how_values_are_read_are_not_passed_over(
    record: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    torch.save(STATE, tmp_path / "s.pt")
    path = rewritten(tmp_path / "s.pt", lambda name, old: content if name == record else old)
    with pytest.raises(FileError, match=reason):
        TorchFile(path)


def test_a_storage_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="storage '0' has None bytes, expected 24"):
        Checkpoint(with_instructions(tmp_path, tensor(numel=6, size=(2, 3), stride=(3, 1))))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"offset": 1}, "'w' reaches beyond the 24 bytes that it is stored in"),
        ({"stride": (4, 1)}, "'w' reaches beyond the 24 bytes"),
        ({"offset": 2**62}, "'w' reaches beyond the 24 bytes"),
        ({"stride": (2**62, 2**62)}, "'w' reaches beyond the 24 bytes"),
        ({"offset": -1}, "its instructions are damaged"),
        ({"stride": (3, -1)}, "its instructions are damaged"),
        ({"size": (2, -3)}, "its instructions are damaged"),
        ({"size": (2, 2**63)}, "its instructions are damaged"),
        ({"size": (2,)}, "its instructions are damaged"),
        ({"size": (1,) * 65, "stride": (1,) * 65}, "a tensor has 65 axes, expected at most 64"),
        ({"size": (0, 2**40)}, "'w' has no elements, and a shape of"),
        ({"size": (2**62, 2**62, 0), "stride": (1, 1, 1)}, "'w' has no elements, and a shape of"),
        ({"size": (2**40, 2**40), "stride": (0, 0)}, "'w' has 1208925819614629174706176 elements in a file of"),
        ({"numel": 2**62}, f"storage '0' has 24 bytes, expected {4 * 2**62}"),
        ({"numel": -6}, "a reference that is not a tensor's storage"),
        ({"kind": "DoubleStorage"}, "storage '0' has 24 bytes, expected 48"),
    ],
)
def test_places_outside_their_storage_and_impossible_shapes_are_refused(
    arguments: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = with_tensor(tmp_path, bytes(24), **{"numel": 6, "size": (2, 3), "stride": (3, 1), **arguments})
    with pytest.raises((FileError, TensorError), match=reason):
        Checkpoint(path)


def test_thousands_of_names_for_the_same_values_are_refused(tmp_path: Path) -> None:
    base = torch.ones(2**19)
    torch.save({f"w{index}": base[index:].reshape(1, -1) for index in range(3000)}, tmp_path / "s.pt")
    with pytest.raises(FileError, match="has 3000 tensors that take 62.* bytes, stored in 2.*save each tensor once"):
        Checkpoint(tmp_path / "s.pt")


def test_names_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_tensors, "MAX_TENSORS", 100)
    first = b"ctorch._utils\n_rebuild_tensor_v2\nq\x000(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x01tQq\x010"
    pair = b"(K\x01K\x01tq\x020"
    again = b"h\x00(h\x01K\x00h\x02h\x02tR"
    names = b"".join(b"U\x05%05d" % index + again for index in range(101))
    path = with_instructions(tmp_path, b"\x80\x02" + first + pair + b"}(" + names + b"u.")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("made/data/0", bytes(4))
    with pytest.raises(FileError, match="has 101 tensors, expected at most 100"):
        TorchFile(path)


def test_views_with_gaps_count_with_their_gaps(tmp_path: Path) -> None:
    base = torch.ones(2**20)
    torch.save({f"w{index}": base[index :: 2**19].reshape(1, -1) for index in range(3000)}, tmp_path / "s.pt")
    with pytest.raises(FileError, match="has 3000 tensors that take .* bytes"):
        Checkpoint(tmp_path / "s.pt")


def test_what_is_set_on_a_state_dict_is_dropped(tmp_path: Path) -> None:
    # 147 bytes: the old format, and a state dict whose state replaces its own method `items`.
    made = b"ccollections\nOrderedDict\n)R}U\x05itemsK\x00sb"
    (tmp_path / "s.pt").write_bytes(
        LEGACY_MAGIC + b"\x80\x02M\xe9\x03.\x80\x02}U\rlittle_endian\x88s.\x80\x02" + made + b".\x80\x02]."
    )
    with pytest.raises(FileError, match=r"does not hold a state dict, only \[\]"):
        Checkpoint(tmp_path / "s.pt")


def legacy_file(path: Path) -> bytes:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda c: c.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"),
            "not written in little-endian order",
        ),
        (lambda c: c.replace(b"M\xe9\x03.", b"M\xe8\x03."), "it is not of version 1001"),
        (lambda c: c + b"x", "bytes, expected"),
        (lambda c: c[:-1], "bytes, expected"),
        (lambda c: c[:200], "its instructions are damaged"),
        (lambda c: c[: c.rindex(b"\x80\x02]")] + b"\x80\x02].", "its list of storages and its tensors differ"),
        (lambda c: c[: c.rindex(b"\x80\x02]")] + b"\x80\x02}.", "it does not list its storages"),
        (lambda c: c.replace(b"\x06\0\0\0\0\0\0\0", b"\x07\0\0\0\0\0\0\0"), "has 7 elements, expected 6"),
    ],
)
def test_old_files_that_lie_are_refused(change: Callable[[bytes], bytes], reason: str, tmp_path: Path) -> None:
    content = legacy_file(tmp_path / "s.pt")
    assert change(content) != content
    (tmp_path / "s.pt").write_bytes(change(content))
    with pytest.raises(FileError, match=reason):
        Checkpoint(tmp_path / "s.pt")


@pytest.mark.parametrize(
    ("instructions", "reason"),
    [
        (b"\x80\x02" + (MAX_INSTRUCTIONS + 1) * b"N" + b".", f"it has more than {MAX_INSTRUCTIONS} instructions"),
        # A list of ten thousand pairs, made into a dict ten thousand times.
        (
            b"\x80\x02]("
            + 10_000 * b"U\x01aN\x86"
            + b"e\x85q\x00ccollections\nOrderedDict\nq\x01"
            + 10_000 * b"h\x01h\x00R0",
            f"it has more than {MAX_INSTRUCTIONS} instructions",
        ),
        (b"\x80\x02Nr\xff\xff\xff\xff.", "its instructions are damaged"),
        (b"\x80\x02}(.", "its instructions are damaged"),
        (b"\x80\x02}(0.", "does not hold a state dict"),
        (b"\x80\x02}}.", "its instructions are damaged"),
        (b"\x80\x02}.N", "something follows its instructions"),
        (b"\x80\x02}((\x86.", "its instructions are damaged"),
        (b"\x80\x02h\x05.", "its instructions are damaged"),
        (b"\x80\x02}NNNu.", "its instructions are damaged"),
        (b"\x80\x02}(Nu.", "its instructions are damaged"),
        (b"\x80\x02}Na.", "its instructions are damaged"),
        (b"\x80\x02NNNs.", "its instructions are damaged"),
        (b"\x80\x02N)R.", "its instructions are damaged"),
        (b"\x80\x02ctorch\nSize\nNR.", "its instructions are damaged"),
        (b"\x80\x02ctorch\nSize\nN\x85R.", "its instructions are damaged"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "holds more than tensors \\('a call of torch.FloatStorage'"),
        (b"\x80\x02ctorch._utils\n_rebuild_parameter\nN\x85R.", "its instructions are damaged"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n)R.", "its instructions are damaged"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))tR.", "its instructions are damaged"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n(NK\x00))\x89Nctorch\nint8\ntR.", "its instructions are damaged"),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n(NK\x00))\x89Nctorch\nint8\n}U\x03neg\x88stR.",
            "a tensor that is negated or conjugated when it is read",
        ),
        (b"\x80\x02ctorch\ndevice\nNR.", "its instructions are damaged"),
        (b"\x80\x02}(NN1.", "does not hold a state dict"),
        (b"\x80\x02}(N0N1.", "does not hold a state dict"),
        (
            b"\x80\x02(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x06K\x01tQ.",
            "a reference that is not a tensor's storage",
        ),
        (b"\x80\x02ctorch\nSi\\x7ae\n.", r"torch.Si\\x7ae"),
        (b"\x80\x02ctorch\nSize", "its instructions are damaged"),
        (b"\x80\x02NN\x93.", "its instructions are damaged"),
        (b"\x80\x02U\x05posixU\x06system\x93.", "posix.system"),
        (b"\x80\x02ctorch\nSize\nNb.", "the instruction BUILD"),
        (b"\x80\x02N\x81.", r"the instruction b'\\x81'"),
        (b"\x80\x02N2.", r"the instruction b'2'"),
        (b"\x80\x02\x82\x01.", r"the instruction b'\\x82'"),
        (b"\x80\x02Nq\x00h\x00Q.", "a reference that is not a tensor's storage"),
        (b"I" + 5000 * b"9" + b"\n.", "the instruction b'I'"),
        (b"S'\\_'\n.", "the instruction b'S'"),
        (b"\xff", r"the instruction b'\\xff'"),
        (b"", "its instructions are damaged"),
    ],
)
def test_hostile_instructions_are_refused(instructions: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=reason):
        Checkpoint(with_instructions(tmp_path, instructions))


def test_what_no_state_dict_is_made_of_is_not_unpickled(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(2, 2)}, "seen": collections.defaultdict()}, tmp_path / "c.pt")
    with pytest.raises(FileError, match=r"holds more than tensors \('collections.defaultdict'\)"):
        Checkpoint(tmp_path / "c.pt")

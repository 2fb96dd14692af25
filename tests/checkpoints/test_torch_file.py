from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkpoints.torch_files import STATE, tensor, with_instructions, with_tensor
from ticketguard.checkpoints import Checkpoint
from ticketguard.checkpoints.torch_file import TorchFile
from ticketguard.errors import FileError, TensorError


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
    with pytest.raises(FileError, match=r"does not hold a state dict, only (\['(epoch|bias)'\]|list)"):
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


DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.uint16, torch.uint32, torch.uint64),
]


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    base = torch.from_numpy(np.random.default_rng(0).integers(0, 2 if dtype == torch.bool else 8, shape)).to(dtype)
    for axis in range(base.ndim):
        step = draw(st.integers(1, 2))
        base = base[(slice(None),) * axis + (slice(draw(st.integers(0, 1)), None, step),)]
    base = base.permute(draw(st.permutations(range(base.ndim))))
    return base.expand(2, *base.shape) if draw(st.booleans()) else base


@settings(max_examples=40, deadline=None)
@given(
    state=st.dictionaries(st.text(max_size=5), views(), max_size=3),
    zipped=st.booleans(),
    protocol=st.sampled_from([2, 4, 5]),
)
def test_every_view_of_every_type_reads_as_torch_reads_it(
    state: dict[str, torch.Tensor], zipped: bool, protocol: int
) -> None:
    # Without a tensor of two axes it would not be a state dict.
    state = {**{name: value for name, value in state.items() if name.isprintable()}, "w": torch.ones(1, 1)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.pt"
        torch.save(state, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
        source = TorchFile(path)
        assert source.names() == tuple(state)
        for name, tensor in state.items():
            assert source.shape(name) == tuple(tensor.shape)
            assert source.type_name(name) == str(tensor.dtype).removeprefix("torch.")
            is_narrow = tensor.is_floating_point() and tensor.itemsize < 4
            expected = (tensor.float() if is_narrow else tensor).numpy()
            read = source.read(name)
            assert read.dtype == expected.dtype
            np.testing.assert_array_equal(read, expected)


def test_reading_a_torch_file_needs_no_torch(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "s.pt")
    torch.save(STATE, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    program = (
        "import sys; from ticketguard.checkpoints import Checkpoint; "
        f"[Checkpoint({str(tmp_path)!r} + name).state() for name in ('/s.pt', '/legacy.pt')]; "
        "sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("compute_checksums", [True, False])
def test_checksums_of_the_instructions_are_compared_if_there_are_any(compute_checksums: bool, tmp_path: Path) -> None:
    from torch.utils.serialization import config

    with config.patch("save.compute_crc32", compute_checksums):
        torch.save(STATE, tmp_path / "s.pt")
    assert TorchFile(tmp_path / "s.pt").names() == tuple(STATE)
    content = (tmp_path / "s.pt").read_bytes()
    (tmp_path / "s.pt").write_bytes(content.replace(b"fc.bias", b"fc.bird", 1))
    if compute_checksums:
        with pytest.raises(FileError, match="the checksum of its instructions is wrong"):
            TorchFile(tmp_path / "s.pt")
    else:
        assert TorchFile(tmp_path / "s.pt").names() == ("fc.weight", "fc.bird")


def test_a_tensor_that_is_negated_when_it_is_read_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, 2, dtype=torch.complex64).conj().imag}, tmp_path / "s.pt")
    with pytest.raises(FileError, match="a tensor that is negated or conjugated when it is read"):
        Checkpoint(tmp_path / "s.pt")


def test_complex_numbers_are_refused_when_they_are_read(tmp_path: Path) -> None:
    torch.save({**STATE, "c": torch.ones(2, 2, dtype=torch.complex64)}, tmp_path / "s.pt")
    suspect = Checkpoint(tmp_path / "s.pt")
    np.testing.assert_array_equal(suspect.read("fc.weight"), STATE["fc.weight"].numpy())
    with pytest.raises(TensorError, match="'c' has type complex64"):
        suspect.read("c")


def test_instructions_made_here_are_those_of_torch(tmp_path: Path) -> None:
    path = with_tensor(tmp_path, STATE["fc.weight"].numpy().tobytes(), numel=6, size=(2, 3), stride=(3, 1))
    np.testing.assert_array_equal(Checkpoint(path).read("w"), STATE["fc.weight"].numpy())


def test_a_dict_of_pairs_as_python_2_wrote_it_is_read(tmp_path: Path) -> None:
    made = tensor(numel=6, size=(2, 3), stride=(3, 1))
    value = made[made.index(b"ctorch._utils") : made.rindex(b"s.")]
    pairs = b"\x80\x02ccollections\nOrderedDict\n]](U\x01w" + value + b"ea\x85R."
    path = with_instructions(tmp_path, pairs)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("made/data/0", STATE["fc.weight"].numpy().tobytes())
    np.testing.assert_array_equal(Checkpoint(path).read("w"), STATE["fc.weight"].numpy())


def test_sixty_four_axes_are_read(tmp_path: Path) -> None:
    path = with_tensor(tmp_path, bytes(24), numel=6, size=(1,) * 63 + (6,), stride=(2**62,) * 63 + (1,))
    assert Checkpoint(path).read("w").shape == (1,) * 63 + (6,)


def test_a_block_that_is_used_sixteen_times_is_read(tmp_path: Path) -> None:
    block = torch.nn.Linear(64, 64)
    torch.save(torch.nn.ModuleList([block] * 16).state_dict(), tmp_path / "s.pt")
    suspect = Checkpoint(tmp_path / "s.pt")
    assert len(suspect.names()) == 32
    np.testing.assert_array_equal(suspect.read("15.weight"), block.weight.detach().numpy())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        TorchFile(tmp_path / "nowhere.pt")


def test_settings_beside_a_state_dict_are_passed_over(tmp_path: Path) -> None:
    floats = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    complexes = [torch.complex32, torch.complex64, torch.complex128]
    smallest = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
    integers = [torch.int64, torch.int32, torch.int16, torch.int8, torch.bool]
    unsigned = [torch.uint64, torch.uint32, torch.uint16, torch.uint8]
    settings = {
        "dtypes": [*floats, *complexes, *smallest, torch.float8_e8m0fnu, *integers, *unsigned],
        "device": torch.device("cpu"),
        "size": torch.Size([2, 3]),
    }
    sets = {"frozen": frozenset({"fc.weight"}), "done": {1, 2}}
    for protocol, more in ((2, {}), (4, sets)):  # earlier protocols make sets by a call
        torch.save({"state_dict": STATE, **settings, **more}, tmp_path / "s.pt", pickle_protocol=protocol)
        assert TorchFile(tmp_path / "s.pt").names() == tuple(STATE)


def test_a_parameter_with_attributes_of_its_own_is_read(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(STATE["fc.weight"].clone())
    parameter.decay = False  # type: ignore[attr-defined]
    torch.save({"fc.weight": parameter}, tmp_path / "s.pt")
    np.testing.assert_array_equal(TorchFile(tmp_path / "s.pt").read("fc.weight"), STATE["fc.weight"].numpy())


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

from __future__ import annotations

import contextlib
import subprocess
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
import torch.nn.utils.prune
from hypothesis import given, settings
from hypothesis import strategies as st

from ticketguard.checkpoints import Checkpoint
from ticketguard.checkpoints.finite import NotFinite
from ticketguard.errors import FileError, TensorError, TicketguardError, UnverifiableError
from ticketguard.ticket import Mask, Ticket, TicketInfo

SHAPES = {"conv.weight": (4, 3, 3, 3), "fc.weight": (5, 4)}


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in SHAPES.items()}


def save(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    safetensors.numpy.save_file(tensors, path)
    return path


def test_safetensors_and_torch_files_read_the_same(tmp_path: Path) -> None:
    tensors = weights()
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, tmp_path / "s.pt")
    for path in (save(tmp_path / "s.safetensors", tensors), tmp_path / "s.pt"):
        suspect = Checkpoint(path)
        assert set(suspect.layer_names()) == set(SHAPES)
        for name, array in tensors.items():
            assert suspect.shape(name) == array.shape
            np.testing.assert_array_equal(suspect.read(name), array)


def test_the_format_is_told_from_the_bytes_not_the_name(tmp_path: Path) -> None:
    tensors = weights()
    disguised = tmp_path / "torch.safetensors"
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, disguised)
    np.testing.assert_array_equal(Checkpoint(disguised).read("fc.weight"), tensors["fc.weight"])
    save(tmp_path / "safetensors.pt", tensors)
    np.testing.assert_array_equal(Checkpoint(tmp_path / "safetensors.pt").read("fc.weight"), tensors["fc.weight"])


def test_reading_safetensors_needs_no_torch(tmp_path: Path) -> None:
    path = save(tmp_path / "s.safetensors", weights())
    program = (
        "import sys; from ticketguard.checkpoints import Checkpoint; "
        f"c = Checkpoint({str(path)!r}); c.match({SHAPES!r}); [c.read(n) for n in c.names()]; "
        "sys.exit('torch' in sys.modules or 'httpx' in sys.modules or 'onnxruntime' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0


def test_reading_layer_by_layer_holds_one_layer_at_a_time(tmp_path: Path) -> None:
    layer_bytes = 4 * 512 * 512
    path = save(tmp_path / "s.safetensors", {f"{index}.weight": np.ones((512, 512), np.float32) for index in range(12)})
    tracemalloc.start()
    try:
        suspect = Checkpoint(path)
        for name in suspect.layer_names():
            suspect.read(name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * layer_bytes


def test_our_own_ticket_file_reads_as_its_weights(tmp_path: Path) -> None:
    tensors = weights()
    mask = Mask(layers={"fc.weight": np.ones((5, 4), dtype=bool)})
    Ticket(mask=mask, weights=tensors, rewind_weights=tensors, info=TicketInfo(method="imp")).save(tmp_path / "t")
    assert set(Checkpoint(tmp_path / "t").names()) == set(SHAPES)


def test_pruning_pairs_read_as_one_masked_tensor() -> None:
    module = torch.nn.Linear(4, 5)
    torch.nn.utils.prune.l1_unstructured(module, "weight", amount=0.5)
    suspect = Checkpoint(module.state_dict())
    assert suspect.names() == ("bias", "weight")
    np.testing.assert_array_equal(suspect.read("weight"), module.weight.detach().numpy())
    assert np.count_nonzero(suspect.read("weight")) == 10


@pytest.mark.parametrize("mask_type", [np.bool_, np.uint8, np.int64, np.float32])
def test_masks_of_every_type_are_applied(mask_type: type, tmp_path: Path) -> None:
    mask = np.array([[1, 0], [0, 1]], dtype=mask_type)
    path = save(tmp_path / "s", {"w_orig": np.full((2, 2), 3, np.float32), "w_mask": mask})
    np.testing.assert_array_equal(Checkpoint(path).read("w"), [[3, 0], [0, 3]])


def test_a_plain_weight_beside_a_pair_is_not_hidden() -> None:
    ones = np.ones((2, 2), np.float32)
    assert set(Checkpoint({"w": ones, "w_orig": ones, "w_mask": ones}).names()) == {"w", "w_orig"}


def test_parametrized_weights_keep_their_name() -> None:
    suspect = Checkpoint({"0.parametrizations.weight.original": np.ones((2, 2), np.float32)})
    assert suspect.names() == ("0.weight",)


def test_reading_never_changes_or_shares_what_was_given() -> None:
    tensors = weights()
    Checkpoint(tensors).read("fc.weight")[:] = 0
    assert tensors["fc.weight"].all()
    state = {"fc.weight": torch.ones(5, 4)}
    Checkpoint(state).read("fc.weight")[:] = 0
    assert bool(state["fc.weight"].all())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_values_that_are_not_finite_are_refused_by_name(value: float, kind: str, tmp_path: Path) -> None:
    tensors = weights()
    tensors["fc.weight"][2, 1] = value
    if kind == "torch":
        torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, tmp_path / "s")
    else:
        save(tmp_path / "s", tensors)
    suspect = Checkpoint(tmp_path / "s")
    suspect.read("conv.weight")
    with pytest.raises(TensorError, match=r"'fc.weight' has values that are NaN or infinite"):
        suspect.read("fc.weight")


def test_float64_below_float32_is_refused_and_not_read_as_nothing() -> None:
    """Layers can be multiplied by 10^-60 at no cost: what is then read must not be an empty layer."""
    tiny = {"weight": np.full((3, 3), 1e-60), "other": np.ones(3)}
    with pytest.raises(TensorError, match="has values that are too small for float32"):
        Checkpoint(tiny).read("weight")
    few = np.array([1.0, 0.0, 1e-60, 1e-60, 1e-60])
    assert Checkpoint({"weight": few}).read("weight").tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_float64_beyond_float32_is_refused() -> None:
    with pytest.raises(TensorError, match="NaN or infinite \\(in float32\\)"):
        Checkpoint({"w": np.full((2, 2), 1e300)}).read("w")


def test_a_mask_that_is_not_finite_is_refused() -> None:
    ones = np.ones((2, 2), np.float32)
    with pytest.raises(TensorError, match="'w' has values that are NaN"):
        Checkpoint({"w_orig": ones, "w_mask": ones * np.nan}).read("w")
    with pytest.raises(TensorError, match="'w_mask' is named as the mask of 'w' but has values other than 0 and 1"):
        Checkpoint({"w": ones, "w_mask": ones * np.nan}).read("w")


def test_a_mask_that_lifts_its_weight_beyond_float32_is_refused() -> None:
    pair = {"fc.weight_orig": np.full((2, 2), 1e30, np.float32), "fc.weight_mask": np.full((2, 2), 1e30, np.float32)}
    with pytest.raises(TensorError, match=r"tensor 'fc.weight' has values that are NaN or infinite"):
        Checkpoint(pair).read("fc.weight")


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(TensorError, match="tensor '7' has a int for a name, expected text"):
        Checkpoint({7: np.zeros((2, 2), np.float32)})  # type: ignore[dict-item]


def test_a_mask_of_another_shape_is_refused() -> None:
    pair = {"w_orig": np.ones((2, 2), np.float32), "w_mask": np.ones((2, 3), np.float32)}
    with pytest.raises(TensorError, match=r"'w_mask' has shape \(2, 3\), expected \(2, 2\)"):
        Checkpoint(pair).read("w")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.bool_])
def test_integer_weights_are_refused(dtype: type, tmp_path: Path) -> None:
    path = save(tmp_path / "s", {"w": np.ones((2, 2), dtype)})
    with pytest.raises(TensorError, match="expected a floating-point type: a quantised"):
        Checkpoint(path).read("w")


def test_complex_integer_and_absent_tensors_are_refused() -> None:
    with pytest.raises(TensorError, match="complex64, expected a floating-point type"):
        Checkpoint({"w": np.ones((2, 2), np.complex64)}).read("w")
    with pytest.raises(TensorError, match="complex64, expected a floating-point type"):
        Checkpoint({"w": torch.ones(2, 2, dtype=torch.complex64)}).read("w")
    with pytest.raises(TensorError, match="int8, expected a floating-point type"):
        Checkpoint({"w": torch.ones(2, 2, dtype=torch.int8)}).read("w")
    with pytest.raises(TensorError, match="float32, expected a floating-point type"):
        Checkpoint({"w": torch.ones(2, 2, device="meta")}).read("w")


def test_a_masked_weight_of_integers_is_refused() -> None:
    pair = {"w": np.ones((2, 2), np.int8), "w_mask": np.ones((2, 2), np.float32)}
    with pytest.raises(TensorError, match="'w' has type int8, expected a floating-point type"):
        Checkpoint(pair).read("w")


def test_everything_is_read_at_once_and_counters_as_they_are() -> None:
    steps = np.array(3, np.int64)
    state = Checkpoint({**weights(), "steps": steps, "seen": np.array([True])}).state()
    assert [state[name].dtype for name in ("fc.weight", "steps", "seen")] == [np.float32, np.int64, np.bool_]
    assert state["steps"] == steps
    np.testing.assert_array_equal(state["fc.weight"], weights()["fc.weight"])
    with pytest.raises(TensorError, match="'w' has values that are NaN or infinite"):
        Checkpoint({"w": np.array([1, np.nan], np.float32), "steps": steps}).state()


def test_what_cannot_be_read_as_weights_is_told_by_name() -> None:
    state = {
        **weights(),
        "steps": np.array(3),
        "w": np.array([np.inf, 0, np.nan], np.float32),
        "v": np.array([np.inf, 0, 2, np.nan, -1], np.float32),
    }
    damage = Checkpoint(state).damage(state)
    assert damage.unreadable == {
        "steps": "has type int64, expected a floating-point type",
        "w": "has values that are NaN or infinite (in float32), and no others but zeros",
    }
    assert damage.not_finite == {"v": NotFinite(values=2, of=4)}


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_what_is_not_finite_in_a_suspect_is_missing(kind: type) -> None:
    suspect = Checkpoint({"w": np.array([[np.nan, 2, 0], [np.inf, -np.inf, -1]], kind)})
    assert suspect.weights("w").tolist() == [[0, 2, 0], [0, 0, -1]]
    with pytest.raises(TensorError, match="'w' has values that are NaN or infinite"):
        suspect.read("w")


def test_what_a_mask_makes_infinite_in_a_suspect_is_missing() -> None:
    weight, mask = np.array([[1e30, 2, 0, 3]], np.float32), np.array([[1e30, 1, np.inf, 0]], np.float32)
    assert Checkpoint({"w_orig": weight, "w_mask": mask}).weights("w").tolist() == [[0, 2, 0, 0]]


def test_a_suspect_is_called_by_its_label_or_its_path(tmp_path: Path) -> None:
    path = save(tmp_path / "s.safetensors", weights())
    assert [Checkpoint(path).label, Checkpoint(weights()).label] == [str(path), "state dict"]
    assert [Checkpoint(each, label="theirs").label for each in (path, weights())] == ["theirs"] * 2


def test_a_mapping_of_something_else_is_refused() -> None:
    with pytest.raises(TensorError, match="'epoch' is a int, expected an array or tensor"):
        Checkpoint({"epoch": 3})


@pytest.mark.parametrize("value", [types.SimpleNamespace(shape=(2, 2)), types.SimpleNamespace(dtype=np.float32)])
def test_what_has_a_shape_or_a_type_alone_is_refused(value: object) -> None:
    with pytest.raises(TensorError, match="expected an array or tensor"):
        Checkpoint({"w": value})


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float8_e4m3fn]
)
def test_floating_tensors_in_memory_read_as_float32(dtype: torch.dtype) -> None:
    values = torch.tensor([[0.5, -2.0], [0.0, 3.0]])
    read = Checkpoint({"w": values.to(dtype).requires_grad_()}).read("w")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values.numpy())


@pytest.mark.parametrize("kept", [None, ".safetensors", ".pt"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float8_e4m3fn]
)
def test_a_number_alone_is_an_array_too(dtype: torch.dtype, kept: str | None, tmp_path: Path) -> None:
    """Such as the scale of a CLIP model: whoever loads the tensors into another framework needs one of no axes."""
    state = {"scale": torch.tensor(1.5).to(dtype), "w": torch.ones(2, 2)}
    if kept == ".safetensors":
        safetensors.torch.save_file(state, tmp_path / f"c{kept}")
    elif kept == ".pt":
        torch.save(state, tmp_path / f"c{kept}")
    elif dtype == torch.float16:
        state["scale"] = state["scale"].numpy()  # type: ignore[assignment]
    read = Checkpoint(state if kept is None else tmp_path / f"c{kept}").read("scale")
    assert isinstance(read, np.ndarray)
    assert (read.shape, read.dtype, float(read)) == ((), np.float32, 1.5)


@pytest.mark.parametrize(
    "value",
    [torch.eye(2).to_sparse(), torch.ones(2, 2, device="meta"), types.SimpleNamespace(shape=(2, 2), dtype="f4")],
)
def test_tensors_whose_values_numpy_cannot_hold_are_refused(value: object) -> None:
    with pytest.raises(TensorError, match="expected a floating-point type"):
        Checkpoint({"w": value}).stored("w")


@pytest.mark.parametrize("value", [np.ones((2, 2), np.complex64), np.full((2, 2), None), np.full((2, 2), "text")])
def test_arrays_that_are_not_numbers_are_refused_as_they_are_too(value: np.ndarray) -> None:
    with pytest.raises(TensorError, match="expected a floating-point type"):
        Checkpoint({"w": value}).state()


def test_an_unknown_name_is_the_callers_bug() -> None:
    with pytest.raises(KeyError, match="nothing"):
        Checkpoint(weights()).read("nothing")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"nowhere.*cannot be read \(No such file"):
        Checkpoint(tmp_path / "nowhere")
    with pytest.raises(FileError, match="is a folder, expected a file"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x89HDF\r\n\x1a\n" + bytes(50), b"\x08" + bytes(60), b"#!/bin/sh\nrm -rf /\n" * 9]
)
def test_foreign_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(FileError, match="expected a safetensors or torch checkpoint"):
        Checkpoint(path)


def test_no_overlap_names_both_sides() -> None:
    with pytest.raises(UnverifiableError, match=r"no tensor in common: expected 'a' \(9, 9\), got 'conv.weight'"):
        Checkpoint(weights()).match({"a": (9, 9)})


def test_other_shapes_are_reported() -> None:
    with pytest.raises(
        UnverifiableError, match=r"other shapes: expected 'fc.weight' \(5, 4, 3\), got 'fc.weight' \(5, 4\)"
    ):
        Checkpoint(weights()).match({"fc.weight": (5, 4, 3)})


def test_a_suspect_without_layers_has_no_overlap() -> None:
    with pytest.raises(UnverifiableError, match="no tensor with two axes"):
        Checkpoint({"bias": np.ones(3, np.float32)}).match(SHAPES)


def _read_everything(path: Path) -> None:
    suspect = Checkpoint(path)
    for name in suspect.names():
        suspect.read(name)
    suspect.match(SHAPES)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    state = {name: torch.from_numpy(array) for name, array in weights().items()}
    torch.save(state, folder / "zip")
    torch.save(state, folder / "legacy", _use_new_zipfile_serialization=False)
    save(folder / "safetensors", weights())
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_truncation_is_refused(kind: str, originals: dict[str, bytes], tmp_path: Path) -> None:
    content = originals[kind]
    for length in range(0, len(content), max(1, len(content) // 60)):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(FileError, match="cut"):
            _read_everything(tmp_path / "cut")


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["zip", "legacy", "safetensors"]),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_damaged_bytes_give_tensors_or_a_clear_error(
    kind: str, flips: list[tuple[float, int]], originals: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(originals[kind])
    for place, change in flips:
        content[int(place * len(content))] ^= change
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    with contextlib.suppress(TicketguardError):  # Anything else that is raised fails the test.
        _read_everything(path)


@pytest.mark.parametrize("size", [0x80, 0x280, 0x1080])
def test_a_header_whose_size_starts_like_a_pickle_is_read(tmp_path: Path, size: int) -> None:
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(size)
    content = size.to_bytes(8, "little") + header + np.ones(2, dtype="<f4").tobytes()
    (tmp_path / "suspect.safetensors").write_bytes(content)
    assert Checkpoint(tmp_path / "suspect.safetensors").read("w").tolist() == [1.0, 1.0]

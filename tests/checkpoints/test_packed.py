from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from ticketguard.checkpoints import Checkpoint
from ticketguard.errors import FileError, UnverifiableError

SHAPES = {"a.weight": (8, 16), "b.weight": (4, 8)}
INTS = np.ones((8, 2), np.int32)
BYTES = np.ones((64, 1), np.uint8)
SCALE = np.ones((8, 1), np.float32)

FORMATS = {
    "compressed-tensors, packed": {
        "a.weight_packed": INTS,
        "a.weight_scale": SCALE,
        "a.weight_shape": np.array([8, 16]),
    },
    "GPTQ or AWQ": {"a.qweight": INTS, "a.qzeros": INTS, "a.scales": SCALE, "a.g_idx": np.zeros(16, np.int32)},
    "whole numbers with scales": {"a.weight": np.ones((8, 16), np.int8), "a.weight_scale": SCALE},
    "bitsandbytes, 8 bits": {"a.weight": np.ones((8, 16), np.int8), "a.SCB": np.ones(8, np.float32)},
    "bitsandbytes, 4 bits": {"a.weight": BYTES, "a.weight.quant_state.bitsandbytes__nf4": np.ones(90, np.uint8)},
    "whole numbers": {"a.weight": np.ones((8, 16), np.int8)},
    "Marlin, 2:4": {"a.B_24": INTS, "a.B_meta": np.ones((8, 2), np.int16), "a.s": SCALE},
}


@pytest.mark.parametrize("form", FORMATS)
def test_packed_weights_are_known_by_their_format(form: str) -> None:
    suspect = Checkpoint({**FORMATS[form], "b.weight": np.ones((4, 8), np.float32)})
    assert suspect.packed() == {"a.weight": form}


@pytest.mark.parametrize("codebook", ["nf4", "fp4"])
def test_both_codebooks_of_bitsandbytes_are_known(codebook: str) -> None:
    state = np.ones(90, np.uint8)
    suspect = Checkpoint({"a.weight": BYTES, f"a.weight.quant_state.bitsandbytes__{codebook}": state})
    assert suspect.packed() == {"a.weight": "bitsandbytes, 4 bits"}


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_weights_of_small_whole_numbers_are_packed_in_every_file_format(dtype: type, tmp_path: Path) -> None:
    state = {"a.weight": np.ones((8, 16), dtype)}
    safetensors.numpy.save_file(state, tmp_path / "s.safetensors")
    torch.save({name: torch.from_numpy(array) for name, array in state.items()}, tmp_path / "s.pt")
    for path in tmp_path.iterdir():
        assert Checkpoint(path).packed() == {"a.weight": "whole numbers"}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # deprecated, and still in old checkpoints
@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint8])
def test_weights_that_pytorch_quantised_are_packed(dtype: torch.dtype) -> None:
    weight = torch.quantize_per_tensor(torch.ones(8, 16), 0.1, 0, dtype)
    assert Checkpoint({"a.weight": weight}).packed() == {"a.weight": "whole numbers"}


@pytest.mark.parametrize("form", ["compressed-tensors, packed", "GPTQ or AWQ"])
def test_a_suspect_of_packed_weights_is_told_so(form: str) -> None:
    with pytest.raises(UnverifiableError, match=rf"1 of its weights, 'a.weight' among them, in a packed .*\({form}\)"):
        Checkpoint(FORMATS[form]).match({"a.weight": (8, 16)})


def test_every_packed_format_is_named_in_order() -> None:
    packed = {f"{name}.weight": np.ones((8, 16), np.int8) for name in "zyx"}
    with pytest.raises(
        FileError, match=r"holds 4 of its weights, 'a.weight' among them, .*\(GPTQ or AWQ, whole numbers\)"
    ):
        Checkpoint(packed | FORMATS["GPTQ or AWQ"]).require_unpacked()


def test_float8_with_scales_and_indices_are_not_packed() -> None:
    suspect = Checkpoint(
        {"a.weight": np.ones((8, 16), np.float16), "a.weight_scale": SCALE, "index": np.ones((3, 3), np.int64)}
    )
    assert suspect.packed() == {}


def test_the_masks_of_a_ticket_file_are_not_packed_weights() -> None:
    suspect = Checkpoint({"a.weight": np.ones((8, 16), np.float32), "ticketguard.mask/a.weight": BYTES[:16, 0]})
    assert suspect.packed() == {}

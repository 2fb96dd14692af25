from __future__ import annotations

import numpy as np
import pytest

from ticketguard.errors import UnverifiableError
from ticketguard.suspects import Checkpoint

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
}


@pytest.mark.parametrize("form", FORMATS)
def test_packed_weights_are_known_by_their_format(form: str) -> None:
    suspect = Checkpoint({**FORMATS[form], "b.weight": np.ones((4, 8), np.float32)})
    assert suspect.packed() == {"a.weight": form}


@pytest.mark.parametrize("form", ["compressed-tensors, packed", "GPTQ or AWQ"])
def test_a_suspect_of_packed_weights_is_told_so(form: str) -> None:
    with pytest.raises(UnverifiableError, match=rf"1 of its weights, 'a.weight' among them, in a packed .*\({form}\)"):
        Checkpoint(FORMATS[form]).match({"a.weight": (8, 16)})


def test_float8_with_scales_and_indices_are_not_packed() -> None:
    suspect = Checkpoint(
        {"a.weight": np.ones((8, 16), np.float16), "a.weight_scale": SCALE, "index": np.ones((3, 3), np.int64)}
    )
    assert suspect.packed() == {}


def test_the_masks_of_a_ticket_file_are_not_packed_weights() -> None:
    suspect = Checkpoint({"a.weight": np.ones((8, 16), np.float32), "ticketguard.mask/a.weight": BYTES[:16, 0]})
    assert suspect.packed() == {}

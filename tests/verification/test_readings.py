from __future__ import annotations

import numpy as np

from ticketguard.ticket import FloatArray
from ticketguard.verification.readings import Layers


def test_whether_a_layer_is_there_is_known_without_reading_it() -> None:
    reads: list[str] = []

    def read(name: str) -> FloatArray:
        reads.append(name)
        return np.ones((2, 3), dtype=np.float32)

    layers = Layers(read=read, names={"fc1.weight": "net.0.weight", "fc2.weight": "net.2.weight"})
    assert "fc1.weight" in layers
    assert "net.0.weight" not in layers
    assert list(layers) == list(layers.keys())
    assert len(layers) == 2
    assert not reads
    assert layers["fc2.weight"].shape == (2, 3)
    assert layers.get("fc3.weight") is None
    assert reads == ["net.2.weight"]

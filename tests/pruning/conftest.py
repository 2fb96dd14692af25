from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ticketguard.pruning.engine import dense, result

# Networks this small only wait for each other on several threads, and worse beside other test processes.
torch.set_num_threads(1)


def replace_training(monkeypatch: pytest.MonkeyPatch, training: Callable[..., Any] | None) -> None:
    """Let searches train by *training*; with None, whatever trains fails."""
    for module in (dense, result):
        monkeypatch.setattr(module, "train", training)

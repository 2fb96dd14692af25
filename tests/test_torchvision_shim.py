from __future__ import annotations

import subprocess
import sys

import pytest

from ticketguard import torchvision_shim


def test_torchvision_imports_beside_this_torch() -> None:
    code = (
        "from ticketguard.torchvision_shim import import_torchvision\n"
        "print(import_torchvision('torchvision.models').resnet18(num_classes=3).fc.out_features)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def test_operators_that_load_are_not_declared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_shim, "_DECLARED", [])
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr("torch.ops.load_library", lambda path: None)
    monkeypatch.setattr("importlib.import_module", lambda name: sys)
    assert torchvision_shim.import_torchvision() is sys
    assert torchvision_shim._DECLARED == []

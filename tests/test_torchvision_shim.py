from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from ticketguard import torchvision_shim
from ticketguard.data import load_data
from ticketguard.errors import ConfigurationError
from ticketguard.import_paths import load_object
from ticketguard.models import build_model


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


def test_an_import_path_into_torchvision_is_found_beside_this_torch() -> None:
    code = (
        "from ticketguard.import_paths import load_object\n"
        "print(load_object('torchvision.models:resnet18')(num_classes=3).fc.out_features)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')\n"
WRAPPED = f"try:\n    {BROKEN}except RuntimeError as error:\n    raise ImportError('no backend') from error\n"
HELPS = r"torchvision's compiled operators do not load here: .* install both from one index .* import_torchvision\(\)"


@pytest.mark.parametrize("content", [BROKEN, WRAPPED])
@pytest.mark.parametrize("load", ["model", "data", "object"])
def test_a_package_that_fails_with_torchvision_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, load: str
) -> None:
    """As timm and lightning do, whose imports import torchvision."""
    name = f"framework_{load}_{content == BROKEN}"
    (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.chdir(tmp_path)
    loaders: dict[str, Callable[[str], object]] = {
        "model": lambda path: build_model(path, options={}, seed=0),
        "data": lambda path: load_data(path, options={}),
        "object": load_object,
    }
    with pytest.raises(ConfigurationError, match=f"'{name}:make' cannot be imported: {HELPS}"):
        loaders[load](f"{name}:make")


def test_a_factory_that_fails_with_torchvision_is_explained() -> None:
    def broken(**_: object) -> nn.Module:
        raise RuntimeError("operator torchvision::qnms does not exist")

    with pytest.raises(ConfigurationError, match=f"model 'broken' cannot be built: {HELPS}"):
        build_model(broken, options={}, seed=0)
    with pytest.raises(ConfigurationError, match=f"cannot be loaded: {HELPS}"):
        load_data(broken, options={})  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [RuntimeError("operator aten::nms does not exist"), ImportError("torchvision")])
def test_other_errors_are_not_explained_by_torchvision(error: Exception) -> None:
    assert torchvision_shim.explanation(error) is None


def test_an_error_is_explained_without_torch() -> None:
    code = (
        "import sys; from ticketguard.torchvision_shim import explanation\n"
        "assert explanation(RuntimeError('operator torchvision::nms does not exist')) and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import ticketguard as tg
from ticketguard.errors import ConfigurationError, MissingExtraError
from ticketguard.models import build_model, prunable_layers, state_arrays
from ticketguard.ticket import Mask, Ticket, TicketInfo

IMAGES = {"classes": 10, "input_shape": [1, 8, 8]}
INPUTS = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def ticket(model: str = "resnet20", **options: object) -> Ticket:
    given = {**IMAGES, **options}
    state = state_arrays(build_model(model, options=given, seed=0))
    names = prunable_layers(build_model(model, options=given, seed=0))
    mask = Mask(layers={name: np.ones(state[name].shape, np.bool_) for name in names})
    info = TicketInfo(method="test", model=model, model_options=given, input_shape=(1, 8, 8), classes=10)
    return Ticket(mask=mask, weights=state, rewind_weights=None, info=info)


def answers(found: Ticket) -> torch.Tensor:
    network = build_model(found.info.model, options=found.info.model_options, seed=0).eval()
    with torch.no_grad():
        return network(INPUTS)


def test_an_onnx_file_answers_as_the_ticket_does_and_is_a_suspect(tmp_path: Path) -> None:
    small = ticket("mlp", widths=[20])
    tg.export_program(small, tmp_path / "net.onnx", format="onnx")
    predictor = tg.OnnxPredictor(tmp_path / "net.onnx")
    found = [predictor.predict(one.numpy()[None], classes=10) for one in INPUTS]
    assert found == answers(small).argmax(dim=1).tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_an_exported_program_answers_as_the_ticket_does_without_removed_blocks(tmp_path: Path) -> None:
    small, whole = (ticket(blocks=[2, 1, 1], removed_blocks=removed) for removed in (["layer1.1"], []))
    for name, one in (("small", small), ("whole", whole)):
        tg.export_program(one, tmp_path / name, format="pt2")
    program = torch.export.load(tmp_path / "small").module()
    torch.testing.assert_close(program(INPUTS), answers(small))
    assert (tmp_path / "small").stat().st_size < (tmp_path / "whole").stat().st_size - 4 * 2 * 16 * 16 * 9


def test_an_unknown_format_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="unknown format 'pickle', expected one of onnx, pt2"):
        tg.export_program(ticket(), tmp_path / "out", format="pickle")  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", [{"model": ""}, {"input_shape": ()}])
def test_a_ticket_of_unknown_model_or_shape_is_told(missing: dict[str, object], tmp_path: Path) -> None:
    known = ticket("mlp", widths=[4])
    unknown = dataclasses.replace(known, info=dataclasses.replace(known.info, **missing))
    with pytest.raises(ConfigurationError, match="the ticket does not name its model and input shape"):
        tg.export_program(unknown, tmp_path / "out", format="pt2")


def test_a_model_that_cannot_be_traced_is_told(tmp_path: Path) -> None:
    class Undecided(torch.nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs.flatten(1)) if inputs.sum() > 0 else inputs

    state = state_arrays(torch.nn.Linear(64, 10))
    mask = Mask(layers={"weight": np.ones((10, 64), np.bool_)})
    info = TicketInfo(method="test", model="own", input_shape=(1, 8, 8))
    own = Ticket(mask=mask, weights=state, rewind_weights=None, info=info)
    with pytest.raises(ConfigurationError, match="the model cannot be traced into a program"):
        tg.export_program(own, tmp_path / "out", format="pt2", model=lambda: Undecided(64, 10))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_missing_packages_are_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = importlib.import_module

    def refused(name: str) -> ModuleType:
        if name == package:
            raise ImportError(name)
        return load(name)

    monkeypatch.setattr(importlib, "import_module", refused)
    with pytest.raises(MissingExtraError, match=rf"'{package}' is not installed: pip install 'ticketguard\[export\]'"):
        tg.export_program(ticket("mlp", widths=[4]), tmp_path / "out", format="onnx")

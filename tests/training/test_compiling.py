"""Compiled training, with a stand-in for the slow last part: the graph is traced, and run without generated code."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from runs import SMALL, Watch, half_mask, network, same, stripes
from ticketguard.errors import ConfigurationError
from ticketguard.training import TrainingConfig, devices, loop, train

COMPILED = dataclasses.replace(SMALL, epochs=1, compile=True)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_run_keeps_names_mask_and_hooks(precision: str) -> None:
    model, mask, watch = network(), half_mask(), Watch(feed=True)
    before = set(vars(model))
    config = dataclasses.replace(COMPILED, precision=precision)
    result = train(model, stripes(), config, seed=0, mask=mask, hooks=watch)
    plain = dataclasses.replace(config, compile=False)
    eager = train(network(), stripes(), plain, seed=0, mask=mask, hooks=Watch(feed=True))
    assert set(vars(model)) == before
    assert set(result.state) == set(eager.state)
    assert all(np.allclose(result.state[name], eager.state[name], atol=1e-2) for name in eager.state)
    assert not any(result.state[name][~mask[name]].any() for name in mask)
    assert same(watch.states[-1], result.state)


@pytest.mark.usefixtures("traced")
def test_an_interrupted_compiled_run_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    whole = train(network(), stripes(), COMPILED, seed=0)
    with pytest.raises(KeyboardInterrupt):
        train(network(), stripes(), COMPILED, seed=0, hooks=Watch(stop_at=3), checkpoint=tmp_path / "run")
    resumed = train(network(), stripes(), COMPILED, seed=0, checkpoint=tmp_path / "run", resume=True)
    assert same(whole.state, resumed.state)


def test_a_network_that_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("no working C++ compiler")

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    with pytest.raises(
        ConfigurationError,
        match=r"training: compile does not work here \(.*no working C\+\+ compiler.*\): leave it out",
    ):
        train(network(), stripes(), COMPILED, seed=0)


def test_a_machine_that_cannot_compile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(_: nn.Module) -> None:
        raise RuntimeError("not supported on this platform")

    monkeypatch.setattr(torch, "compile", unsupported)
    with pytest.raises(ConfigurationError, match=r"compile does not work here \(not supported on this platform\)"):
        train(network(), stripes(), COMPILED, seed=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="bf16 is chosen there")
def test_automatic_precision_is_fp32_without_an_accelerator() -> None:
    automatic = train(network(), stripes(), dataclasses.replace(SMALL, precision="auto"), seed=0)
    assert same(automatic.state, train(network(), stripes(), SMALL, seed=0).state)


def test_automatic_precision_is_bf16_where_the_accelerator_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(devices.accelerate, "Accelerator", lambda **named: asked.append(named))
    for has_bf16 in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has_bf16: has)
        devices.accelerator_for(TrainingConfig(epochs=1, precision="auto"))
    devices.accelerator_for(TrainingConfig(epochs=1, precision="auto", device="cpu"))
    assert [named["mixed_precision"] for named in asked] == ["bf16", "no", "no"]

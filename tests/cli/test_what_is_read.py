"""True copies of a marked ticket in the forms that people store networks in, judged by the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

import ticketguard as tg

from .conftest import Files, Run, unmarked_ticket, validate

LAYERS = ("1.weight", "3.weight")


def credentials(files: Files) -> tuple[object, ...]:
    return ("--claim", files.claim, "--vault", files.vault)


def marked(files: Files) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in tg.Ticket.load(files.marked).weights.items()}


def evidence(result: Any) -> dict[str, Any]:
    document = json.loads(result.stdout)
    validate(document, "verdict")
    return {"status": document["status"], **document["evidence"][0]}


@pytest.fixture
def masked(files: Files) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The copy's weights, noise where they were pruned, and its masks."""
    noise = np.random.default_rng(5)
    return {
        name: (np.where(array != 0, array, 3 * noise.normal(size=array.shape)).astype(np.float32), array != 0)
        for name, array in marked(files).items()
        if name in LAYERS
    }


@pytest.mark.parametrize(
    "forms",
    [
        ("{module}.weight", "{module}.weight_mask"),
        ("{module}.weight", "{module}.mask"),
        ("{module}.parametrizations.weight.original", "{module}.parametrizations.weight.0.mask"),
        ("{module}.weight_orig", "{module}.weight_mask"),
    ],
)
def test_a_copy_with_its_masks_beside_it_is_supported(
    forms: tuple[str, str], run: Run, files: Files, masked: dict[str, Any], tmp_path: Path
) -> None:
    stored: dict[str, np.ndarray] = {}
    for name, parts in masked.items():
        module = name.removesuffix(".weight")
        for form, part in zip(forms, parts, strict=True):
            stored[form.format(module=module)] = part.astype(np.float32)
    safetensors.numpy.save_file(stored, tmp_path / "copy.safetensors")
    found = evidence(run("verify", tmp_path / "copy.safetensors", *credentials(files), "--json"))
    assert found["details"]["reading"] == "weights that are not zero"


def test_a_copy_in_two_files_is_supported_and_one_of_them_is_refused(run: Run, files: Files, tmp_path: Path) -> None:
    weight_map: dict[str, str] = {}
    for number, name in enumerate(LAYERS, start=1):
        weight_map[name] = f"model-0000{number}-of-00002.safetensors"
        safetensors.numpy.save_file({name: marked(files)[name]}, tmp_path / weight_map[name])
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    for suspect in (index, tmp_path):
        assert evidence(run("verify", suspect, *credentials(files), "--json"))["details"]["layers"] == 2
        document = json.loads(run("inspect", suspect, "--json").stdout)
        validate(document, "inspect")
        assert {tensor["name"] for tensor in document["suspect"]["tensors"]} == set(LAYERS)
    for command in (("verify", *credentials(files)), ("inspect",), ("import", "--out", tmp_path / "ticket")):
        result = run(*command, tmp_path / weight_map["1.weight"], code=3)
        assert "is file 1 of 2 of one checkpoint, and not a whole network" in result.stderr
    assert not (tmp_path / "ticket").exists()


def test_a_copy_that_llm_compressor_stored_is_supported(run: Run, files: Files, tmp_path: Path) -> None:
    stored: dict[str, np.ndarray] = {}
    for name in LAYERS:
        array, module = marked(files)[name], name.removesuffix(".weight")
        stored[f"{module}.compressed"] = array[array != 0]
        stored[f"{module}.bitmask"] = np.packbits(array != 0, axis=-1, bitorder="little")
        stored[f"{module}.shape"] = np.array(array.shape)
    safetensors.numpy.save_file(stored, tmp_path / "copy.safetensors")
    run("verify", tmp_path / "copy.safetensors", *credentials(files))


@pytest.mark.parametrize(("copy", "stranger"), [("model", "ema"), ("ema", "model"), ("teacher", "student"), ("a", "z")])
@pytest.mark.parametrize("nested", [False, True])
def test_of_two_networks_both_are_read_and_paid_for(
    copy: str, stranger: str, nested: bool, run: Run, files: Files, tmp_path: Path
) -> None:
    other = {name: np.array(array) for name, array in unmarked_ticket().weights.items()}
    networks = {stranger: other, copy: marked(files)}
    if nested:
        tensors = {key: {name: torch.from_numpy(array) for name, array in net.items()} for key, net in networks.items()}
        torch.save(tensors, tmp_path / "two")
    else:
        flat = {f"{key}.{name}": array for key, net in networks.items() for name, array in net.items()}
        safetensors.numpy.save_file(flat, tmp_path / "two")
    found = evidence(run("verify", tmp_path / "two", *credentials(files), "--json"))
    both = found["details"]
    assert (both["network"], both["networks"]) == (f"{copy}.", 2)
    named = evidence(run("verify", tmp_path / "two", *credentials(files), "--network", copy, "--json"))
    assert (named["details"]["network"], named["details"]["networks"]) == (f"{copy}.", 1)
    assert both["looks"] == 2 * named["details"]["looks"]
    assert both["log10_p_uncorrected"] == named["details"]["log10_p_uncorrected"]
    paid = both["log10_p_uncorrected"] + math.log10(both["looks"])
    assert found["log10_p"] == pytest.approx(paid)
    run("verify", tmp_path / "two", *credentials(files), "--network", f"{stranger}.", code=1)
    assert (
        "has no network 'no.'" in run("verify", tmp_path / "two", *credentials(files), "--network", "no", code=2).stderr
    )


def test_network_goes_with_a_checkpoint(run: Run, files: Files) -> None:
    result = run("verify", "--predictor", "m:f", "--network", "ema.", *credentials(files), code=2)
    assert "--network names a part of a checkpoint's weights" in result.stderr


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_missing_and_counted(
    value: float, run: Run, files: Files, tmp_path: Path
) -> None:
    weights = marked(files)
    weights["3.weight"][0, 0] = value
    weights["spare.weight"] = np.full((3, 3), value, np.float32)
    safetensors.numpy.save_file(weights, tmp_path / "copy.safetensors")
    found = evidence(run("verify", tmp_path / "copy.safetensors", *credentials(files), "--json"))
    assert found["details"]["layers"] == 2
    assert found["details"]["unreadable_layers"] == []
    (told,) = found["details"]["values_not_finite"]
    assert (told["layer"], told["values"]) == ("3.weight", 1)
    text = run("verify", tmp_path / "copy.safetensors", *credentials(files)).stdout
    assert f"values not finite\n    layer 3.weight  values 1  of {told['of']}\n" in text
    document = json.loads(run("inspect", tmp_path / "copy.safetensors", "--json").stdout)
    validate(document, "inspect")
    assert {entry["name"]: entry.get("not_finite") for entry in document["suspect"]["tensors"]} == {
        "1.weight": None,
        "1.bias": None,
        "3.weight": 1,
        "3.bias": None,
        "spare.weight": 9,
    }
    run("inspect", tmp_path / "copy.safetensors", "--picture", tmp_path / "masks.png")
    weights["3.weight"][:] = value
    safetensors.numpy.save_file(weights, tmp_path / "one.safetensors")
    found = evidence(run("verify", tmp_path / "one.safetensors", *credentials(files), "--json"))
    assert found["details"]["layers"] == 1
    assert found["details"]["unreadable_layers"] == [
        {
            "layer": "3.weight",
            "reason": "has values that are NaN or infinite (in float32), and no others but zeros",
        }
    ]
    weights["1.weight"][:] = value
    safetensors.numpy.save_file(weights, tmp_path / "none.safetensors")
    result = run("verify", tmp_path / "none.safetensors", *credentials(files), code=3)
    assert "has no layer that can be read: '1.weight' has values that are NaN or infinite" in result.stderr


def test_quantised_layers_are_listed_and_named(run: Run, files: Files, tmp_path: Path) -> None:
    weights = {name: array for name, array in marked(files).items() if name in LAYERS}
    whole = {name: np.round(array * 20).astype(np.int8) for name, array in weights.items()}
    safetensors.numpy.save_file({**weights, "3.weight": whole["3.weight"]}, tmp_path / "one.safetensors")
    found = evidence(run("verify", tmp_path / "one.safetensors", *credentials(files), "--json"))
    assert [entry["layer"] for entry in found["details"]["unreadable_layers"]] == ["3.weight"]
    scales = {"1.weight_scale": np.ones((200, 1), np.float32), "3.weight_scale": np.ones((10, 1), np.float32)}
    safetensors.numpy.save_file({**whole, **scales}, tmp_path / "all.safetensors")
    result = run("verify", tmp_path / "all.safetensors", *credentials(files), code=3)
    assert "2 of its weights, '1.weight' among them, in a packed format (whole numbers with scales)" in result.stderr
    document = json.loads(run("inspect", tmp_path / "all.safetensors", "--json").stdout)
    validate(document, "inspect")
    assert {entry["name"] for entry in document["suspect"]["packed"]} == set(LAYERS)


def test_a_layer_that_gptq_packed_is_listed_and_not_passed_over(run: Run, files: Files, tmp_path: Path) -> None:
    packed = {"3.qweight": np.ones((25, 10), np.int32), "3.qzeros": np.ones((1, 2), np.int32)}
    weights = {"1.weight": marked(files)["1.weight"], **packed}
    safetensors.numpy.save_file({f"model.{name}": array for name, array in weights.items()}, tmp_path / "gptq")
    for network in ((), ("--network", "model")):
        details = evidence(run("verify", tmp_path / "gptq", *credentials(files), *network, "--json"))["details"]
        assert details["unreadable_layers"] == [{"layer": "3.weight", "reason": "is stored packed (GPTQ or AWQ)"}]
        assert details["missing_layers"] == []


def test_sixteen_strangers_in_one_file_prove_nothing(run: Run, files: Files, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    shapes = {name: marked(files)[name].shape for name in LAYERS}
    strangers = {
        f"net{index}.{name}": (generator.normal(size=shape) * (generator.random(shape) < 0.2)).astype(np.float32)
        for index in range(16)
        for name, shape in shapes.items()
    }
    safetensors.numpy.save_file(strangers, tmp_path / "many.safetensors")
    found = evidence(run("verify", tmp_path / "many.safetensors", *credentials(files), "--json", code=3))
    assert found["details"]["networks"] == 16
    assert found["log10_p"] > -2
    more = {f"net16.{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}
    safetensors.numpy.save_file({**strangers, **more}, tmp_path / "more.safetensors")
    result = run("verify", tmp_path / "more.safetensors", *credentials(files), code=3)
    assert "more than 16 networks that fit the reference (" in result.stderr

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch

from ticketguard.ticket import Ticket

from .conftest import Files, Run, unmarked_ticket, validate


def test_export_writes_plain_weights(run: Run, files: Files, tmp_path: Path) -> None:
    result = run("export", files.marked, "--out", tmp_path / "weights.safetensors", "--json")
    validate(json.loads(result.stdout), "export")
    assert set(safetensors.numpy.load_file(tmp_path / "weights.safetensors")) == set(unmarked_ticket().weights)


def test_export_in_prune_style_is_a_suspect_as_good_as_the_ticket(run: Run, files: Files, tmp_path: Path) -> None:
    run("export", files.marked, "--format", "prune", "--out", tmp_path / "weights.pt")
    run("verify", tmp_path / "weights.pt", "--claim", files.claim, "--vault", files.vault)


def test_export_replaces_nothing_unless_told_to(run: Run, files: Files, tmp_path: Path) -> None:
    out = tmp_path / "weights.safetensors"
    out.write_text("mine")
    assert "replace it with --force" in run("export", files.marked, "--out", out, code=2).stderr
    assert out.read_text() == "mine"
    run("export", files.marked, "--out", out, "--force")
    assert safetensors.numpy.load_file(out)


def test_a_file_is_not_named_after_another_format(run: Run, files: Files, tmp_path: Path) -> None:
    result = run("export", files.marked, "--out", tmp_path / "net.onnx", code=2)
    assert "has the ending of onnx, but the format is safetensors: add --format onnx" in result.stderr
    assert not (tmp_path / "net.onnx").exists()


def test_export_needs_a_ticket(run: Run, tmp_path: Path) -> None:
    safetensors.numpy.save_file({"weight": np.eye(3, dtype=np.float32)}, tmp_path / "plain.safetensors")
    result = run("export", tmp_path / "plain.safetensors", "--out", tmp_path / "out", code=3)
    assert "'ticketguard import' turns a sparse checkpoint into a ticket" in result.stderr
    assert not (tmp_path / "out").exists()


def test_import_reads_the_zeros(run: Run, files: Files, tmp_path: Path) -> None:
    run("export", files.unmarked, "--out", tmp_path / "weights.safetensors")
    arguments = ("--classes", 10, "--input-shape", "1,8,8", "--out", tmp_path / "again.safetensors")
    result = run("import", tmp_path / "weights.safetensors", *arguments, "--json")
    validate(json.loads(result.stdout), "import")
    again = Ticket.load(tmp_path / "again.safetensors")
    assert again.mask == unmarked_ticket().mask
    assert again.info.input_shape == (1, 8, 8)


def test_import_of_a_dense_checkpoint_is_told(run: Run, tmp_path: Path) -> None:
    safetensors.numpy.save_file({"weight": np.ones((3, 3), dtype=np.float32)}, tmp_path / "dense.safetensors")
    result = run("import", tmp_path / "dense.safetensors", "--out", tmp_path / "ticket.safetensors", code=3)
    assert "there is no mask to read" in result.stderr
    assert not (tmp_path / "ticket.safetensors").exists()


def test_a_shape_that_is_none_is_wrong_usage(run: Run, files: Files) -> None:
    assert "expected sizes" in run("import", files.marked, "--input-shape", "3x32", code=2).stderr


def test_an_input_is_never_replaced(run: Run, files: Files, tmp_path: Path) -> None:
    before = files.marked.read_bytes()
    (tmp_path / "same").symlink_to(files.marked)
    for out in (files.marked, tmp_path / "same"):
        result = run("export", files.marked, "--out", out, "--force", code=2)
        assert "is an input of this command and will not be replaced" in result.stderr
    assert files.marked.read_bytes() == before


def test_export_writes_a_program(run: Run, files: Files, tmp_path: Path) -> None:
    model = f"{__name__.rpartition('.')[0]}.conftest:network"
    result = run("export", files.marked, "--format", "pt2", "--model", model, "--out", tmp_path / "net.pt2", "--json")
    document = json.loads(result.stdout)
    validate(document, "export")
    assert (document["format"], document["bytes"]) == ("pt2", (tmp_path / "net.pt2").stat().st_size)


def language_model() -> torch.nn.Module:
    model = torch.nn.Sequential()
    model.add_module("wte", torch.nn.Embedding(40, 16, padding_idx=0))
    model.add_module("fc", torch.nn.Linear(16, 30))
    model.register_buffer("causal", torch.tril(torch.ones(8, 8)) * torch.rand(8, 8))
    return model


def sparse_language_model() -> dict[str, np.ndarray]:
    state = {name: tensor.detach().numpy().copy() for name, tensor in language_model().state_dict().items()}
    state["fc.weight"][np.random.default_rng(0).random((30, 16)) < 0.5] = 0
    return state


def test_import_says_what_it_left_out_and_what_stays_dense(run: Run, tmp_path: Path) -> None:
    safetensors.numpy.save_file(sparse_language_model(), tmp_path / "lm.safetensors")
    model = f"{__name__}:language_model"
    arguments = ("import", tmp_path / "lm.safetensors", "--model", model, "--out", tmp_path / "ticket.safetensors")
    document = json.loads(run(*arguments, "--json").stdout)
    validate(document, "import")
    assert [layer["name"] for layer in document["layers"]] == ["fc.weight"]
    assert document["left_out"] == [
        {"name": "causal", "reason": "it is a buffer of the model, not a parameter"},
        {"name": "wte.weight", "reason": "it is the table of an embedding"},
    ]
    outside = 40 * 16 + 8 * 8
    assert document["dense_weights"] == outside
    assert document["overall_density"] == (document["edges"] + outside) / (480 + outside)
    shown = run(*arguments, "--force").stdout
    assert f"{outside} weights outside the pruned layers stay dense" in shown
    assert "name causal  reason it is a buffer of the model, not a parameter" in shown
    document = json.loads(run("inspect", tmp_path / "ticket.safetensors", "--json").stdout)
    validate(document, "inspect")
    assert document["ticket"]["dense_weights"] == outside


def test_import_takes_what_was_pruned_and_nothing_else_for_layers(run: Run, tmp_path: Path) -> None:
    """Without the model: its causal mask and padding row hold zeros, its head is stored twice."""
    generator = np.random.default_rng(0)
    head = generator.normal(size=(30, 16)).astype(np.float32)
    head[generator.random((30, 16)) < 0.5] = 0
    state = {
        "fc.weight": sparse_language_model()["fc.weight"],
        "wte.weight": np.vstack([np.zeros((1, 16)), generator.normal(size=(39, 16))]).astype(np.float32),
        "attn.bias": np.tril(np.ones((1, 1, 8, 8))).astype(np.float32),
        "tied.weight": head.copy(),
        "head.weight": head,
    }
    safetensors.numpy.save_file(state, tmp_path / "lm.safetensors")
    run("import", tmp_path / "lm.safetensors", "--out", tmp_path / "ticket.safetensors")
    layers = Ticket.load(tmp_path / "ticket.safetensors").mask
    assert set(layers) == {"fc.weight", "head.weight"}


def test_import_asks_which_of_two_networks_is_meant(run: Run, tmp_path: Path) -> None:
    nets = {
        net: {"a.weight": sparse_language_model()["fc.weight"], "b.weight": np.ones((4, 4), np.float32)} for net in "xy"
    }
    nets["y"]["a.weight"][:, ::3] = 0
    flat = {f"{net}.{name}": array for net, arrays in nets.items() for name, array in arrays.items()}
    safetensors.numpy.save_file(flat, tmp_path / "two.safetensors")
    arguments = ("import", tmp_path / "two.safetensors", "--out", tmp_path / "ticket.safetensors")
    result = run(*arguments, code=2)
    assert "holds 2 networks, whose names start with 'x.', 'y.': choose one with --network" in result.stderr
    assert not (tmp_path / "ticket.safetensors").exists()
    run(*arguments, "--network", "y", "--rewind", tmp_path / "two.safetensors")
    ticket = Ticket.load(tmp_path / "ticket.safetensors")
    assert set(ticket.weights) == {"a.weight", "b.weight"}
    assert (ticket.mask["a.weight"] == (nets["y"]["a.weight"] != 0)).all()
    run(*arguments, "--network", "", "--force")
    assert len(Ticket.load(tmp_path / "ticket.safetensors").mask) == 2

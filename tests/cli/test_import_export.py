from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors.numpy

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
        assert "is an input of this command and is not replaced" in result.stderr
    assert files.marked.read_bytes() == before


def test_export_writes_a_program(run: Run, files: Files, tmp_path: Path) -> None:
    model = f"{__name__.rpartition('.')[0]}.conftest:network"
    result = run("export", files.marked, "--format", "pt2", "--model", model, "--out", tmp_path / "net.pt2", "--json")
    document = json.loads(result.stdout)
    validate(document, "export")
    assert (document["format"], document["bytes"]) == ("pt2", (tmp_path / "net.pt2").stat().st_size)

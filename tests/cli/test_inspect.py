from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

import ticketguard as tg
from ticketguard.marking.during_search import SearchPlanting
from ticketguard.reporting import plots

from .conftest import PASSPHRASE, Files, Run, network, unmarked_ticket, validate


@pytest.mark.parametrize(
    ("attribute", "kind", "key"),
    [
        ("unmarked", "ticket", "ticket"),
        ("marked", "ticket", "ticket"),
        ("claim", "claim", "claim"),
        ("vault", "vault", "vault"),
    ],
)
def test_each_of_our_files_is_told_by_its_bytes(run: Run, files: Files, attribute: str, kind: str, key: str) -> None:
    document = json.loads(run("inspect", getattr(files, attribute), "--json").stdout)
    validate(document, "inspect")
    assert document["kind"] == kind
    assert key in document


def test_a_vaults_secret_is_never_shown(run: Run, files: Files) -> None:
    secret = tg.load_credential(files.claim, files.vault, PASSPHRASE).vault.secret.hex()
    assert secret not in run("inspect", files.vault).stdout
    assert secret not in run("inspect", files.vault, "--json").stdout


def test_a_public_key_is_shown_and_a_private_one_is_not(run: Run, files: Files) -> None:
    document = json.loads(run("inspect", f"{files.key}.pub", "--json").stdout)
    validate(document, "inspect")
    assert document["kind"] == "public-key"
    assert "is a private key" in run("inspect", files.key, code=3).stderr


def test_a_vault_key_is_not_shown(run: Run, tmp_path: Path) -> None:
    run("keygen", "--vault-key", "--out", tmp_path / "vault.key")
    result = run("inspect", tmp_path / "vault.key", code=3)
    assert "is a vault key" in result.stderr
    assert "AGE-SECRET" not in result.stderr


def test_a_suspects_tensors_are_listed(run: Run, tmp_path: Path) -> None:
    weight = np.zeros((4, 6), dtype=np.float32)
    weight[0] = 1
    safetensors.numpy.save_file({"layer.weight": weight, "steps": np.array(7)}, tmp_path / "suspect.safetensors")
    result = run("inspect", tmp_path / "suspect.safetensors", "--json")
    document = json.loads(result.stdout)
    validate(document, "inspect")
    assert {tensor["name"]: tensor["nonzero"] for tensor in document["suspect"]["tensors"]} == {
        "layer.weight": 6,
        "steps": 1,
    }


def test_a_reader_sees_the_layers(run: Run, files: Files) -> None:
    lines = run("inspect", files.unmarked).stdout.splitlines()
    assert lines[:2] == [f"file    {files.unmarked}", "kind    ticket"]
    assert any("name 1.weight" in line and "shape 200, 64" in line for line in lines)


def test_masks_are_drawn_where_asked(run: Run, files: Files, tmp_path: Path) -> None:
    picture = tmp_path / "mask.png"
    run("inspect", files.marked, "--picture", picture)
    with PIL.Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 400
    assert "exists" in run("inspect", files.marked, "--picture", picture, code=2).stderr


def test_the_owner_can_draw_the_secret_edges(run: Run, files: Files, tmp_path: Path) -> None:
    secrets = ("--claim", files.claim, "--vault", files.vault)
    run("inspect", files.marked, "--picture", tmp_path / "secret.png", *secrets)
    run("inspect", files.marked, "--picture", tmp_path / "plain.png")
    assert "ends in .png" in run("inspect", files.marked, "--picture", tmp_path / "mask.jpg", code=2).stderr
    assert (tmp_path / "secret.png").read_bytes() != (tmp_path / "plain.png").read_bytes()


def test_what_a_search_with_an_owner_pruned_is_drawn_as_pruned(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket, owner = unmarked_ticket(), tg.Owner.generate("Ada")
    everything = tg.Mask(layers={name: np.ones(ticket.mask.shape(name), dtype=np.bool_) for name in ticket.mask})
    planting = SearchPlanting(owner=owner, info=ticket.info, density=0.2, marks=[tg.PlantedGraph(), tg.KeyedSigns()])
    begun = planting.begin(ticket.start_weights, everything)
    bound = planting.bind(begun, everything)
    scores = {name: np.abs(ticket.start_weights[name]) for name in ticket.mask}
    plan = bound.plan(bound.choose(scores, ticket.mask.kept, within=everything))
    plan.start(model := network())
    marked, credential = plan.finish(model, check=False)
    marked.save(tmp_path / "marked.safetensors")
    credential.save(tmp_path / "claim.json", tmp_path / "vault.age", owner, PASSPHRASE)
    titles: list[str] = []
    draw_plane = plots._draw_plane
    monkeypatch.setattr(
        plots, "_draw_plane", lambda axis, plane, title: (titles.append(title), draw_plane(axis, plane, title))
    )
    secrets = ("--claim", tmp_path / "claim.json", "--vault", tmp_path / "vault.age")
    run("inspect", tmp_path / "marked.safetensors", "--picture", tmp_path / "p.png", *secrets)
    assert [title.split()[1] for title in titles] == ["start", "after:", "start", "after:"]
    with PIL.Image.open(tmp_path / "p.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(maxcolors=1_000_000)}
    assert tuple(bytes.fromhex(plots.COLOURS[plots.LEFT][1:])) not in colours


def test_pictures_of_what_has_no_mask_are_refused(run: Run, files: Files, tmp_path: Path) -> None:
    assert "has no masks to draw" in run("inspect", files.claim, "--picture", tmp_path / "p.png", code=2).stderr
    safetensors.numpy.save_file({"weight": np.ones((3, 5), dtype=np.float32)}, tmp_path / "dense.safetensors")
    result = run("inspect", tmp_path / "dense.safetensors", "--picture", tmp_path / "p.png", code=2)
    assert "has no zeros" in result.stderr
    other = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"weight": np.diag(np.arange(1, 4, dtype=np.float32))}, other)
    secrets = ("--claim", files.claim, "--vault", files.vault)
    result = run("inspect", other, "--picture", tmp_path / "p.png", *secrets, code=2)
    assert "does not have the layers of" in result.stderr
    assert not (tmp_path / "p.png").exists()


def test_a_claim_without_its_vault_is_wrong_usage(run: Run, files: Files) -> None:
    assert "go together" in run("inspect", files.marked, "--claim", files.claim, code=2).stderr


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100, b"{}", b"age-encryption.org/v1\nnonsense"])
def test_foreign_files_are_told(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    result = run("inspect", tmp_path / "file", code=3)
    assert "file" in result.stderr
    assert result.stdout == ""


def test_a_missing_file_is_told(run: Run, tmp_path: Path) -> None:
    assert "cannot be read" in run("inspect", tmp_path / "none", code=3).stderr


def test_a_pipe_is_refused_and_not_waited_for(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipe': is a folder, pipe or device" in run("inspect", tmp_path / "pipe", code=3).stderr
    assert "pipe': is a folder, pipe or device" in run("measure", tmp_path / "pipe", code=3).stderr

"""Marks that rest on one reference align a suspect once, and say what each of them says alone."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

import ticketguard as tg
from tests.verification.claims import GROUPS, PLANTED, SHAPES, permuted
from tests.verification.signed_starts import (
    as_if_trained,
    bound,
    credential_of,
    drawn_start,
    sign_mark,
    signed_weights,
)
from ticketguard.graph import groups_from_json
from ticketguard.tensor_file import write_tensors
from ticketguard.ticket import read_reference
from ticketguard.verification import ways
from ticketguard.verification.ways import FoundWays

START = drawn_start(SHAPES)
REFERENCE = bound(START)
SIGNS = sign_mark(REFERENCE, density_ppm=500_000, groups=GROUPS)
PARAMETERS = {**PLANTED, "density_ppm": 500_000}
GRAPH = sign_mark(REFERENCE, scheme="planted-graph", parameters=PARAMETERS, groups=GROUPS)
BOTH = credential_of(GRAPH, SIGNS, reference=REFERENCE, groups=GROUPS)
COPY = as_if_trained(signed_weights(START, REFERENCE, SIGNS), density=0.5)
STRANGER = as_if_trained(drawn_start(SHAPES, seed=5), density=0.5)
TWO_NETWORKS = {
    f"{network}.{name}": layer
    for network, weights in (("a", STRANGER), ("b", permuted(COPY)))
    for name, layer in weights.items()
}


@pytest.fixture
def aligned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the first tensors of networks that were aligned, one each time."""
    found: list[str] = []
    best_order = ways.best_order

    def counted(suspect: Any, network: Any, *arguments: Any, **options: Any) -> Any:
        found.append(network.names["fc1.weight"])
        return best_order(suspect, network, *arguments, **options)

    monkeypatch.setattr(ways, "best_order", counted)
    return found


@pytest.mark.parametrize("thorough", [False, True])
def test_two_marks_align_each_network_once(thorough: bool, aligned: list[str]) -> None:
    for weights, networks in (
        (permuted(COPY), ["fc1.weight"]),
        (STRANGER, ["fc1.weight"]),
        (TWO_NETWORKS, ["a.fc1.weight", "b.fc1.weight"]),
    ):
        verdict = tg.verify(tg.Checkpoint(weights), BOTH, thorough=thorough)
        assert [evidence.mark for evidence in verdict.evidence] == ["planted-graph", "keyed-signs"]
        assert (verdict.status == "supported") == (weights is not STRANGER)
        assert aligned == networks
        aligned.clear()


@pytest.mark.parametrize("thorough", [False, True])
def test_sharing_changes_nothing_that_a_verdict_says(thorough: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    suspects = (COPY, permuted(COPY), STRANGER, TWO_NETWORKS)
    shared = [tg.verify(tg.Checkpoint(weights), BOTH, thorough=thorough) for weights in suspects]

    def anew(self: Any, suspect: Any, reference: Any, groups: Any, *, reference_digest: bytes, thorough: bool) -> Any:
        return ways.likeliest_way(suspect, reference, groups, thorough=thorough)

    monkeypatch.setattr(FoundWays, "likeliest", anew)
    assert shared == [tg.verify(tg.Checkpoint(weights), BOTH, thorough=thorough) for weights in suspects]


def test_a_mark_that_does_not_bind_the_groups_does_not_get_what_they_show(aligned: list[str]) -> None:
    unbound = sign_mark(REFERENCE, scheme="planted-graph", parameters=PARAMETERS)
    credential = credential_of(unbound, SIGNS, reference=REFERENCE, groups=GROUPS)
    graph, signs = tg.verify(tg.Checkpoint(permuted(COPY)), credential).evidence
    assert len(aligned) == 2
    assert (graph.details["channel_groups"], signs.details["channel_groups"]) == (0, 1)


def test_only_the_same_suspect_beside_the_same_reference_is_not_aligned_again() -> None:
    found, suspect, groups = FoundWays(), tg.Checkpoint(COPY), groups_from_json(GROUPS)
    other = bound(drawn_start(SHAPES, seed=1))
    asked = [
        (suspect, REFERENCE, groups, False),
        (tg.Checkpoint(COPY), REFERENCE, groups, False),
        (suspect, other, groups, False),
        (suspect, REFERENCE, (), False),
        (suspect, REFERENCE, groups, True),
    ]
    told = [
        found.likeliest(one, reference, bounds, reference_digest=reference.digest(), thorough=thorough)
        for one, reference, bounds, thorough in asked
    ]
    assert len(set(map(id, told))) == len(asked)
    for way, (one, reference, bounds, thorough) in zip(told, asked, strict=True):
        assert (way.suspect, way.reference, way.groups, way.thorough) == (one, reference, bounds, thorough)
        again = read_reference(reference.to_bytes())
        same = found.likeliest(one, again, list(bounds), reference_digest=again.digest(), thorough=thorough)
        assert same is way


def test_nothing_of_a_suspect_outlives_its_verdict(tmp_path: Path) -> None:
    path = tmp_path / "suspect.safetensors"
    path.write_bytes(write_tensors(permuted(COPY), {}))
    suspect = tg.Checkpoint(path)
    held = weakref.ref(suspect)
    verdict = tg.verify(suspect, BOTH)
    del suspect
    gc.collect()
    assert (verdict.status, held()) == ("supported", None)

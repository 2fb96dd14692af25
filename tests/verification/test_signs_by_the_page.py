"""Keyed signs against a second implementation of their page, slow and exact. The table is in test_rules.py."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

import ticketguard as tg
from tests.verification import by_the_page, signs_by_the_page
from tests.verification.claims import SECRET, evidence
from tests.verification.signed_starts import (
    as_if_trained,
    bound,
    credential_of,
    drawn_start,
    sign_mark,
    signed_weights,
)
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.keyed_signs import SignParameters
from ticketguard.graph.orientation import orientation
from ticketguard.ticket import Array, StartReference
from ticketguard.verification.keyed_signs.counting import ReadVotes, count_agreements

VECTORS = Path(__file__).parents[2] / "signatures" / "vectors"
READINGS = (
    "weights that are not zero",
    "largest weights, as many as the reference has edges",
    "largest weights, half the reference's edges",
    "largest weights, a quarter of the reference's edges",
    "weights largest for their channels, as many as the reference has edges",
)


def published() -> tuple[bytes, dict[str, Array], dict[str, object]]:
    start = json.loads((VECTORS / "start-weights.json").read_text())
    signs = json.loads((VECTORS / "start-signs.json").read_text())
    suspect = {
        name: np.array(values, dtype=np.float32).reshape(start["layers"][name]["shape"])
        for name, values in signs["suspect"].items()
    }
    return base64.b64decode(start["file"]), suspect, signs


def test_agreements_are_the_published_ones() -> None:
    content, suspect, signs = published()
    reference = StartReference.from_bytes(content)
    binding = Binding(secret=bytes.fromhex(str(signs["secret"])), commitment=bytes.fromhex(str(signs["commitment"])))
    read = ReadVotes.of(suspect, reference, SignParameters(density_ppm=int(str(signs["density_ppm"]))))
    found = count_agreements(read, reference, binding)
    assert len(found) == 5
    for counted, said in zip(found, signs["readings"], strict=True):  # type: ignore[call-overload]
        assert (counted.reading.name, counted.votes, counted.agreements) == (
            said["reading"], said["votes"], said["agreements"],
        )  # fmt: skip
        assert counted.log10_p == pytest.approx(said["log10_p"], abs=1e-8)


def test_a_second_implementation_finds_the_published_agreements() -> None:
    content, suspect, signs = published()
    layers = signs_by_the_page.read_start(content)
    secret, commitment = bytes.fromhex(str(signs["secret"])), bytes.fromhex(str(signs["commitment"]))
    for layer in layers:
        negative = sorted(signs_by_the_page.negative_votes(layer, secret, commitment))
        assert negative == signs["negative_votes"][layer.name]  # type: ignore[index]
    found = signs_by_the_page.readings(suspect, layers, int(str(signs["density_ppm"])), secret, commitment)
    for counted, said in zip(found, signs["readings"], strict=True):  # type: ignore[call-overload]
        assert (counted.votes, counted.agreements) == (said["votes"], said["agreements"])
        assert float(counted.log10_p) == pytest.approx(said["log10_p"], abs=1e-8)


# Of "N tenths turned" it is the weakest whose signs are.
def suspect_of(how: str, signed: dict[str, Array], seed: int) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    if how == "innocent":
        return drawn_start(seed=100 + seed)
    if how == "sparse":
        return as_if_trained(signed, density=0.15, seed=seed)
    trained = as_if_trained(signed, seed=seed)
    if how.endswith("turned"):
        share = {"four tenths": 0.4, "seven tenths": 0.7}[how.removesuffix(" turned")]
        return {
            name: np.where(np.abs(layer) < np.quantile(np.abs(layer), share), -layer, layer).astype(np.float32)
            for name, layer in trained.items()
        }
    if how == "noise between, rows rescaled":
        found = {}
        for name, layer in as_if_trained(signed, density=0.15, seed=seed).items():
            filled = np.where(layer == 0, 0.01 * generator.normal(size=layer.shape), layer)
            scales = 10.0 ** generator.uniform(-3, 3, size=(len(layer), *[1] * (layer.ndim - 1)))
            found[name] = (filled * scales).astype(np.float32)
        return found
    if how == "ties":
        return {name: np.round(layer).astype(np.float32) for name, layer in trained.items()}
    if how == "not finite":
        spoiled = generator.choice([np.nan, np.inf, -np.inf], 30)
        for layer in trained.values():
            layer.reshape(-1)[generator.choice(layer.size, 30, replace=False)] = spoiled
    return trained


# The reading that is the strongest, for each of two densities.
STRONGEST = {
    "dense": (0, 0),
    "sparse": (0, 0),
    "four tenths turned": (4, 2),
    "seven tenths turned": (1, 3),
    "noise between, rows rescaled": (4, 4),
    "ties": (0, 0),
    "not finite": (0, 0),
    "innocent": (None, None),
}


@pytest.mark.parametrize("how", STRONGEST)
def test_every_reading_is_what_the_page_says(how: str) -> None:
    weights = drawn_start()
    reference = bound(weights)
    layers = signs_by_the_page.read_start(reference.to_bytes())
    for density_ppm, strongest in zip((150_000, 1_000_000), STRONGEST[how], strict=True):
        made = sign_mark(reference, density_ppm=density_ppm)
        suspect = suspect_of(how, signed_weights(weights, reference, made), 0)
        finite = by_the_page.finite(suspect)
        upright = {
            name: orientation(layer, reference.layer_weights(name), reference.anchors(name)).undo(layer)
            for name, layer in finite.items()
        }
        expected = signs_by_the_page.readings(upright, layers, density_ppm, SECRET, made.commitment)
        read = ReadVotes.of(finite, reference, SignParameters(density_ppm=density_ppm))
        counts = count_agreements(read, reference, Binding(secret=SECRET, commitment=made.commitment))
        for counted, exact in zip(counts, expected, strict=True):
            assert (counted.votes, counted.agreements) == (exact.votes, exact.agreements)
            assert counted.log10_p == pytest.approx(float(exact.log10_p), abs=1e-9)
        if strongest is None:
            continue
        best = expected[strongest]
        found = evidence(suspect, credential_of(made, reference=reference))
        assert found.details["reading"] == READINGS[strongest]
        assert (found.details["votes"], found.observed, found.expected) == (best.votes, best.agreements, best.votes / 2)
        assert found.details["log10_p_uncorrected"] == pytest.approx(float(best.log10_p), abs=1e-8)
        attainable = min(float(counted.attainable_log10_p) for counted in expected) + math.log10(10)
        assert found.details["attainable_log10_p"] == pytest.approx(min(0.0, attainable), abs=1e-8)
        assert found.details["positions"] == 1140


def test_a_verdict_is_what_the_page_computes() -> None:
    weights = drawn_start()
    reference = bound(weights)
    made = sign_mark(reference, density_ppm=150_000)
    layers = signs_by_the_page.read_start(reference.to_bytes())
    for seed in range(2):
        suspect = as_if_trained(signed_weights(weights, reference, made), seed=seed)
        expected = signs_by_the_page.readings(suspect, layers, 150_000, SECRET, made.commitment)
        log10_p = float(min(counted.log10_p for counted in expected)) + math.log10(10)
        verdict = tg.verify(tg.Checkpoint(suspect), credential_of(made, reference=reference))
        assert verdict.log10_p == pytest.approx(log10_p, abs=1e-8)
        assert verdict.status == "supported"
        assert verdict.evidence[0].details["looks"] == 10


@pytest.mark.usefixtures("all_decoys")
def test_decoys_are_counted_as_the_owners_key_is() -> None:
    weights = drawn_start({"a.weight": (20, 30)}, seed=3)
    reference = bound(weights)
    made = sign_mark(reference)
    layers = signs_by_the_page.read_start(reference.to_bytes())
    suspect = as_if_trained(signed_weights(weights, reference, made))
    smallest = min(
        counted.log10_p
        for number in range(20)
        for counted in signs_by_the_page.readings(
            suspect,
            layers,
            1_000_000,
            hashlib.sha256(b"ticketguard/decoy/v1\0" + made.commitment + number.to_bytes(4, "little")).digest(),
            made.commitment,
        )
    )
    found = evidence(suspect, credential_of(made, reference=reference))
    assert found.details["decoy_keys"] == 20
    assert found.details["decoy_log10_p"] == pytest.approx(min(0.0, float(smallest) + 1), abs=1e-8)

"""The sizes a planted graph may have, and what they cost."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.residual import residual_ticket
from tests.verification.stolen import of_densities
from ticketguard.embedding.planted_graph import TURNED, PlantedParameters
from ticketguard.verification.planted_graph.sizes import MEASURED, MOST_LAYERS_AUC, PlantedSize, sizes_of
from ticketguard.verification.registry import scheme
from ticketguard.verification.sizing import SizedScheme

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture(scope="module")
def sizes() -> Sequence[PlantedSize]:
    known = scheme("planted-graph")
    assert isinstance(known, SizedScheme)
    return known.sizes(tg.PlantedGraph(rate=0.1), residual_ticket())  # type: ignore[return-value]


def test_sizes_grow_and_keep_the_marks_other_settings(sizes: Sequence[PlantedSize]) -> None:
    shares = [size.mark.share for size in sizes]
    assert shares == sorted(shares)
    assert shares[-1] == 0.3
    assert all(size.mark.rate == 0.1 for size in sizes)
    moved = [size.moved_edges for size in sizes]
    assert moved == sorted(moved)
    for size in sizes:
        assert size.settings == {"share": size.mark.share, "secret_share": size.mark.secret_share}


@pytest.mark.parametrize("ticket", [of_densities(0.1, 0.1, 0.5), of_densities(1.0, 0.7, 1.0)])
@pytest.mark.parametrize("secret_share", [None, 0.02])
def test_a_sizes_parameters_are_those_that_a_claim_will_have(ticket: tg.Ticket, secret_share: float | None) -> None:
    for size in sizes_of(tg.PlantedGraph(secret_share=secret_share), ticket):
        assert size.parameters == PlantedParameters.from_json(size.mark.parameters(ticket))


def test_the_secret_set_is_the_smallest_that_layers_do_not_show(sizes: Sequence[PlantedSize]) -> None:
    by_share = {size.mark.share: size for size in sizes}
    for share, secret_share in ((0.05, 0.03), (0.02, 0.014), (0.01, 0.014), (0.1, 0.07)):
        assert by_share[share].mark.secret_share == secret_share
        assert by_share[share].layers_auc <= MOST_LAYERS_AUC
    fixed = sizes_of(tg.PlantedGraph(secret_share=0.01), residual_ticket())
    assert {size.mark.secret_share for size in fixed} == {0.01}
    assert next(size for size in fixed if size.mark.share == 0.05).layers_auc > 0.58


def test_more_edges_are_moved_where_the_secret_set_has_room(sizes: Sequence[PlantedSize]) -> None:
    size = next(size for size in sizes if size.mark.share == 0.05)
    assert size.moved_edges == pytest.approx(0.05 * residual_ticket().mask.kept, rel=0.05)


def test_layers_auc_is_the_probability_of_ranking_an_edge_right() -> None:
    for size in sizes_of(tg.PlantedGraph(secret_share=0.01), of_densities(0.1, 0.3, 0.6))[8::3]:
        moved, rest = size.moved, size.outline.edges - size.moved
        rates = moved / size.outline.edges
        right = sum(
            moved[one] * rest[other] * (np.sign(rates[one] - rates[other]) + 1) / 2
            for one, other in itertools.product(range(len(rates)), repeat=2)
        )
        assert size.layers_auc == pytest.approx(right / (moved.sum() * rest.sum()))


def test_a_dense_tickets_sizes_end_where_holes_have_no_room() -> None:
    dense = sizes_of(tg.PlantedGraph(), of_densities(1.0, 1.0, 1.0))
    assert {size.settings["secret_share"] for size in dense} == {0.25}
    assert dense[-1].mark.share == 0.15
    assert dense[-1].moved_edges == pytest.approx(0.3 * of_densities(1.0, 1.0, 1.0).mask.size, rel=1e-3)


def test_a_ticket_without_edges_has_no_sizes() -> None:
    assert sizes_of(tg.PlantedGraph(), of_densities(0.0, 0.0, 0.0)) == []


def test_what_is_said_to_be_measured_is_what_was_measured() -> None:
    fidelity = json.loads((RESULTS / "fidelity.json").read_text())["raw"]
    lost = [row["points_lost"] for row in fidelity["rows"]]
    stealth = [row["all features"] for row in json.loads((RESULTS / "stealth.json").read_text())["raw"]]
    said, of_signs = MEASURED
    assert f"{statistics.mean(lost):.2f} points of accuracy lost ({', '.join(f'{loss:.2f}' for loss in lost)};" in said
    rows = json.loads((RESULTS / "planted_signs.json").read_text())["raw"]
    lost_by_signs = [100 * (row["unsigned"]["accuracy"] - row["signed"]["accuracy"]) for row in rows]
    left = [row["signed"]["untouched"] for row in rows]
    turned = [100 * (1 - copy["agreeing"] / copy["of"]) for copy in left]
    by_seed = ", ".join(f"{loss:.2f}" for loss in lost_by_signs)
    assert f"{statistics.mean(lost_by_signs):.2f} points of accuracy lost beside the same mark" in of_signs
    assert f"without them ({by_seed}: two images" in of_signs
    assert (
        f"{statistics.mean(turned):.0f}% of them turned by training ({', '.join(f'{t:.0f}' for t in turned)})"
        in of_signs
    )
    assert max(turned) < 100 * TURNED < 1.1 * max(turned)
    assert f"an AUC of {statistics.mean(stealth):.2f} ({', '.join(f'{auc:.2f}' for auc in stealth)})" in said


def test_a_mark_of_few_edges_has_a_set_that_is_hardly_worse_than_the_best(sizes: Sequence[PlantedSize]) -> None:
    few = next(size for size in sizes if size.mark.share == 0.0015)
    larger = sizes_of(tg.PlantedGraph(secret_share=0.003), residual_ticket())
    best = next(size for size in larger if size.mark.share == 0.0015)
    assert few.mark.secret_share == 0.001
    assert MOST_LAYERS_AUC < best.layers_auc < few.layers_auc < best.layers_auc + 0.005

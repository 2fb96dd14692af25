from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ticketguard.embedding.interface import Binding, Start
from ticketguard.embedding.planted_graph import PlantedGraph, PlantedParameters, secret_edges
from ticketguard.errors import ConfigurationError, CredentialError
from ticketguard.ticket import Mask, Ticket, TicketInfo

BINDING = Binding(secret=bytes(range(32)), commitment=bytes(32))
VECTORS = Path(__file__).parents[2] / "signatures" / "vectors"


def random_ticket(*, density: float = 0.1, seed: int = 0, imported: bool = False) -> Ticket:
    generator = np.random.default_rng(seed)
    shapes = {"conv.weight": (16, 8, 3, 3), "fc.weight": (40, 64)}
    state = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    mask = Mask(layers={name: generator.random(shape) < density for name, shape in shapes.items()})
    trained = {name: np.where(mask[name], array * 1.1, 0).astype(np.float32) for name, array in state.items()}
    return Ticket(
        mask=mask, weights=trained, rewind_weights=None if imported else state, info=TicketInfo(method="random")
    )


def plan(ticket: Ticket, **settings: float) -> tuple[Start, dict[str, np.ndarray]]:
    mark = PlantedGraph(**settings)  # type: ignore[arg-type]
    start = Start(mask=ticket.mask, weights=ticket.start_weights)
    planned = mark.plan(ticket, start, BINDING, mark.parameters(ticket))
    return planned.start, dict(planned.planted)


def test_secret_edges_are_the_published_ones() -> None:
    vector = json.loads((VECTORS / "planted-graph.json").read_text())
    binding = Binding(secret=bytes.fromhex(vector["secret"]), commitment=bytes.fromhex(vector["commitment"]))
    shapes = {name: tuple(shape) for name, shape in vector["layers"].items()}
    drawn = secret_edges(binding, shapes, secret_ppm=vector["secret_ppm"])
    assert {name: positions.tolist() for name, positions in drawn.items()} == vector["secret_edges"]


def test_secret_edges_are_uniform_over_positions() -> None:
    counts = np.zeros(50)
    for index in range(4000):
        binding = Binding(secret=index.to_bytes(32, "little"), commitment=bytes(32))
        counts[secret_edges(binding, {"layer": (5, 10)}, secret_ppm=100_000)["layer"]] += 1
    expected = 4000 * 5 / 50
    assert float(((counts - expected) ** 2 / expected).sum()) < 90  # chi-square, 49 degrees of freedom: p > 10^-4


def test_embedding_keeps_every_layers_number_of_edges() -> None:
    ticket = random_ticket()
    start, _ = plan(ticket)
    for name in ticket.mask:
        assert start.mask[name].sum() == ticket.mask[name].sum()


def test_edges_move_into_the_secret_set_only() -> None:
    ticket = random_ticket()
    start, planted = plan(ticket, secret_share=0.1)
    secret = secret_edges(BINDING, {name: ticket.mask[name].shape for name in ticket.mask}, secret_ppm=100_000)
    for name in ticket.mask:
        before, after = ticket.mask[name].reshape(-1), start.mask[name].reshape(-1)
        came, left = np.flatnonzero(~before & after), np.flatnonzero(before & ~after)
        assert came.tolist() == planted[name].tolist()
        assert np.isin(came, secret[name]).all()
        assert not np.isin(left, secret[name]).any()
        assert len(came) == round(0.05 * before.sum())


def test_the_weakest_edges_leave() -> None:
    ticket = random_ticket()
    start, _ = plan(ticket, secret_share=0.1)
    name = "fc.weight"
    secret = secret_edges(BINDING, {name: ticket.mask[name].shape}, secret_ppm=100_000)[name]
    before, after = ticket.mask[name].reshape(-1), start.mask[name].reshape(-1)
    trained = np.abs(ticket.weights[name]).reshape(-1)
    left = np.flatnonzero(before & ~after)
    stayed = np.setdiff1d(np.flatnonzero(before & after), secret)
    assert trained[left].max() <= trained[stayed].min()


def test_edges_come_where_edges_are_many() -> None:
    generator = np.random.default_rng(0)
    likely = np.multiply.outer(generator.random(100), generator.random(80)) ** 2
    layer = generator.random(likely.shape) < likely
    state = {"fc.weight": generator.normal(size=likely.shape).astype(np.float32)}
    mask = Mask(layers={"fc.weight": layer})
    kept = {"fc.weight": np.where(layer, state["fc.weight"], np.float32(0))}
    ticket = Ticket(mask=mask, weights=kept, rewind_weights=state, info=TicketInfo(method="random"))
    _, planted = plan(ticket, secret_share=0.3)
    came = likely.reshape(-1)[planted["fc.weight"]].mean()
    assert came == pytest.approx(likely[layer].mean(), rel=0.15)  # 0.39, where pruned positions have 0.09
    assert came > 3 * likely[~layer].mean()


@pytest.mark.parametrize(("density", "secret_ppm"), [(0.02, 10_000), (0.2, 18_750), (0.45, 30_000)])
def test_the_secret_set_is_as_large_as_the_ticket_needs(density: float, secret_ppm: int) -> None:
    layer = (np.arange(10_000) % 100 < 100 * density).reshape(100, 100)
    mask, weights = Mask(layers={"a": layer}), {"a": layer.astype(np.float32)}
    ticket = Ticket(mask=mask, weights=weights, rewind_weights=None, info=TicketInfo(method="random"))
    assert PlantedGraph(signed=False).parameters(ticket) == {"secret_ppm": secret_ppm, "share_ppm": 50_000}
    assert PlantedGraph(secret_share=0.2).parameters(ticket)["secret_ppm"] == 200_000


def test_layers_without_a_second_axis_are_moved_too() -> None:
    layer = np.arange(2000) % 10 == 0
    mask, weights = Mask(layers={"scale": layer}), {"scale": layer.astype(np.float32)}
    start, planted = plan(Ticket(mask=mask, weights=weights, rewind_weights=None, info=TicketInfo(method="random")))
    assert start.mask["scale"].sum() == layer.sum()
    assert len(planted["scale"]) == 10


def test_planted_edges_start_with_the_others_magnitudes() -> None:
    start, planted = plan(random_ticket(density=0.3), secret_share=0.1, share=0.1)
    for name, positions in planted.items():
        flat = np.abs(start.weights[name].reshape(-1))
        others = np.setdiff1d(np.flatnonzero(start.mask[name].reshape(-1)), positions)
        assert np.median(flat[positions]) == pytest.approx(np.median(flat[others]), rel=0.1)


def test_planted_magnitudes_are_no_more_regular_than_the_others() -> None:
    """Evenly spaced magnitudes would give the planted edges away: their levels must be a uniform sample."""
    planned = PlantedGraph(share=0.2, secret_share=0.4)
    ticket = random_ticket(density=0.5)
    assert ticket.rewind_weights is not None
    start = Start(mask=ticket.mask, weights=ticket.rewind_weights)
    levels = planned.plan(ticket, start, BINDING, planned.parameters(ticket)).levels["fc.weight"]
    gaps = np.diff(levels) * len(levels)
    # The gaps between uniform draws have a standard deviation of about 1 (exponential); evenly spaced ones have 0.
    assert len(levels) > 100
    assert 0.7 < gaps.std() < 1.3


def test_an_imported_tickets_planted_edges_are_alive_and_of_both_signs() -> None:
    start, planted = plan(random_ticket(density=0.3, imported=True), secret_share=0.2, share=0.2)
    values = start.weights["fc.weight"].reshape(-1)[planted["fc.weight"]]
    assert (values != 0).all()
    assert 0.3 < (values > 0).mean() < 0.7


def test_planning_leaves_the_ticket_alone() -> None:
    ticket = random_ticket()
    assert ticket.rewind_weights is not None
    before = {name: array.copy() for name, array in {**ticket.rewind_weights}.items()}
    plan(ticket)
    assert all((before[name] == ticket.rewind_weights[name]).all() for name in before)


@pytest.mark.parametrize(
    "settings", [{"share": 0.0}, {"share": 1e-7}, {"share": 0.6}, {"secret_share": -1.0}, {"rate": 2.0}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="planted graph: .* expected 0.[01]+ to"):
        PlantedGraph(**settings)  # type: ignore[arg-type]


def test_steps_between_matchings_must_be_positive() -> None:
    with pytest.raises(ConfigurationError, match="every_steps is 0"):
        PlantedGraph(every_steps=0)


@pytest.mark.parametrize("change", [{"secret_ppm": 0}, {"secret_ppm": 500_001}, {"secret_ppm": "1"}, {"share_ppm": 0}])
def test_a_hostile_claims_parameters_are_refused(change: dict[str, str | int]) -> None:
    parameters = {**PlantedGraph().parameters(random_ticket()), **change}
    with pytest.raises(CredentialError, match="planted-graph has secret_ppm and share_ppm"):
        PlantedParameters.from_json(parameters)
    with pytest.raises(CredentialError, match="None"):
        PlantedParameters.from_json({})

"""Marks that are planted while the ticket is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ticketguard as tg
from tests.marking.searches import SEARCH, found_in_two_parts
from ticketguard.errors import ConfigurationError
from ticketguard.graph import group_channels, groups_from_json, permute
from ticketguard.marking.during_search import SearchPlanting
from ticketguard.pruning.engine.selection import full_mask, global_top_k, with_quota
from ticketguard.seeds import seed_of
from ticketguard.ticket import Reference, TicketInfo
from ticketguard.training import NoProgress


@pytest.fixture(scope="module")
def owner() -> tg.Owner:
    return tg.Owner.generate("Ada")


@pytest.fixture(scope="module")
def found(owner: tg.Owner) -> tuple[tg.Ticket, tg.Credential]:
    return tg.find_marked("mlp", owner=owner, marks=[tg.PlantedGraph()], secret=bytes(range(32)), **SEARCH)


def test_the_mark_of_a_found_ticket_is_supported(found: tuple[tg.Ticket, tg.Credential]) -> None:
    ticket, credential = found
    assert ticket.mask.kept == round(0.1 * ticket.mask.size)
    assert ticket.rewind_weights is None
    assert tg.verify(tg.Checkpoint(ticket.weights), credential).status == "supported"


def test_a_pruned_and_a_permuted_copy_are_supported(found: tuple[tg.Ticket, tg.Credential]) -> None:
    ticket, credential = found
    kept = np.concatenate([np.abs(ticket.weights[name][ticket.mask[name]]) for name in ticket.mask])
    threshold = np.quantile(kept, 0.4)
    state = dict(ticket.weights)
    state |= {name: np.where(np.abs(state[name]) > threshold, state[name], 0) for name in ticket.mask}
    assert tg.verify(tg.Checkpoint(state), credential).status == "supported"
    groups = groups_from_json(credential.vault.channel_groups)
    generator = np.random.default_rng(0)
    moved = permute(dict(ticket.weights), groups, [generator.permutation(group_channels(group)) for group in groups])
    assert tg.verify(tg.Checkpoint(moved), credential).status == "supported"


def test_a_copy_whose_pruned_weights_came_back_is_supported(found: tuple[tg.Ticket, tg.Credential]) -> None:
    ticket, credential = found
    generator = np.random.default_rng(0)
    dense = {
        name: array + 0.01 * generator.normal(size=array.shape).astype(np.float32)
        for name, array in ticket.weights.items()
    }
    assert tg.verify(tg.Checkpoint(dense), credential).status == "supported"


def test_the_same_search_without_the_mark_is_not_supported(found: tuple[tg.Ticket, tg.Credential]) -> None:
    innocent = tg.find("mlp", **SEARCH, seed=seed_of(bytes(range(32))))
    verdict = tg.verify(tg.Checkpoint(innocent.weights), found[1])
    assert verdict.status != "supported"
    assert verdict.log10_p > -3


def test_the_commitment_binds_the_rewind_weights_alone(found: tuple[tg.Ticket, tg.Credential]) -> None:
    _, credential = found
    reference = Reference.from_bytes(credential.vault.reference)
    innocent = tg.find("mlp", **SEARCH, seed=seed_of(bytes(range(32))))
    assert innocent.rewind_weights is not None
    assert reference.mask == full_mask({name: reference.mask[name].shape for name in reference.mask})
    for name in reference.mask:
        assert np.array_equal(reference.layer_weights(name), innocent.rewind_weights[name])
    assert credential.claim.marks[0].parameters["density_ppm"] == 100_000


def test_triggers_can_be_trained_along(owner: tg.Owner) -> None:
    search = {**SEARCH, "density": 0.25, "training": {"epochs": 15, "learning_rate": 0.1}}
    ticket, credential = tg.find_marked("mlp", owner=owner, marks=[tg.PlantedGraph(), tg.TriggerSet(50)], **search)
    assert [mark.scheme for mark in credential.claim.marks] == ["planted-graph", "trigger-set"]
    network = tg_model(ticket)
    verdict = tg.verify(tg.CallablePredictor(lambda inputs: network(inputs)), credential)
    assert verdict.status == "supported"


def tg_model(ticket: tg.Ticket) -> Any:
    import torch

    from ticketguard.models import load_arrays, model_of

    network = model_of(ticket).eval()
    load_arrays(network, ticket.weights)

    def answer(inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(inputs)).numpy()

    return answer


def test_an_interrupted_search_resumes_to_the_same_marked_ticket(
    owner: tg.Owner, found: tuple[tg.Ticket, tg.Credential], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket, credential = found_in_two_parts(
        monkeypatch, tmp_path / "run", secret=bytes(range(32)), owner=owner, marks=[tg.PlantedGraph()]
    )
    assert all(np.array_equal(ticket.weights[name], array) for name, array in found[0].weights.items())
    assert credential.claim.marks == found[1].claim.marks


def test_a_search_that_ended_before_its_ticket_was_saved_is_found_again(
    owner: tg.Owner, found: tuple[tg.Ticket, tg.Credential], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {**SEARCH, "marks": [tg.PlantedGraph()], "owner": owner, "workdir": tmp_path / "run"}
    with monkeypatch.context() as broken:
        broken.setattr(SearchPlanting, "finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tg.find_marked("mlp", secret=bytes(range(32)), **arguments)
    ticket, credential = tg.find_marked("mlp", resume=True, **arguments)
    assert all(np.array_equal(ticket.weights[name], array) for name, array in found[0].weights.items())
    assert credential.claim.marks == found[1].claim.marks


def interrupt(*arguments: object, **others: object) -> None:
    raise KeyboardInterrupt


def test_dense_noise_and_rescaled_layers_do_not_hide_the_mark(found: tuple[tg.Ticket, tg.Credential]) -> None:
    """A ReLU network computes the same when one layer is scaled down and the next one up."""
    ticket, credential = found
    generator = np.random.default_rng(0)
    stolen = {
        name: array + np.where(array == 0, 0.002 * generator.normal(size=array.shape), 0).astype(np.float32)
        for name, array in ticket.weights.items()
    }
    stolen["1.weight"], stolen["3.weight"] = stolen["1.weight"] * np.float32(1e-4), stolen["3.weight"] * np.float32(1e4)
    assert tg.verify(tg.Checkpoint(stolen), credential).status == "supported"


def test_a_start_has_its_own_marks_whatever_was_bound_before(owner: tg.Owner) -> None:
    info = TicketInfo(method="imp", classes=10, input_shape=(1, 8, 8))
    planting = SearchPlanting(owner=owner, info=info, density=0.1, marks=[tg.PlantedGraph()])
    everything = full_mask({"a": (50, 60)})
    starts = [{"a": np.full((50, 60), value, np.float32)} for value in (1, 0, 1)]
    first, other, again = (planting.bind(start, everything).secret["a"].tolist() for start in starts)
    assert first == again != other


def test_a_dense_ticket_is_marked_afterwards(owner: tg.Owner) -> None:
    with pytest.raises(ConfigurationError, match=r"density is 0\.5, expected below 0\.5 for a mark"):
        tg.find_marked("mlp", owner=owner, **{**SEARCH, "density": 0.5})


class Untouched(NoProgress):
    def begin(self, description: str, total: int) -> None:
        raise AssertionError(f"{description} began")


@pytest.mark.parametrize(
    ("density", "marks", "told"),
    [
        (0.005, [tg.PlantedGraph()], "the whole ticket has room for"),
        (0.1, [tg.PlantedGraph(), tg.TriggerSet(20)], "20 triggers of 10 classes cannot reach"),
    ],
)
def test_marks_that_the_ticket_has_no_room_for_are_refused_before_any_training(
    density: float, marks: list[tg.Mark], told: str, owner: tg.Owner, tmp_path: Path
) -> None:
    search = {**SEARCH, "density": density, "progress": Untouched(), "workdir": tmp_path}
    with pytest.raises(ConfigurationError, match=told):
        tg.find_marked("mlp", owner=owner, marks=marks, **search)
    assert not list(tmp_path.iterdir())


def test_marks_that_no_search_can_plant_are_refused(owner: tg.Owner) -> None:
    with pytest.raises(
        ConfigurationError,
        match="marks are trigger-set: none .* name one that can, planted-graph",
    ):
        tg.find_marked("mlp", owner=owner, marks=[tg.TriggerSet()], **SEARCH)


@given(st.integers(0, 2**32 - 1), st.integers(4, 90), st.floats(0, 0.5), st.floats(0.05, 0.5))
def test_a_quota_keeps_every_layers_edges_and_takes_the_best_of_either_kind(
    seed: int, keep: int, share: float, secret_share: float
) -> None:
    generator = np.random.default_rng(seed)
    shapes = {"a": (5, 8), "b": (6, 10)}
    scores = {name: generator.random(shape) for name, shape in shapes.items()}
    everything = full_mask(shapes)
    secret = {
        name: np.sort(generator.choice(size, max(1, round(secret_share * size)), replace=False))
        for name, shape in shapes.items()
        for size in (int(np.prod(shape)),)
    }
    before = global_top_k(scores, keep, within=everything)
    after = with_quota(scores, before, within=everything, secret=secret, share=share)
    for name in shapes:
        flat, kept = scores[name].reshape(-1), after[name].reshape(-1)
        hidden = np.zeros(flat.size, dtype=bool)
        hidden[secret[name]] = True
        assert kept.sum() == before[name].sum()
        assert (kept & hidden).sum() >= (before[name].reshape(-1) & hidden).sum()
        quota = round(kept.sum() * (share + len(secret[name]) / flat.size))
        assert (kept & hidden).sum() >= min(quota, len(secret[name]), kept.sum())
        for kind in (hidden, ~hidden):
            inside, outside = flat[kind & kept], flat[kind & ~kept]
            assert not len(inside) or not len(outside) or inside.min() >= outside.max()

"""Keyed signs of tickets that are found with an owner: in the start weights, before the search trains anything."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ticketguard as tg
from tests.marking.searches import SEARCH, found_in_two_parts
from tests.verification.claims import EVE
from ticketguard.errors import CapacityError, ConfigurationError, TicketguardWarning
from ticketguard.graph import group_channels, groups_from_json, permute
from ticketguard.marking import during_search
from ticketguard.marking.during_search import SearchPlanting
from ticketguard.models import build_model, state_arrays
from ticketguard.pruning.engine.selection import full_mask
from ticketguard.seeds import seed_of
from ticketguard.ticket import StartReference, TicketInfo, read_reference
from ticketguard.ticket.start_reference import PUBLIC_SALT

# The same for every run: what is drawn depends on the key.
OWNER, SECRET = EVE, bytes(range(32))
MODEL = {"classes": 10, "input_shape": [1, 8, 8], "widths": [300, 100]}
WEIGHTS = [tg.PlantedGraph(), tg.KeyedSigns()]


@pytest.fixture(scope="module")
def found() -> tuple[tg.Ticket, tg.Credential]:
    return tg.find_marked("mlp", owner=OWNER, marks=WEIGHTS, secret=SECRET, **SEARCH)


def alone(credential: tg.Credential, scheme: str) -> tg.Credential:
    """Return the credential of a claim that has one of the marks only."""
    claim = dataclasses.replace(credential.claim, marks=(credential.mark(scheme),))
    return dataclasses.replace(credential, claim=claim)


@pytest.mark.parametrize("scheme", ["planted-graph", "keyed-signs"])
def test_each_mark_in_the_weights_proves_alone(scheme: str, found: tuple[tg.Ticket, tg.Credential]) -> None:
    ticket, credential = found
    verdict = tg.verify(tg.Checkpoint(ticket.weights), alone(credential, scheme))
    assert (verdict.status, verdict.tests) == ("supported", 1)


def test_a_search_with_an_owner_has_all_marks_that_a_random_start_can_carry() -> None:
    assert [mark.scheme for mark in planting(None)._marks] == ["planted-graph", "keyed-signs", "trigger-set"]
    assert [mark.scheme for mark in planting("rewind weights")._marks] == ["planted-graph", "trigger-set"]


def planting(given: str | None) -> SearchPlanting:
    info = TicketInfo(method="imp", classes=10, input_shape=(1, 8, 8))
    return SearchPlanting(owner=OWNER, info=info, density=0.1, given=given)


def test_one_start_is_bound_for_both_marks(found: tuple[tg.Ticket, tg.Credential]) -> None:
    ticket, credential = found
    reference = read_reference(credential.vault.reference)
    assert isinstance(reference, StartReference)
    start = state_arrays(build_model("mlp", options=MODEL, seed=seed_of(SECRET)))
    expected, left_out = tg.KeyedSigns().bound({name: start[name] for name in ticket.mask}, salt=reference.salt)
    assert reference.salt != PUBLIC_SALT
    assert (reference.digest(), left_out) == (expected.digest(), {})
    assert len(credential.vault.reference) < 0.6 * ticket.mask.size
    for mark in credential.claim.marks:
        assert mark.parameters["density_ppm"] == 100_000


def test_copies_are_supported_by_their_signs(found: tuple[tg.Ticket, tg.Credential]) -> None:
    ticket, credential = found
    signs = alone(credential, "keyed-signs")
    kept = np.concatenate([np.abs(ticket.weights[name][ticket.mask[name]]) for name in ticket.mask])
    state = dict(ticket.weights)
    pruned = {name: np.where(np.abs(state[name]) > np.quantile(kept, 0.4), state[name], 0) for name in ticket.mask}
    generator = np.random.default_rng(0)
    dense = {
        name: array + 0.01 * generator.normal(size=array.shape).astype(np.float32) for name, array in state.items()
    }
    for stolen in (state | pruned, dense):
        assert tg.verify(tg.Checkpoint(stolen), signs).status == "supported"
    groups = groups_from_json(credential.vault.channel_groups)
    moved = permute(state, groups, [generator.permutation(group_channels(group)) for group in groups])
    assert tg.verify(tg.Checkpoint(moved), credential).status != "not_supported"


def test_a_search_from_the_unsigned_start_is_innocent(found: tuple[tg.Ticket, tg.Credential]) -> None:
    """It shares magnitudes with the start that the credential binds, and no signs."""
    innocent = tg.find("mlp", **SEARCH, seed=seed_of(SECRET))
    verdict = tg.verify(tg.Checkpoint(innocent.weights), found[1])
    assert (verdict.status, verdict.log10_p > -3) == ("inconclusive", True)


def test_signs_alone_are_enough_for_a_search() -> None:
    ticket, credential = tg.find_marked("mlp", owner=OWNER, marks=[tg.KeyedSigns()], secret=SECRET, **SEARCH)
    assert [mark.scheme for mark in credential.claim.marks] == ["keyed-signs"]
    assert tg.verify(tg.Checkpoint(ticket.weights), credential).status == "supported"
    assert ticket.mask.kept == round(0.1 * ticket.mask.size)


def test_given_weights_leave_signs_out_and_refuse_them_by_name() -> None:
    rewind = state_arrays(build_model("mlp", options=MODEL, seed=5))
    for given in ({"rewind": rewind}, {"method": "jackpot", "pretrained": rewind, "method_options": {}}):
        which = next(name for name in given if name in ("rewind", "pretrained"))
        with pytest.raises(
            ConfigurationError, match=f"marks are keyed-signs: .* starts from {which} weights: leave keyed"
        ):
            tg.find_marked("mlp", owner=OWNER, marks=WEIGHTS, **{**SEARCH, **given})


def test_an_interrupted_search_resumes_to_the_same_signs(
    found: tuple[tg.Ticket, tg.Credential], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket, credential = found_in_two_parts(monkeypatch, tmp_path / "run", secret=SECRET, owner=OWNER, marks=WEIGHTS)
    assert all(np.array_equal(ticket.weights[name], array) for name, array in found[0].weights.items())
    assert credential.claim.marks == found[1].claim.marks
    assert credential.vault.reference == found[1].vault.reference


class Fickle:
    """A factory that draws its weights from somewhere else than torch's generator."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, classes: int, input_shape: Any) -> torch.nn.Module:
        network = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 100), torch.nn.ReLU(), torch.nn.Linear(100, classes)
        )
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(std=0.1, generator=self.generator)
        return network


def fickle(classes: int, input_shape: Any, *, source: Fickle = Fickle()) -> torch.nn.Module:  # noqa: B008 - one for all calls
    return source(classes, input_shape)


def zero_headed(classes: int, input_shape: Any) -> torch.nn.Module:
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 100), torch.nn.ReLU(), torch.nn.Linear(100, classes)
    )
    torch.nn.init.zeros_(network[3].weight)  # type: ignore[arg-type]
    return network


def constant(classes: int, input_shape: Any) -> torch.nn.Module:
    network = zero_headed(classes, input_shape)
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    return network


def test_a_factory_that_draws_other_weights_each_time_is_refused() -> None:
    search = {**SEARCH, "density": 0.4, "model_options": {}}
    with pytest.raises(ConfigurationError, match="the model's factory makes other start weights each time"):
        tg.find_marked(fickle, owner=OWNER, marks=[tg.KeyedSigns()], **search)


def test_a_start_is_bound_once_however_often_a_search_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[object] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        bound.append(arguments)
        return bind_start(*arguments, **options)

    bind_start = during_search.bind_start
    monkeypatch.setattr(during_search, "bind_start", counted)
    marks, start = planting(None), state_arrays(build_model("mlp", options=MODEL, seed=0))
    everything = full_mask({name: array.shape for name, array in start.items() if array.ndim > 1})
    signed = marks.begin(start, everything)
    marks.rehearse(start, everything, 5000)
    again = marks.begin({name: array.copy() for name, array in start.items()}, everything)
    assert len(bound) == 1
    assert all(np.array_equal(signed[name], array) for name, array in again.items())
    assert not all(np.array_equal(start[name], array) for name, array in again.items())


def test_a_start_that_is_not_random_is_refused_before_any_training() -> None:
    search = {**SEARCH, "density": 0.4, "model_options": {}}
    with pytest.raises(ConfigurationError, match="cannot carry keyed signs: layer '1.weight' has 6400 of 6400"):
        tg.find_marked(constant, owner=OWNER, marks=[tg.KeyedSigns()], **search)


def test_a_layer_that_starts_at_zero_is_left_out_and_named_once() -> None:
    search = {**SEARCH, "density": 0.4, "model_options": {}}
    with pytest.warns(TicketguardWarning, match="1 layers carry no keyed signs: '3.weight' has 1000 of 1000") as told:
        ticket, credential = tg.find_marked(zero_headed, owner=OWNER, marks=[tg.KeyedSigns()], secret=SECRET, **search)
    assert len(told) == 1
    assert tg.verify(tg.Checkpoint(ticket.weights), credential).status == "supported"


def test_signs_in_a_network_too_small_for_them_are_refused_before_any_training() -> None:
    with pytest.raises(ConfigurationError, match="the whole ticket has room for"):
        tg.find_marked("mlp", owner=OWNER, marks=[tg.KeyedSigns()], **{**SEARCH, "density": 0.005})


def test_a_ticket_too_small_for_signs_is_found_without_them_unless_they_are_named() -> None:
    info = TicketInfo(method="random", classes=10, input_shape=(64,))
    luck = np.random.default_rng(0)
    start = {name: luck.normal(size=(80, 80)).astype(np.float32) for name in ("a.weight", "b.weight")}
    start["b.weight"] = np.abs(start["b.weight"])  # cannot carry signs
    everything = full_mask(dict.fromkeys(start, (80, 80)))

    def planting(**options: Any) -> SearchPlanting:
        return SearchPlanting(owner=OWNER, info=info, density=0.125, level_bits=40, secret=SECRET, **options)

    usual = planting()
    found_without = "found without keyed-signs: the whole ticket has room for 2.. edges"
    with (
        pytest.warns(TicketguardWarning, match="1 layers carry no keyed signs"),
        pytest.warns(TicketguardWarning, match=found_without),
    ):
        usual.rehearse(start, everything, 1600)
    assert usual.begin(start, everything) is start
    marks = [mark.scheme for mark, _ in usual.bind(start, everything).marks]
    assert marks == ["planted-graph", "trigger-set"]
    for named in (planting(marks=[tg.PlantedGraph(), tg.KeyedSigns()]), planting(leave_out=False)):
        with pytest.warns(TicketguardWarning), pytest.raises(CapacityError, match="have fewer anchors"):
            named.rehearse(start, everything, 1600)


def test_a_start_that_is_not_random_is_left_without_signs_unless_they_are_named() -> None:
    info = TicketInfo(method="random", classes=10, input_shape=(64,))
    start = {"a.weight": np.linalg.qr(np.random.default_rng(0).normal(size=(200, 200)))[0].astype(np.float32)}
    everything = full_mask({"a.weight": (200, 200)})
    with pytest.warns(TicketguardWarning, match="found without keyed-signs: the start weights cannot carry"):
        SearchPlanting(owner=OWNER, info=info, density=0.2).rehearse(start, everything, 8000)
    with pytest.raises(ConfigurationError, match="the start weights cannot carry keyed signs"):
        SearchPlanting(owner=OWNER, info=info, density=0.2, leave_out=False).rehearse(start, everything, 8000)

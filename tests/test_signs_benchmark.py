"""The benchmark of keyed signs: what its thieves change, how it counts keys, and what its bars hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ticketguard as tg
from benchmarks.shared.thefts import masks
from benchmarks.shared.thefts.settings import MLP
from benchmarks.shared.thefts.signs.bars import bars_of
from benchmarks.shared.thefts.signs.keys import CHUNK, GROUND, HONEST, INNOCENT, Stand, counted, forged, gathered
from benchmarks.shared.thefts.signs.making import Job, Making, make
from benchmarks.shared.thefts.signs.reading import kept_signs
from benchmarks.shared.thefts.signs.rows import sign_rows
from benchmarks.shared.thefts.signs.tickets import start_of, start_signs
from benchmarks.shared.thefts.tickets import Bench
from ticketguard.credentials.canonical import canonical_json
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.keyed_signs import SignParameters
from ticketguard.graph import groups_from_json
from ticketguard.models import build_model, state_arrays
from ticketguard.ticket import Array, Mask
from ticketguard.verification.interface import own_parameters


@pytest.fixture
def sparse() -> tuple[dict[str, Array], Mask]:
    generator = np.random.default_rng(0)
    mask = Mask(layers={name: generator.random((20, 30)) < 0.2 for name in ("a", "b")})
    return {name: (generator.standard_normal((20, 30)) * mask[name]).astype(np.float32) for name in mask}, mask


def test_edges_are_drawn_over_all_layers_together(sparse: tuple[dict[str, Array], Mask]) -> None:
    _, mask = sparse
    edges = masks.drawn(mask, 0.5, np.random.default_rng(1))
    assert sum(int(edges[name].sum()) for name in mask) == round(0.5 * mask.kept)
    assert not any((edges[name] & ~mask[name]).any() for name in mask)


def test_flipping_turns_the_signs_of_these_edges_alone(sparse: tuple[dict[str, Array], Mask]) -> None:
    state, mask = sparse
    edges = masks.weakest(state, mask, 0.3)
    turned = masks.flipped(state, edges)
    for name in mask:
        assert np.array_equal(turned[name], np.where(edges[name], -1, 1) * state[name])


def test_rewiring_moves_the_weakest_edges_with_their_weights_and_keeps_the_others(
    sparse: tuple[dict[str, Array], Mask],
) -> None:
    state, mask = sparse
    gone = masks.weakest(state, mask, 0.3)
    weights, there = masks.rewired(state, mask, 0.3, np.random.default_rng(1))
    for name in mask:
        assert np.array_equal(np.sort(weights[name], axis=None), np.sort(state[name], axis=None))
        assert np.array_equal(weights[name] != 0, there[name])
        assert not (there[name] & gone[name]).any()
        stayed = mask[name] & ~gone[name]
        assert np.array_equal(weights[name][stayed], state[name][stayed])


@pytest.mark.parametrize("model", ["mlp", "resnet20"])
def test_every_theft_of_signs_has_a_name_of_its_own(model: str) -> None:
    names = [row.name for row in sign_rows(model)]
    assert len(set(names)) == len(names)
    assert ("filters flipped" in names) == (model != "mlp")


@pytest.fixture(scope="module")
def signed() -> tuple[dict[str, Array], tg.Credential]:
    model = build_model("mlp", options={"classes": 10, "input_shape": (1, 8, 8)}, seed=0)
    start = tg.sign_start(
        model, owner=tg.Owner.generate("owner"), secret=bytes(32), density=0.1, example=torch.zeros(1, 1, 8, 8)
    )
    with pytest.warns(tg.TicketguardWarning, match="train it first"):
        _, credential = start.finish(model)
    return state_arrays(model), credential


def test_signs_are_counted_among_as_many_weights_as_a_copy_keeps(
    signed: tuple[dict[str, Array], tg.Credential],
) -> None:
    state, credential = signed
    assert kept_signs(credential, state) == {"all": 1.0, "largest half": 1.0, "largest quarter": 1.0}
    names = start_signs(credential)
    edges = masks.edges_of(state, names)
    ticket = masks.pruned(state, edges, 0.9)
    turned = masks.flipped(state, masks.weakest(ticket.applied(state), ticket, 0.5))
    kept = kept_signs(credential, turned)  # of the dense network, whose other nine tenths kept theirs
    assert kept["all"] == pytest.approx(0.5, abs=0.01)
    assert kept["largest half"] == kept["largest quarter"] == 1.0


def stand_of(credential: tg.Credential, suspects: Mapping[str, dict[str, Array]]) -> Stand:
    (mark,) = credential.claim.marks
    reference = start_of(credential)
    return Stand(
        name=HONEST,
        fields={
            "owner_public_key": credential.claim.owner_public_key,
            "reference_digest": reference.digest(),
            "scheme": mark.scheme,
            "version": mark.version,
            "level_bits": mark.level_bits,
            "parameters": canonical_json(dict(mark.parameters)),
        },
        reference=reference,
        parameters=SignParameters.from_json(own_parameters(mark)),
        groups=tuple(groups_from_json(credential.vault.channel_groups or [])),
        suspects=suspects,
    )


def test_wrong_keys_are_counted_as_the_whole_examination_counts_them(
    signed: tuple[dict[str, Array], tg.Credential], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, credential = signed
    stand = stand_of(credential, {"marked": state})
    found = counted(stand, 0, 40)["marked"]
    assert (found["keys"], found["otherwise"], found["never"]) == (40, 0, 0)
    assert all(at_most <= 40 * 0.3 for reading in found["single"] for at_most in reading)
    monkeypatch.setattr(Stand, "whole", lambda *_: -7.0)
    assert counted(stand, 0, 3)["marked"]["otherwise"] == 2


def test_the_owners_own_key_would_be_seen(
    signed: tuple[dict[str, Array], tg.Credential], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, credential = signed
    (mark,) = credential.claim.marks
    own = Binding(secret=credential.vault.secret, commitment=mark.commitment)
    monkeypatch.setattr(Stand, "binding", lambda *_: own)
    found = counted(stand_of(credential, {"marked": state}), CHUNK, 2)["marked"]
    assert found["never"] == found["corrected"][0] == 2
    assert found["smallest"] < -100


def test_a_forged_start_has_the_suspects_own_signs_and_magnitudes(
    signed: tuple[dict[str, Array], tg.Credential],
) -> None:
    state, credential = signed
    innocent = {name: np.roll(array, 1) for name, array in state.items()}
    start = forged(start_of(credential), innocent)
    for name in start.layers:
        anchors = start.anchors(name)
        assert np.array_equal((start.layers[name].weights() < 0)[anchors], (innocent[name].reshape(-1) < 0)[anchors])
    assert start.digest() != start_of(credential).digest()


def part(*, smallest: float, never: int = 0) -> dict[str, Any]:
    return {
        INNOCENT: {
            "keys": CHUNK, "looks": 10, "smallest": smallest, "never": never, "corrected": [never, never],
            "single": [[never, never, never]], "otherwise": 0,
        }
    }  # fmt: skip


def test_what_was_counted_in_parts_is_added(tmp_path: Path) -> None:
    for first, found in {0: part(smallest=-3.0), GROUND: part(smallest=-9.0, never=CHUNK)}.items():
        (tmp_path / f"{first}.json").write_text(json.dumps(found))
    row = gathered(tmp_path)[INNOCENT]
    assert (row["keys"], row["ground"], row["keys at 10^-6 or below"]) == (2 * CHUNK, CHUNK, CHUNK)
    assert row["smallest corrected log10 p"] == -9.0
    assert row["smallest corrected log10 p of the first 2^16"] == -3.0  # only those are ground
    assert row["least chance"] < 1e-100  # half of the keys at every level
    assert gathered(tmp_path / "nothing") == {}


def seed(log10_p: float, *, permuted: float, lost: float = 0.0) -> dict[str, Any]:
    manners = {"as made": log10_p, "permuted and rescaled": permuted}
    read = {name: {"log10_p": value, "marks": {"keyed-signs": {"log10_p": value}}} for name, value in manners.items()}
    return {"points lost": lost, **read}


def table(**parts: Any) -> dict[str, Any]:
    return {"rows": {}, "methods": {}, "fidelity": {}, "wrong_keys": {}, **parts}


def test_the_bar_of_adaptive_thefts_is_held_by_copies_that_are_worth_stealing() -> None:
    rows = {
        "flipped": {"adaptive": True, "by_seed": {
            "0": seed(-300, permuted=-25), "1": seed(-200, permuted=-30), "2": seed(0, permuted=0, lost=2.1),
        }},
        "ruined": {"adaptive": True, "by_seed": {"0": seed(0, permuted=0, lost=9)}},
        "pruned 95%": {"adaptive": False, "by_seed": {"0": seed(0, permuted=0)}},
    }  # fmt: skip
    bars = bars_of({"mlp": table(rows=rows)})
    assert [(name, bar.value, bar.holds) for name, bar in bars.items()] == [
        ("mlp: flipped: verdict's log10 p, weakest", -25, True)
    ]


def test_a_permuted_twin_is_held_against_its_own_seed() -> None:
    by_seed = {"0": seed(-1000, permuted=-700), "1": seed(-100, permuted=-59)}
    bars = bars_of({"mlp": table(rows={"pruned 50%": {"adaptive": False, "by_seed": by_seed}})})
    (bar,) = bars.values()
    assert (bar.value, bar.holds) == (0.59, False)


def test_a_difference_of_accuracy_is_held_in_its_own_errors() -> None:
    bars = bars_of({"mlp": table(fidelity={"mean": -0.3, "standard_error": 0.1})})
    assert [(round(bar.value, 6), bar.holds) for bar in bars.values()] == [(3.0, False), (0.1, True)]


def test_a_trial_is_not_taken_for_more(tmp_path: Path) -> None:
    trial = Making(folder=tmp_path, device="cpu", seeds=(0,), minutes=1, scale=0.05, limit=400, parts=())
    assert make(trial) == make(trial) == []
    with pytest.raises(SystemExit, match="name another folder"):
        make(Making(folder=tmp_path, device="cpu", seeds=(0,), minutes=1, parts=()))


def test_a_job_that_is_done_is_not_done_again_and_one_that_fails_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(setting=MLP, seed=0, data=None, folder=tmp_path)  # type: ignore[arg-type]
    acts: list[str] = []

    def fails() -> None:
        acts.append("fails")
        raise RuntimeError("no such edge")

    for _ in range(2):
        assert Job(bench=bench, name="works", act=lambda: acts.append("works")).run()
        assert not Job(bench=bench, name="fails", act=fails).run()
    assert acts == ["works", "fails", "fails"]
    assert "no such edge" in capsys.readouterr().err

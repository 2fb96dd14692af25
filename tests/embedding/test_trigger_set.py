from __future__ import annotations

import dataclasses
import hashlib
import json
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ticketguard.embedding.interface import Binding, Start
from ticketguard.embedding.trigger_set import TriggerRecipe, Triggers, TriggerSet, draw_triggers
from ticketguard.errors import ConfigurationError, CredentialError
from ticketguard.ticket import Mask, Ticket, TicketInfo

BINDING = Binding(secret=bytes(range(32)), commitment=bytes(32))
VECTORS = Path(__file__).parents[2] / "signatures" / "vectors"


def draw(
    *,
    count: int,
    classes: int,
    input_shape: tuple[int, ...],
    grid: int,
    mean: tuple[int, ...] = (),
    std: tuple[int, ...] = (),
) -> Triggers:
    recipe = TriggerRecipe(count=count, classes=classes, input_shape=input_shape, grid=grid, mean_ppm=mean, std_ppm=std)
    return draw_triggers(BINDING, recipe)


def ticket_of(shape: tuple[int, ...] = (1, 8, 8), classes: int = 10) -> Ticket:
    mask = Mask(layers={"fc.weight": np.ones((2, 2), dtype=bool)})
    info = TicketInfo(method="random", classes=classes, input_shape=shape, input_mean=(0.5,), input_std=(0.25,))
    return Ticket(mask=mask, weights={"fc.weight": np.ones((2, 2), np.float32)}, rewind_weights=None, info=info)


def test_triggers_are_the_published_ones() -> None:
    vector = json.loads((VECTORS / "trigger-set.json").read_text())
    binding = Binding(secret=bytes.fromhex(vector["secret"]), commitment=bytes.fromhex(vector["commitment"]))
    for case in vector["cases"]:
        recipe = TriggerRecipe(
            count=case["count"],
            classes=case["classes"],
            input_shape=tuple(case["input_shape"]),
            grid=case["grid"],
            mean_ppm=(),
            std_ppm=(),
        )
        drawn = draw_triggers(binding, recipe)
        assert drawn.pixels[0].reshape(-1).tolist() == case["first_trigger"]
        assert hashlib.sha256(drawn.pixels.tobytes()).hexdigest() == case["sha256_of_all_triggers"]
        assert drawn.labels.tolist() == case["labels"]
        assert [leaf.hex() for leaf in drawn.leaves()] == case["leaves"]


def two_tone(coarse: list[int], *, height: int, width: int, grid: int) -> list[list[int]]:
    """Interpolate and cut one plane as signatures/trigger-set.md says it, in rational numbers."""

    def along(values: list[Fraction], size: int) -> list[Fraction]:
        places = [Fraction(place * (grid - 1), max(size - 1, 1)) for place in range(size)]
        ends = [*values, Fraction(0)]
        return [
            ends[int(at)] * (1 - at % 1) + ends[int(at) + 1] * (at % 1) if at % 1 else ends[int(at)] for at in places
        ]

    rows = [along([Fraction(value) for value in coarse[row * grid : (row + 1) * grid]], width) for row in range(grid)]
    columns = [along([row[column] for row in rows], height) for column in range(width)]
    return [[255 if columns[column][row] > Fraction(255, 2) else 0 for column in range(width)] for row in range(height)]


@given(channels=st.integers(1, 3), height=st.integers(1, 17), width=st.integers(1, 17), grid=st.integers(2, 9))
def test_fields_are_drawn_as_written_down(channels: int, height: int, width: int, grid: int) -> None:
    drawn = draw(count=2, classes=10, input_shape=(channels, height, width), grid=grid)
    planes = [*BINDING.stream("trigger-inputs").bytes(2 * channels * grid * grid)]
    for index, plane in enumerate(drawn.pixels.reshape(-1, height, width)):
        coarse = planes[index * grid * grid : (index + 1) * grid * grid]
        assert plane.tolist() == two_tone(coarse, height=height, width=width, grid=grid)


def test_inputs_without_a_plane_are_cut_bytes() -> None:
    drawn = draw(count=5, classes=10, input_shape=(40,), grid=4)
    raw = BINDING.stream("trigger-inputs").bytes(5 * 40)
    assert drawn.pixels.reshape(-1).tolist() == [255 if byte > 127 else 0 for byte in raw]


def test_fields_are_two_tone_smooth_and_differ_from_trigger_to_trigger() -> None:
    pixels = draw(count=50, classes=10, input_shape=(1, 32, 32), grid=4).pixels
    assert set(np.unique(pixels)) == {0, 255}
    # A coarse grid of 4 has at most a few edges along a row, where noise would have about 15.
    assert (np.diff(pixels.astype(int), axis=-1) != 0).sum(axis=-1).max() <= 2 * 3
    assert len({field.tobytes() for field in pixels}) == 50


def test_labels_are_uniform_over_the_classes() -> None:
    labels = draw(count=20_000, classes=7, input_shape=(1,), grid=4).labels
    counts = np.bincount(labels, minlength=7)
    assert float(((counts - 20_000 / 7) ** 2 / (20_000 / 7)).sum()) < 28  # chi-square, 6 degrees of freedom: p > 10^-4


def test_inputs_are_normalised_by_channel() -> None:
    mean, std = (100_000, 200_000, 300_000), (500_000, 600_000, 700_000)
    drawn = draw(count=2, classes=10, input_shape=(3, 4, 4), grid=2, mean=mean, std=std)
    inputs = drawn.inputs()
    assert inputs.dtype == np.float32
    assert inputs[1, 2, 3, 3] == pytest.approx((drawn.pixels[1, 2, 3, 3] / 255 - 0.3) / 0.7, rel=1e-5)
    assert draw(count=1, classes=2, input_shape=(5,), grid=2).inputs().max() <= 1.0


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        (TriggerSet(10, per_batch=4), [4, 4, 4, 4, 4]),
        (TriggerSet(5), [5, 5, 5, 5]),  # fewer than a batch takes: all of them, every time
    ],
)
def test_triggers_come_in_turn_and_again(settings: TriggerSet, sizes: list[int]) -> None:
    ticket = ticket_of()
    planned = settings.plan(
        ticket, Start(mask=ticket.mask, weights=ticket.weights), BINDING, settings.parameters(ticket)
    )
    batches = [planned.extra_batch(step, torch.device("cpu")) for step in range(len(sizes))]
    labels = [batch[1].tolist() for batch in batches if batch is not None]
    assert [len(few) for few in labels] == sizes
    assert [label for few in labels for label in few] == planned.triggers.labels.tolist() * (
        sum(sizes) // settings.count
    )


@pytest.mark.parametrize(("shape", "classes"), [((8, 8), 10), ((), 10), ((1, 8, 8), 1), ((1, 8, 8), 0)])
def test_a_ticket_without_classes_or_a_plane_is_refused(shape: tuple[int, ...], classes: int) -> None:
    with pytest.raises(ConfigurationError, match="a trigger set needs 2 or more classes"):
        TriggerSet().parameters(ticket_of(shape, classes))


@pytest.mark.parametrize("settings", [{"count": 0}, {"per_batch": 0}, {"grid": 1}])
def test_settings_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="trigger set: .* expected"):
        TriggerSet(**settings)


RECIPE = TriggerSet().parameters(ticket_of())


@pytest.mark.parametrize(
    "change",
    [
        {"pattern": "free images"},
        {"count": 0},
        {"count": 10**9},
        {"classes": 1},
        {"classes": "ten"},
        {"input_shape": [1, 0, 8]},
        {"input_shape": [1, 2**20, 2**20]},
        {"input_shape": [2**20, 1, 1], "grid": 64, "mean_ppm": [], "std_ppm": []},
        {"input_shape": 8},
        {"grid": 10**6},
        {"mean_ppm": [1, 2]},
        {"std_ppm": [0]},
        {"extra": 1},
        {"count": True},
        {"input_shape": [1, 5000, 5000]},
        {"input_shape": [2**25]},
        {"std_ppm": [2**60]},
        {"mean_ppm": [-(10**400)]},
        {f"extra {index}": 1 for index in range(1000)},
    ],
)
def test_a_hostile_claims_parameters_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(CredentialError, match="trigger-set has parameters that cannot be used"):
        TriggerRecipe.from_json({**RECIPE, **change})  # type: ignore[dict-item]


LARGEST = {"count": 16, "classes": 2, "input_shape": (2**24,), "grid": 2, "mean_ppm": (), "std_ppm": ()}
NORMALISED = {"count": 1, "classes": 2**31, "input_shape": (1, 64, 1), "grid": 64}
BOUND = 2**53 - 1


@pytest.mark.parametrize(
    ("allowed", "beyond"),
    [
        (LARGEST, {"count": 17}),
        ({**LARGEST, "count": 1}, {"input_shape": (2**24 + 1,)}),
        ({**LARGEST, "count": 100_000, "input_shape": (1,)}, {"count": 100_001}),
        ({**LARGEST, "count": 64, "input_shape": (1024, 1, 1), "grid": 64}, {"count": 65}),  # the grid's size counts
        ({**NORMALISED, "mean_ppm": (-BOUND,), "std_ppm": (BOUND,)}, {"mean_ppm": (-BOUND - 1,)}),
        ({**NORMALISED, "mean_ppm": (BOUND,), "std_ppm": (BOUND,)}, {"std_ppm": (BOUND + 1,)}),
        ({**NORMALISED, "mean_ppm": (0,), "std_ppm": (1,)}, {"std_ppm": (0,)}),
        ({**NORMALISED, "mean_ppm": (0,), "std_ppm": (1,)}, {"mean_ppm": (0, 0), "std_ppm": (1, 1)}),
        ({**LARGEST, "mean_ppm": (0,), "std_ppm": (1,)}, {"mean_ppm": (0, 0), "std_ppm": (1, 1)}),
        ({**NORMALISED, "mean_ppm": (), "std_ppm": ()}, {"classes": 2**31 + 1}),
        ({**NORMALISED, "mean_ppm": (), "std_ppm": ()}, {"grid": 65}),
    ],
)
def test_recipes_are_drawn_up_to_their_bounds_and_not_beyond(allowed: dict[str, Any], beyond: dict[str, Any]) -> None:
    TriggerRecipe(**allowed)
    with pytest.raises(ValueError, match="no trigger set can be drawn"):
        TriggerRecipe(**{**allowed, **beyond})


def test_parameters_survive_the_claim() -> None:
    assert TriggerRecipe.from_json(RECIPE).to_json() == RECIPE


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        dict.fromkeys(("count", "classes", "grid"), st.integers(-1, 2**33))
        | {"input_shape": st.lists(st.integers(0, 2**26), max_size=4)}
        | dict.fromkeys(("mean_ppm", "std_ppm"), st.lists(st.integers(-(2**54), 2**54), max_size=2))
    )
)
def test_any_recipe_is_refused_or_small_enough_to_draw(fields: dict[str, Any]) -> None:
    try:
        recipe = TriggerRecipe.from_json({"pattern": "two-tone-field", **fields})
    except CredentialError:
        return
    # The first input only, which is as large as any.
    one = next(draw_triggers(BINDING, dataclasses.replace(recipe, count=1)).each_input())
    assert one.shape == recipe.input_shape
    assert np.isfinite(one).all()


@pytest.mark.parametrize(
    ("count", "shape", "grid"),
    [(16, (1, 4000, 4000), 64), (2, (2**20, 1, 1), 3), (40, (1, 2, 200_000), 8), (20, (5_000_000,), 4)],
)
def test_memory_is_for_one_trigger_whatever_the_recipe_asks(count: int, shape: tuple[int, ...], grid: int) -> None:
    drawn = draw(count=count, classes=10, input_shape=shape, grid=grid)
    tracemalloc.start()
    for _ in zip(range(2), drawn.each_input(), strict=False):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 160 * 2**20


def test_inputs_come_one_by_one_as_they_come_together() -> None:
    for shape in ((1, 300, 200), (7,), (3, 1, 1)):
        normal = (100_000, 200_000, 300_000) if shape[0] == 3 else ()
        drawn = draw(count=9, classes=10, input_shape=shape, grid=5, mean=normal, std=normal)
        assert np.array_equal(np.stack(list(drawn.each_input())), drawn.inputs())

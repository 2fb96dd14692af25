"""Copies whose layers are stored as several tensors, blocks of rows or columns, and what a verdict says of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.claims import evidence, marked_weights, planted_mark, signed, unmarked_ticket
from ticketguard.checkpoints.joined import blocks_in

SHAPES = {
    "conv1.weight": (20, 3, 3, 3),
    "conv2.weight": (30, 20, 3, 3),
    "fc1.weight": (40, 30),
    "fc2.weight": (40, 40),
    "fc3.weight": (10, 40),
}
TICKET = unmarked_ticket(SHAPES, density=0.15)
REFERENCE = TICKET.reference()
MADE = planted_mark(reference=REFERENCE)
CREDENTIAL = signed(MADE, reference=REFERENCE)
MARKED = marked_weights(MADE, TICKET)
State = dict[str, np.ndarray]


def numbered(name: Callable[[str, int], str], axis: int = 0, count: int = 3) -> Callable[[State], State]:
    def store(state: State) -> State:
        return {
            name(layer.removesuffix(".weight"), index): np.ascontiguousarray(part)
            for layer, array in state.items()
            for index, part in enumerate(np.array_split(array, count, axis=axis))
        }

    return store


def masked(state: State) -> State:
    stored = {}
    for name, block in numbered("{}.{}.weight".format)(state).items():
        stored[f"{name}_orig"] = np.where(block == 0, 1, block)
        stored[f"{name}_mask"] = (block != 0).astype(np.float32)
    return stored


STORES = {
    "modules": numbered("{}.{}.weight".format),
    "suffixes": numbered("{}_{}".format),
    "parameters": numbered("net.{}.weight.{}".format),
    "columns": numbered("{}.{}.weight".format, axis=1),
    "rows, one each": numbered("{}.{}.weight".format, count=10),
    "other names": numbered(lambda layer, index: f"blob{list(SHAPES).index(f'{layer}.weight')}_{index}"),
    "transposed": lambda state: numbered("{}.{}.weight".format)(
        {name: array.T if array.ndim == 2 else array for name, array in state.items()}
    ),
    "masks beside": masked,
}


@pytest.mark.parametrize("store", STORES)
def test_a_copy_that_is_stored_in_blocks_is_read_as_one_that_is_not(store: str) -> None:
    plain, found = evidence(MARKED, CREDENTIAL), evidence(STORES[store](MARKED), CREDENTIAL)
    assert (found.status, found.log10_p) == ("supported", plain.log10_p)
    assert (found.details["missing_layers"], found.details["looks"]) == ([], plain.details["looks"])
    assert evidence(STORES[store](TICKET.weights), CREDENTIAL).status == "not_supported"  # type: ignore[arg-type]
    (seen,) = tg.Judge({"own": CREDENTIAL}).screen(tg.Checkpoint(STORES[store](MARKED))).candidates
    assert seen.glance is not None
    assert seen.glance.log10_p < -20


def test_blocks_beside_a_whole_network_are_a_network_of_their_own() -> None:
    innocent = unmarked_ticket(SHAPES, density=0.15, seed=5).weights
    blocks = {f"ema.{name}": block for name, block in STORES["modules"](MARKED).items()}
    found = evidence({**innocent, **blocks}, CREDENTIAL)
    assert (found.status, found.details["network"], found.details["networks"]) == ("supported", "ema.", 2)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_cut_copy_in_blocks_is_joined_by_its_names(axis: int) -> None:
    kept = np.delete(np.arange(40), [3, 17])
    cut = {**MARKED, "fc1.weight": MARKED["fc1.weight"][kept], "fc2.weight": MARKED["fc2.weight"][:, kept]}
    blocks = numbered("{}.{}.weight".format, axis=axis)(cut)
    joined = tg.Checkpoint(blocks).joined(SHAPES)
    assert {name: joined.shape(name) for name in joined.names()} == {name: cut[name].shape for name in cut}
    whole, found = evidence(cut, CREDENTIAL, thorough=True), evidence(blocks, CREDENTIAL, thorough=True)
    assert (found.status, found.details) == ("supported", whole.details)


def test_blocks_of_which_one_holds_whole_numbers_are_told() -> None:
    blocks = STORES["modules"](MARKED)
    blocks["fc1.1.weight"] = np.ones(blocks["fc1.1.weight"].shape, np.int8)
    found = evidence(blocks, CREDENTIAL)
    assert found.status == "supported"
    assert found.details["unreadable_layers"] == [
        {"layer": "fc1.weight", "reason": "has type int8, expected a floating-point type"}
    ]


def test_layers_that_are_numbered_are_not_blocks() -> None:
    """Two layers of 20 by 40 are together as large as the third: all three have their names."""
    shapes = {"fc.0.weight": (20, 40), "fc.1.weight": (20, 40), "head.weight": (40, 40)}
    ticket = unmarked_ticket(shapes, density=0.15)
    made = planted_mark(reference=ticket.reference())
    credential = signed(made, reference=ticket.reference())
    marked = marked_weights(made, ticket)
    assert evidence(marked, credential).details["missing_layers"] == []
    fronted = {f"module.{name}": layer for name, layer in marked.items()}
    assert evidence(fronted, credential).details["missing_layers"] == []
    del marked["head.weight"]
    assert evidence(marked, credential).details["missing_layers"] == ["head.weight"]


PLAIN_SHAPES = {"first": (160, 64), "second": (100, 160), "third": (10, 100)}


def hidden(state: State) -> State:
    """Store layers beside what no program reads, so that each is together with it as large as another, transposed."""
    luck = np.random.default_rng(0)
    first, second, third = state.values()
    more = {"a.1": (36, 160), "c.1": (150, 100)}
    decoys = {name: np.where(luck.random(size) < 0.15, luck.normal(size=size), 0) for name, size in more.items()}
    return {"a.0": first.T, "b": second, "c.0": third, **decoys}


@pytest.mark.parametrize("front", ["", "net."])
def test_names_that_make_blocks_of_whole_layers_hide_none(front: str) -> None:
    ticket = unmarked_ticket(PLAIN_SHAPES, density=0.15)
    made = planted_mark(reference=ticket.reference())
    credential = signed(made, reference=ticket.reference())
    marked = marked_weights(made, ticket)
    stored = {f"{front}{name}": array for name, array in hidden(marked).items()}
    plain, found = evidence(marked, credential, thorough=True), evidence(stored, credential, thorough=True)
    assert (found.status, found.log10_p) == ("supported", pytest.approx(plain.log10_p, rel=0.05))
    assert found.details["missing_layers"] == []
    (seen,) = tg.Judge({"own": credential}).screen(tg.Checkpoint(stored)).candidates
    assert seen.glance is not None
    assert seen.glance.log10_p < -20
    unmarked = evidence({**hidden(ticket.weights)}, credential, thorough=True)  # type: ignore[arg-type]
    assert unmarked.status == "not_supported"


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({"a.0": (4, 8), "a.1": (6, 8)}, {"a": (("a.0", "a.1"), 0)}),
        ({"a.10": (4, 8), "a.9": (6, 8)}, {"a": (("a.9", "a.10"), 0)}),
        ({"0.a": (10, 4), "1.a": (10, 4)}, {"a": (("0.a", "1.a"), 1)}),
        ({"a.0": (4, 8), "a.1": (6, 8), "a": (3, 3)}, {}),  # the name is taken
        ({"a.0": (4, 8), "a.1": (6, 7)}, {}),
        ({"a.0": (4, 8), "a.1": (6, 8, 1)}, {}),
        ({"a.0": (40,), "a.1": (40,)}, {}),
        ({"a.0": (10, 8), "a.1": (10,)}, {}),
        ({"a.0": (10, 8)}, {}),  # whole as it is
        ({"a.0": (4, 8), "a.1": (5, 8)}, {}),  # 9 rows of 10, under no layer's name
        ({"b.a.0": (4, 8), "b.a.1": (6, 8)}, {"b.a": (("b.a.0", "b.a.1"), 0)}),
        ({"w.0": (4, 8), "w.1": (5, 8)}, {"w": (("w.0", "w.1"), 0)}),  # under one's name
        ({"0": (4, 8), "1": (6, 8)}, {}),
        ({"a" * 255 + ".0": (4, 8), "a" * 255 + ".1": (6, 8)}, {}),
        ({"w.0": (4, 8), "w.1": (5, 7)}, {}),  # under one's name, and no layer
        ({"a_0.b": (4, 8), "a_1.b": (6, 8)}, {"a.b": (("a_0.b", "a_1.b"), 0)}),
        ({"0_a": (4, 8), "1_a": (6, 8)}, {"a": (("0_a", "1_a"), 0)}),
        ({"a.0_b": (4, 8), "a.1_b": (6, 8)}, {"a_b": (("a.0_b", "a.1_b"), 0)}),
        ({"a.0b": (4, 8), "a.1b": (6, 8)}, {}),  # a letter behind it: a name
        ({"3.a.0.b.7": (4, 8), "3.a.1.b.7": (6, 8)}, {"3.a.b.7": (("3.a.0.b.7", "3.a.1.b.7"), 0)}),
        ({"1.2.3.4.a.0": (4, 8), "1.2.3.4.a.1": (6, 8)}, {"1.2.3.4.a": (("1.2.3.4.a.0", "1.2.3.4.a.1"), 0)}),
        ({"a.0": (5, 8), "a.1": (5, 8), "0.a": (10, 4), "1.a": (10, 4)}, {"a": (("a.0", "a.1"), 0)}),
        # A tensor is in one layer only: the number that comes last is the block's.
        (
            {"1.a.0": (5, 8), "1.a.1": (5, 8), "2.a.0": (5, 8), "2.a.1": (5, 8)},
            {"1.a": (("1.a.0", "1.a.1"), 0), "2.a": (("2.a.0", "2.a.1"), 0)},
        ),
    ],
)
def test_blocks_are_tensors_that_differ_in_a_number_and_make_a_layer(
    tensors: dict[str, tuple[int, ...]], found: dict[str, tuple[tuple[str, ...], int]]
) -> None:
    blocks = blocks_in(tensors, {"w": (10, 8)})
    assert {name: (one.names, one.axis) for name, one in blocks.items()} == found


def test_blocks_have_the_name_of_a_layer_behind_whatever_all_layers_are_behind() -> None:
    layers = {"net.w": (10, 8), "net.v": (3, 3)}
    for front in ("", "net.", "ema.net."):
        cut = {f"{front}w.0": (4, 8), f"{front}w.1": (5, 8)}
        assert list(blocks_in(cut, layers)) == [f"{front}w"]
    # Tensors that have layers' names are these layers, whatever they make together.
    numbered = {"net.0": (5, 8), "net.1": (5, 8), "net.w": (10, 8)}
    for front in ("", "net.", "ema.net."):
        assert blocks_in({f"{front}0": (5, 8), f"{front}1": (5, 8)}, numbered) == {}


@pytest.mark.parametrize(("whole", "axis"), [((10, 20), 1), ((20, 10), 0), ((10, 19), 1), ((23, 11), 0), ((9, 22), 1)])
def test_blocks_that_are_all_alike_are_joined_to_what_is_most_like_their_layer(
    whole: tuple[int, int], axis: int
) -> None:
    """Side by side they are that layer, and below each other its transpose, or the other way round."""
    tensors = {"w.0": (10, 10), "w.1": (10, 10), "v.0": (7, 7), "v.1": (7, 7)}
    blocks = blocks_in(tensors, {"w": whole, "other": (7, 14)})
    assert (blocks["w"].axis, blocks["v"].axis) == (axis, 1)


def test_blocks_of_the_layer_behind_a_flattened_map_may_keep_its_axes() -> None:
    tensors = {"a.0": (4, 2, 2, 2), "a.1": (6, 2, 2, 2)}
    assert blocks_in(tensors, {"w": (10, 8)}, block={"w": 4})["a"].shape == (10, 2, 2, 2)


def test_as_many_numbered_tensors_as_a_hostile_file_has_are_looked_through_once() -> None:
    tensors = dict.fromkeys((f"x.{index}.y_{index % 7}.0.1.2.3.4.5.6.7.8" for index in range(5_000)), (1, 8))
    assert blocks_in(tensors, {"w": (10, 8)}) == {}
    rows = dict.fromkeys((f"x.{index}" for index in range(5_000)), (1, 8))
    assert len(blocks_in(rows, {"w": (5_000, 8)})["x"].names) == 5_000

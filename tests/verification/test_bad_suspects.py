"""Suspects that no training gives: each gets a verdict, or an error of one line, in bounded memory and work."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

import ticketguard as tg
from tests.verification.claims import evidence, marked_weights, planted_mark, signed, unmarked_ticket
from tests.verification.rebuilding import permuted
from tests.verification.rebuilt import INPUTS, Marked, State, flattened, marked
from ticketguard.errors import UnverifiableError
from ticketguard.verification import networks

Shapes = Mapping[str, tuple[int, ...]]
Groups = list[list[list[object]]]
# Of the marked network below, the second convolution: a thirtieth of all weights.
ONE = "3.weight"


@pytest.fixture(scope="module")
def net() -> Marked:
    return marked(flattened(), INPUTS[flattened])


@pytest.fixture(scope="module")
def untouched(net: Marked) -> float:
    return float(evidence(net.state, net.credential).log10_p)


def every(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[State], State]:
    return lambda state: {name: change(array).astype(np.float32) for name, array in state.items()}


def spoiled(value: float) -> Callable[[State], State]:
    def theft(state: State) -> State:
        layer = state[ONE].copy()
        layer.flat[5] = value
        return {**state, ONE: layer}

    return theft


@pytest.mark.parametrize(
    ("change", "status", "why"),
    [
        (every(np.zeros_like), "inconclusive", "nothing of the reference is recognisable"),
        (every(np.ones_like), "inconclusive", "nothing of the reference is recognisable"),
        (every(lambda array: np.full_like(array, -3.0)), "inconclusive", "nothing of the reference is recognisable"),
        (every(np.sign), "supported", None),
        (every(lambda array: array * np.float32(1e-40)), "supported", None),
        (every(lambda array: np.sign(array) * np.float32(3e38)), "supported", None),
        (spoiled(np.nan), "supported", None),
        (spoiled(np.inf), "supported", None),
    ],
    ids=["zero", "one", "minus three", "equal sizes", "hardly above zero", "hardly finite", "a NaN", "an infinity"],
)
@pytest.mark.parametrize("is_permuted", [False, True])
def test_weights_that_are_all_alike_or_not_numbers_get_a_verdict(
    net: Marked, change: Callable[[State], State], status: str, why: str | None, is_permuted: bool
) -> None:
    state = change(dict(net.state))
    found = evidence(permuted(state, net.groups, np.random.default_rng(0)) if is_permuted else state, net.credential)
    assert found.status == status
    assert why is None or why in found.details["why"][0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_hides_no_layer(net: Marked, untouched: float, value: float) -> None:
    found = evidence(spoiled(value)(net.state), net.credential)
    assert found.details["unreadable_layers"] == []
    (told,) = found.details["values_not_finite"]
    assert (told["layer"], told["values"]) == (ONE, 1)
    assert found.log10_p < 0.98 * untouched
    assert evidence(net.state, net.credential).details["values_not_finite"] == []


@pytest.mark.parametrize("is_permuted", [False, True])
def test_infinite_weights_before_a_neuron_that_is_off_hide_nothing(
    net: Marked, untouched: float, is_permuted: bool
) -> None:
    """A linear layer gets a neuron, turned off by a weight of minus infinity; the others an infinite weight."""
    state = {name: array.copy() for name, array in net.state.items()}
    off = np.zeros((1, state["8.weight"].shape[1]), np.float32)
    off[0, 0] = -np.inf
    state["8.weight"] = np.concatenate([state["8.weight"], off])
    state["8.bias"] = np.append(state["8.bias"], np.float32(0))
    state["10.weight"] = np.pad(state["10.weight"], ((0, 0), (0, 1)))
    for name in ("0.weight", ONE, "10.weight"):
        state[name].flat[np.flatnonzero(state[name] == 0)[0]] = np.inf
    state = permuted(state, net.groups, np.random.default_rng(0)) if is_permuted else state
    found = evidence(state, net.credential, thorough=True)
    assert (found.status, len(found.details["values_not_finite"])) == ("supported", 4)
    assert found.log10_p < 0.9 * untouched


def test_holes_filled_with_doubles_too_small_to_matter_hide_nothing(net: Marked, untouched: float) -> None:
    state = {name: np.where(array == 0, 1e-60, array.astype(np.float64)) for name, array in net.state.items()}
    found = evidence(state, net.credential)
    assert (found.status, found.details["unreadable_layers"]) == ("supported", [])
    # Not all of it: channels that were pruned away, and were filled too, look like channels on another scale.
    assert found.log10_p < 0.98 * untouched


@pytest.mark.parametrize("is_file", [False, True])
@pytest.mark.parametrize("is_by_channel", [False, True])
def test_doubles_out_of_range_hide_nothing(
    net: Marked, untouched: float, is_by_channel: bool, is_file: bool, tmp_path: Path
) -> None:
    """Behind rectifiers what one layer is multiplied by, or each of its channels, the next takes back, at no cost."""
    luck = np.random.default_rng(0)
    in_order = evidence(permuted(net.state, net.groups, luck), net.credential).log10_p
    state = {name: array.astype(np.float64) for name, array in net.state.items()}
    for group in net.groups:
        channels = group[0].channels
        factors = 10.0 ** luck.choice([-80, 80], channels) if is_by_channel else np.full(channels, 1e-100)
        for member in group:
            array = np.moveaxis(state[member.tensor], member.axis, 0)  # a view
            by_place = np.repeat(factors, member.block) ** (-1.0 if member.axis else 1.0)
            array[member.positions().reshape(-1)] *= by_place.reshape(-1, *[1] * (array.ndim - 1))
    state = dict(permuted(state, net.groups, np.random.default_rng(0)))
    if is_file:
        torch.save(
            {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in state.items()}, tmp_path / "s"
        )
    found = evidence(tg.Checkpoint(tmp_path / "s") if is_file else state, net.credential)
    assert (found.status, found.details["unreadable_layers"]) == ("supported", [])
    assert found.log10_p < 0.98 * in_order <= 0.9 * untouched


def test_a_layer_that_is_mostly_not_finite_acquits_nobody() -> None:
    """What is left of it is read, but an intact copy might have shown the mark in what is not."""
    ticket = unmarked_ticket()
    credential = signed(planted_mark(reference=ticket.reference()), reference=ticket.reference())
    weights = {name: layer.copy() for name, layer in ticket.weights.items()}
    assert evidence(weights, credential).status == "not_supported"
    there = np.flatnonzero(weights["fc1.weight"])
    weights["fc1.weight"].flat[there[: len(there) // 2 - 1]] = np.nan
    assert evidence(weights, credential).status == "not_supported"
    weights["fc1.weight"].flat[there[: (len(there) + 1) // 2]] = np.nan
    found = evidence(weights, credential)
    assert (found.status, found.details["unreadable_layers"]) == ("inconclusive", [])
    assert any("cannot be read" in reason for reason in found.details["why"])


def test_a_group_a_hundred_times_as_wide_is_searched_for_its_channels(net: Marked) -> None:
    """The linear layer's neurons among a hundred times as many that take in much the same, and give nothing."""
    rows, columns = net.state["8.weight"], net.state["10.weight"]
    neurons = 100 * len(rows)
    generator = np.random.default_rng(0)
    at = generator.choice(neurons, len(rows), replace=False)
    wide = generator.choice(rows.reshape(-1), (neurons, rows.shape[1]))
    wide[at] = rows
    given = np.zeros((len(columns), neurons), np.float32)
    given[:, at] = columns
    state = {**net.state, "8.weight": wide, "10.weight": given}
    state |= {"8.bias": np.zeros(neurons, np.float32)}
    found = evidence(state, net.credential, thorough=True)
    assert (found.status, found.details["channels_missing"]) == ("supported", 0)
    assert found.details["channels_added"] == neurons - len(rows)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> tg.Credential:
    ticket = unmarked_ticket()
    monkeypatch.setattr(networks, "FREE_WEIGHTS", 16 * 40 * 200 - 1)
    return signed(planted_mark(reference=ticket.reference()), reference=ticket.reference())


@pytest.mark.parametrize(("rows", "is_read"), [(16 * 40, True), (16 * 40 + 1, False)])
def test_a_tensor_with_far_more_weights_than_its_layer_is_not_read(
    small: tg.Credential, rows: int, is_read: bool
) -> None:
    weights = unmarked_ticket().weights
    wide = np.random.default_rng(0).normal(size=(rows, 200)).astype(np.float32)
    found = evidence({**weights, "fc2.weight": wide}, small)
    assert found.status == "inconclusive"
    reason = "has 128200 weights, expected at most 128000 for 8000 of the reference's"
    unreadable = [] if is_read else [{"layer": "fc2.weight", "reason": reason}]
    assert found.details["unreadable_layers"] == unreadable


def test_a_file_of_nothing_but_such_tensors_is_an_error(small: tg.Credential) -> None:
    huge = {"fc1.weight": np.ones((4000, 60), np.float32), "fc2.weight": np.ones((40, 5000), np.float32)}
    with pytest.raises(UnverifiableError, match="has no layer that can be read: 'fc1.weight' has 240000 weights"):
        evidence(huge, small)


def test_a_suspect_wider_than_memory_is_not_read_into_it(net: Marked, untouched: float, tmp_path: Path) -> None:
    """A file with a hole of 335 MB, which might as well be a terabyte; all but that layer is the stolen network."""
    stored = {name: array for name, array in net.state.items() if array.ndim > 1 and name != ONE}
    shape = (2**20, 80)
    header, content = {ONE: {"dtype": "F32", "shape": shape, "data_offsets": (0, 4 * shape[0] * shape[1])}}, b""
    first = begin = 4 * shape[0] * shape[1]
    for name, array in stored.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": (begin, begin + array.nbytes)}
        content, begin = content + array.tobytes(), begin + array.nbytes
    text = json.dumps(header).encode()
    path = tmp_path / "wide.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.seek(first, 1)
        file.write(content)
    tracemalloc.start()
    try:
        found = evidence(tg.Checkpoint(path), net.credential)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()
    assert (found.status, found.details["missing_layers"]) == ("supported", [ONE])
    assert found.log10_p < 0.5 * untouched


def owned(shapes: Shapes, groups: Groups | None = None, *, density: float = 0.2) -> tuple[tg.Credential, State]:
    """Return a credential for a network of some shapes, and the marked network."""
    ticket = unmarked_ticket(shapes, density=density)
    made = planted_mark(reference=ticket.reference(), groups=groups)
    return signed(made, reference=ticket.reference(), groups=groups), marked_weights(made, ticket)


def test_a_group_of_half_an_axis_moves_that_half() -> None:
    credential, weights = owned({"a": (200, 60), "b": (40, 200)}, [[["a", 0, 1, 0, 100], ["b", 1, 1, 0, 100]]])
    order = np.r_[np.random.default_rng(0).permutation(100), np.arange(100, 200)]
    plain = evidence(weights, credential)
    found = evidence({"a": weights["a"][order], "b": weights["b"][:, order]}, credential, thorough=True)
    assert (found.status, found.log10_p) == ("supported", pytest.approx(plain.log10_p, rel=0.02))
    assert found.details["channels_out_of_place"] == np.count_nonzero(order != np.arange(200))


@pytest.mark.parametrize("keep", [range(100), range(100, 200), range(0, 200, 2)])
def test_what_is_left_of_an_axis_whose_half_is_a_group_is_looked_for(keep: range) -> None:
    credential, weights = owned({"a": (200, 60), "b": (40, 200)}, [[["a", 0, 1, 0, 100], ["b", 1, 1, 0, 100]]])
    rows = np.random.default_rng(0).permutation(np.array(keep))
    found = evidence({"a": weights["a"][rows], "b": weights["b"][:, rows]}, credential)
    assert found.status == "supported"
    assert found.details["channels_missing"] > 0


def test_kernels_of_eight_axes_are_read() -> None:
    credential, weights = owned({"a": (20, 4, *(2,) * 6), "b": (4, 20, *(2,) * 6)})
    order = np.random.default_rng(0).permutation(20)
    found = evidence({"a": weights["a"][order], "b": weights["b"][:, order]}, credential)
    assert found.status == "supported"
    # Nobody's layer has more: it is read as it is stored, or not at all.
    credential, weights = owned({"a": (20, 4, *(2,) * 8), "b": (20, 40)})
    assert evidence(weights, credential).status == "supported"


def test_layers_of_size_one_are_no_trouble() -> None:
    shapes: Shapes = {"big": (60, 80), **{f"one{index}": (1, 1, 1, 1) for index in range(100)}}
    credential, weights = owned(shapes)
    order = np.random.default_rng(0).permutation(60)
    stolen = {**weights, "big": weights["big"][order]}
    found = evidence(stolen, credential)
    assert found.status == "supported"
    assert evidence(weights, credential).status == "supported"


def test_a_layer_without_channels_hides_nothing() -> None:
    credential, weights = owned({"a": (100, 60), "b": (40, 100)})
    found = evidence({"a": weights["a"], "b": np.zeros((0, 100), np.float32)}, credential)
    assert (found.status, found.details["missing_layers"]) == ("supported", ["b"])
    with pytest.raises(UnverifiableError, match="in other shapes"):
        evidence({"a": np.zeros((0, 60), np.float32)}, credential)

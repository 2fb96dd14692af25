from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn_nets import NETWORKS, SEEDS, Drawn, agree, is_undone
from ticketguard.graph.surgery import BlockRemoval
from ticketguard.graph.symmetries import LAYOUTS, Companion, Relayout, Renaming

FEW = settings(max_examples=12, deadline=None)
SHAPES = {"conv": (2, 3, 4, 5), "linear": (2, 3), "point": (2, 3, 1, 1), "line": (2, 3, 4), "bias": (2,)}
STATE = {name: np.arange(float(np.prod(shape))).reshape(shape) for name, shape in SHAPES.items()}


@FEW
@given(net=NETWORKS, seed=SEEDS)
def test_a_loader_that_knows_them_undoes_layouts_names_and_company(net: Drawn, seed: int) -> None:
    generator = np.random.default_rng(seed)
    layouts = Relayout.drawn(net.state, generator=generator)
    names = Renaming.drawn(net.state, generator=generator)
    company = Companion(prefix="student.", other_prefix="teacher.", other=net.state)
    hidden = company.apply(names.apply(layouts.apply(net.state)))
    assert len(hidden) == 2 * len(net.state)
    found = layouts.undo(names.undo(company.undo(hidden)))
    assert agree(net.outputs(net.state), net.outputs(found))
    for symmetry in (layouts, names, company):
        assert is_undone(symmetry, net.state)


def test_layouts_are_those_of_other_frameworks() -> None:
    def shapes(layout: str) -> dict[str, tuple[int, ...]]:
        after = Relayout.every(STATE, layout).apply(STATE)
        return {name: array.shape for name, array in after.items() if array.shape != STATE[name].shape}

    assert shapes("in first")["linear"] == (3, 2)
    assert shapes("in first")["conv"] == (3, 2, 4, 5)
    assert shapes("kernel first") == {"conv": (4, 5, 3, 2), "point": (1, 1, 3, 2), "line": (4, 3, 2)}
    assert shapes("channels last") == {"conv": (2, 4, 5, 3), "point": (2, 1, 1, 3), "line": (2, 4, 3)}
    assert shapes("matrix") == {"conv": (2, 60), "point": (2, 3), "line": (2, 12)}
    assert shapes("linear as 1x1") == {"linear": (2, 3, 1, 1)}
    assert shapes("1x1 as linear") == {"point": (2, 3)}
    moved = Relayout.every(STATE, "kernel first").apply(STATE)["conv"]
    assert moved[1, 2, 0, 1] == STATE["conv"][1, 0, 1, 2]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_undone(layout: str) -> None:
    assert is_undone(Relayout.every(STATE, layout), STATE)


def test_layouts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown layout 'upside down': expected one of in first, kernel first"):
        Relayout.every(STATE, "upside down")
    with pytest.raises(ValueError, match=r"'linear' of shape \(2, 3\) cannot be laid out 'kernel first'"):
        Relayout.of(STATE, {"linear": "kernel first"})
    turned = Relayout.every(STATE, "in first")
    with pytest.raises(ValueError, match=r"a tensor has shape \(3, 2, 4, 5\), expected \(2, 3, 4, 5\)"):
        turned.apply(turned.apply(STATE))
    with pytest.raises(ValueError, match=r"a tensor has shape \(2, 3, 4, 5\), expected \(3, 2, 4, 5\)"):
        turned.undo(STATE)


@given(seed=st.integers(0, 1000))
def test_names_are_dealt_out_or_say_nothing(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shuffled = Renaming.drawn(STATE, generator=generator).apply(STATE)
    assert sorted(shuffled) == sorted(STATE)
    numbered = Renaming.drawn(STATE, generator=generator, style="numbered").apply(STATE)
    assert list(numbered) == [f"tensor_{number:05d}" for number in range(len(STATE))]
    assert sorted(array.shape for array in numbered.values()) == sorted(SHAPES.values())


def test_networks_that_cannot_be_told_apart_share_no_file() -> None:
    with pytest.raises(ValueError, match="prefixes 'net.' and 'net.ema.' cannot be told apart"):
        Companion(prefix="net.", other_prefix="net.ema.", other={})


def test_blocks_behind_a_removed_one_move_up() -> None:
    names = [
        "stem.weight",
        "layer1.0.weight",
        "layer1.1.weight",
        "layer1.2.weight",
        "layer2.2.weight",
        "layer1.last.bias",
    ]
    state = {name: np.array([number]) for number, name in enumerate(names)}
    after = BlockRemoval(blocks=("layer1.0",)).apply(state)
    assert {name: int(array[0]) for name, array in after.items()} == {
        "stem.weight": 0,
        "layer1.0.weight": 2,
        "layer1.1.weight": 3,
        "layer2.2.weight": 4,
        "layer1.last.bias": 5,
    }
    kept = BlockRemoval(blocks=("layer1.0",), renumbered=False).apply(state)
    assert set(kept) == set(names) - {"layer1.0.weight"}
    with pytest.raises(ValueError, match="there is no block 'layer3.0'"):
        BlockRemoval(blocks=("layer3.0",)).apply(state)

"""Units follow their positions through any row of reorderings, reshapes and cuts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from ticketguard.graph.layout import Factor, Layout, cut, per_axis, renamed, reshaped
from ticketguard.graph.units import Units

Elements = npt.NDArray[np.int64]


def laid_out(layout: Layout, shape: tuple[int, ...]) -> Elements:
    """Return the unit of every element."""
    (factor,) = layout
    units = np.transpose(factor.units, np.argsort(factor.axes))
    return np.broadcast_to(
        units.reshape([size if axis in factor.axes else 1 for axis, size in enumerate(shape)]), shape
    )


@st.composite
def shapes_of(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """Draw sizes of axes that hold *size* positions."""
    shape = []
    while size > 1:
        divisor = draw(st.sampled_from([one for one in range(2, size + 1) if size % one == 0]))
        shape.append(divisor)
        size //= divisor
    for _ in range(draw(st.integers(0, 2))):
        shape.insert(draw(st.integers(0, len(shape))), 1)
    return tuple(shape)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_element_keeps_its_unit(data: st.DataObject) -> None:
    units = Units()
    shape = data.draw(st.sampled_from([(24,), (2, 12), (12, 2), (3, 8, 2), (1, 36), (4, 1, 6)]))
    axis = data.draw(st.sampled_from([axis for axis, size in enumerate(shape) if size > 2]))
    layout: Layout = (Factor(axes=(axis,), units=units.fresh(shape[axis])),)
    elements = laid_out(layout, shape)
    for _ in range(data.draw(st.integers(1, 6))):
        move = data.draw(st.sampled_from(["permute", "reshape", "cut", "unsqueeze"]))
        if move == "permute":
            order = data.draw(st.permutations(range(elements.ndim)))
            layout = renamed(layout, {axis: place for place, axis in enumerate(order)})
            elements = np.transpose(elements, order)
        elif move == "reshape":
            new = data.draw(shapes_of(elements.size))
            layout = reshaped(layout, elements.shape, new, units)
            elements = elements.reshape(new)
        elif move == "cut" and elements.ndim:
            axis = data.draw(st.integers(0, elements.ndim - 1))
            stretch = slice(
                data.draw(st.integers(0, (elements.shape[axis] - 1) // 2)), None, data.draw(st.integers(1, 2))
            )
            layout = cut(layout, axis, stretch)
            elements = np.take(elements, np.arange(elements.shape[axis])[stretch], axis=axis)
        else:
            layout = renamed(layout, {axis: axis + 1 for axis in range(elements.ndim)})
            elements = elements[None]
        if len(np.unique(elements)) == 1:
            return  # nothing left that could move
        assert np.array_equal(laid_out(layout, elements.shape), elements)
    assert not units._frozen


@given(heads=st.integers(2, 5), inside=st.integers(2, 5))
def test_axis_by_axis_heads_move_and_what_is_inside_stays_in_order(heads: int, inside: int) -> None:
    units = Units()
    layout = reshaped(
        (Factor(axes=(0,), units=units.fresh(heads * inside)),), (heads * inside,), (heads, inside), units
    )
    labels = per_axis(layout, 2, units)
    assert labels[1] is None
    channel_of, is_frozen = units.resolve()
    assert channel_of.tolist() == np.repeat(channel_of[labels[0]], inside).tolist()
    assert len(set(channel_of.tolist())) == heads
    assert not is_frozen.any()


def test_of_two_axes_that_are_merged_the_one_that_differs_is_kept() -> None:
    for uniform in (0, 1):
        units = Units()
        axes = [units.fresh(size, uniform=index == uniform) for index, size in enumerate((3, 4))]
        layout = tuple(Factor(axes=(index,), units=axis) for index, axis in enumerate(axes))
        (factor,) = reshaped(layout, (3, 4), (12,), units)
        grid = np.broadcast_to(axes[0][:, None] if uniform else axes[1], (3, 4))
        assert factor.units.tolist() == grid.reshape(-1).tolist()
        _, is_frozen = units.resolve()
        assert is_frozen[axes[uniform]].all()
        assert not is_frozen[axes[1 - uniform]].any()

"""Pictures of masks: what is kept, what embedding moved, and where the owner's secret edges are.

A layer of shape (out, in, *kernel) is drawn as a plane of out by in × kernel cells, its longer side across. Planes
larger than a picture can show are drawn in tiles.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ticketguard.errors import ConfigurationError
from ticketguard.files import write_whole
from ticketguard.printable import printable
from ticketguard.ticket import BoolArray, Mask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LAYERS = 6
# More rows or columns than this are drawn as tiles: a figure has no more dots for them.
MAX_SIDE = 400
DOTS_PER_INCH = 120
# More characters run over the edges.
TITLE_LIMIT = 60

PRUNED, KEPT, LEFT, PLANTED, SECRET = range(5)
COLOURS = ("#f4f4f2", "#3b4a5a", "#e8a33d", "#c8102e", "#7fb3d5")
LABELS = ("pruned", "kept", "moved away", "secret, kept", "secret, pruned")

Plane = npt.NDArray[np.uint8]


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Draw in matplotlib's own style: a ``matplotlibrc`` in the current folder may come from a stranger.

    It could have titles set by LaTeX, which runs programs and reads files that a tensor's name asks for.

    Raises:
        ConfigurationError: matplotlib does not load with the settings that it finds.
    """
    settings = Path("matplotlibrc")
    if "matplotlib" not in sys.modules and settings.exists() and not (settings.is_file() or settings.is_dir()):
        raise ConfigurationError("'matplotlibrc' in this folder is a device or pipe: draw from another folder")
    try:
        import matplotlib
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"matplotlib does not load ({type(error).__name__}: {error}): look for a damaged 'matplotlibrc' in this "
            "folder"
        ) from error
    with matplotlib.rc_context(matplotlib.rcParamsDefault), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # it draws a box instead
        yield


@own_style()
def draw_mask(mask: Mask, path: str | os.PathLike[str], *, title: str = "") -> None:
    """Draw every layer's mask and the density of each into one PNG.

    Args:
        mask: What to draw; of more than six layers the largest six are drawn.
        path: The PNG file.
        title: A line above the picture.

    Raises:
        FileError: The file cannot be written.
    """
    names = _chosen(mask)
    figure, axes = _canvas(len(names), columns=1)
    for name, (axis,) in zip(names, axes, strict=True):
        layer = mask[name]
        _draw_plane(
            axis, _as_plane(layer).astype(np.uint8), f"{_short(name)}  {layer.shape}  density {layer.mean():.1%}"
        )
    _finish(figure, path, title=title, states=(PRUNED, KEPT))


@own_style()
def draw_before_after(
    before: Mask,
    after: Mask,
    secret: Mapping[str, npt.NDArray[np.int64]],
    path: str | os.PathLike[str],
    *,
    title: str = "",
    from_start: bool = False,
) -> None:
    """Draw a mask before and after embedding, side by side, with the owner's secret edges shown.

    Args:
        before: The reference's mask.
        after: The marked mask, of the same layers.
        secret: Per layer the flat positions of the secret edge set.
        path: The PNG file. It shows secrets: keep it to the owner.
        title: A line above the picture.
        from_start: Whether the reference is the weights that the search started from: what is not kept of them was
            pruned by the search, not moved by a mark.

    Raises:
        FileError: The file cannot be written.
    """
    names = _chosen(before)
    figure, axes = _canvas(len(names), columns=2)
    for name, (left, right) in zip(names, axes, strict=True):
        is_secret = _at(secret[name], before[name].shape)
        hits = int((before[name] & is_secret).sum()), int((after[name] & is_secret).sum())
        earlier = after[name] if from_start else before[name]
        first = f"start weights: {hits[0]} secret edges" if from_start else f"before: {hits[0]} secret edges kept"
        _draw_plane(left, _states(before[name], before[name], is_secret), f"{_short(name)} {first}")
        _draw_plane(
            right, _states(earlier, after[name], is_secret), f"{_short(name)} after: {hits[1]} secret edges kept"
        )
    shown = [state for state in range(len(LABELS)) if not (from_start and state == LEFT)]
    _finish(figure, path, title=title, states=shown)


def _chosen(mask: Mask) -> list[str]:
    largest = set(sorted(mask, key=lambda name: (-mask[name].size, name))[:MAX_LAYERS])
    return [name for name in mask if name in largest]


def _short(name: str) -> str:
    return printable(name, limit=TITLE_LIMIT)


def _at(positions: npt.NDArray[np.int64], shape: tuple[int, ...]) -> BoolArray:
    flat: BoolArray = np.zeros(math.prod(shape), dtype=np.bool_)
    flat[positions] = True
    return flat.reshape(shape)


def _as_plane(layer: BoolArray) -> BoolArray:
    return layer.reshape(layer.shape[0], -1)


def _states(before: BoolArray, after: BoolArray, is_secret: BoolArray) -> Plane:
    states: Plane = np.full(after.shape, PRUNED, dtype=np.uint8)
    states[is_secret] = SECRET
    states[after] = KEPT
    states[before & ~after] = LEFT
    states[after & is_secret] = PLANTED
    return states.reshape(states.shape[0], -1)


def _tiled(plane: Plane) -> Plane:
    """Shrink a plane to tiles; a tile shows the rarest and most telling state in it: planted before kept."""
    step = math.ceil(max(plane.shape) / MAX_SIDE)
    if step == 1:
        return plane
    rank = np.array([0, 2, 3, 4, 1], dtype=np.uint8)
    ranked = np.pad(rank[plane], [(0, -size % step) for size in plane.shape])
    rows, columns = ranked.shape[0] // step, ranked.shape[1] // step
    tiles = ranked.reshape(rows, step, columns, step).max(axis=(1, 3))
    shrunk: Plane = np.argsort(rank).astype(np.uint8)[tiles]
    return shrunk


def _canvas(rows: int, *, columns: int) -> tuple[Figure, npt.NDArray[np.object_]]:
    figure = blank_figure(7.0 * columns, 2.4 * rows + 1.0)
    return figure, figure.subplots(rows, columns, squeeze=False)


def blank_figure(width: float, height: float) -> Figure:
    """Return a figure of so many inches."""
    # The figure is made without pyplot: no global state, no window, the Agg renderer.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def set_title(figure: Figure, title: str) -> None:
    """Write a line above a figure as it is: a dollar sign in it begins no formula."""
    figure.suptitle(_short(title), parse_math=False)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as a PNG.

    Raises:
        FileError: The file cannot be written.
    """
    write_whole(path, png_of(figure))


def png_of(figure: Figure) -> bytes:
    """Return a figure as a PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DOTS_PER_INCH)
    return picture.getvalue()


def _draw_plane(axis: Axes, plane: Plane, title: str) -> None:
    from matplotlib.colors import ListedColormap

    axis.imshow(
        _tiled(plane if plane.shape[1] >= plane.shape[0] else plane.T),
        cmap=ListedColormap(COLOURS),
        vmin=0,
        vmax=len(COLOURS) - 1,
        aspect="auto",
        interpolation="nearest",
    )
    axis.set_title(title, fontsize=9, parse_math=False)
    axis.set_xticks([])
    axis.set_yticks([])


def _finish(figure: Figure, path: str | os.PathLike[str], *, title: str, states: Sequence[int]) -> None:
    from matplotlib.patches import Patch

    figure.legend(
        handles=[Patch(facecolor=COLOURS[state], edgecolor="#999999", label=LABELS[state]) for state in states],
        loc="outside lower center",
        ncols=len(states),
        frameon=False,
        fontsize=9,
    )
    if title:
        set_title(figure, title)
    save_figure(figure, path)

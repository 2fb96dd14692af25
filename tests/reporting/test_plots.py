from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from ticketguard.errors import FileError
from ticketguard.reporting import plots
from ticketguard.reporting.plots import (
    COLOURS,
    KEPT,
    LEFT,
    PLANTED,
    PRUNED,
    SECRET,
    _states,
    _tiled,
    draw_before_after,
    draw_mask,
)
from ticketguard.ticket import Mask


def mask(seed: int = 0) -> Mask:
    generator = np.random.default_rng(seed)
    shapes = {f"layer{index}.weight": (8 + index, 4, 3, 3) for index in range(8)}
    return Mask(layers={name: generator.random(shape) < 0.2 for name, shape in shapes.items()})


def test_every_position_has_the_state_that_tells_its_story() -> None:
    before = np.array([[True, True, False, False, False, True]])
    after = np.array([[True, False, True, False, False, True]])
    secret = np.array([[False, False, True, True, False, True]])
    assert _states(before, after, secret).tolist() == [[KEPT, LEFT, PLANTED, SECRET, PRUNED, PLANTED]]


def test_a_large_plane_is_tiled_and_keeps_its_planted_edges_in_sight() -> None:
    plane = np.zeros((1001, 30), dtype=np.uint8)
    plane[500, 10] = PLANTED
    plane[0, 0] = KEPT
    plane[0, 1] = SECRET
    small = _tiled(plane)
    assert small.shape == (334, 10)
    assert (small == PLANTED).sum() == 1
    assert small[0, 0] == KEPT


def test_pictures_are_written_whole_and_leave_no_state_behind(tmp_path: Path) -> None:
    draw_mask(mask(), tmp_path / "mask.png", title="a mask")
    secret = {name: np.arange(5) for name in mask()}
    draw_before_after(mask(), mask(1), secret, tmp_path / "both.png")
    for name in ("mask.png", "both.png"):
        with PIL.Image.open(tmp_path / name) as image:
            image.verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.png", "mask.png"]


def colours_of(path: Path) -> set[tuple[int, ...]]:
    with PIL.Image.open(path) as image:
        return {colour for _, colour in image.convert("RGB").getcolors(maxcolors=1_000_000)}


def test_what_a_search_pruned_of_its_start_was_not_moved_by_the_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Mask(layers={name: np.ones(layer.shape, dtype=np.bool_) for name, layer in mask().layers.items()})
    secret = {name: np.arange(5) for name in mask()}
    titles: list[str] = []
    draw_plane = plots._draw_plane
    monkeypatch.setattr(
        plots, "_draw_plane", lambda axis, plane, title: (titles.append(title), draw_plane(axis, plane, title))
    )
    draw_before_after(start, mask(1), secret, tmp_path / "a.png", from_start=True)
    assert titles[0].endswith("start weights: 5 secret edges")
    assert "after: " in titles[1]
    draw_before_after(start, mask(1), secret, tmp_path / "b.png")
    assert "before: 5 secret edges kept" in titles[12]
    moved = tuple(bytes.fromhex(COLOURS[LEFT][1:]))
    assert moved in colours_of(tmp_path / "b.png")
    assert moved not in colours_of(tmp_path / "a.png")


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError, match="cannot be written"):
        draw_mask(mask(), tmp_path / "file" / "mask.png")

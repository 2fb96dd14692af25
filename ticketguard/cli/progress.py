"""Progress bars on standard error: what is done, what is left, and an estimate."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from ticketguard.cli.output import print_lines
from ticketguard.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ProgressBar:
    """Shows one bar at a time on a terminal; elsewhere, such as in a log, a line when a part is done."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._description = ""
        self._started = 0.0
        # Launchers of several processes that train together number them so; the first one speaks for all.
        self._is_first = os.environ.get("RANK", "0") == "0"

    def __enter__(self) -> ProgressBar:
        if self._is_first and sys.stderr.isatty():
            self._bar = _make_bar()
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, description: str, total: int) -> None:
        """Start a part of *total* units."""
        # Names from files are in it, which rich would take for its markup, and a terminal for commands.
        self._description = printable(description)
        self._started = time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task(self._description, total=total)

    def advance(self, count: int = 1) -> None:
        """Say that *count* more units are done."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, count)

    def end(self) -> None:
        """End the part that was begun last."""
        if not self._is_first:
            return
        if self._bar is None:
            print_lines([f"{self._description}: {time.monotonic() - self._started:.1f} s"], err=True)
        elif self._task is not None:
            self._bar.stop_task(self._task)


def _make_bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )

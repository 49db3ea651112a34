"""The bar that a long run shows."""

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lsdask import telling


def rate(pixels: float, seconds: float) -> str:
    """Say how fast pixels are done; nothing if none are.

    Examples
    --------
    >>> rate(3.2e6, 2.0)
    '1.6 Mpx/s'
    """
    speed = pixels / max(seconds, 1e-6)
    if not pixels:
        return ""
    return f"{speed / 1e6:.3g} Mpx/s" if speed >= 1e6 else f"{speed:,.0f} px/s"


class Bar:
    """A rich progress bar that appears only if the run takes longer than two seconds."""

    def __init__(self, label: str, total: int, done: int, *, shown: bool) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=telling.console(), disable=not shown)
        self._task = self._progress.add_task(label, total=total, completed=done, note="")
        self._timer = threading.Timer(2.0, self._progress.start)
        self._timer.daemon = True
        self._begun = time.monotonic()

    def step(self, failed: int, metrics: Mapping[str, float]) -> None:
        """Count a tile that has ended; say how fast pixels are done and how many tiles are not."""
        speed = rate(metrics.get("pixels", 0.0), time.monotonic() - self._begun)
        note = speed + (f" [red]{failed} failed[/red]" if failed else "")
        self._progress.update(self._task, advance=1, note=note)

    def __enter__(self) -> Self:
        self._timer.start()
        self._begun = time.monotonic()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        self._progress.stop()

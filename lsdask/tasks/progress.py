"""The bar that a long run shows."""

import threading
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
        self._progress = Progress(*columns, disable=not shown)
        self._task = self._progress.add_task(label, total=total, completed=done, note="")
        self._timer = threading.Timer(2.0, self._progress.start)
        self._timer.daemon = True

    def step(self, failed: int) -> None:
        note = f"[red]{failed} failed[/red]" if failed else ""
        self._progress.update(self._task, advance=1, note=note)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        self._progress.stop()

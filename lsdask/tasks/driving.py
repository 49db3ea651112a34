"""The loop of a run: a bounded window of tiles in flight, each recorded as it ends."""

import logging
import queue
import time
from asyncio import CancelledError
from collections.abc import Iterator
from typing import Any

from lsdask import ledger
from lsdask.errors import LsdaskError
from lsdask.tasks.pools import Pool
from lsdask.tasks.progress import Bar
from lsdask.tasks.reports import Failure, Place

FLUSH_SECONDS = 0.2
"""How long a finished tile may be unrecorded; tiles that take longer are recorded one by one."""

_log = logging.getLogger(__name__)


def drive(
    pool: Pool, to_do: Iterator[Place], book: ledger.Ledger, lock: ledger.Lock, bar: Bar
) -> tuple[list[Failure], dict[str, float]]:
    """Keep the window full until every tile has ended; record each as it ends."""
    running = 0
    failed: list[Failure] = []
    metrics: dict[str, float] = {}
    flushed = time.monotonic()
    with bar:
        try:
            running += _fill(pool, to_do, running)
            while running:
                lock.check()
                ended = _next(pool, FLUSH_SECONDS)
                if ended is not None:
                    running -= 1
                    why = _record(*ended, book, metrics)
                    if why is not None:
                        failed.append(Failure(ended[0], why))
                    bar.step(len(failed))
                    running += _fill(pool, to_do, running)
                if time.monotonic() - flushed >= FLUSH_SECONDS:
                    book.flush()
                    flushed = time.monotonic()
        finally:
            book.flush()
    return failed, metrics


def _fill(pool: Pool, waiting: Iterator[Place], running: int) -> int:
    """Submit tiles until the window is full; say how many."""
    submitted = 0
    room = pool.window() - running
    while submitted < room:
        place = next(waiting, None)
        if place is None:
            break
        pool.submit(place)
        submitted += 1
    return submitted


def _next(pool: Pool, seconds: float) -> tuple[Place, Any] | None:
    try:
        return pool.ended.get(timeout=seconds)
    except queue.Empty:
        return None


def _record(place: Place, future: Any, book: ledger.Ledger, metrics: dict[str, float]) -> str | None:
    """Mark a tile as done and add up its metrics, or say why it is not done."""
    try:
        measured = future.result()
    except (Exception, CancelledError) as error:
        _log.info("tile %s failed", place, exc_info=error)
        return str(error) if isinstance(error, LsdaskError) else f"{type(error).__name__}: {error}"
    book.mark(place)
    for name, value in measured.items():
        metrics[name] = metrics.get(name, 0.0) + value
    return None

"""The loop of a run: a bounded window of tiles in flight, each recorded as it ends."""

import logging
import queue
import time
from asyncio import CancelledError
from collections.abc import Iterator
from typing import Any

from lsdask import ledger, store
from lsdask.errors import LsdaskError, Unfinished
from lsdask.tasks.journal import Journal
from lsdask.tasks.pools import Pool
from lsdask.tasks.progress import Bar
from lsdask.tasks.reports import Failure, Place

FLUSH_SECONDS = 0.2
"""How long a finished tile may be unrecorded; tiles that take longer are recorded one by one."""

_log = logging.getLogger(__name__)


class Tally:
    """What has become of the tiles of a run so far: in its ledger, its journal, its bar and its sums.

    Attributes
    ----------
    failed : list of Failure
        The tiles that are not done.
    metrics : dict
        Sums of what the kernel measured.
    """

    def __init__(self, target: str, book: ledger.Ledger, bar: Bar) -> None:
        self.failed: list[Failure] = []
        self.metrics: dict[str, float] = {}
        self._target, self._book, self._journal, self._bar = target, book, Journal(target), bar
        self._flushed = time.monotonic()

    def record(self, place: Place, future: Any) -> None:
        """Take over what a tile wrote, mark it as done and add up its metrics, or say why it is not done."""
        try:
            outcome = future.result()
        except (Exception, CancelledError) as error:
            _log.info("tile %s failed", place, exc_info=error)
            why = str(error) if isinstance(error, LsdaskError) else f"{type(error).__name__}: {error}"
            self.failed.append(Failure(place, why))
            self._journal.failed(place, why)
        else:
            store.merge(self._target, outcome.part)
            self._book.mark(place, outcome.checksum)
            self._journal.done(place, outcome)
            for name, value in {**outcome.measured, "stored_bytes": outcome.size}.items():
                self.metrics[name] = self.metrics.get(name, 0.0) + value
        self._bar.step(len(self.failed), self.metrics)

    def flush(self) -> None:
        """Make it last, now and then; what cannot be written yet, as on a full disk, is written later.

        In a repository nothing lasts before the commit, and whatever is written stays: there it is written once.
        """
        if time.monotonic() - self._flushed >= FLUSH_SECONDS and not store.is_repository(self._target):
            try:
                self._book.flush()
            except OSError as error:
                _log.warning("The ledger cannot be written just now: %s", error)
            self._journal.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Make all of it last.

        Raises
        ------
        Unfinished
            If the ledger cannot be written.
        """
        self._journal.flush(last=True)
        try:
            self._book.flush()
        except OSError as error:
            do = "The last tiles will be computed again. Make room, then run again"
            raise Unfinished(f"The ledger cannot be written: {type(error).__name__}: {error}. {do}.") from error


def drive(pool: Pool, to_do: Iterator[Place], tally: Tally, lock: ledger.Lock) -> None:
    """Keep the window full until every tile has ended; record each as it ends."""
    running = 0
    try:
        running += _fill(pool, to_do, running)
        while running:
            lock.check()
            ended = _next(pool, FLUSH_SECONDS)
            pool.check()
            if ended is not None:
                running -= 1
                tally.record(*ended)
                running += _fill(pool, to_do, running)
            tally.flush()
    finally:
        tally.close()


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

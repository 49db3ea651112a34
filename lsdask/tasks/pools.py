"""Where tiles run: on threads of this process, or on the workers of a cluster."""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from lsdask import store, tiling
from lsdask.errors import Unfinished
from lsdask.tasks.reports import Place
from lsdask.tasks.workers import carried, held

if TYPE_CHECKING:
    from distributed import Client
    from icechunk import ForkSession

LOOKED_SECONDS = 5.0
"""How often a cluster is asked whether it has workers."""

ALONE_SECONDS = 60.0
"""How often a run without a worker says so: it waits, as workers may be queued yet, or made when there is work."""

_log = logging.getLogger(__name__)

Kernel = Callable[[tiling.Tile], Mapping[str, float]]
"""Reads, computes and writes one tile; gives what it measured."""


class Pool(Protocol):
    """Somewhere tiles are run: ``submit`` starts one, ``ended`` holds (place, future) of those that ended."""

    ended: "queue.SimpleQueue[tuple[Place, Any]]"

    def submit(self, place: Place) -> None: ...

    def window(self) -> int:
        """Say how many tiles may be in flight."""

    def check(self) -> None:
        """Raise Unfinished if it is gone."""


@dataclass(frozen=True)
class Outcome:
    """What became of a tile.

    Attributes
    ----------
    measured : mapping
        What the kernel measured.
    checksum : int or None
        Of the objects that the kernel put; None if it put none.
    size : int
        Their bytes.
    seconds : float
        How long it took, all attempts together.
    tried : int
        How often it was tried.
    worker : str
        Where.
    part : icechunk.ForkSession or None
        What it wrote, if the target is a repository: see ``store.part``.
    """

    measured: Mapping[str, float]
    checksum: int | None
    size: int
    seconds: float
    tried: int
    worker: str
    part: "ForkSession | None" = None


def attempt(
    kernel: Kernel, tile: tiling.Tile, retries: int, worker: str = "", fork: store.Fork | None = None
) -> Outcome:
    """Run a kernel on a tile, trying again after an OSError with back-off (0.1, 0.4, 1.6 ... s).

    Each attempt has a part of the fork of its own, if there is one, so that a torn one leaves nothing.
    """
    begun, tried = time.perf_counter(), 1
    while True:
        try:
            with store.told(), store.noting() as objects, store.part(fork) as part:
                measured = kernel(tile)
            break
        except OSError:
            if tried > retries:
                raise
            time.sleep(0.1 * 4 ** (tried - 1))
            tried += 1
    checksum, size = store.fold(objects) if objects else None, sum(one.size for one in objects.values())
    return Outcome(measured, checksum, size, time.perf_counter() - begun, tried, worker, part)


@dataclass(frozen=True)
class Work:
    """What a thread or a worker needs to run any tile of a run: see ``attempt``."""

    kernel: Kernel
    grid: tiling.Grid
    retries: int
    fork: store.Fork | None

    def attempt(self, place: Place, worker: str) -> Outcome:
        """Run the tile of a place."""
        return attempt(self.kernel, self.grid[place], self.retries, worker, self.fork)


def pool(work: Work, client: "Client | None", workers: int | None, label: str) -> Any:
    if client is not None:
        return _ClusterPool(client, work, label)
    return _ThreadPool(work, workers or os.cpu_count() or 1)


class _ThreadPool:
    """Threads of this process."""

    def __init__(self, work: Work, workers: int) -> None:
        self.ended: queue.SimpleQueue[tuple[Place, Any]] = queue.SimpleQueue()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="lsdask")
        self._work, self._workers = work, workers

    def submit(self, place: Place) -> None:
        future = self._executor.submit(self._attempt, place)
        future.add_done_callback(lambda ended: self.ended.put((place, ended)))

    def _attempt(self, place: Place) -> Outcome:
        return self._work.attempt(place, threading.current_thread().name)

    def window(self) -> int:
        return 2 * self._workers

    def check(self) -> None:
        """Threads are there as long as their process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._executor.shutdown(cancel_futures=True)


class _ClusterPool:
    """Workers of a distributed cluster; each gets the kernel once, also one that joins or restarts later."""

    def __init__(self, client: "Client", work: Work, label: str) -> None:
        self.ended: queue.SimpleQueue[tuple[Place, Any]] = queue.SimpleQueue()
        self._client, self._label = client, label
        self._carried = carried(client, work)
        self._futures: dict[Place, Any] = {}
        self._window, self._counted = 0, -float("inf")
        self._looked = self._seen = self._told = time.monotonic()

    def submit(self, place: Place) -> None:
        name = self._cargo.name
        key = f"{self._label}-{name[7:15]}-{place[0]}-{place[1]}"
        future = self._client.submit(_on_worker, name, place, key=key, pure=False)
        self._futures[place] = future
        future.add_done_callback(lambda ended: self._end(place, ended))

    def _end(self, place: Place, future: Any) -> None:
        self._futures.pop(place, None)
        self.ended.put((place, future))

    def window(self) -> int:
        """Two tiles a thread: one computed, one waiting; counted again as workers come and go."""
        if time.monotonic() - self._counted > 1.0:
            self._window = max(2 * sum(self._client.nthreads().values()), 2)
            self._counted = time.monotonic()
        return self._window

    def check(self) -> None:
        self._cargo.check()
        if self._client.status != "running":  # also while it connects again: the tiles in flight are lost to it
            do = "What is done stays done: start a cluster and run again with its client"
            raise Unfinished(f"The Dask scheduler is lost (the client is {self._client.status}). {do}.")
        if time.monotonic() - self._looked >= LOOKED_SECONDS:
            self._looked = time.monotonic()
            self._look()

    def _look(self) -> None:
        """Say now and then that there is no worker, or raise Unfinished if none can come."""
        now = self._looked
        try:
            there = len(self._client.nthreads())
        except OSError:  # of a scheduler that is lost just now, as the next check will say
            return
        if there:
            self._seen = self._told = now
        elif has_ended(self._client.cluster):
            do = "What is done stays done: make another cluster, or scale this one, and run again"
            raise Unfinished(f"No worker is left: each of this cluster has ended, and none is started again. {do}.")
        elif now - self._told >= ALONE_SECONDS:
            self._told = now
            _log.warning("No worker has been there for %.0f s. The run waits for one.", now - self._seen)

    def __enter__(self) -> Self:
        self._cargo = self._carried.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._client.status == "running":
            with suppress(OSError):  # a worker that dies just now takes its tiles with it
                self._client.cancel(list(self._futures.values()))
        self._carried.__exit__(kind, error, trace)


def has_ended(cluster: Any) -> bool:
    """Say whether all workers of a cluster have ended for good, as those of a notebook do when it is interrupted.

    Known of clusters that this process has made and that keep a fixed number of workers. A worker that is queued or
    restarts has not ended; an adaptive cluster makes others.

    Parameters
    ----------
    cluster : distributed.SpecCluster or other
        None, and what says nothing of its workers, is not known to have ended.
    """
    workers = list((getattr(cluster, "workers", None) or {}).values())
    adapts = getattr(cluster, "_adaptive", None) is not None
    return bool(workers) and not adapts and all(_status(one) in ("closed", "failed") for one in workers)


def _status(worker: Any) -> str:
    status = getattr(worker, "status", "")
    return str(getattr(status, "name", status))


def _on_worker(name: str, place: Place) -> Outcome:
    from distributed import get_worker

    work: Work = held(name)
    return work.attempt(place, str(get_worker().name))

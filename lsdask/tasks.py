"""The one engine for everything long: a kernel run over the tiles of a target that its ledger does not hold yet.

A task is a tile's place, two integers. The kernel reaches each worker once; it reads its block from the source
itself, computes, and writes one whole shard of the target, so tasks share nothing and may be repeated. Tasks are
submitted in a bounded window. A tile that fails never stops the others: the run ends and names it.
"""

import logging
import os
import queue
import threading
import time
import uuid
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import xarray as xr
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lsdask import ledger, store, tiling
from lsdask.errors import BadInput, LsdaskError, Unfinished, sentence

if TYPE_CHECKING:
    from distributed import Client

Place = tuple[int, int]
Kernel = Callable[[tiling.Tile], Mapping[str, float]]

FLUSH_SECONDS = 0.2
"""How long a finished tile may be unrecorded; tiles that take longer are recorded one by one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A tile that is not done, and why."""

    place: Place
    why: str


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes
    ----------
    target : str
        The store.
    tiles, done, skipped : int
        All tiles, those computed in this run, those an earlier run had done.
    failed : tuple of Failure
        Tiles not done; running again does only these.
    seconds : float
        Wall time of this run.
    metrics : dict
        Sums of what the kernel measured over the tiles of this run.
    """

    target: str
    tiles: int
    done: int
    skipped: int
    failed: tuple[Failure, ...]
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)

    def check(self) -> Self:
        """Give the report back, or raise Unfinished naming the failed tiles."""
        if self.failed:
            raise Unfinished(str(self))
        return self

    def __str__(self) -> str:
        text = f"{self.target}: {self.done} of {self.tiles} tiles in {self.seconds:.1f} s"
        text += f", {self.skipped} done before" if self.skipped else ""
        if not self.failed:
            return text + "."
        named = "; ".join(f"tile {failure.place}: {failure.why}" for failure in self.failed[:5])
        more = f"; and {len(self.failed) - 5} more" if len(self.failed) > 5 else ""
        return f"{text}. {len(self.failed)} not done ({named}{more}). Run again to do only these."


def run(
    kernel: Kernel,
    *,
    target: str | Path,
    template: xr.DataArray,
    tile: int,
    halo: int = 0,
    chunk: int | None = None,
    plan: Mapping[str, Any] | None = None,
    client: "Client | None" = None,
    workers: int | None = None,
    retries: int = 2,
    progress: bool = True,
    label: str = "tiles",
    beside: Callable[[store.Place], None] | None = None,
) -> Report:
    """Run a kernel over every tile of a target that is not done yet.

    Parameters
    ----------
    kernel : callable of a Tile
        Reads, computes and writes that tile's shard by ``store.put``; gives numbers to be
        summed into the report. With a client it must be picklable.
    target : str or Path
        Made from ``template`` if there is nothing; else it must hold a run with the same plan, which goes on.
    template : DataArray (..., y, x)
        What the target is: see ``store.create``.
    tile : int
        Side of a tile and of the target's shards, in pixels.
    halo : int
        Context on each side of a tile, in pixels.
    chunk : int, optional
        Side of a stored chunk; default 512 if it divides ``tile``, else ``tile``.
    plan : mapping, optional
        What else identifies the run; JSON. Tile, halo and chunk are added.
    client : distributed.Client, optional
        Where to run; default a pool of threads in this process.
    workers : int, optional
        Threads of that pool; default one a core.
    retries : int
        How often a tile is tried again after an OSError (a failed read or write), with back-off.
    progress : bool
        Show a bar once the run has taken two seconds.
    label : str
        What the bar and the Dask dashboard call the tiles.
    beside : callable, optional
        Makes what else a new target holds, given its place.

    Returns
    -------
    Report

    Raises
    ------
    BadInput, OtherPlan
        Before any tile, if the target cannot be this run's.
    """
    begun = time.perf_counter()
    target = store.text(target)
    grid = tiling.grid((template.sizes["y"], template.sizes["x"]), tile, halo=halo)
    chunk = chunk or (512 if tile % 512 == 0 else tile)
    if tile % chunk:
        raise BadInput(sentence("tile", f"be a multiple of the target's chunk, {chunk}", f"tile={tile}"))
    whole_plan = {**(plan or {}), "tile": tile, "halo": halo, "chunk": chunk}
    with _transaction(target, client, label), _taken(target, template, grid, chunk, whole_plan, beside) as lock:
        for part in product(*(range(-(-count // ledger.CHUNK)) for count in grid.count)):
            store.sweep(target, f"{ledger.NAME}/c/{part[0]}/{part[1]}")
        book = ledger.read(target)
        skipped = int(book.done.sum())
        to_do = (place for place in grid.places() if not book.done[place])
        with _pool(kernel, grid, client, workers, retries, label) as pool:
            failed, metrics = _drive(pool, to_do, book, lock, _Bar(label, len(grid), skipped, shown=progress))
    seconds = time.perf_counter() - begun
    done = len(grid) - skipped - len(failed)
    return Report(target, len(grid), done, skipped, tuple(sorted(failed, key=_place)), seconds, metrics)


def _place(failure: Failure) -> Place:
    return failure.place


# The target


@contextmanager
def _transaction(target: str, client: "Client | None", label: str) -> Iterator[None]:
    """Open the transaction that a repository needs; nothing elsewhere."""
    if not store.is_repository(target):
        yield
        return
    if client is not None:
        do = "Leave client out, so that threads of this process write it, or write an s3:// or gs:// store"
        raise BadInput(sentence("client", "be None where the target is a repository", f"target={target}", do))
    with store.told(target), store.session(target, f"lsdask {label}"):
        yield


@contextmanager
def _taken(
    target: str,
    template: xr.DataArray,
    grid: tiling.Grid,
    chunk: int,
    plan: dict[str, Any],
    beside: Callable[[store.Place], None] | None,
) -> Iterator[ledger.Lock]:
    """Take the target for this run, made if there is nothing: locally the lock lies in it, else beside it."""
    if store.is_local(target):
        _prepare(target, template, grid, chunk, plan, beside)
    lock = ledger.lock(target)
    try:
        if not store.is_local(target):
            _prepare(target, template, grid, chunk, plan, beside)
        yield lock
    finally:
        lock.release()


def _prepare(
    target: str,
    template: xr.DataArray,
    grid: tiling.Grid,
    chunk: int,
    plan: dict[str, Any],
    beside: Callable[[store.Place], None] | None,
) -> None:
    """Make the target, whole before it gets its name, or check that it holds this run."""
    if store.exists(target):
        return ledger.check(target, plan)
    with store.making(target) as made:
        store.create(made, template, chunk=chunk, shard=grid.tile[0])
        if beside is not None:
            beside(made)
        ledger.start(made, grid.count, plan)
    return None


# The loop


class _Pool(Protocol):
    """Somewhere tiles are run: ``submit`` starts one, ``ended`` holds (place, future) of those that ended."""

    ended: "queue.SimpleQueue[tuple[Place, Any]]"

    def submit(self, place: Place) -> None: ...

    def window(self) -> int: ...


def _drive(
    pool: _Pool, to_do: Iterator[Place], book: ledger.Ledger, lock: ledger.Lock, bar: "_Bar"
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


def _fill(pool: _Pool, waiting: Iterator[Place], running: int) -> int:
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


def _next(pool: _Pool, seconds: float) -> tuple[Place, Any] | None:
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


def attempt(kernel: Kernel, tile: tiling.Tile, retries: int) -> Mapping[str, float]:
    """Run a kernel on a tile, trying again after an OSError with back-off (0.1, 0.4, 1.6 ... s)."""
    for tried in range(retries):
        try:
            with store.told():
                return kernel(tile)
        except OSError:
            time.sleep(0.1 * 4**tried)
    with store.told():
        return kernel(tile)


# Where tiles run


def _pool(
    kernel: Kernel, grid: tiling.Grid, client: "Client | None", workers: int | None, retries: int, label: str
) -> Any:
    if client is not None:
        return _ClusterPool(client, kernel, grid, retries, label)
    return _ThreadPool(kernel, grid, workers or os.cpu_count() or 1, retries)


class _ThreadPool:
    """Threads of this process."""

    def __init__(self, kernel: Kernel, grid: tiling.Grid, workers: int, retries: int) -> None:
        self.ended: queue.SimpleQueue[tuple[Place, Any]] = queue.SimpleQueue()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="lsdask")
        self._kernel, self._grid, self._workers, self._retries = kernel, grid, workers, retries

    def submit(self, place: Place) -> None:
        future = self._executor.submit(attempt, self._kernel, self._grid[place], self._retries)
        future.add_done_callback(lambda ended: self.ended.put((place, ended)))

    def window(self) -> int:
        return 2 * self._workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._executor.shutdown(cancel_futures=True)


class _ClusterPool:
    """Workers of a distributed cluster; each gets the kernel once, also one that joins or restarts later."""

    def __init__(self, client: "Client", kernel: Kernel, grid: tiling.Grid, retries: int, label: str) -> None:
        self.ended: queue.SimpleQueue[tuple[Place, Any]] = queue.SimpleQueue()
        self._client, self._label = client, label
        self._name = f"lsdask-{uuid.uuid4().hex}"
        self._work = _Work(kernel, grid, retries)
        self._futures: dict[Place, Any] = {}
        self._window, self._counted = 0, -float("inf")

    def submit(self, place: Place) -> None:
        key = f"{self._label}-{self._name[7:15]}-{place[0]}-{place[1]}"
        future = self._client.submit(_on_worker, self._name, place, key=key, pure=False)
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

    def __enter__(self) -> Self:
        from distributed import WorkerPlugin

        class Kernels(WorkerPlugin):
            """Holds the work of one run on a worker."""

            def __init__(self, name: str, work: _Work) -> None:
                self.name, self.work = name, work

        self._client.register_plugin(Kernels(self._name, self._work))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._client.status != "running":
            return
        with suppress(OSError):  # a worker that dies just now takes its kernel with it
            self._client.cancel(list(self._futures.values()))
            self._client.unregister_worker_plugin(self._name)


@dataclass(frozen=True)
class _Work:
    """What a worker needs to run any tile of a run."""

    kernel: Kernel
    grid: tiling.Grid
    retries: int


def _on_worker(name: str, place: Place) -> Mapping[str, float]:
    from distributed import get_worker

    work: _Work = get_worker().plugins[name].work  # type: ignore[attr-defined]
    return attempt(work.kernel, work.grid[place], work.retries)


# Progress


class _Bar:
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

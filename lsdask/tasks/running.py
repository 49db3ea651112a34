"""One run: its target made or taken, its tiles driven, its report."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from lsdask import store, tiling
from lsdask.errors import BadInput, sentence
from lsdask.tasks.driving import Tally, drive
from lsdask.tasks.pools import Kernel, Work, pool
from lsdask.tasks.progress import Bar
from lsdask.tasks.reports import Failure, Place, Report
from lsdask.tasks.targets import Target, transaction
from lsdask.tasks.workers import check_workers

if TYPE_CHECKING:
    from distributed import Client


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
    void: np.ndarray | None = None,
    call: Mapping[str, Any] | None = None,
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
    void : (rows, columns) bool array, optional
        Tiles that need no computing, as what is not written reads as no data: done without a task.
    call : mapping, optional
        How to call this run again, which is not part of what it is; JSON, kept in a new target.

    Returns
    -------
    Report

    Raises
    ------
    BadInput, OtherPlan
        Before any tile, if the target cannot be this run's, ``void`` is not one bool a tile, or a process of the
        cluster has no lsdask or other versions (also of icechunk, for a repository): see ``check_workers``.
    Unfinished
        If the scheduler is lost, or a worker of other versions joins.
    """
    begun = time.perf_counter()
    target = store.text(target)
    check_workers(client, *(["icechunk"] if store.is_repository(target) else []))
    grid = tiling.grid((template.sizes["y"], template.sizes["x"]), tile, halo=halo)
    chunk = chunk or (512 if tile % 512 == 0 else tile)
    if tile % chunk:
        raise BadInput(sentence("tile", f"be a multiple of the target's chunk, {chunk}", f"tile={tile}"))
    if void is not None and (void.shape != grid.count or void.dtype != bool):
        got = f"{void.dtype} {void.shape}"
        raise BadInput(sentence("void", f"be one bool a tile, {grid.count}", got))
    whole_plan = {**(plan or {}), "tile": tile, "halo": halo, "chunk": chunk}
    wanted = Target(target, template, grid, chunk, whole_plan, beside, void, call)
    with transaction(target, label), wanted.taken() as lock:
        book = wanted.open()
        held, voids = book.done, int(book.void.sum())
        skipped = int(held.sum()) - voids
        to_do = (place for place in grid.walk() if not held[place])
        with Bar(label, len(grid), skipped + voids, shown=progress) as bar:
            tally = Tally(target, book, bar)
            work = Work(kernel, grid, retries, store.fork(target))
            with pool(work, client, workers, label) as where:
                drive(where, to_do, tally, lock)
    return Report(
        target=target,
        tiles=len(grid),
        done=len(grid) - skipped - voids - len(tally.failed),
        skipped=skipped,
        failed=tuple(sorted(tally.failed, key=_place)),
        seconds=time.perf_counter() - begun,
        metrics=tally.metrics,
        void=voids,
    )


def _place(failure: Failure) -> Place:
    return failure.place

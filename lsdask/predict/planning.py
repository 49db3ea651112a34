"""What a run will take, told before it runs: tiles, bytes, memory and, measured on one block, time."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
import xarray as xr
from rich.table import Table

from lsdask import ledger, schema, store, tasks, telling
from lsdask.predict.batching import most
from lsdask.predict.decoding import decoded_of, pixels_of
from lsdask.predict.jobs import Job, Options, job
from lsdask.predict.memory import forward_bytes, task_bytes
from lsdask.predict.probing import is_tried, settle
from lsdask.predict.reaching import TRIED, missing
from lsdask.predict.scoring import Model, Scorer
from lsdask.predict.skipping import Where
from lsdask.predict.windows import Lattice
from lsdask.telling import size, span

if TYPE_CHECKING:
    from distributed import Client

LOOKED_AT = 16
"""Tiles that a probe looks at to find one with data."""


@dataclass(frozen=True)
class Probe:
    """What one block took, in seconds: reading it, and scoring it."""

    read_s: float
    compute_s: float


@dataclass(frozen=True)
class Plan:
    """What a run will take. Made by ``plan``; ``print`` shows it.

    Attributes
    ----------
    source, target : str
        From where and to where.
    shape : (int, int, int)
        The image, (band, y, x).
    tile, halo : int
        Sides, in pixels.
    tiles, void, done, tasks : int
        All tiles; those known to hold no score, which nothing reads; those that an earlier run has done; the rest.
    read_bytes : int
        Of the image, decoded, over all tasks.
    amplification : float
        Pixels decoded for each pixel of the tiles of these tasks: what halo and chunks cost. One process decodes a
        chunk once for a strip of tiles; of several, each tile is counted as if it shared none.
    write_bytes : int
        Of scores, before compression.
    memory : int
        Bytes that a worker process takes at most, beyond its imports, weights and a callable's own. On a GPU,
        ``model_memory`` of them are the device's.
    model_memory : int
        Those of the forward pass of a network; 0 for any other callable.
    workers : int
        Processes, each of ``threads`` threads.
    threads : int
    probe : Probe or None
        What one block took.
    seconds : float or None
        How long the tasks will take, if they all are as that block.
    """

    source: str
    target: str
    shape: tuple[int, int, int]
    tile: int
    halo: int
    tiles: int
    void: int
    done: int
    tasks: int
    read_bytes: int
    amplification: float
    write_bytes: int
    memory: int
    model_memory: int
    workers: int
    threads: int
    probe: Probe | None = None
    seconds: float | None = None

    def explain(self) -> str:
        """Say it, a line each."""
        return "\n".join([self._head(), *(f"  {name:<8} {text}" for name, text in self._lines())])

    def __str__(self) -> str:
        return self.explain()

    def __rich__(self) -> Table:
        table = Table(title=self._head(), title_justify="left", show_header=False)
        for line in self._lines():
            table.add_row(*line)
        return table

    def _repr_html_(self) -> str:
        return telling.table(self._head(), self._lines())

    def _head(self) -> str:
        return f"predict: {self.source} -> {self.target}"

    def _lines(self) -> list[tuple[str, str]]:
        bands, rows, columns = self.shape
        done = f", {self.done:,} done before" if self.done else ""
        part = f", {size(self.model_memory)} of them the network's" if self.model_memory else ""
        lines = [
            ("image", f"{bands} bands of {rows:,} x {columns:,} px"),
            ("tiles", f"{self.tiles:,} of {self.tile} px and a halo of {self.halo} px"),
            ("tasks", f"{self.tasks:,}, one a tile; {self.void:,} tiles void{done}"),
            ("reads", f"{size(self.read_bytes)} decoded, {self.amplification:.2f} times the pixels of the tiles"),
            ("writes", f"{size(self.write_bytes)} before compression"),
            ("memory", f"{size(self.memory)} a worker{part}"),
            ("workers", f"{self.workers} of {self.threads} threads"),
        ]
        return lines if self.probe is None else [*lines, ("time", self._time(self.probe))]

    def _time(self, probe: Probe) -> str:
        block = f"{probe.read_s:.2g} s to read, {probe.compute_s:.2g} s to score"
        return f"about {span(self.seconds or 0)}; one block took {block}"


def plan(
    source: str | Path | xr.DataArray,
    target: str | Path,
    model: Model,
    *,
    where: Where | None = None,
    client: "Client | None" = None,
    workers: int | None = None,
    probe: bool = False,
    **options: Unpack[Options],
) -> Plan:
    """Say what ``run`` with the same arguments will take. Nothing is written, and no score kept.

    Parameters
    ----------
    source, target, model, where, client, workers, **options
        As for ``run``.
    probe : bool
        Read and score one block here, to estimate the time.

    Returns
    -------
    Plan

    Raises
    ------
    BadInput, NotFound, Unreadable, OtherPlan
        As ``run`` would.
    """
    tasks.check_workers(client)
    described = job(source, target, model, where=where, **options)
    void = np.zeros(described.grid.count, bool) if described.void is None else described.void
    done = _done(described, target)
    to_do = ~(void | done)
    processes, threads = _workers(described, client, workers)
    pixels, decoded = pixels_of(described.grid, to_do), decoded_of(described, to_do, processes)
    memory, network = _memory(described, threads)
    measured = _probe(described, to_do) if probe else None
    scores = described.template
    return Plan(
        source=store.source(described.image) or "an image of this process",
        target=store.text(target),
        shape=(described.image.sizes["band"], *described.grid.shape),
        tile=described.grid.tile[0],
        halo=described.grid.halo,
        tiles=len(described.grid),
        void=int((void & ~done).sum()),
        done=int(done.sum()),
        tasks=int(to_do.sum()),
        read_bytes=decoded * described.image.sizes["band"] * described.image.dtype.itemsize,
        amplification=decoded / max(pixels, 1),
        write_bytes=pixels * scores.shape[0] * scores.dtype.itemsize,
        memory=memory,
        model_memory=network,
        workers=processes,
        threads=threads,
        probe=measured,
        seconds=None if measured is None else _seconds(measured, int(to_do.sum()), processes, threads, bool(network)),
    )


def _done(described: Job, target: str | Path) -> np.ndarray:
    """Give the tiles that an earlier run of this job has done, (rows, columns) bool."""
    if not store.exists(target):
        return np.zeros(described.grid.count, bool)
    settle(described, target)  # takes the precision that the run holds
    held = ledger.plan_of(target)
    ledger.check(target, {**held, **described.plan, "tile": described.grid.tile[0], "halo": described.grid.halo})
    return ledger.done(target)


def _workers(described: Job, client: "Client | None", workers: int | None) -> tuple[int, int]:
    """Count the worker processes and the threads of each."""
    if client is not None:
        threads = list(client.nthreads().values()) or [1]
        return len(threads), max(threads)
    return 1, workers or (2 if described.scorer.networks else os.cpu_count() or 1)


def _memory(described: Job, threads: int) -> tuple[int, int]:
    """Give the bytes of a worker process, and those of them that its networks take: one forward pass at a time."""
    scorer, image = described.scorer, described.image
    margin = 2 * scorer.lattice.margin
    block = (image.sizes["band"], described.grid.tile[0] + margin, described.grid.tile[1] + margin)
    laid = windows(scorer.lattice, described.grid.tile, None if is_tried(described) else scorer.runner.most)
    passes = [laid, *looked_at(scorer)]  # what the first leaves is not given back before the second
    network = max((sum(forward_bytes(one, part) for part in passes) for one in scorer.networks), default=0)
    each = task_bytes(block, image.dtype.itemsize, len(scorer.classes), network=network > 0)
    return threads * each + network, network


def looked_at(scorer: Scorer) -> list[tuple[int, int, int]]:
    """Say what goes through a network to see what a short halo changes: one square, or nothing."""
    stride = max((network.stride for network in scorer.networks), default=1)
    wide = missing(scorer.networks, scorer.lattice.halo, stride)
    return [] if wide is None else [(1, TRIED + 2 * wide, TRIED + 2 * wide)]


def windows(laid: Lattice, tile: tuple[int, int], batch: int | None) -> tuple[int, int, int]:
    """Say what goes through a model at once: how many windows of a tile, all if that is not known, and their sides."""
    every = most(laid, tile)
    return min(batch or every, every), *laid.side


def _probe(described: Job, to_do: np.ndarray) -> Probe | None:
    """Read and score one tile that has data, of up to ``LOOKED_AT`` spread over those to do; None if none has."""
    places = np.argwhere(to_do)
    for i in np.unique(np.linspace(0, len(places) - 1, LOOKED_AT).astype(int)) if len(places) else ():
        tile = described.grid[int(places[i][0]), int(places[i][1])]
        begun = time.perf_counter()
        data = described.kernel.reader.read(*tile.read)
        read = time.perf_counter()
        if schema.valid_block(data, described.scorer.nodata).any():
            described.scorer.tile(data, tile)  # the first pass also loads and prepares
            ready = time.perf_counter()
            described.scorer.tile(data, tile)
            return Probe(read - begun, time.perf_counter() - ready)
    return None


def _seconds(probe: Probe, tasks: int, processes: int, threads: int, network: bool) -> float:
    """Estimate the time of all tasks: a network scores one block at a time, while other threads read."""
    if network:
        each = max(probe.compute_s, (probe.read_s + probe.compute_s) / threads)
        return tasks * each / processes
    return -(-tasks // (processes * threads)) * (probe.read_s + probe.compute_s)

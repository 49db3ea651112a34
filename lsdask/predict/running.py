"""Scores of an image, store to store, as a run that survives."""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
import xarray as xr

from lsdask import ledger, models, schema, store, tasks, tiling
from lsdask.predict.jobs import Job, Options, job
from lsdask.predict.scoring import Model

if TYPE_CHECKING:
    from distributed import Client


def run(
    source: str | Path | xr.DataArray,
    target: str | Path,
    model: Model,
    *,
    client: "Client | None" = None,
    workers: int | None = None,
    retries: int = 2,
    progress: bool = True,
    **options: Unpack[Options],
) -> tasks.Report:
    """Write the scores of an image to a store, tile by tile; a run that was stopped goes on when called again.

    Parameters
    ----------
    source : path or DataArray (band, y, x)
        A store, one that ``store.open`` opened, or any other image, which then travels with the work.
    target : str or Path
        The store of scores: new, or one that holds this very run.
    model : path, torch module or callable
        As for ``apply``. Workers of a cluster on other machines must see the folder or can be given the network.
    client : distributed.Client, optional
        Where to run; default threads of this process.
    workers : int, optional
        Those threads; default two for a network, which itself uses all cores: one computes while the other reads
        and writes.
    retries : int
        How often a tile is tried again after a failed read or write.
    progress : bool
        Show a bar once the run has taken two seconds.
    tile : int
        Side of a tile and of the target's shards, in pixels, 2048; lowered to fit a small image.
    halo : int
        Context on each side of a tile, in pixels.
    classes, dtype, edge, fill, device, precision
        As for ``apply``.

    Returns
    -------
    tasks.Report
        With the tiles that failed and why; ``metrics`` sums pixels, void tiles, and seconds of reading, computing
        and writing over the threads.

    Raises
    ------
    BadInput, NotFound, Unreadable
        If source or model cannot be used.
    OtherPlan
        If the target holds another run.
    """
    described = job(source, target, model, **options)
    settle(described, target, client)
    network = isinstance(described.scorer.runner, models.Runner)
    return tasks.run(
        described.kernel,
        target=target,
        template=described.template,
        tile=described.grid.tile[0],
        halo=described.grid.halo,
        plan=described.plan,
        client=client,
        workers=workers or (2 if network else None),
        retries=retries,
        progress=progress,
        label="predict",
    )


def settle(described: Job, target: str | Path, client: "Client | None" = None) -> None:
    """Settle what "auto" precision means once for a whole job, in its runner and its plan.

    A run that goes on keeps the precision it began with.
    """
    runner = described.scorer.runner
    if isinstance(runner, models.Runner):
        runner.precision = _precision(runner, described.image, target, client)
        described.plan["precision"] = runner.precision


def _precision(runner: models.Runner, image: xr.DataArray, target: str | Path, client: "Client | None") -> str:
    if runner.precision != "auto":
        return runner.precision
    held = ledger.plan_of(target).get("precision") if store.exists(target) else None
    if held is not None:
        return str(held)
    block = probe(image, runner.nodata)
    if block is None:
        return "float32"
    return runner.settle(block) if client is None else client.submit(_settle, runner, block, pure=False).result()


def _settle(runner: models.Runner, block: np.ndarray) -> str:
    return runner.settle(block)


def probe(image: xr.DataArray, nodata: float | int | None) -> np.ndarray | None:
    """Find a block (1, band, y, x) with data: windows spread over the image, at most 64; None if all are void."""
    grid = tiling.grid((image.sizes["y"], image.sizes["x"]), models.CHECKED)
    reader = store.reader(image)
    places = list(grid.places()) if len(grid) <= 64 else _spread(grid)
    for place in places:
        block = reader.read(*grid[place].write)
        if schema.valid_block(block, nodata).mean() > 0.5:
            return block[None]
    return None


def _spread(grid: tiling.Grid) -> list[tuple[int, int]]:
    rows, columns = (np.linspace(0, count - 1, 8).astype(int) for count in grid.count)
    places = [(int(row), int(column)) for row in rows for column in columns]
    return [places[i] for i in np.random.default_rng(0).permutation(len(places))]

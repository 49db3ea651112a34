"""Scores of an image, store to store, as a run that survives."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import __version__, ledger, models, schema, store, tasks, tiling
from lsdask.predict.scoring import NAME, Filled, Model, Scorer, scorer_of, scores_like, shape_of

if TYPE_CHECKING:
    from distributed import Client


def run(
    source: str | Path | xr.DataArray,
    target: str | Path,
    model: Model,
    *,
    tile: int = 2048,
    halo: int = 64,
    client: "Client | None" = None,
    workers: int | None = None,
    classes: Sequence[str] | None = None,
    dtype: str = "uint8",
    edge: tiling.Edge = "reflect",
    fill: float = 0.0,
    device: str = "auto",
    precision: str = "auto",
    retries: int = 2,
    progress: bool = True,
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
    tile : int
        Side of a tile and of the target's shards, in pixels; lowered to fit a small image.
    halo : int
        Context on each side of a tile, in pixels.
    client : distributed.Client, optional
        Where to run; default threads of this process.
    workers : int, optional
        Those threads; default two for a network, which itself uses all cores: one computes while the other reads
        and writes.
    classes, dtype, edge, fill, device, precision
        As for ``apply``.
    retries : int
        How often a tile is tried again after a failed read or write.
    progress : bool
        Show a bar once the run has taken two seconds.

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
    image = source if isinstance(source, xr.DataArray) else store.open(source)
    scorer = scorer_of(image, model, classes, dtype, edge, fill, device, precision)
    tile = min(tile, _whole(max(image.sizes["y"], image.sizes["x"])))
    if isinstance(scorer.runner, models.Runner):
        scorer.runner.precision = _precision(scorer.runner, image, target, client)
    template = scores_like(da.zeros(shape_of(image, scorer), chunks=-1, dtype=dtype), image, scorer)
    return tasks.run(
        Kernel(store.reader(image), str(target), scorer),
        target=target,
        template=template,
        tile=tile,
        halo=halo,
        plan=_plan(image, model, scorer, fill),
        client=client,
        workers=workers or (2 if isinstance(scorer.runner, models.Runner) else None),
        retries=retries,
        progress=progress,
        label="predict",
    )


@dataclass(frozen=True)
class Kernel:
    """Reads a tile's block, scores it and writes the tile: one task of ``run``."""

    reader: store.Reader
    target: str
    scorer: Scorer

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        begun = time.perf_counter()
        data = self.reader.read(*tile.read)
        read = time.perf_counter()
        scores = self.scorer.tile(data, tile)
        computed = time.perf_counter()
        store.put(self.target, scores, *tile.write, name=NAME)
        return {
            "pixels": float(scores[0].size),
            "read_s": read - begun,
            "compute_s": computed - read,
            "write_s": time.perf_counter() - computed,
        }


def _whole(side: int) -> int:
    """Round a side up to whole 64 pixels: a small image's tile, so that its block is not mostly padding."""
    return -(-side // 64) * 64


def _precision(runner: models.Runner, image: xr.DataArray, target: str | Path, client: "Client | None") -> str:
    """Settle what "auto" means once for the whole run, so that no worker decides for itself.

    A run that goes on keeps the precision it began with.
    """
    if runner.precision != "auto":
        return runner.precision
    held = ledger.plan_of(target).get("precision") if store.exists(target) else None
    if held is not None:
        return str(held)
    block = _probe(image, runner.nodata)
    if block is None:
        return "float32"
    return runner.settle(block) if client is None else client.submit(_settle, runner, block, pure=False).result()


def _settle(runner: models.Runner, block: np.ndarray) -> str:
    return runner.settle(block)


def _probe(image: xr.DataArray, nodata: float | int | None) -> np.ndarray | None:
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


def _plan(image: xr.DataArray, model: Model, scorer: Scorer, fill: float) -> dict[str, Any]:
    return {
        "what": "predict",
        "version": __version__,
        "source": store.fingerprint(image),
        "bands": list(schema.bands(image)),
        "model": _digest(model),
        "classes": list(scorer.classes),
        "dtype": scorer.dtype,
        "edge": scorer.edge,
        "fill": fill if isinstance(scorer.runner, Filled) else None,
        "precision": scorer.runner.precision if isinstance(scorer.runner, models.Runner) else None,
    }


def _digest(model: Model) -> str:
    """Name a model by its weights and spec; any other callable by its own name."""
    if isinstance(model, str | Path | models.Segmenter):
        return models.digest(model)
    named = model if hasattr(model, "__qualname__") else type(model)
    return f"{named.__module__}.{named.__qualname__}"

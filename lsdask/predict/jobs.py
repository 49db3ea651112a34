"""What a run will be: everything that follows from its arguments, before a score is computed or a target made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import __version__, models, schema, store, tiling
from lsdask.predict.kernels import Kernel
from lsdask.predict.scoring import Filled, Model, Scorer, scorer_of, scores_like, shape_of


class Options(TypedDict, total=False):
    """How scores are made: what ``run``, ``plan`` and ``job`` share, and ``run`` describes."""

    tile: int
    halo: int
    classes: Sequence[str] | None
    dtype: str
    edge: tiling.Edge
    fill: float
    device: str
    precision: str


@dataclass(frozen=True)
class Job:
    """A run as its arguments describe it. Made by ``job``.

    Attributes
    ----------
    image : DataArray (band, y, x)
        What is scored, lazy.
    scorer : Scorer
        What is done to each tile; a network's precision may be "auto" still.
    grid : tiling.Grid
        The image cut into tiles with what is read around each.
    kernel : Kernel
        Reads, scores and writes one tile.
    template : DataArray (class, y, x)
        What the target is, without values.
    plan : dict
        What identifies the run, as its ledger keeps it; JSON.
    void : (rows, columns) bool array or None
        Tiles known to hold no score, which nothing needs to read; None if nothing is known.
    """

    image: xr.DataArray
    scorer: Scorer
    grid: tiling.Grid
    kernel: Kernel
    template: xr.DataArray
    plan: dict[str, Any]
    void: np.ndarray | None = None


def job(
    source: str | Path | xr.DataArray,
    target: str | Path,
    model: Model,
    *,
    tile: int = 2048,
    halo: int = 64,
    classes: Sequence[str] | None = None,
    dtype: str = "uint8",
    edge: tiling.Edge = "reflect",
    fill: float = 0.0,
    device: str = "auto",
    precision: str = "auto",
) -> Job:
    """Describe a run: nothing is computed and nothing written. Arguments and errors are those of ``run``.

    Returns
    -------
    Job
    """
    image = source if isinstance(source, xr.DataArray) else store.open(source)
    scorer = scorer_of(image, model, classes, dtype, edge, fill, device, precision)
    tile = min(tile, _whole(max(image.sizes["y"], image.sizes["x"])))
    return Job(
        image=image,
        scorer=scorer,
        grid=tiling.grid((image.sizes["y"], image.sizes["x"]), tile, halo=halo),
        kernel=Kernel(store.reader(image), store.text(target), scorer),
        template=scores_like(da.zeros(shape_of(image, scorer), chunks=-1, dtype=dtype), image, scorer),
        plan=_plan(image, model, scorer, fill),
    )


def _whole(side: int) -> int:
    """Round a side up to whole 64 pixels: a small image's tile, so that its block is not mostly padding."""
    return -(-side // 64) * 64


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

"""What a run will be: everything that follows from its arguments, before a score is computed or a target made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import __version__, models, schema, store, tiling
from lsdask.predict.composing import Turns
from lsdask.predict.kernels import Kernel
from lsdask.predict.scoring import Edge, Model, Scorer, scorer_of, scores_like, shape_of
from lsdask.predict.sharing import shared
from lsdask.predict.skipping import Where, named, void_tiles, where_of
from lsdask.predict.windows import Blend


class Options(TypedDict, total=False):
    """How scores are made: what ``apply``, ``run``, ``plan`` and ``job`` share.

    Attributes
    ----------
    tile : int
        Side of a tile and of the target's shards (of ``apply``: of a chunk of the scores), pixels: 2048, or less for
        a small image. For a network a multiple of its stride, for ``window`` a multiple of its step.
    halo : int or "auto"
        Context on each side of a tile or window, pixels; rounded up to whole strides of a network. "auto", the
        default, is the halo that a model folder states, else how far the network looks (``models.reach``): scores
        are then those of the whole image in one pass. Any other callable needs a number, or an attribute ``reach``.
        Less is faster, as a tile of side T costs ``(T + 2 * halo) ** 2`` pixels, and scores near the edges of tiles
        change: ``run`` measures by how much and warns.
    window : int, optional
        Side of what goes through the model at once, its halo included, pixels; windows lie every
        ``window - 2 * halo`` pixels of the image, whatever the tile. ``window=224, halo=56`` keeps the middle 112
        pixels of each. Default the tile's block; of a network cut in parts where that costs few more pixels
        (at most 8 %, or 25 % where the parts are small), as it then needs less memory.
    blend : {"none", "cosine"}
        Whether each window is kept within its step, or faded into its neighbours across the halo.
    tta : {"none", "flips", "d4"}
        Test-time augmentation: scores are the mean over the four flips, or all eight flips and quarter turns.
    classes : sequence of str
        Names of the classes; a callable that gives more than one needs them.
    dtype : {"uint8", "float32"}
        ``uint8`` holds ``round(p * 250)``, and 255 where unknown; ``float32`` holds p, and NaN.
    edge : {"reflect", "nearest", "constant", "void"}
        What stands outside the image: itself mirrored, its edge pixels, ``fill``, or no data.
    fill : float
        What a callable sees where there is no data, and what stands outside where ``edge="constant"``.
    batch : int, optional
        Windows that go through the model at once; fewer where that does not fit into memory. Default as many as hold
        2^19 pixels, which suits processors; for a network on a GPU, ``run`` finds the fastest number by a short trial.
    device, precision, compile
        For a network: see ``models.runner``.
    """

    tile: int
    halo: int | Literal["auto"]
    window: int | None
    blend: Blend
    tta: Turns
    classes: Sequence[str] | None
    dtype: str
    edge: Edge
    fill: float
    batch: int | None
    device: str
    precision: str
    compile: bool


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
    where: Where | None = None,
    **options: Unpack[Options],
) -> Job:
    """Describe a run: no score is computed and nothing written. Arguments and errors are those of ``run``.

    Returns
    -------
    Job
    """
    image = source if isinstance(source, xr.DataArray) else store.open(source)
    scorer, grid = scorer_of(image, model, **options)
    mask = None if where is None else where_of(where, image)
    looks = None if mask is None else store.reader(mask)
    return Job(
        image=image,
        scorer=scorer,
        grid=grid,
        kernel=Kernel(shared(image, grid), store.absolute(target), scorer, looks),
        template=scores_like(da.zeros(shape_of(image, scorer), chunks=-1, dtype=scorer.dtype), image, scorer),
        plan=_plan(image, model, scorer, options) | ({} if mask is None else {"where": named(where, mask)}),
        void=void_tiles(image, where, grid),
    )


def _plan(image: xr.DataArray, model: Model, scorer: Scorer, options: Options) -> dict[str, Any]:
    function = not scorer.networks
    return {
        "what": "predict",
        "version": __version__,
        "source": store.fingerprint(image),
        "bands": list(schema.bands(image)),
        "model": _digest(model),
        "classes": list(scorer.classes),
        "dtype": scorer.dtype,
        "edge": options.get("edge", "reflect"),
        "fill": options.get("fill", 0.0) if function or options.get("edge") == "constant" else None,
        "precision": None if function else "+".join(network.precision for network in scorer.networks),
        "compile": None if function else [network.compiled for network in scorer.networks],
        "batch": None if function else options.get("batch"),
        "window": options.get("window"),
        "blend": scorer.lattice.blend,
        "tta": options.get("tta", "none"),
    }


def _digest(model: Model) -> str:
    """Name a model by its weights and spec; any other callable by its own name."""
    if isinstance(model, list | tuple):
        return "+".join(map(_digest, model))
    if isinstance(model, str | Path | models.Segmenter):
        return models.digest(model)
    named = model if hasattr(model, "__qualname__") else type(model)
    return f"{named.__module__}.{named.__qualname__}"

"""Scores of an image, lazily."""

from collections.abc import Sequence

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import tiling
from lsdask.predict.scoring import Model, Scorer, scorer_of, scores_like


def apply(
    image: xr.DataArray,
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
) -> xr.DataArray:
    """Give the scores of an image, lazily: for a notebook, and images of up to some thousand tiles.

    Parameters
    ----------
    image : DataArray (band, y, x)
        For a network, with the bands it was trained on.
    model : path, torch module or callable
        A model folder, a network of ``models``, any other torch module (it sees raw units, void as 0, and gives
        logits; see ``models.wrap``), or any callable from numpy blocks (n, band, y, x), as stored, to probabilities
        (n, class, y, x).
    tile : int
        Side of a chunk of the scores, in pixels.
    halo : int
        Context on each side of a tile, in pixels.
    classes : sequence of str, optional
        Names of the classes; a callable that gives more than one needs them.
    dtype : {"uint8", "float32"}
        ``uint8`` holds ``round(p * 250)``, and 255 where unknown; ``float32`` holds p, and NaN.
    edge : {"reflect", "nearest"}
        What stands outside the image.
    fill : float
        What a callable sees where there is no data.
    device, precision : str
        For a network: see ``models.runner``.

    Returns
    -------
    DataArray (class, y, x) of ``dtype``

    Raises
    ------
    BadInput
        If the image is no mosaic, or its bands are not the model's.
    """
    scorer = scorer_of(image, model, classes, dtype, edge, fill, device, precision)
    grid = tiling.grid((image.sizes["y"], image.sizes["x"]), tile, halo=halo)
    data = da.asarray(image.data)
    rows, columns = grid.count
    tiles = [[_lazy_tile(data, grid[row, column], scorer) for column in range(columns)] for row in range(rows)]
    return scores_like(da.block(tiles), image, scorer)


def _lazy_tile(data: da.Array, tile: tiling.Tile, scorer: Scorer) -> da.Array:
    # What map_overlap does, without its trimming by the chunk sizes it was given, its re-chunking of what is smaller
    # than the halo, and its mirroring that doubles the edge pixel. As many tasks a tile.
    window = data[(slice(None), *tile.read)].rechunk(-1)
    chunks = ((len(scorer.classes),), *((side.stop - side.start,) for side in tile.write))
    meta = np.empty((0, 0, 0), scorer.dtype)
    return da.map_blocks(scorer.tile, window, tile, dtype=scorer.dtype, chunks=chunks, meta=meta, name=None)

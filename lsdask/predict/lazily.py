"""Scores of an image, lazily."""

from typing import Unpack

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import tiling
from lsdask.predict.jobs import Options
from lsdask.predict.scoring import Model, Scorer, scorer_of, scores_like


def apply(image: xr.DataArray, model: Model, **options: Unpack[Options]) -> xr.DataArray:
    """Give the scores of an image, lazily: for a notebook, and images of up to some thousand tiles.

    Parameters
    ----------
    image : DataArray (band, y, x)
        For a network, with the bands it was trained on.
    model : path, torch module, callable or list
        A model folder, a network of ``models``, any other torch module (it sees raw units, void as 0, and gives
        logits; see ``models.wrap``), any callable from numpy blocks (n, band, y, x), as stored, to probabilities
        (n, class, y, x), or a tuple of such outputs, which become one after the other; or a list of folders and
        networks, whose scores are averaged, each of which takes its own bands of the image.
    **options
        See ``Options``: ``tile``, ``halo``, ``window``, ``blend``, ``tta``, ``classes``, ``dtype`` ...

    Returns
    -------
    DataArray (class, y, x) of ``dtype``

    Raises
    ------
    BadInput
        If the image is no mosaic, its bands are not the model's, or an option breaks its rule.
    """
    scorer, grid = scorer_of(image, model, **options)
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

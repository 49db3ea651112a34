"""A grid of any size and what its tiles hold, a band of rows at a time."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
import pandas as pd
import xarray as xr

from lsdask.errors import BadInput, sentence
from lsdask.sampling.counting import Counts, check_grids, count, finish, layers_of, lazy
from lsdask.sampling.placing import grid_axes, product
from lsdask.sampling.tables import shape_of, windows_of

LEAST = 512
"""Rows of pixels that are counted at once, at least."""


def survey(
    image: xr.DataArray,
    size: int,
    *,
    overlap: float = 0.0,
    mask: xr.DataArray | None = None,
    valid: xr.DataArray | None = None,
    labels: xr.DataArray | None = None,
    agreement: xr.DataArray | None = None,
) -> Iterator[pd.DataFrame]:
    """Give ``describe(grid(image, size), ...)`` a band of rows at a time, so that no more is ever in memory.

    Parameters
    ----------
    image, size, overlap
        As in ``grid``.
    mask, valid, labels, agreement
        As in ``describe``. A chunk is read once where the layers' chunks end on the same rows.

    Yields
    ------
    DataFrame
        Rows of the described grid, in its order. What is held grows with the width of the image, not with its height.

    Raises
    ------
    BadInput
        As ``grid`` and ``describe``, or if the layers have another shape or grid than the image.

    Examples
    --------
    ``write((select(part, min_valid=0.5) for part in survey(image, 64, valid=image)), "tiles.parquet")``
    """
    layers = layers_of(mask, valid, labels, agreement)
    axes = grid_axes(image, size, overlap)
    shape = shape_of(next(iter(layers.values())))
    if shape != shape_of(image):
        raise BadInput(sentence("the layers", f"have the image's shape {shape_of(image)}", str(shape)))
    check_grids({"image": image, **layers})
    return _bands(*axes, size, layers)


def _bands(
    rows: np.ndarray, columns: np.ndarray, size: int, layers: Mapping[str, xr.DataArray]
) -> Iterator[pd.DataFrame]:
    """Count strip by strip; tiles that a strip cuts wait for the next."""
    first, waiting = 0, Counts.zeros(0)
    for top, bottom in _strips(layers):
        last, done = int(np.searchsorted(rows, bottom)), int(np.searchsorted(rows, bottom - size, "right"))
        tiles = product(rows[first:last], columns, size)
        strip = {name: layer.isel(y=slice(top, bottom)) for name, layer in layers.items()}
        windows = np.clip(windows_of(tiles) - [top, 0, top, 0], 0, [bottom - top, columns[-1] + size] * 2)
        held = slice(0, len(waiting.valid))
        counts = Counts.zeros(len(tiles)).plus(held, waiting).plus(slice(None), count(windows, strip))
        ready = (done - first) * len(columns)
        if ready:
            found = finish(counts.take(slice(ready)), np.full(ready, size), tuple(layers))
            yield tiles[:ready].assign(**found)
        first, waiting = done, counts.take(slice(ready, None))


def _strips(layers: Mapping[str, xr.DataArray]) -> list[tuple[int, int]]:
    """Cut the rows where chunks end, those of the layer with the tallest, into strips of ``LEAST`` rows or more."""
    ends = min((np.cumsum(lazy(layer).chunksizes["y"]) for layer in layers.values()), key=len)
    cuts = [0]
    for end in ends.tolist():
        if end - cuts[-1] >= LEAST or end == ends[-1]:
            cuts.append(end)
    return list(pairwise(cuts))

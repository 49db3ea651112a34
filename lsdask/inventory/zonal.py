"""An image reduced within each polygon, chunk by chunk: only chunks that polygons touch are read, once."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr

from lsdask import schema
from lsdask.inventory.burning import Window, burn_block, on_pixels
from lsdask.inventory.measuring import crs_in
from lsdask.tasks import check_workers

CHUNK = 2048
"""Side of what is read at once of an image that is not lazy, pixels."""


def reduced(frame: gpd.GeoDataFrame, image: xr.DataArray, kernel: Any, client: Any) -> pd.DataFrame:
    """Reduce an image within each polygon.

    Parameters
    ----------
    frame : GeoDataFrame
        Of polygons that overlap, the later has the pixels they share.
    image : DataArray (band, y, x)
        Pixels without data in any band count for none.
    kernel : callable
        As ``values_block``: what it gives is added up over chunks, or its least or largest is taken where its name
        begins with ``min`` or ``max``.
    client : distributed.Client or None

    Returns
    -------
    DataFrame, one row a polygon, in order

    Raises
    ------
    BadInput
        If the image has no grid or the polygons no CRS.
    """
    crs_in(frame)
    check_workers(client)
    shapes = on_pixels(frame, schema.geobox(image, "image"))
    data = da.asarray(image.data)
    data = data.rechunk((-1, *(data.chunks[1:] if image.chunks else (CHUNK, CHUNK))))
    partial, void = dask.delayed(_partial, pure=False), schema.nodata(image)
    tasks = [
        partial(block, shapes[inside], inside, window, void, kernel) for block, inside, window in touched(data, shapes)
    ]
    partials = dask.compute(*tasks, **({} if client is None else {"scheduler": client}))
    none = kernel(np.empty(0, int), np.empty((data.shape[0], 0)), np.empty((2, 0)), len(frame))
    return _merged([pd.DataFrame(none), *partials])


def touched(data: da.Array, shapes: np.ndarray) -> Iterator[tuple[Any, np.ndarray, Window]]:
    """Go through the chunks of an image that shapes touch.

    Parameters
    ----------
    data : (..., y, x) Dask array
        Of one chunk on all leading axes.
    shapes : (n,) object array
        Polygons in pixels of the image.

    Yields
    ------
    Delayed
        The chunk.
    (m,) int array
        Which shapes touch it, rising.
    (slice, slice)
        Its pixels in the image.
    """
    tree = shapely.STRtree(shapes)
    y, x = ([slice(int(end - size), int(end)) for end, size in zip(np.cumsum(axis), axis)] for axis in data.chunks[-2:])
    for block, (rows, columns) in zip(data.to_delayed().ravel(), product(y, x)):
        inside = np.sort(tree.query(shapely.box(columns.start, rows.start, columns.stop, rows.stop)))
        if len(inside):
            yield block, inside, (rows, columns)


def _partial(
    block: np.ndarray, shapes: np.ndarray, places: np.ndarray, window: Window, void: Any, kernel: Any
) -> pd.DataFrame:
    """Reduce one block: a row for each polygon that touches it."""
    labels = burn_block(shapes, window, values=np.arange(1, len(shapes) + 1), dtype="int32")
    y, x = np.nonzero((labels > 0) & schema.valid_block(block, void))
    label = labels[y, x] - 1
    box = shapely.bounds(shapes)[label]
    centre = np.stack([box[:, 1] + box[:, 3], box[:, 0] + box[:, 2]]) / 2
    offsets = np.stack([y + window[0].start, x + window[1].start]) - centre
    return pd.DataFrame(kernel(label, block[:, y, x], offsets, len(shapes)), index=places)


def _merged(partials: list[pd.DataFrame]) -> pd.DataFrame:
    """Put the rows of each polygon together: sums added, least of the least, largest of the largest."""
    every = pd.concat(partials)
    how = {name: name[:3] if name.startswith(("min", "max")) else "sum" for name in every.columns.astype(str)}
    table = every.groupby(level=0).agg(how)
    return table.replace([np.inf, -np.inf], np.nan)

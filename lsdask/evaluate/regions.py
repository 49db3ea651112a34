"""Scores region by region: basins, countries, geological units."""

from typing import Any

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from lsdask import inventory, schema
from lsdask.errors import BadInput, sentence
from lsdask.evaluate.agreeing import agreement
from lsdask.evaluate.trust import COLUMNS, bootstrap
from lsdask.inventory.zonal import touched


def regions(
    scores: xr.DataArray,
    mask: xr.DataArray,
    polygons: gpd.GeoDataFrame,
    *,
    size: int,
    threshold: float = 0.5,
    valid: xr.DataArray | None = None,
    class_: Any = None,
) -> pd.DataFrame:
    """Count in each region, block by block, in one pass; chunks without regions are not read.

    Parameters
    ----------
    scores, mask, threshold, valid, class_
        As in :func:`count`.
    polygons : GeoDataFrame
        The regions, in any CRS. A pixel is of the one its centre lies in, of the later where they overlap.
    size : int
        Side of a block, in pixels, as in :func:`blocks`.

    Returns
    -------
    DataFrame, one row a region and block in which anything was counted
        Columns region (its label in the index of ``polygons``), y, x (upper left pixel), size, tp, fp, fn, tn (int64).

    Raises
    ------
    BadInput
        As :func:`count`; if ``size`` is not a positive whole number; or if the polygons have no CRS.
    """
    if not isinstance(size, int | np.integer) or size < 1:
        raise BadInput(sentence("size", "be a positive whole number of pixels", f"size={size!r}"))
    frame = inventory.load(polygons, name="polygons")
    shapes = inventory.on_pixels(frame, schema.geobox(scores, "scores"))
    codes = da.asarray(agreement(scores, mask, threshold=threshold, valid=valid, class_=class_).data)
    codes = codes.rechunk(size * max(2048 // size, 1))
    partial = dask.delayed(regions_block, pure=False)
    partials = [
        partial(block, shapes[inside], inside, window, size) for block, inside, window in touched(codes, shapes)
    ]
    none = regions_block(np.empty((0, 0), "uint8"), shapes[:0], np.empty(0, int), (slice(0, 0), slice(0, 0)), size)
    table = pd.concat([none, *dask.compute(*partials)]).sort_values(["region", "y", "x"], ignore_index=True)
    return table.assign(region=frame.index.to_numpy()[table["region"]])


def regions_block(
    codes: np.ndarray, shapes: np.ndarray, places: np.ndarray, window: tuple[slice, slice], size: int
) -> pd.DataFrame:
    """Count codes in squares of each region.

    Parameters
    ----------
    codes : (y, x) uint8 array
        Of :func:`agreement`.
    shapes : (shape,) array of polygons in pixels of the image
    places : (shape,) int array
        What to call them.
    window : (slice, slice)
        The block in the image; it begins at a multiple of ``size``.
    size : int

    Returns
    -------
    DataFrame
        Columns region, y, x, size, tp, fp, fn, tn.
    """
    ids = inventory.burn_block(shapes, window, values=np.arange(1, len(shapes) + 1), dtype="int32")
    y, x = np.nonzero((ids > 0) & (codes != schema.UNKNOWN))
    columns = -(-codes.shape[1] // size)
    square = (y // size) * columns + x // size
    squares = columns * -(-codes.shape[0] // size)
    found, which = np.unique((ids[y, x] - 1).astype("int64") * squares + square, return_inverse=True)
    counts = np.bincount(which * 4 + codes[y, x], minlength=4 * len(found)).reshape(-1, 4)
    region, square = np.divmod(found, max(squares, 1))
    row, column = np.divmod(square, max(columns, 1))
    place = {"region": places[region], "y": row * size + window[0].start, "x": column * size + window[1].start}
    return pd.DataFrame({**place, "size": size, **{name: counts[:, code] for name, code in COLUMNS.items()}})


def by_region(table: pd.DataFrame, *, n: int = 2000, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Score each region, with intervals by drawing its blocks anew.

    Parameters
    ----------
    table : DataFrame
        From :func:`regions`.
    n, level, seed
        As in :func:`bootstrap`.

    Returns
    -------
    DataFrame, one row a region, by its label
        Columns blocks, tp, fp, fn, tn, and those of :func:`score`, each with ``..._low`` and ``..._high``: NaN for a
        region of one block, of which nothing can be said.

    Raises
    ------
    BadInput
        If n or level make no interval.
    """
    rows = {region: _row(part, n, level, seed) for region, part in table.groupby("region")}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("region")


def _row(part: pd.DataFrame, n: int, level: float, seed: int) -> dict[str, Any]:
    twice = part if len(part) > 1 else pd.concat([part, part])
    found = bootstrap(twice, n=n, level=level, seed=seed)
    if len(part) == 1:
        found[["low", "high"]] = np.nan
    scores = {name: found["value"][name] for name in found.index}
    limits = {f"{name}_{end}": found[end][name] for name in found.index for end in ("low", "high")}
    return {"blocks": len(part), **part[list(COLUMNS)].sum().to_dict(), **scores, **limits}

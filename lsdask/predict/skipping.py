"""Which tiles hold no score whatever the model says, found without reading the image."""

import hashlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy.ndimage import binary_dilation
from zarr.core.sync import sync

from lsdask import mosaic, schema, store, tiling
from lsdask.errors import BadInput, sentence

Where = Any
"""A lazy bool image (y, x), or polygons as a GeoDataFrame, GeoSeries or file."""


def where_of(where: Where, image: xr.DataArray) -> xr.DataArray:
    """Give a mask on the grid of an image, lazy: ``True`` where scores are wanted.

    Raises
    ------
    BadInput
        If it is neither polygons nor a bool image on that grid.
    """
    if not isinstance(where, xr.DataArray):
        return mosaic.mask_vector(where, image)
    schema.check(where, schema.MASK, "where")
    if where.dtype != bool:
        raise BadInput(sentence("where", "be bool, True where scores are wanted", str(where.dtype), "Pass mask == 1"))
    schema.on_grid(where, image, "where", "image")
    return where


def named(where: Where, mask: xr.DataArray) -> str:
    """Give a short name of what is wanted, for the run's plan: of polygons by their outlines on the image's grid."""
    if isinstance(where, xr.DataArray):
        return store.fingerprint(where)
    from lsdask.inventory import burning

    frame = burning.load(where, name="where") if isinstance(where, str | Path) else where
    outlines = b"".join(sorted(frame.geometry.to_wkb()))
    return hashlib.sha256(outlines + str((frame.crs, schema.geobox(mask))).encode()).hexdigest()[:16]


def void_tiles(image: xr.DataArray, where: Where | None, grid: tiling.Grid) -> np.ndarray | None:
    """Find tiles of which nothing is stored, or in which nothing is wanted.

    Returns
    -------
    (rows, columns) bool array, or None if nothing is known without reading; ``False`` means nothing either
    """
    known = [void for void in (unstored(image, grid), None if where is None else unwanted(where, image, grid))]
    found = [void for void in known if void is not None]
    return np.logical_or.reduce(found) if found else None


def unwanted(where: Where, image: xr.DataArray, grid: tiling.Grid) -> np.ndarray | None:
    """Find tiles in which no score is wanted: None of a lazy image, which the tiles' own tasks look at.

    Polygons are burnt on a grid of one pixel a tile, and the neighbours of those touched are kept too, as burning
    may miss a corner.
    """
    if not isinstance(where, xr.DataArray):
        box = schema.geobox(image)
        coarse = GeoBox(grid.count, box.transform @ Affine.scale(grid.tile[1], grid.tile[0]), box.crs)
        like = schema.wrap(np.zeros(grid.count, bool), coarse, schema.MASK, name="tiles")
        touched = mosaic.mask_vector(where, like, all_touched=True).values
        return ~binary_dilation(touched, np.ones((3, 3), bool))
    if isinstance(where.data, np.ndarray):
        starts = [np.arange(count) * side for count, side in zip(grid.count, grid.tile)]
        rows = np.logical_or.reduceat(where.data, starts[0], axis=0)
        return ~np.logical_or.reduceat(rows, starts[1], axis=1)
    return None


def unstored(image: xr.DataArray, grid: tiling.Grid) -> np.ndarray | None:
    """Find tiles of which a store holds no object, so that they read as no data.

    None if the image is no store, what is not stored is no void, or the place cannot be listed.
    """
    path = store.source(image)
    if path is None:
        return None
    with store.told(path):
        held = store.array(path, name=str(image.name))
        fill = np.asarray(held.fill_value, held.dtype)
        if schema.known_block(fill[None], schema.nodata(image)).any() or not held.store_path.store.supports_listing:
            return None
        present = present_objects(held)
    counts = present.all(axis=tuple(range(present.ndim - 2))).astype("int64")  # a pixel has data in all bands or none
    total = np.pad(counts.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sides = (held.shards or held.chunks)[-2:]
    (top, bottom), (left, right) = (_touched(grid, sides, axis) for axis in (0, 1))
    inside = total[bottom][:, right] - total[top][:, right] - total[bottom][:, left] + total[top][:, left]
    return inside == 0


def present_objects(held: zarr.Array) -> np.ndarray:
    """Say which objects (shards, or chunks without shards) of an array are stored: one listing.

    Returns
    -------
    bool array, one entry an object
    """
    prefix = f"{held.path}/" if held.path else ""
    keys = sync(_list(held, prefix))
    sides = held.shards or held.chunks
    count = tuple(-(-size // side) for size, side in zip(held.shape, sides))
    found = (f"{prefix}{held.metadata.encode_chunk_key(index)}" in keys for index in product(*map(range, count)))
    return np.fromiter(found, bool).reshape(count)


async def _list(held: zarr.Array, prefix: str) -> set[str]:
    path = held.store_path.path[: -len(held.path)] if held.path else held.store_path.path
    return {key.removeprefix(path) async for key in held.store_path.store.list_prefix(path + prefix)}


def _touched(grid: tiling.Grid, sides: tuple[int, ...], axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the first object that each row or column of tiles lies in, and the one after the last."""
    start = np.arange(grid.count[axis]) * grid.tile[axis]
    stop = np.minimum(start + grid.tile[axis], grid.shape[axis])
    return start // sides[axis], -(-stop // sides[axis])

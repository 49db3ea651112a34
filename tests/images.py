"""Small images with a grid, for tests of every room."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from lsdask import schema


def grid(shape: tuple[int, int], *, resolution: float = 10.0, crs: str = "EPSG:32723") -> GeoBox:
    """A grid of this shape (y, x) near the Serra do Mar."""
    return GeoBox(shape, Affine(resolution, 0, 440000, 0, -resolution, 7400000), crs)


def mosaic(data: Any, *, nodata: float | None = None, bands: Sequence[str] | None = None) -> xr.DataArray:
    """A mosaic (band, y, x) of an array."""
    names = list(bands or (f"b{i}" for i in range(data.shape[0])))
    return schema.wrap(data, grid(data.shape[1:]), schema.MOSAIC, name="mosaic", coords={"band": names}, nodata=nodata)


def random_mosaic(
    shape: tuple[int, int, int], *, seed: int = 0, dtype: str = "uint16", void: float = 0.2, chunks: int | None = None
) -> xr.DataArray:
    """A mosaic of random numbers from 1 to 1000 with a share of void pixels, 0 or NaN."""
    rng = np.random.default_rng(seed)
    data = rng.integers(1, 1000, shape).astype(dtype)
    floats = np.dtype(dtype).kind == "f"
    data[:, rng.random(shape[1:]) < void] = np.nan if floats else 0
    image = mosaic(data, nodata=None if floats else 0)
    return image if chunks is None else image.chunk({"band": -1, "y": chunks, "x": chunks})

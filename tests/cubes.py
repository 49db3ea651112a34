"""Small cubes, in memory, lazy and from real files, for tests of mosaics."""

import dask.array as da
import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from lsdask import scenes, schema

GRID = GeoBox.from_bbox((0, 0, 1000, 1000), "EPSG:32723", resolution=10)
VOID = {"uint8": 0, "int16": -7, "float32": np.nan}


def cube_of(values, *, nodata, chunks=None):
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    grid = GRID[: values.shape[2], : values.shape[3]]
    coords = {"band": [f"b{i}" for i in range(values.shape[1])]}
    return schema.wrap(data, grid, schema.CUBE, name="cube", coords=coords, nodata=nodata)


def random_cube(seed, shape, dtype, *, void=0.3):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 120, shape).astype(dtype)
    values[rng.random(shape) < void / shape[1]] = VOID[dtype]
    return values


def open_tiles(folder, side, **options):
    """A real mosaic of side x side files of 16 pixels, two bands, with gaps."""
    for row, column in np.ndindex(side, side):
        values = random_cube([row, column], (1, 2, 16, 16), "uint8")[0]
        place = GRID.transform @ Affine.translation(20 * column, 20 * row)
        profile = {"driver": "GTiff", "dtype": "uint8", "crs": "EPSG:32723", "transform": place, "nodata": 0}
        with rasterio.open(folder / f"{row}_{column}.tif", "w", width=16, height=16, count=2, **profile) as file:
            file.write(values)
    return scenes.open(folder, chunks=16, **options)

"""Scenes, masks, heights and polygons of a landscape, lazily."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import dask.array as da
import geopandas as gpd
import numpy as np
import shapely
import xarray as xr

from lsdask import inventory, schema
from lsdask.errors import BadInput, sentence
from lsdask.synthetic.compiled import elevation_block, fractal_block, render_block
from lsdask.synthetic.ground import Ground, burned, near, on_map

BANDS = ("blue", "green", "red", "nir")
NODATA = 0

ORIGIN = (360_000.0, 7_400_000.0)
"""Where the upper left corner lies by default: in the Serra do Mar, in the CRS below."""

CRS = "EPSG:32723"


class Landscape(NamedTuple):
    """A scene and its truth, on one grid."""

    scene: xr.DataArray
    mask: xr.DataArray
    polygons: gpd.GeoDataFrame


def scene(
    shape: tuple[int, int] = (2048, 2048),
    seed: int = 0,
    *,
    chunks: int | tuple[int, int] = 1024,
    resolution: float = 8.0,
    crs: str = CRS,
    origin: tuple[float, float] = ORIGIN,
    density: float = 6.0,
    scars: gpd.GeoDataFrame | None = None,
) -> xr.DataArray:
    """Make a scene of a landscape with landslide scars, as CBERS-4A WPM would see it. Lazy: one task a chunk.

    Fern-covered scars run down steep, forested slopes; pasture and natural fern have nearly their colour.

    Parameters
    ----------
    shape : (int, int)
        Pixels (y, x).
    seed : int
        Another seed, another landscape.
    chunks : int or (int, int)
        Pixels a chunk (y, x); the pixels' values do not depend on it.
    resolution : float
        Metres a pixel.
    crs : str
        Any CRS in metres.
    origin : (float, float)
        Upper left corner (x, y) in the CRS.
    density : float
        Candidates for a scar per km2 of ground; on ground that is flat or holds a scar already, none comes of one.
    scars : GeoDataFrame, optional
        A real inventory to show instead, in any CRS.

    Returns
    -------
    DataArray (band, y, x) uint16
        Bands blue, green, red and nir, counts of 10 bit; 0 is void and marks the sea.

    Raises
    ------
    BadInput
        If a size is not positive.

    Examples
    --------
    >>> scene((65536, 65536)).shape
    (4, 65536, 65536)
    """
    ground = _ground(shape, seed, resolution=resolution, crs=crs, origin=origin, density=density, scars=scars)
    data = _lazy(ground, scene_block, chunks, dtype="uint16", bands=len(BANDS))
    return schema.wrap(data, ground.grid, schema.MOSAIC, name="scene", coords={"band": list(BANDS)}, nodata=NODATA)


def mask(
    shape: tuple[int, int] = (2048, 2048),
    seed: int = 0,
    *,
    chunks: int | tuple[int, int] = 1024,
    resolution: float = 8.0,
    crs: str = CRS,
    origin: tuple[float, float] = ORIGIN,
    density: float = 6.0,
    scars: gpd.GeoDataFrame | None = None,
) -> xr.DataArray:
    """Make the mask of ``scene`` with the same arguments, lazily.

    It equals ``inventory.rasterize(polygons(...), scene(...))``, without computing the scene.

    Returns
    -------
    DataArray (y, x) uint8
        1 landslide, 0 not, 255 sea.
    """
    ground = _ground(shape, seed, resolution=resolution, crs=crs, origin=origin, density=density, scars=scars)
    data = _lazy(ground, mask_block, chunks, dtype="uint8")
    return schema.wrap(data, ground.grid, schema.MASK, name="mask", nodata=schema.UNKNOWN)


def elevation(
    shape: tuple[int, int] = (2048, 2048),
    seed: int = 0,
    *,
    chunks: int | tuple[int, int] = 1024,
    resolution: float = 8.0,
    crs: str = CRS,
    origin: tuple[float, float] = ORIGIN,
) -> xr.DataArray:
    """Make the ground under ``scene`` with the same arguments, lazily.

    Returns
    -------
    DataArray (y, x) float32
        Metres above the sea, which lies at 0.
    """
    ground = _ground(shape, seed, resolution=resolution, crs=crs, origin=origin, density=1.0)
    data = _lazy(ground, height_block, chunks, dtype="float32")
    return schema.wrap(data, ground.grid, schema.MASK, name="elevation", attrs={"units": "m"})


def polygons(
    shape: tuple[int, int] = (2048, 2048),
    seed: int = 0,
    *,
    window: tuple[slice, slice] | None = None,
    resolution: float = 8.0,
    crs: str = CRS,
    origin: tuple[float, float] = ORIGIN,
    density: float = 6.0,
    scars: gpd.GeoDataFrame | None = None,
) -> gpd.GeoDataFrame:
    """Give the outlines of the scars of ``scene`` with the same arguments.

    Parameters
    ----------
    window : (slice, slice), optional
        Rows and columns of the scene; only scars that touch them are given, whole. The scene, unless given.

    Returns
    -------
    GeoDataFrame
        ``id`` (its lattice cell, or its number in ``scars``; the same in every window), ``slope`` at the head in
        degrees (not known of given ones), ``cover`` of fern from 0 to 1, ``area_m2``, and the outline in the scene's
        CRS.
    """
    ground = _ground(shape, seed, resolution=resolution, crs=crs, origin=origin, density=density, scars=scars)
    shapes, facts = near(ground, window or (slice(0, ground.shape[0]), slice(0, ground.shape[1])))
    columns = {
        "id": [f"{row}.{column}" for row, column in facts[:, :2].astype(int)],
        "slope": facts[:, 6],
        "cover": facts[:, 7],
        "area_m2": shapely.area(shapes),
    }
    return gpd.GeoDataFrame(columns, geometry=on_map(ground, shapes), crs=crs)


def landscape(shape: tuple[int, int] = (2048, 2048), seed: int = 0, **ground: Any) -> Landscape:
    """Make a scene, its mask and its polygons in one call; further arguments as for ``scene``."""
    outlines = {key: value for key, value in ground.items() if key != "chunks"}
    return Landscape(scene(shape, seed, **ground), mask(shape, seed, **ground), polygons(shape, seed, **outlines))


def _ground(
    shape: tuple[int, int],
    seed: int,
    *,
    resolution: float,
    crs: str,
    origin: Any,
    density: float,
    scars: gpd.GeoDataFrame | None = None,
) -> Ground:
    """Check what a landscape is a function of."""
    for name, value, good in (
        ("shape", shape, len(shape) == 2 and all(isinstance(n, int | np.integer) and n > 0 for n in shape)),
        ("resolution", resolution, resolution > 0),
        ("density", density, density > 0),
        ("seed", seed, isinstance(seed, int | np.integer) and seed >= 0),
    ):
        if not good:
            rule = "be whole and not negative" if name == "seed" else "be positive"
            raise BadInput(sentence(name, rule, f"{name}={value}"))
    left, top = float(origin[0]), float(origin[1])
    shapes = None if scars is None else tuple(_in_metres(scars.to_crs(crs).geometry.to_numpy(), left, top))
    return Ground(
        (int(shape[0]), int(shape[1])), int(seed), float(resolution), (left, top), crs, float(density), shapes
    )


def _in_metres(shapes: np.ndarray, left: float, top: float) -> np.ndarray:
    """Turn outlines in the scene's CRS into metres east and south of the upper left corner."""
    moved: np.ndarray = shapely.transform(shapes, lambda xy: (xy - (left, top)) * (1.0, -1.0))
    return moved


def _lazy(ground: Ground, kernel: Any, chunks: Any, *, dtype: str, bands: int | None = None) -> da.Array:
    """Make a lazy array of a kernel: one task a chunk."""
    shape = ground.shape if bands is None else (bands, *ground.shape)
    sides = chunks if isinstance(chunks, tuple) else (chunks, chunks)
    source = Seen(ground, kernel, shape, np.dtype(dtype))
    sizes = sides if bands is None else (bands, *sides)
    return da.from_array(source, chunks=sizes, asarray=False, meta=np.empty((0,) * len(shape), dtype))


@dataclass(frozen=True)
class Seen:
    """A landscape as an array that is computed where it is read; what the lazy arrays are made of.

    Attributes
    ----------
    ground : Ground
    kernel : callable
        From ground and window (rows, columns) to the pixels of the window.
    shape : tuple of int
    dtype : dtype
    """

    ground: Ground
    kernel: Callable[[Ground, tuple[slice, slice]], np.ndarray]
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        window, steps = inventory.hull(key[-2:], self.shape[-2:])
        return self.kernel(self.ground, window)[(*key[:-2], *steps)]


def scene_block(ground: Ground, window: tuple[slice, slice]) -> np.ndarray:
    """Compute a window of the scene: (4, y, x) uint16."""
    rows, columns = window
    ys, xs = ground.centres(0, rows, halo=1), ground.centres(1, columns, halo=1)
    z = elevation_block(ys, xs, ground.layout, ground.keys)
    around = slice(rows.start - 1, rows.stop + 1), slice(columns.start - 1, columns.stop + 1)
    fern = burned(ground, around, "float32")
    start = rows.start, columns.start
    return render_block(z, fern, _noises(ys, xs, ground.keys), start, ground.resolution, ground.keys)


def mask_block(ground: Ground, window: tuple[slice, slice]) -> np.ndarray:
    """Compute a window of the mask: (y, x) uint8, 255 in the sea."""
    return np.where(height_block(ground, window) > 0, burned(ground, window, "uint8"), np.uint8(schema.UNKNOWN))


def height_block(ground: Ground, window: tuple[slice, slice]) -> np.ndarray:
    """Compute a window of the elevation: (y, x) float32, metres."""
    ys, xs = (ground.centres(axis, pixels) for axis, pixels in enumerate(window))
    return elevation_block(ys, xs, ground.layout, ground.keys)


def _noises(ys: np.ndarray, xs: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Compute the noises of ``render_block``: (6, y, x) float32."""
    made = ((2400.0, 4, 15), (200.0, 3, 18), (3000.0, 3, 19), (5000.0, 4, 22), (420.0, 3, 26), (40.0, 1, 28))
    return np.stack([fractal_block(ys, xs, length, octaves, keys[key:]) for length, octaves, key in made])

"""A DEM, or what was derived of it, on the grid of a mosaic."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import dask.array as da
import numpy as np
import pyproj
import xarray as xr
from affine import Affine
from dask._task_spec import List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.warp import reproject

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.graphs import Chunked, Key, Node
from lsdask.terrain.neighbours import heights_block

EXACT = 1e-12
"""The warper's tolerance, pixels. Its default, 0.125, puts a height an eighth of a pixel away from where it is, which
on steep ground is metres, and makes it depend on the chunk; 0 fails in rasterio 1.5."""

REACH = {"nearest": 1, "bilinear": 1, "cubic": 2, "cubic_spline": 2, "lanczos": 3, "average": 1}
"""How far each kernel looks, in pixels of the coarser grid."""

CHUNK = 512
PROBES = 9
"""Points a side of a chunk at which is asked where it lies in the source."""


Place = tuple[str, Affine]
"""A grid without its shape: CRS as WKT, and transform."""

Box = tuple[int, int, int, int]
"""A window of a grid: top, left, bottom, right."""


@dataclass(frozen=True)
class Warp:
    """What every chunk of a resampled image shares.

    Attributes
    ----------
    source, target : Place
        CRS as WKT and transform.
    scale : (float, float)
        Pixels of the target that one of the source makes, (y, x).
    nodata : float, int or None
        What stands for void in the source.
    resampling : str
    """

    source: Place
    target: Place
    scale: tuple[float, float]
    nodata: float | int | None
    resampling: str


def resample(image: xr.DataArray, like: xr.DataArray | GeoBox, *, resampling: str = "bilinear") -> xr.DataArray:
    """Put heights, or what was derived of them, on the grid of a mosaic.

    For files, ``scenes.open("dem.tif", grid=like, resampling="bilinear")`` gives the same heights and reads only what
    it needs. Where the mosaic is finer than the DEM, bilinear heights are facets whose slopes jump: resample with
    ``"cubic_spline"`` (which smooths a little), or derive first and resample the bands, but not ``aspect``, whose 359
    and 1 would make 180.

    Parameters
    ----------
    image : DataArray (y, x) or (band, y, x)
        Metres, or bands of terrain; integers become floats before they are mixed, so that heights keep no steps.
    like : DataArray (..., y, x) or GeoBox
        The grid to put it on; also its chunks, if it is lazy.
    resampling : {"nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average"}
        As rasterio names them.

    Returns
    -------
    DataArray (..., y, x) float32, lazy if ``image`` or ``like`` is
        NaN beyond the image and where a pixel's centre lies in void. Whatever the chunks it is the same, but for the
        last digit of float32.

    Raises
    ------
    BadInput
        If ``image`` has other dims, no numbers or no grid, or ``like`` no grid, or ``resampling`` is unknown.
    """
    dims = schema.MOSAIC if getattr(image, "ndim", 2) == 3 else schema.MASK
    schema.check(image, dims, "image")
    if image.dtype.kind not in "iuf":
        raise BadInput(sentence("image", "hold whole or real numbers", f"dtype={image.dtype}"))
    if resampling not in REACH:
        raise BadInput(sentence("resampling", f"be one of {', '.join(REACH)}", f"resampling={resampling!r}"))
    source, grid = schema.geobox(image, "image"), like if isinstance(like, GeoBox) else schema.geobox(like, "like")
    if grid.crs is None:
        raise BadInput(sentence("like", "have a CRS", "none"))
    scale = _scale(_place(source), _place(grid), (grid.shape[0], grid.shape[1]))
    warp = Warp(_place(source), _place(grid), scale, schema.nodata(image), resampling)
    lazy = isinstance(image.data, da.Array) or isinstance(getattr(like, "data", None), da.Array)
    sizes = _chunks(like, grid) if lazy else tuple((side,) for side in grid.shape)
    data = _lazy(da.asarray(image.data), warp, sizes)
    data = data if lazy else data.compute(scheduler="synchronous")
    coords = {"band": image["band"]} if "band" in image.coords else {}
    kept = {key: image.attrs[key] for key in ("long_name", "units") if key in image.attrs}
    return schema.wrap(data, grid, dims, name=str(image.name or "terrain"), coords=coords, attrs=kept)


def _place(grid: GeoBox) -> Place:
    return str(grid.crs.to_wkt() if grid.crs else ""), grid.transform


def _chunks(like: Any, grid: GeoBox) -> tuple[tuple[int, ...], ...]:
    if isinstance(getattr(like, "data", None), da.Array):
        return like.data.chunks[-2:]
    return da.core.normalize_chunks((CHUNK, CHUNK), (grid.shape[0], grid.shape[1]))


@lru_cache(maxsize=16)
def _change(start: str, end: str) -> pyproj.Transformer:
    """Give the way from one CRS to another; finding it takes 10 ms, and each chunk asks."""
    return pyproj.Transformer.from_crs(start, end, always_xy=True)


def _moved(columns: np.ndarray, rows: np.ndarray, start: Place, end: Place) -> tuple[np.ndarray, np.ndarray]:
    """Turn pixels of one grid (columns, rows) into pixels of another; not finite where there is none."""
    there, back = start[1], ~end[1]
    east, north = there.a * columns + there.b * rows + there.c, there.d * columns + there.e * rows + there.f
    x, y = _change(start[0], end[0]).transform(east, north)
    return back.a * x + back.b * y + back.c, back.d * x + back.e * y + back.f


def _scale(source: Place, target: Place, shape: tuple[int, int]) -> tuple[float, float]:
    """Say how many pixels of the target one pixel of the source makes, in the middle of the target: (y, x)."""
    middle = np.array(shape) / 2
    x, y = _moved(middle[1] + np.array([0, 1, 0]), middle[0] + np.array([0, 0, 1]), target, source)
    down, across = math.hypot(y[1] - y[0], y[2] - y[0]), math.hypot(x[1] - x[0], x[2] - x[0])
    whole = math.isfinite(down * across) and down * across > 0
    return (1 / down, 1 / across) if whole else (1.0, 1.0)


# One task a chunk


def _lazy(data: Any, warp: Warp, sizes: tuple[tuple[int, ...], ...]) -> da.Array:
    leading = data.shape[:-2]
    data = data.rechunk((*leading, *(tuple(size for size in axis if size) for axis in data.chunks[-2:])))
    name = "terrain-resample-" + tokenize(data.name, warp, sizes)
    layers = HighLevelGraph.from_collections(name, Warped(name, data, warp, sizes), dependencies=[data])
    chunks = (*((size,) for size in leading), *sizes)
    return da.Array(layers, name, chunks=chunks, meta=np.empty((0,) * len(chunks), "float32"))


class Warped(Chunked):
    """For each chunk (..., y, x) of the target one task, which takes of the source's chunks what it needs."""

    def __init__(self, name: str, data: da.Array, warp: Warp, sizes: tuple[tuple[int, ...], ...]) -> None:
        self.leading = data.shape[:-2]
        super().__init__(name, (*(1 for _ in self.leading), *(len(axis) for axis in sizes)))
        self.source, self.shape, self.warp = data.name, data.shape[-2:], warp
        self.edges = [np.cumsum([0, *axis]) for axis in data.chunks[-2:]]
        self.starts = [np.cumsum([0, *axis]).tolist() for axis in sizes]

    def tasks(self, block: tuple[int, ...]) -> dict[Key, Node]:
        row, column = block[-2:]
        window = self.starts[0][row], self.starts[1][column], self.starts[0][row + 1], self.starts[1][column + 1]
        top, left, bottom, right = _seen(window, self.warp, self.shape)
        (rows, y), (columns, x) = _pieces(self.edges[0], top, bottom), _pieces(self.edges[1], left, right)
        before = (self.source, *(0 for _ in self.leading))
        parts = List(*(List(*(TaskRef((*before, i, j)) for j in columns)) for i in rows))
        key = (self.name, *block)
        return {key: Task(key, resample_block, parts, (y, x), (top, left), window, self.warp, self.leading)}


def _seen(window: Box, warp: Warp, shape: tuple[int, int]) -> Box:
    """Give the window of the source that a window of the target is made of; empty if it has no part in it."""
    top, left, bottom, right = window
    columns, rows = np.meshgrid(np.linspace(left, right, PROBES), np.linspace(top, bottom, PROBES))
    x, y = _moved(columns.ravel(), rows.ravel(), warp.target, warp.source)
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return 0, 0, 0, 0
    found = []
    for places, scale, size in ((y[known], warp.scale[0], shape[0]), (x[known], warp.scale[1], shape[1])):
        bow = (places.max() - places.min()) / PROBES  # how far an edge may bend out between two probes
        margin = REACH[warp.resampling] * max(1.0, 1 / scale) + 2 + bow
        low, high = math.floor(places.min() - margin), math.ceil(places.max() + margin)
        found.append((min(max(low, 0), size), max(min(high, size), 0)))
    (top, bottom), (left, right) = found
    return (top, left, bottom, right) if top < bottom and left < right else (0, 0, 0, 0)


def _pieces(edges: np.ndarray, low: int, high: int) -> tuple[list[int], list[slice]]:
    """Give the chunks of an axis that hold pixels ``low`` to ``high``, and what of each."""
    touched = [i for i in range(len(edges) - 1) if edges[i] < high and edges[i + 1] > low and low < high]
    return touched, [slice(int(max(low - edges[i], 0)), int(min(high, edges[i + 1]) - edges[i])) for i in touched]


def resample_block(
    parts: list[list[np.ndarray]],
    cuts: tuple[list[slice], list[slice]],
    corner: tuple[int, int],
    window: Box,
    warp: Warp,
    leading: tuple[int, ...],
) -> np.ndarray:
    """Resample one chunk.

    Parameters
    ----------
    parts : list of lists of (..., y, x) arrays
        Chunks of the source, as stored; empty if the chunk lies beyond it.
    cuts : (list of slice, list of slice)
        What is taken of each, on y and on x.
    corner : (int, int)
        Row and column of the source at which what is taken begins.
    window : (top, left, bottom, right)
        The chunk in pixels of the target.
    warp : Warp
    leading : tuple of int
        Sizes of the axes before (y, x).

    Returns
    -------
    (..., y, x) float32 array
    """
    top, left, bottom, right = window
    out = np.full((*leading, bottom - top, right - left), np.nan, "float32")
    if not parts or not parts[0]:
        return out
    taken = [[part[..., y, x] for part, x in zip(row, cuts[1])] for row, y in zip(parts, cuts[0])]
    reproject(
        heights_block(np.block(taken), warp.nodata).astype("float32"),
        out,
        src_crs=warp.source[0],
        src_transform=warp.source[1] @ Affine.translation(corner[1], corner[0]),
        src_nodata=np.nan,
        dst_crs=warp.target[0],
        dst_transform=warp.target[1] @ Affine.translation(left, top),
        dst_nodata=np.nan,
        resampling=Resampling[warp.resampling],
        tolerance=EXACT,
        XSCALE=repr(warp.scale[1]),  # else GDAL takes them from each window, and chunks would show
        YSCALE=repr(warp.scale[0]),
    )
    return out

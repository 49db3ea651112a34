"""Polygons to pixels: inventories read and checked, and burned into masks where they are looked at."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import rasterio.features
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from lsdask import schema
from lsdask.errors import BadInput, NotFound, sentence

Window = tuple[slice, slice]

CHUNK = 2048
"""Side of a chunk of a mask whose ``like`` is not lazy, in pixels."""


def rasterize(polygons: gpd.GeoDataFrame | str | Path, like: xr.DataArray, *, unknown: bool = True) -> xr.DataArray:
    """Burn an inventory into a mask on the grid of an image, lazily.

    A pixel is landslide if its centre lies in a polygon, as in ``rasterio.features.rasterize``. A chunk looks at the
    polygons that touch it and at no others.

    Parameters
    ----------
    polygons : GeoDataFrame or path
        The inventory in any CRS; a path names GeoJSON, GeoPackage, FlatGeobuf, a shapefile or GeoParquet. Geometries
        that are not valid are mended, with a warning that counts them.
    like : DataArray (..., y, x)
        The image whose grid, chunks and void the mask takes.
    unknown : bool
        Write 255 where ``like`` is void. Say False to leave the image unread.

    Returns
    -------
    DataArray (y, x) uint8
        1 landslide, 0 not, 255 unknown.

    Raises
    ------
    NotFound
        If the file is not there.
    BadInput
        If the inventory has no CRS or holds points or lines, or ``like`` has no grid.
    """
    grid = schema.geobox(like, "like")
    burned = burn(on_pixels(load(polygons), grid), grid.shape, chunks=_chunks(like), dtype="uint8")
    if unknown and not (like.dtype.kind in "iub" and schema.nodata(like) is None):
        known = schema.valid(like)
        known = known.any([dim for dim in known.dims if dim not in schema.MASK])
        burned = da.where(da.asarray(known.data).rechunk(burned.chunks), burned, np.uint8(schema.UNKNOWN))
    return schema.wrap(burned, grid, schema.MASK, name="mask", nodata=schema.UNKNOWN)


def _chunks(like: xr.DataArray) -> Any:
    sizes = like.chunksizes
    return (sizes["y"], sizes["x"]) if sizes else (CHUNK, CHUNK)


def load(polygons: gpd.GeoDataFrame | str | Path, *, name: str = "polygons") -> gpd.GeoDataFrame:
    """Read an inventory and check that it is one.

    Parameters
    ----------
    polygons : GeoDataFrame or path
        As for ``rasterize``.
    name : str
        What to call it in an error.

    Returns
    -------
    GeoDataFrame
        Its rows that hold an area, with valid Polygons and MultiPolygons.

    Raises
    ------
    NotFound
        If the file is not there.
    BadInput
        If there is no CRS, or there are points or lines.
    """
    frame = polygons if isinstance(polygons, gpd.GeoDataFrame) else _read(Path(polygons), name)
    if frame.crs is None:
        do = f"Say which it is: {name}.set_crs('EPSG:...')"
        raise BadInput(sentence(name, "have a CRS", "none", do))
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    kinds = set(frame.geom_type) - {"Polygon", "MultiPolygon", "GeometryCollection"}
    if kinds:
        do = f"Buffer them, or leave them out: {name}[{name}.geom_type.isin(['Polygon', 'MultiPolygon'])]"
        raise BadInput(sentence(name, "hold Polygons and MultiPolygons only", ", ".join(sorted(kinds)), do))
    return _mended(frame, name)


def _read(path: Path, name: str) -> gpd.GeoDataFrame:
    if not path.exists():
        raise NotFound(sentence(name, "name a file", f"{path}, which is not there"))
    read = gpd.read_parquet if path.suffix in (".parquet", ".geoparquet") else gpd.read_file
    try:
        return read(path)
    except (ValueError, OSError, RuntimeError) as error:
        rule = "name a file of polygons (GeoJSON, GPKG, FlatGeobuf, GeoParquet)"
        raise BadInput(sentence(name, rule, f"{path}: {error}".rstrip("."))) from error


def _mended(frame: gpd.GeoDataFrame, name: str) -> gpd.GeoDataFrame:
    """Make every geometry valid, and say how many were not."""
    broken = ~frame.geometry.is_valid | (frame.geom_type == "GeometryCollection")
    if not broken.any():
        return frame
    text = f"{int(broken.sum())} of {len(frame)} geometries of {name} were not valid and have been mended"
    warnings.warn(text, stacklevel=4)
    frame = frame.copy()
    mended = [_area_of(shape) for shape in shapely.make_valid(frame.geometry[broken].to_numpy())]
    frame.loc[broken, frame.geometry.name] = gpd.GeoSeries(mended, index=frame.index[broken], crs=frame.crs)
    return frame[~frame.geometry.is_empty]


def _area_of(geometry: Any) -> Any:
    """Leave the polygons of a geometry, which may hold points and lines beside them."""
    parts = shapely.get_parts(geometry)
    if (shapely.get_type_id(parts) == shapely.GeometryType.GEOMETRYCOLLECTION).any():
        parts = shapely.get_parts(parts)
    return shapely.union_all(parts[shapely.area(parts) > 0])


def on_pixels(frame: gpd.GeoDataFrame, grid: GeoBox) -> np.ndarray:
    """Give the geometries of an inventory, in any CRS, as ``to_pixels`` does."""
    frame = frame if frame.crs == grid.crs else frame.to_crs(grid.crs)
    return to_pixels(frame.geometry.to_numpy(), grid)


def to_pixels(geometries: np.ndarray, grid: GeoBox) -> np.ndarray:
    """Put geometries of a grid's CRS into its pixel coordinates (column, row): (geometry,) object array."""
    return shapely.transform(geometries, lambda xy: through(~grid.transform, xy))


def to_map(geometries: np.ndarray, grid: GeoBox) -> np.ndarray:
    """Put geometries in pixel coordinates (column, row) of a grid into its CRS: (geometry,) object array."""
    return shapely.transform(geometries, lambda xy: through(grid.transform, xy))


def through(transform: Affine, xy: np.ndarray) -> np.ndarray:
    """Send points (n, 2) through a transform."""
    x = transform.a * xy[:, 0] + transform.b * xy[:, 1] + transform.c
    y = transform.d * xy[:, 0] + transform.e * xy[:, 1] + transform.f
    return np.stack([x, y], axis=1)


def burn_block(
    geometries: np.ndarray, window: Window, *, values: Any = 1, dtype: Any = "uint8", all_touched: bool = False
) -> np.ndarray:
    """Burn geometries in pixel coordinates into a window of the grid.

    Parameters
    ----------
    geometries : (geometry,) object array of Polygons and MultiPolygons
        In pixel coordinates (column, row) of the whole grid, so that all windows round alike; later ones on top.
    window : (slice, slice)
        Rows and columns.
    values : number or sequence
        What to burn, one for all or one for each.
    dtype : dtype
        Of the result.
    all_touched : bool
        Burn every pixel that a geometry touches, not those only whose centre it holds.

    Returns
    -------
    (y, x) array of ``dtype``; 0 outside
    """
    rows, columns = window
    shape = rows.stop - rows.start, columns.stop - columns.start
    if not len(geometries):
        return np.zeros(shape, dtype)
    pairs = zip(geometries, np.broadcast_to(values, len(geometries)).tolist())
    corner = Affine.translation(columns.start, rows.start)
    options = {"fill": 0, "dtype": dtype, "all_touched": all_touched}
    return rasterio.features.rasterize(pairs, out_shape=shape, transform=corner, **options)


class Burning:
    """Geometries on a grid as an array that is burned where it is read; what a lazy mask is made of.

    Attributes
    ----------
    geometries : (polygon,) object array
        In pixel coordinates (column, row).
    shape : (int, int)
        The grid, pixels (y, x).
    all_touched : bool
        As for ``burn_block``.
    """

    ndim = 2

    def __init__(
        self, geometries: np.ndarray, shape: tuple[int, int], dtype: Any, *, all_touched: bool = False
    ) -> None:
        self.geometries, self.shape, self.dtype = geometries, (int(shape[0]), int(shape[1])), np.dtype(dtype)
        self.all_touched = all_touched

    @cached_property
    def tree(self) -> shapely.STRtree:
        """The geometries by place."""
        return shapely.STRtree(self.geometries)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "tree"}

    def __dask_tokenize__(self) -> Any:
        return "lsdask.Burning", self.shape, str(self.dtype), self.all_touched, shapely.to_wkb(self.geometries).tolist()

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        window, steps = hull(key, self.shape)
        box = shapely.box(window[1].start, window[0].start, window[1].stop, window[0].stop)
        touching = np.sort(self.tree.query(box))
        return burn_block(self.geometries[touching], window, dtype=self.dtype, all_touched=self.all_touched)[steps]


def hull(key: tuple[slice, ...], shape: Sequence[int]) -> tuple[Window, tuple[slice, slice]]:
    """Split two slices of an array's key into the window they span and the steps to take in that window.

    Examples
    --------
    >>> hull((slice(10, None, 5), slice(3, 4)), (20, 20))
    ((slice(10, 16, None), slice(3, 4, None)), (slice(0, 6, 5), slice(0, 1, 1)))
    """
    y, x = (_span(range(*part.indices(size))) for part, size in zip(key, shape))
    return (y[0], x[0]), (y[1], x[1])


def _span(taken: range) -> tuple[slice, slice]:
    """Give the least range that holds the positions taken, at least one, and where they lie in it."""
    if not taken:
        return slice(0, 1), slice(0, 0, 1)
    low, high = min(taken[0], taken[-1]), max(taken[0], taken[-1]) + 1
    last = taken[-1] - low + (1 if taken.step > 0 else -1)
    return slice(low, high), slice(taken[0] - low, last if last >= 0 else None, taken.step)


def burn(
    geometries: np.ndarray, shape: Sequence[int], *, chunks: Any, dtype: Any = "uint8", all_touched: bool = False
) -> da.Array:
    """Make a lazy array (y, x) of geometries in pixel coordinates: 1 in them, 0 outside; one task a chunk."""
    source = Burning(geometries, (shape[0], shape[1]), dtype, all_touched=all_touched)
    return da.from_array(source, chunks=chunks, asarray=False, meta=np.empty((0, 0), dtype))

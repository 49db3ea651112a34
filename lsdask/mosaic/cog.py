"""A mosaic becomes one GeoTIFF that GIS programs read by parts, also over the web."""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from lsdask import schema, store, tiling
from lsdask.errors import BadInput, sentence

CACHE_MB = 256
"""What GDAL may hold while it writes, in MB."""

_PREDICTED = ("deflate", "lzw", "zstd")
_COMPRESSIONS = (*_PREDICTED, "lerc", "none")

_RESAMPLING = {"average": "AVERAGE", "mode": "MODE", "nearest": "NEAREST"}


def to_cog(
    image: xr.DataArray,
    path: str | Path,
    *,
    compress: str = "deflate",
    method: str | None = None,
    tile: int = 2048,
    workers: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write an image of any size as a Cloud-Optimized GeoTIFF with overviews.

    The image is computed tile by tile into a plain GeoTIFF, which GDAL then puts in order; memory holds a few tiles
    and ``CACHE_MB``. Both lie in a folder beside ``path`` until the file is whole and gets its name; that needs room
    for the image twice.

    Parameters
    ----------
    image : DataArray (y, x) or (band, y, x), or any one dim before (y, x)
        Lazy or in memory. Band names, nodata and scale are kept; a class or k is named by its coordinate.
    path : str or Path
        The new local file.
    compress : {"deflate", "lzw", "zstd", "lerc", "none"}
        All without loss. All programs read ``deflate`` and ``lzw``; ``zstd`` is faster, but not read by all.
    method : {"average", "mode", "nearest"}, optional
        How overviews are made of known pixels; default average for bands and scores, mode for masks and labels.
    tile : int
        Side of the windows that are computed, in pixels; best a multiple of the image's chunks.
    workers : int, optional
        Threads that compute; default one a core.
    overwrite : bool
        Replace what is there.

    Raises
    ------
    BadInput
        If ``path`` is no local path or exists, or GDAL cannot write the type or compression.
    Unreadable
        If a window cannot be computed. Nothing is left at ``path`` then.
    """
    _check(image, path, method, compress, overwrite)
    method = method or ("average" if {"band", "class"} & set(image.dims) else "mode")
    options = {
        "driver": "COG",
        "compress": compress,
        "predictor": "YES" if compress in _PREDICTED else "NO",
        "blocksize": 512,
        "bigtiff": "IF_SAFER",
        "overview_resampling": _RESAMPLING[method],
        "num_threads": "ALL_CPUS" if workers is None else str(workers),
    }
    with _hidden(Path(path)) as folder, rasterio.Env(GDAL_CACHEMAX=CACHE_MB), _gdal(image, compress):
        with rasterio.open(folder / "plain.tif", "w", **_profile(image)) as plain:
            _describe(plain, image)
            _fill(plain, image, tile, workers or os.cpu_count() or 1)
        rasterio.shutil.copy(folder / "plain.tif", folder / "cog.tif", **options)
        os.replace(folder / "cog.tif", path)


def _check(image: Any, path: str | Path, method: str | None, compress: str, overwrite: bool) -> None:
    if not isinstance(image, xr.DataArray) or image.dims[-2:] != ("y", "x") or image.ndim not in (2, 3):
        got = str(image.dims) if isinstance(image, xr.DataArray) else type(image).__name__
        raise BadInput(sentence("image", "be a DataArray on (y, x) or (band, y, x)", got))
    if method is not None and method not in _RESAMPLING:
        raise BadInput(sentence("method", f"be one of {', '.join(_RESAMPLING)}", f"method={method!r}"))
    if compress not in _COMPRESSIONS:
        raise BadInput(sentence("compress", f"be one of {', '.join(_COMPRESSIONS)}", f"compress={compress!r}"))
    if not store.is_local(path):
        raise BadInput(sentence("path", "be a local file", f"path={path}", "Write it here and copy it there"))
    if os.path.lexists(path) and not overwrite:
        raise BadInput(sentence("path", "name nothing yet", f"path={path}", "Pass another, or overwrite=True"))
    if not Path(path).absolute().parent.is_dir():
        raise BadInput(sentence("path", "lie in a folder that exists", f"path={path}"))


@contextmanager
def _hidden(path: Path) -> Iterator[Path]:
    """Give a folder beside a path, on the same disk, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix=f"{path.name}.part-", dir=path.absolute().parent) as folder:
        yield Path(folder)


@contextmanager
def _gdal(image: xr.DataArray, compress: str) -> Iterator[None]:
    """Turn what GDAL says of types and options into one sentence."""
    try:
        yield
    except (RasterioError, TypeError) as error:
        got = f"{image.dtype} and compress={compress!r}: {error}"
        raise BadInput(sentence("image", "be of a type and compression that GDAL writes", got)) from error


def _profile(image: xr.DataArray) -> dict[str, Any]:
    """Say what the plain GeoTIFF is: blocks as in the COG, compressed fast."""
    grid = schema.geobox(image)
    return {
        "driver": "GTiff",
        "dtype": image.dtype.name,
        "count": image.shape[0] if image.ndim == 3 else 1,
        "height": grid.shape[0],
        "width": grid.shape[1],
        "crs": str(grid.crs.to_wkt()) if grid.crs else None,
        "transform": grid.transform,
        "nodata": schema.nodata(image),
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "lzw",
        "bigtiff": "YES",
        "sparse_ok": True,
    }


def _describe(plain: DatasetWriter, image: xr.DataArray) -> None:
    """Write band names, scale and offset."""
    if image.ndim == 3:
        lead = str(image.dims[0])
        names = image[lead].values if lead in image.coords else [f"{lead}_{i + 1}" for i in range(image.shape[0])]
        plain.descriptions = tuple(str(name) for name in names)
    plain.scales = (float(image.attrs.get("scale_factor", 1.0)),) * plain.count
    plain.offsets = (float(image.attrs.get("add_offset", 0.0)),) * plain.count


def _fill(plain: DatasetWriter, image: xr.DataArray, tile: int, workers: int) -> None:
    """Compute tiles in threads, a few ahead, and write them in order in this one."""
    reader = store.reader(image)
    grid = tiling.grid((plain.height, plain.width), tile)
    with ThreadPoolExecutor(workers, thread_name_prefix="lsdask") as pool:
        waiting = ((grid[place].write, pool.submit(reader.read, *grid[place].write)) for place in grid.places())
        ahead: list[tuple[tuple[slice, slice], Future[np.ndarray]]] = list(islice(waiting, workers + 1))
        try:
            while ahead:
                (y, x), future = ahead.pop(0)
                values = future.result()
                ahead.extend(islice(waiting, 1))
                values = values if values.ndim == 3 else values[np.newaxis]
                plain.write(values, window=Window.from_slices(y, x, height=plain.height, width=plain.width))
        finally:
            pool.shutdown(cancel_futures=True)

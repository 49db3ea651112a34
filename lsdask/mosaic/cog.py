"""A mosaic becomes one GeoTIFF that GIS programs read by parts, also over the web."""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
from rasterio._err import CPLE_BaseError  # what rasterio.shutil.copy raises; no public module has it
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from lsdask import schema, store, tiling
from lsdask.errors import BadInput, sentence
from lsdask.mosaic.shipping import BLOCK, COMPRESSIONS, PARTS, ship

if TYPE_CHECKING:
    from distributed import Client

CACHE_MB = 256
"""What GDAL may hold while it writes, in MB."""

_COMPRESSIONS = (*COMPRESSIONS, "lerc", "none")

_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "uint64", "int64")

_LERC_TYPES = _TYPES[:8]
"""Of others GDAL's LERC writes empty tiles, and does not raise."""

_RESAMPLING = {"average": "AVERAGE", "mode": "MODE", "nearest": "NEAREST"}

_BUCKETS = ("s3://", "gs://", "az://")


def to_cog(
    image: xr.DataArray,
    path: str | Path,
    *,
    compress: str = "deflate",
    method: str | None = None,
    tile: int = 2048,
    client: "Client | None" = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write an image of any size as a Cloud-Optimized GeoTIFF with overviews.

    The image is computed tile by tile into a plain GeoTIFF, which GDAL then puts in order; memory holds a few tiles
    and ``CACHE_MB``. Both lie in a hidden folder until the file is whole: beside ``path``, or in the folder for
    temporary files if it goes to a bucket; that needs room for the image twice.

    With a ``client`` and a path of S3, odc-geo's ``save_cog_with_dask`` does it on the workers: they compress and send
    the tiles, and no disk is needed, but a graph of all tasks is made first, and memory grows with the image. That is
    why GDAL does it elsewhere: see ``benchmarks/README.md``. GDAL also writes integers that declare no nodata, of
    which odc-geo (0.5.3) takes 0 for one, and makes means and modes of 0 another number.

    Parameters
    ----------
    image : DataArray (y, x) or (band, y, x), or any one dim before (y, x)
        Lazy or in memory. Band names, nodata and scale are kept; a class or k is named by its coordinate.
    path : str or Path
        The new file: a local path, or ``s3://``, ``gs://`` or ``az://`` (with the extra ``cloud``).
    compress : {"deflate", "lzw", "zstd", "lerc", "none"}
        All without loss. All programs read ``deflate`` and ``lzw``; ``zstd`` is faster, but not read by all.
        odc-geo writes these three.
    method : {"average", "mode", "nearest"}, optional
        How overviews are made of known pixels; default average for bands and scores, mode for masks and labels.
    tile : int
        Side of the windows that are computed, in pixels; best a multiple of the image's chunks.
    client : distributed.Client, optional
        Where the image is computed; for S3 its workers also write, with the extra ``cog``. Default threads here.
    workers : int, optional
        Threads that compute where there is no client; default one a core.
    overwrite : bool
        Replace what is there.

    Raises
    ------
    BadInput
        If ``path`` cannot be written or exists, GDAL cannot write the type or compression, or a package is missing.
    Unreadable
        If a window cannot be computed, or the bucket does not answer. Nothing is left at ``path`` then.
    """
    place = store.text(path)
    _check(image, place, method, compress, overwrite)
    method = method or ("average" if {"band", "class"} & set(image.dims) else "mode")
    nodata = schema.nodata(image)
    if client is not None and place.startswith("s3://") and nodata is not None:
        about: dict[str, Any] = {"names": _names(image), "scale": _scale(image), "nodata": nodata}
        ship(image, place, **about, compress=compress, method=method, client=client)
        return
    options = {
        "driver": "COG",
        "compress": compress,
        "predictor": "YES" if compress in COMPRESSIONS else "NO",
        "blocksize": BLOCK,
        "bigtiff": "IF_SAFER",
        "overview_resampling": _RESAMPLING[method],
        "num_threads": "ALL_CPUS" if workers is None else str(workers),
    }
    with _hidden(place) as folder, rasterio.Env(GDAL_CACHEMAX=CACHE_MB), _gdal(place):
        with rasterio.open(folder / "plain.tif", "w", **_profile(image)) as plain:
            _describe(plain, image)
            with _pool(store.reader(image), client, workers or os.cpu_count() or 1) as (pool, reader, most):
                _fill(plain, tile, pool, reader, most)
        rasterio.shutil.copy(folder / "plain.tif", folder / "cog.tif", **options)
        (folder / "plain.tif").unlink()
        _appear(folder / "cog.tif", place)


def _check(image: Any, path: str, method: str | None, compress: str, overwrite: bool) -> None:
    if not isinstance(image, xr.DataArray) or image.dims[-2:] != ("y", "x") or image.ndim not in (2, 3):
        got = str(image.dims) if isinstance(image, xr.DataArray) else type(image).__name__
        raise BadInput(sentence("image", "be a DataArray on (y, x) or (band, y, x)", got))
    schema.geobox(image)
    if method is not None and method not in _RESAMPLING:
        raise BadInput(sentence("method", f"be one of {', '.join(_RESAMPLING)}", f"method={method!r}"))
    if compress not in _COMPRESSIONS:
        raise BadInput(sentence("compress", f"be one of {', '.join(_COMPRESSIONS)}", f"compress={compress!r}"))
    types = _LERC_TYPES if compress == "lerc" else _TYPES
    if image.dtype.name not in types:
        got = f"{image.dtype} and compress={compress!r}"
        raise BadInput(sentence("image", f"be of a type that GDAL writes: {', '.join(types)}", got))
    if not store.is_local(path) and not path.startswith(_BUCKETS):
        rule = f"be a local file or in a bucket ({', '.join(_BUCKETS)})"
        raise BadInput(sentence("path", rule, f"path={path}", "Write it here and copy it there"))
    if store.is_local(path) and not Path(path).absolute().parent.is_dir():
        raise BadInput(sentence("path", "lie in a folder that exists", f"path={path}"))
    if _exists(path) and not overwrite:
        raise BadInput(sentence("path", "name nothing yet", f"path={path}", "Pass another, or overwrite=True"))


# Where a file goes


def _exists(path: str) -> bool:
    if store.is_local(path):
        return os.path.lexists(path)
    folder, name = _split(path)
    bucket = store.objects(folder)
    import obstore

    with store.told(path):
        next(obstore.list(bucket, chunk_size=1), None)  # fails where there is no such bucket; head does not
        try:
            obstore.head(bucket, name)
        except FileNotFoundError:
            return False
    return True


def _split(path: str) -> tuple[str, str]:
    """Take the name off a URL."""
    folder, _, name = path.rpartition("/")
    if "://" not in f"{folder}/" or folder.endswith("/") or not name:
        raise BadInput(sentence("path", "name a file in a bucket", f"path={path}", "Pass s3://bucket/name.tif"))
    return folder, name


@contextmanager
def _hidden(path: str) -> Iterator[Path]:
    """Give a folder for as long as the block lasts, beside a path that is local and so on the same disk."""
    parent = Path(path).absolute().parent if store.is_local(path) else None
    with tempfile.TemporaryDirectory(prefix=f"{Path(path).name}.part-", dir=parent) as folder:
        yield Path(folder)


def _appear(whole: Path, path: str) -> None:
    """Put a file where it is to be, all at once."""
    if store.is_local(path):
        os.replace(whole, path)
        return
    folder, name = _split(path)
    bucket = store.objects(folder)
    import obstore

    with store.told(path):
        obstore.put(bucket, name, whole, chunk_size=max(8 << 20, whole.stat().st_size // PARTS + 1))


# What GDAL writes


@contextmanager
def _gdal(path: str) -> Iterator[None]:
    """Turn what GDAL says, whose types and options are checked before, into one sentence: mostly, a full disk."""
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        got = f"path={path}: {error.__cause__ or error}"
        do = "Make room (for a bucket, where TMPDIR is), then run again"
        raise BadInput(sentence("path", "be where GDAL can write the image twice", got, do)) from error


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
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "zstd",
        "zstd_level": 1,
        "bigtiff": "YES",
        "sparse_ok": True,
    }


def _describe(plain: DatasetWriter, image: xr.DataArray) -> None:
    """Write band names, scale and offset."""
    plain.descriptions = _names(image)
    scale, offset = _scale(image)
    plain.scales, plain.offsets = (scale,) * plain.count, (offset,) * plain.count


def _names(image: xr.DataArray) -> tuple[str, ...]:
    """Name the bands by their coordinate; an image of one band without any has its own name."""
    if image.ndim == 2:
        return (str(image.name or "image"),)
    lead = str(image.dims[0])
    named = lead in image.coords
    return tuple(
        str(name) for name in (image[lead].values if named else [f"{lead}_{i + 1}" for i in range(len(image))])
    )


def _scale(image: xr.DataArray) -> tuple[float, float]:
    """Give scale and offset."""
    return float(image.attrs.get("scale_factor", 1.0)), float(image.attrs.get("add_offset", 0.0))


@contextmanager
def _pool(reader: store.Reader, client: "Client | None", workers: int) -> Iterator[tuple[Executor, Any, int]]:
    """Give what computes windows, the reader as it knows it, and how many may be under way."""
    if client is None:
        with ThreadPoolExecutor(workers, thread_name_prefix="lsdask") as pool:
            yield pool, reader, workers + 1
    else:
        held = client.scatter(reader, broadcast=True, hash=False)  # once, as it may have a graph
        with client.get_executor(pure=False) as pool:
            yield pool, held, sum(client.nthreads().values()) + 1


def _fill(plain: DatasetWriter, tile: int, pool: Executor, reader: Any, most: int) -> None:
    """Compute tiles, a few ahead, and write them in order in this thread."""
    grid = tiling.grid((plain.height, plain.width), tile)
    windows = (grid[place].write for place in grid.places())
    waiting = ((window, pool.submit(store.Reader.read, reader, *window)) for window in windows)
    ahead: list[tuple[tuple[slice, slice], Future[np.ndarray]]] = list(islice(waiting, most))
    try:
        while ahead:
            (y, x), future = ahead.pop(0)
            values = future.result()
            ahead.extend(islice(waiting, 1))
            values = values if values.ndim == 3 else values[np.newaxis]
            plain.write(values, window=Window.from_slices(y, x, height=plain.height, width=plain.width))
    finally:
        for _, future in ahead:
            future.cancel()

"""Files on disk or behind a URL become one lazy cube (time, band, y, x) on one grid.

Headers are read once, by a pool of threads; pixels are read later, chunk by chunk, in windows, and a chunk opens only
the files that touch it. The graph holds one task a chunk, and no list of files but one: ten thousand small tiles make
one mosaic.

What counts as data, value by value:

- integers: what differs from the file's nodata, declared in it or given; and what its mask or alpha band shows.
- floats: what is finite, below 1e30 in size, and differs from the file's nodata. The lowest float32
  (-3.4028235e38, which ESRI's software writes for void) is thus void, declared or not, and so are infinities.
"""

import glob
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import rasterio
import shapely
import xarray as xr
from affine import Affine
from dask.base import tokenize
from dask.blockwise import BlockwiseDep, blockwise
from dask.highlevelgraph import HighLevelGraph
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from lsdask import schema
from lsdask.errors import BadInput, NotFound, Unreadable, sentence

VOID_SIZE = 1e30
"""A float of this size or larger is no measurement: it is the lowest float32 in one of its customary writings
(-3.4028235e38, -3.4e38), or what interpolating between it and a neighbour left of it."""

ON_GRID = 1e-3
"""A file lies on the grid if its pixels do to this share of a pixel."""

EXACT = 1e-12
"""The warper's tolerance in pixels. Its default, 0.125, makes a pixel depend on its chunk; 0 fails in rasterio 1.5."""

PathLike = str | os.PathLike[str]
Paths = PathLike | Sequence[PathLike] | Mapping[str, Any]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes
    ----------
    path : str
    crs : str
        WKT, empty if the file has none.
    transform : Affine
    shape : (int, int)
        Pixels, (y, x).
    dtype : str
    names : tuple of str
        One a band, empty where the file names none.
    nodata : float or None
        The value that stands for void in every band of this file.
    masked : bool
        Whether a mask or alpha band says where data is.
    stamp : tuple of int
        Size and time of change of a local file: what tells a rewritten file from the old one.
    """

    path: str
    crs: str
    transform: Affine
    shape: tuple[int, int]
    dtype: str
    names: tuple[str, ...]
    nodata: float | None
    masked: bool
    stamp: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One file in its place on the grid.

    Attributes
    ----------
    header : Header
    bands : tuple of int
        The file's bands to read, from 1.
    slots : tuple of int
        Where each of them goes in the cube.
    box : (top, left, bottom, right)
        The pixels of the grid that it may touch.
    exact : bool
        Whether its pixels are the grid's pixels, so that no warping is needed.
    scale : (float, float)
        Pixels of the grid that one of its pixels makes, (y, x).
    """

    header: Header
    bands: tuple[int, ...]
    slots: tuple[int, ...]
    box: Box
    exact: bool
    scale: tuple[float, float]


@dataclass(frozen=True)
class Target:
    """What every chunk of a cube shares.

    Attributes
    ----------
    crs : str
        WKT.
    transform : Affine
    shape : (int, int)
        Pixels of the grid, (y, x).
    bands : int
    dtype : str
    fill : float or int
        What stands where nothing is known.
    resampling : str
    """

    crs: str
    transform: Affine
    shape: tuple[int, int]
    bands: int
    dtype: str
    fill: float | int
    resampling: str

    @property
    def grid(self) -> GeoBox:
        """The grid of the cube."""
        return GeoBox(self.shape, self.transform, self.crs)


@dataclass(frozen=True)
class Chunk:
    """One task: a window (top, left, bottom, right) of the grid, and the files that touch it in painting order."""

    target: Target
    window: Box
    layers: tuple[Layer, ...]


def open(
    paths: Paths,
    *,
    bands: Sequence[str | int] | Mapping[str, int] | None = None,
    grid: GeoBox | xr.DataArray | None = None,
    resampling: str = "nearest",
    nodata: float | None = None,
    chunks: int | tuple[int, int] = 512,
    times: Sequence[Any] | Callable[[str], Any] | None = None,
    name: str = "cube",
) -> xr.DataArray:
    """Open GeoTIFF or COG files as one lazy cube on one grid.

    Files of one time (all of them without ``times``) make one time step. They are painted in the order given
    (a folder's or a pattern's in order of name): where files overlap, the first that has data there wins, band by
    band, as in ``rasterio.merge``. A value is void in its own band only; ``schema.valid`` asks for all bands.

    Parameters
    ----------
    paths : path, list of paths, or mapping
        A file or URL, a folder (its ``*.tif`` and ``*.tiff``), a pattern such as ``"tiles/*.tif"``, or a list of files.
        A mapping from band name to any of these opens sensors that write one file a band, such as CBERS-4A.
    bands : sequence of str or int, or mapping, optional
        Which bands, in which order: their names, or their numbers in the file from 1; or a mapping from new name to
        number. Where the files name no bands, as many names as there are bands name them in order. Default: all.
    grid : GeoBox or DataArray, optional
        The grid to open on, or an image to be like. Default: the union of the files, in the CRS of most of them, on
        the pixels of the finest one in that CRS.
    resampling : str
        How files that do not lie on the grid (to 1e-3 pixel) are put there, as rasterio names it.
    nodata : float, optional
        The value that stands for void, instead of what each file declares.
    chunks : int or (int, int)
        Pixels of a chunk, (y, x). All bands are in one chunk.
    times : sequence or callable, optional
        The time of each file, or a function from path to time. With a mapping: a sequence as long as each band's
        list of files.
    name : str
        The name of the DataArray.

    Returns
    -------
    DataArray (time, band, y, x), lazy
        dtype as stored; files of several dtypes are opened in the one that numpy promotes them to. Floats are NaN
        where void. Integers hold ``_FillValue`` there: the given or first declared nodata; where no file declares
        one and the files leave a part of the grid bare, 0 (the lowest value for signed integers), so that pixels of
        that very value count as void. Integers whose files declare none and cover the grid have no ``_FillValue``.
        ``time`` has coordinates if ``times`` were given.

    Raises
    ------
    NotFound
        If a file is missing or nothing matches.
    Unreadable
        If a file is no raster or is cut short; the file is named. Also raised while computing.
    BadInput
        If files have no CRS, are rotated, differ in their number of bands, lack a band asked for, or if a nodata
        value is out of range of the dtype.

    Examples
    --------
    >>> cube = open({"blue": "L2A/*BAND1.tif", "nir": "L2A/*BAND4.tif"}, times=date_of)  # doctest: +SKIP
    """
    files = _files(paths)
    stamps = _stamps(files, times)
    headers = _headers([path for _, path in files], nodata)
    names, reads = _bands([group for group, _ in files], headers, bands)
    target = _target(headers, names, grid, resampling)
    steps = sorted(set(stamps))
    order = {stamp: step for step, stamp in enumerate(steps)}
    layers, step = [], []
    for header, stamp, (numbers, slots) in zip(headers, stamps, reads):
        if numbers:
            layers.append(_layer(header, numbers, slots, target))
            step.append(order[stamp])
    declared = _declared(target, layers, step, len(steps))
    target = replace(target, fill=0 if declared is None else declared)
    data = _lazy(target, layers, step, len(steps), chunks)
    coords = {"band": list(names)} | ({} if times is None else {"time": pd.DatetimeIndex(steps)})
    return schema.wrap(data, target.grid, schema.CUBE, name=name, coords=coords, nodata=declared)


def read_block(chunk: Chunk) -> np.ndarray:
    """Read one chunk: paint the files that touch it, the first on top.

    Parameters
    ----------
    chunk : Chunk

    Returns
    -------
    (1, band, y, x) array
        A read-only broadcast of the fill where no file touches the chunk.

    Raises
    ------
    Unreadable
        If a file cannot be read; it is named.
    """
    target, (top, left, bottom, right) = chunk.target, chunk.window
    shape, dtype = (target.bands, bottom - top, right - left), np.dtype(target.dtype)
    if not chunk.layers:
        return np.broadcast_to(dtype.type(target.fill), (1, *shape))
    image, bare = np.full(shape, target.fill, dtype), np.ones(shape, bool)
    for layer in chunk.layers:
        window = _common(layer.box, chunk.window)
        part = slice(window[0] - top, window[2] - top), slice(window[1] - left, window[3] - left)
        if any(bare[slot][part].any() for slot in layer.slots):
            values, known = _read(layer, window, target)
            paint_block(image[:, *part], bare[:, *part], values, known, layer.slots)
    return image[np.newaxis]


def paint_block(
    image: np.ndarray, bare: np.ndarray, values: np.ndarray, known: np.ndarray, slots: Sequence[int]
) -> None:
    """Put the known values where nothing is painted yet, in place, and mark them as painted.

    Parameters
    ----------
    image : (band, y, x) array
    bare : (band, y, x) bool
        Where nothing is painted yet.
    values : (n, y, x) array
    known : (n, y, x) bool
    slots : sequence of n int
        The band of ``image`` that each of the n bands goes to.
    """
    for slot, value, put in zip(slots, values, known):
        put = put & bare[slot]
        np.copyto(image[slot], value, where=put, casting="unsafe")
        bare[slot] &= ~put


def known_block(values: np.ndarray, nodata: float | None) -> np.ndarray:
    """Say which values of a file are data, by the rules at the top of this room.

    Parameters
    ----------
    values : array
    nodata : float or None

    Returns
    -------
    bool array of the same shape
    """
    if values.dtype.kind != "f":
        return schema.known_block(values, nodata)
    known = np.abs(values) < VOID_SIZE
    if nodata is not None and abs(nodata) < VOID_SIZE:
        known &= values != values.dtype.type(nodata)
    return known


# Files: from what the user names to headers


def _files(paths: Paths) -> list[tuple[str | None, str]]:
    """List (band name or None, path) of every file, in painting order."""
    if isinstance(paths, Mapping):
        return [(str(band), path) for band, given in paths.items() for path in _expand(given)]
    return [(None, path) for path in _expand(paths)]


def _expand(paths: PathLike | Sequence[PathLike]) -> list[str]:
    many = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found = [path for given in many for path in _expand_one(os.fspath(given))]
    if not found:
        raise NotFound(sentence("paths", "name at least one file", f"paths={paths!r}"))
    return found


def _expand_one(path: str) -> list[str]:
    if _remote(path) or os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        found = sorted(str(p) for p in Path(path).iterdir() if p.suffix.lower() in (".tif", ".tiff"))
        what = "hold *.tif or *.tiff files"
    else:
        found, what = sorted(p for p in glob.glob(path, recursive=True) if os.path.isfile(p)), "exist"
    if not found:
        raise NotFound(sentence("paths", what, f"{path!r}, where there are none", "Check the folder's name"))
    return found


def _remote(path: str) -> bool:
    return "://" in path or path.startswith("/vsi")


def _stamps(files: Sequence[tuple[str | None, str]], times: Any) -> list[pd.Timestamp]:
    """Give the time of every file: one and the same if there are no times."""
    if times is None:
        return [pd.Timestamp(0)] * len(files)
    if callable(times):
        return [_stamp(times(path), path) for _, path in files]
    given, counts = list(times), Counter(group for group, _ in files)
    if set(counts.values()) != {len(given)}:
        rule = "hold one time a file, as many as there are files (of each band)"
        raise BadInput(sentence("times", rule, f"{len(given)} times, {sorted(set(counts.values()))} files"))
    return [_stamp(time, path) for time, (_, path) in zip(given * len(counts), files)]


def _stamp(time: Any, path: str) -> pd.Timestamp:
    try:
        stamp = pd.Timestamp(time)
    except (TypeError, ValueError) as error:
        raise BadInput(sentence("times", "hold what pandas.Timestamp reads", f"{time!r} for {path}")) from error
    if pd.isna(stamp):
        raise BadInput(sentence("times", "hold a time for each file", f"{time!r} for {path}"))
    return stamp if stamp.tz is None else stamp.tz_convert("UTC").tz_localize(None)


def _headers(paths: Sequence[str], nodata: float | None) -> list[Header]:
    """Read the headers of all files at once; waiting for them is most of the time, so threads help."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(lambda path: _header(path, nodata), paths))


def _header(path: str, nodata: float | None) -> Header:
    with _reading(path), _opened(path, rasterio.open) as file:
        _refuse(file, path)
        return Header(
            path=path,
            crs=sys.intern(file.crs.to_wkt()),  # one text for ten thousand files travels once
            transform=file.transform,
            shape=file.shape,
            dtype=file.dtypes[0],
            names=tuple(text or "" for text in file.descriptions),
            nodata=_nodata(file, path, nodata),
            masked=MaskFlags.per_dataset in file.mask_flag_enums[0],
            stamp=_fingerprint(path),
        )


def _refuse(file: Any, path: str) -> None:
    """Raise unless the file is whole and lies straight in a CRS."""
    if _cut_short(file, path):
        raise Unreadable(sentence(path, "be whole", "a file cut short", "Fetch it again"))
    if file.transform.b or file.transform.d or file.transform.a <= 0 or file.transform.e >= 0:
        got = f"the transform {tuple(file.transform)[:6]}"
        raise BadInput(sentence(path, "lie north up, without rotation", got, "Warp it first: gdalwarp IN OUT"))
    if not file.crs:
        raise BadInput(sentence(path, "have a CRS", "none", "Write it first: gdal_edit.py -a_srs EPSG:... FILE"))
    if np.dtype(file.dtypes[0]).kind not in "iuf":
        raise BadInput(sentence(path, "hold whole or real numbers", f"dtype={file.dtypes[0]}"))


def _cut_short(file: Any, path: str) -> bool:
    """Say whether the last block of a local GeoTIFF ends behind the file's own end."""
    if file.driver != "GTiff" or not os.path.isfile(path):
        return False
    (height, width), (rows, columns) = file.shape, file.block_shapes[-1]
    block = f"{(width - 1) // columns}_{(height - 1) // rows}"
    offset = file.get_tag_item(f"BLOCK_OFFSET_{block}", "TIFF", bidx=file.count)
    size = file.get_tag_item(f"BLOCK_SIZE_{block}", "TIFF", bidx=file.count)
    return bool(offset and size) and int(offset) + int(size) > os.path.getsize(path)


def _nodata(file: Any, path: str, given: float | None) -> float | None:
    """Give the file's nodata, or the one given; refuse what its dtype cannot hold."""
    declared = set(file.nodatavals) if given is None else {given}
    if len(declared) > 1 and not all(value is not None and np.isnan(value) for value in declared):
        rule = "declare one nodata for all its bands"
        raise BadInput(sentence(path, rule, f"{file.nodatavals}", "Pass nodata=..."))
    value, name = declared.pop(), "nodata" if given is not None else f"the nodata declared in {path}"
    dtype = np.dtype(file.dtypes[0])
    if value is None or dtype.kind == "f":
        return value
    limits = np.iinfo(dtype)
    if not (float(value).is_integer() and limits.min <= value <= limits.max):
        rule = f"be a whole number from {limits.min} to {limits.max}, the range of its {dtype}"
        raise BadInput(sentence(name, rule, f"nodata={value:g}", "Pass nodata=... to say what stands for void"))
    return value


def _fingerprint(path: str) -> tuple[int, ...]:
    if not os.path.isfile(path):
        return ()
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


class _Pixels(DatasetReader):
    """A file opened for its pixels alone: working out the CRS takes 30 times as long as the rest of opening."""

    def read_crs(self) -> None:
        """Leave the CRS unread."""


@contextmanager
def _opened(path: str, reader: Callable[[str], Any]) -> Iterator[Any]:
    """Open a file without listing its folder, which for ten thousand tiles would be most of the work."""
    quick = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR" if _remote(path) else "TRUE"}
    patient = {"GDAL_HTTP_MAX_RETRY": "3", "GDAL_HTTP_RETRY_DELAY": "1"} if _remote(path) else {}
    with rasterio.Env(**quick, **patient), reader(path) as file:
        yield file


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Name the file in whatever goes wrong while it is read."""
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        raise Unreadable(sentence(path, "be a raster that can be read", str(error))) from error


# Bands: which of them, where they go, and their names


def _bands(
    groups: Sequence[str | None], headers: Sequence[Header], bands: Any
) -> tuple[tuple[str, ...], list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """Give the names of the cube's bands and, for each file, its bands to read (from 1) and their slots in the cube."""
    counts = Counter(len(header.names) for header in headers)
    if groups[0] is None:
        _same_count(headers, counts)
        names, numbers = _choose(_file_names(headers), counts.popitem()[0], bands, named=_named(headers))
        return names, [(numbers, tuple(range(len(names))))] * len(headers)
    for header in headers:
        if len(header.names) != 1:
            rule = "hold one band, as paths names it by that band"
            raise BadInput(sentence(header.path, rule, f"{len(header.names)} bands"))
    keys = tuple(dict.fromkeys(str(group) for group in groups))
    names, numbers = _choose(keys, len(keys), bands, named=True)
    slots: dict[str | None, tuple[int, ...]] = {key: () for key in keys}
    for slot, number in enumerate(numbers):
        slots[keys[number - 1]] += (slot,)
    return names, [((1,) * len(slots[group]), slots[group]) for group in groups]


def _same_count(headers: Sequence[Header], counts: Counter[int]) -> None:
    if len(counts) > 1:
        usual = counts.most_common(1)[0][0]
        odd = next(header for header in headers if len(header.names) != usual)
        rule = f"have {usual} bands, as the other files"
        raise BadInput(sentence(odd.path, rule, f"{len(odd.names)}", "Open them apart, or pass a mapping by band"))


def _named(headers: Sequence[Header]) -> bool:
    """Say whether the files name their bands, all of them, and all alike."""
    names = headers[0].names
    return all(names) and len(set(names)) == len(names) and all(header.names == names for header in headers)


def _file_names(headers: Sequence[Header]) -> tuple[str, ...]:
    return headers[0].names if _named(headers) else tuple(f"band_{i + 1}" for i in range(len(headers[0].names)))


def _choose(names: tuple[str, ...], count: int, bands: Any, *, named: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Give the names and numbers (from 1) of the bands asked for."""
    if bands is None:
        return names, tuple(range(1, count + 1))
    if isinstance(bands, Mapping):
        return tuple(str(name) for name in bands), tuple(_number(names, number) for number in bands.values())
    asked = [bands] if isinstance(bands, str | int) else list(bands)
    if not asked or len(set(asked)) != len(asked):
        raise BadInput(sentence("bands", "name one band or more, each once", f"bands={asked}"))
    if not named and len(asked) == count and all(isinstance(b, str) and b not in names for b in asked):
        return tuple(map(str, asked)), tuple(range(1, count + 1))
    numbers = tuple(_number(names, band) for band in asked)
    return tuple(names[number - 1] for number in numbers), numbers


def _number(names: tuple[str, ...], band: Any) -> int:
    if band in names:
        return names.index(band) + 1
    if isinstance(band, int | np.integer) and 1 <= band <= len(names):
        return int(band)
    rule = f"name bands of the files, which have {len(names)}: {', '.join(names)}"
    raise BadInput(sentence("bands", rule, repr(band), f"Pass some of these, or numbers from 1 to {len(names)}"))


# The grid, and where each file lies on it


def _target(headers: Sequence[Header], names: Sequence[str], grid: Any, resampling: str) -> Target:
    if resampling not in Resampling.__members__ or resampling == "gauss":
        known = ", ".join(name for name in Resampling.__members__ if name != "gauss")
        raise BadInput(sentence("resampling", f"be one of {known}", f"resampling={resampling!r}"))
    box = _union(headers) if grid is None else schema.geobox(grid, "grid") if isinstance(grid, xr.DataArray) else grid
    if not isinstance(box, GeoBox) or box.crs is None:
        raise BadInput(sentence("grid", "be a GeoBox with a CRS, or a DataArray", f"{grid!r}"))
    if box.transform.b or box.transform.d or box.transform.a <= 0 or box.transform.e >= 0:
        raise BadInput(sentence("grid", "lie north up, without rotation", f"{tuple(box.transform)[:6]}"))
    dtype = np.result_type(*sorted({header.dtype for header in headers}))
    return Target(
        str(box.crs.to_wkt()), box.transform, (box.shape[0], box.shape[1]), len(names), dtype.str, 0, resampling
    )


def _union(headers: Sequence[Header]) -> GeoBox:
    """Give the union of the files on the pixels of the finest one in the CRS of most of them."""
    alike = _same_crs({header.crs for header in headers})
    counts = Counter(alike[header.crs] for header in headers)
    crs = counts.most_common(1)[0][0]
    finest = min((h for h in headers if alike[h.crs] == crs), key=lambda h: abs(h.transform.a * h.transform.e))
    boxes = np.array([_box(_extent(h, finest.transform, crs), h, crs) for h in headers])
    (top, left), (bottom, right) = boxes[:, :2].min(0).tolist(), boxes[:, 2:].max(0).tolist()
    return GeoBox((bottom - top, right - left), finest.transform @ Affine.translation(left, top), crs)


def _same_crs(texts: set[str]) -> dict[str, str]:
    """Map every CRS text to one that stands for all that mean the same."""
    alike: dict[str, str] = {}
    for text in sorted(texts):
        alike[text] = next((other for other in alike.values() if _equal(other, text)), text)
    return alike


@lru_cache(maxsize=1024)
def _equal(one: str, other: str) -> bool:
    """Say whether two CRS texts mean the same; comparing takes longer than opening a file."""
    return one == other or CRS.from_wkt(one) == CRS.from_wkt(other)


def _layer(header: Header, numbers: tuple[int, ...], slots: tuple[int, ...], target: Target) -> Layer:
    extent = _extent(header, target.transform, target.crs)
    box = _box(extent, header, target.crs)
    (top, left, bottom, right), (height, width) = extent, header.shape
    exact = _equal(header.crs, target.crs) and max(abs(np.subtract(extent, box))) < ON_GRID
    exact = exact and (box[2] - box[0], box[3] - box[1]) == header.shape
    return Layer(header, numbers, slots, box, bool(exact), ((bottom - top) / height, (right - left) / width))


def _extent(header: Header, transform: Affine, crs: str) -> tuple[float, float, float, float]:
    """Give (top, left, bottom, right) of a file in pixels of a grid."""
    height, width = header.shape
    inverse = ~transform
    if _equal(header.crs, crs):
        place = inverse @ header.transform
        return place.f, place.c, place.f + place.e * height, place.c + place.a * width
    west, south, east, north = _bounds(header, crs)
    (left, top), (right, bottom) = inverse @ (west, north), inverse @ (east, south)
    return top, left, bottom, right


def _box(extent: Sequence[float], header: Header, crs: str) -> Box:
    """Round an extent outward, but not for a thousandth of a pixel; bounds in another CRS get a pixel more."""
    top, left, bottom, right = extent
    margin = 0 if _equal(header.crs, crs) else 1
    return (
        math.floor(top + ON_GRID) - margin,
        math.floor(left + ON_GRID) - margin,
        math.ceil(bottom - ON_GRID) + margin,
        math.ceil(right - ON_GRID) + margin,
    )


def _bounds(header: Header, crs: str) -> tuple[float, float, float, float]:
    """Give (left, bottom, right, top) of a file in another CRS."""
    height, width = header.shape
    (left, top), (right, bottom) = header.transform @ (0, 0), header.transform @ (width, height)
    try:
        bounds = transform_bounds(CRS.from_wkt(header.crs), CRS.from_wkt(crs), left, bottom, right, top, densify_pts=21)
    except (RasterioError, CPLE_BaseError, CRSError) as error:
        bounds = (np.nan,) * 4
        reason = str(error)
    else:
        reason = f"bounds {bounds}"
    if not np.isfinite(bounds).all() or bounds[0] >= bounds[2]:
        do = "Pass grid= in a CRS that holds all files"
        raise BadInput(sentence(header.path, "lie within the CRS of the grid", reason, do))
    return bounds


def _common(one: Box, other: Box) -> Box:
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


# The cube: one task a chunk


class _Chunks(BlockwiseDep):
    """Gives the task of each chunk when Dask asks for it, so that a graph of any size is a list of files."""

    produces_tasks = False

    def __init__(
        self, target: Target, layers: Sequence[Layer], step: Sequence[int], steps: int, chunks: tuple[int, int]
    ) -> None:
        self.target, self.layers, self.chunks = target, tuple(layers), chunks
        self.boxes = np.array([layer.box for layer in layers], dtype="int64").reshape(-1, 4)
        self.step = np.asarray(step, dtype="int64")
        self.numblocks = (steps, 1, *(-(-size // side) for size, side in zip(target.shape, chunks)))

    def __getitem__(self, idx: tuple[int, ...]) -> Chunk:
        step, _, row, column = idx
        top, left = row * self.chunks[0], column * self.chunks[1]
        bottom = min(top + self.chunks[0], self.target.shape[0])
        right = min(left + self.chunks[1], self.target.shape[1])
        starts, stops = self.boxes[:, :2], self.boxes[:, 2:]
        touches = (starts < (bottom, right)).all(axis=1) & (stops > (top, left)).all(axis=1) & (self.step == step)
        layers = tuple(self.layers[i] for i in np.flatnonzero(touches))
        return Chunk(self.target, (top, left, bottom, right), layers)


def _lazy(target: Target, layers: Sequence[Layer], step: Sequence[int], steps: int, chunks: Any) -> da.Array:
    """Make the Dask array (time, band, y, x) whose chunks ``read_block`` reads."""
    sides = (chunks, chunks) if isinstance(chunks, int | np.integer) else tuple(chunks)
    if len(sides) != 2 or any(not isinstance(side, int | np.integer) or side < 1 for side in sides):
        raise BadInput(sentence("chunks", "be one or two positive numbers of pixels", f"chunks={chunks!r}"))
    height, width = (min(int(side), size) for side, size in zip(sides, target.shape))
    places = _Chunks(target, layers, step, steps, (height, width))
    name = "scenes-" + tokenize(repr((target, layers, step, height, width)))  # as text: a tenth of the time
    layer = blockwise(read_block, name, "tbyx", places, "tbyx", numblocks={}, concatenate=True)
    sizes = da.core.normalize_chunks((1, -1, height, width), (steps, target.bands, *target.shape))
    graph = HighLevelGraph.from_collections(name, layer)
    return da.Array(graph, name, chunks=sizes, meta=np.empty((0, 0, 0, 0), np.dtype(target.dtype)))


def _declared(target: Target, layers: Sequence[Layer], step: Sequence[int], steps: int) -> float | None:
    """Give the value that stands for void in the cube, or None if no pixel can be void."""
    dtype = np.dtype(target.dtype)
    if dtype.kind == "f":
        return float("nan")
    first = next((layer.header.nodata for layer in layers if layer.header.nodata is not None), None)
    if first is not None or (_covered(target, layers, step, steps) and not any(la.header.masked for la in layers)):
        return first
    return 0 if dtype.kind == "u" else int(np.iinfo(dtype).min)


def _covered(target: Target, layers: Sequence[Layer], step: Sequence[int], steps: int) -> bool:
    """Say whether files on the grid leave no pixel of it bare, at any time, in any band."""
    height, width = target.shape
    boxes: dict[tuple[int, int], list[Any]] = {}
    for layer, number in zip(layers, step):
        top, left, bottom, right = _common(layer.box, (0, 0, height, width))
        if layer.exact and top < bottom and left < right:
            for slot in layer.slots:
                boxes.setdefault((number, slot), []).append(shapely.box(left, top, right, bottom))
    if len(boxes) < steps * target.bands:
        return False
    return all(shapely.union_all(parts).area >= height * width - 0.5 for parts in boxes.values())


# Pixels


def _read(layer: Layer, window: Box, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Read a window of the grid from one file: values (n, y, x) in the file's dtype, and where they are data."""
    with _reading(layer.header.path), _opened(layer.header.path, _Pixels) as file:
        return _cut(file, layer, window) if layer.exact else _warp(file, layer, window, target)


def _cut(file: Any, layer: Layer, window: Box) -> tuple[np.ndarray, np.ndarray]:
    top, left, bottom, right = window
    part = Window(left - layer.box[1], top - layer.box[0], right - left, bottom - top)
    values = file.read(list(layer.bands), window=part)
    known = known_block(values, layer.header.nodata)
    if layer.header.masked:
        known &= file.read_masks(1, window=part) > 0
    return values, known


def _warp(file: Any, layer: Layer, window: Box, target: Target) -> tuple[np.ndarray, np.ndarray]:
    top, left, bottom, right = window
    floats = np.dtype(layer.header.dtype).kind == "f"
    nodata = layer.header.nodata
    if floats and nodata is None:
        nodata = float(np.finfo("float32").min)
    if nodata is not None:
        void: dict[str, Any] = {"src_nodata": nodata, "nodata": float("nan") if floats else nodata}
    else:
        void = {"add_alpha": ColorInterp.alpha not in file.colorinterp}
    with WarpedVRT(
        file,
        src_crs=CRS.from_wkt(layer.header.crs),
        crs=CRS.from_wkt(target.crs),
        transform=target.transform @ Affine.translation(left, top),
        width=right - left,
        height=bottom - top,
        resampling=Resampling[target.resampling],
        tolerance=EXACT,
        **void,
        XSCALE=repr(layer.scale[1]),  # else GDAL takes them from each window, and chunks would show
        YSCALE=repr(layer.scale[0]),
        UNIFIED_SRC_NODATA="PARTIAL",  # a band void by itself is left out by itself, and never mixed in
    ) as warped:
        values = warped.read(list(layer.bands))
        known = known_block(values, layer.header.nodata)
        return values, known if nodata is not None else known & (warped.read_masks(1) > 0)

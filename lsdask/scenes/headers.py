"""Headers: what a raster file says of itself, read with care for remote files and for files that are broken."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from lsdask.errors import BadInput, Unreadable, sentence

LOCAL = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
"""GDAL's settings for local files: listing the folder would, for ten thousand tiles, be most of the work."""

REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "100",
    "GDAL_HTTP_TIMEOUT": "120",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
}
"""GDAL's settings for files behind a URL: how many seconds to wait for a connection, for a server that has fallen
silent (fewer than 100 bytes/s), and for one answer; how often to ask again, and how long to wait before, which GDAL
doubles and more each time. A setting of an outer ``rasterio.Env`` or of the environment goes before these."""

FORGET = {"CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/"}
"""GDAL's setting to ask the server again. It remembers for as long as the process lives that a file could not be
read, or how long it was, so that a retry would fail without asking, also after the server is well again."""

_failed: set[str] = set()
"""The remote files whose last reading in this process failed, which GDAL must forget."""


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


def read(paths: Sequence[str], nodata: float | None = None) -> list[Header]:
    """Read the headers of all files at once; waiting for them is most of the time, so threads help.

    Parameters
    ----------
    paths : sequence of str
    nodata : float, optional
        The value that stands for void, instead of what each file declares.

    Raises
    ------
    Unreadable
        If a file is no raster, or is cut short; it is named.
    BadInput
        If a file has no CRS, is rotated, or declares a nodata value that its dtype cannot hold.
    """
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(lambda path: _read_one(path, nodata), paths))


def _read_one(path: str, nodata: float | None) -> Header:
    with opened(path, rasterio.open) as file:
        return of(file, path, nodata=nodata)


def of(file: Any, path: str, *, nodata: float | None = None, fallback: float | None = None) -> Header:
    """Give the header of an open file, or raise as ``read`` does.

    Parameters
    ----------
    file : rasterio.DatasetReader
    path : str
        Its name in the header and in errors.
    nodata : float, optional
        The value that stands for void, instead of what the file declares.
    fallback : float, optional
        The value that stands for void if the file declares nothing.
    """
    _refuse(file, path)
    declared = _nodata(file, path, nodata)
    return Header(
        path=path,
        crs=sys.intern(file.crs.to_wkt()),  # one text for ten thousand files travels once
        transform=file.transform,
        shape=file.shape,
        dtype=file.dtypes[0],
        names=tuple(text or "" for text in file.descriptions),
        nodata=fallback if declared is None else declared,
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


# Opening


class Pixels(DatasetReader):
    """A file opened for its pixels alone, when its CRS is known: working that out is most of opening."""

    def read_crs(self) -> None:
        """Leave the CRS unread."""


def is_remote(path: str) -> bool:
    """Say whether GDAL reads a path over the network, or from inside another file, rather than from disk."""
    return "://" in path or path.startswith("/vsi")


@contextmanager
def opened(path: str, reader: Callable[..., Any], **options: Any) -> Iterator[Any]:
    """Open a file, and name it in whatever goes wrong while it is open.

    Parameters
    ----------
    path : str
    reader : callable of a path
        ``rasterio.open``, or ``Pixels``.
    **options
        Of the file's driver, such as ``overview_level``.

    Raises
    ------
    Unreadable
        If the file cannot be opened or read, after the retries of ``REMOTE``.
    """
    try:
        with rasterio.Env(**_settings(path)), reader(path, **options) as file:
            yield file
    except (RasterioError, CPLE_BaseError) as error:
        if is_remote(path):
            _failed.add(path)
        raise Unreadable(sentence(path, "be a raster that can be read", _why(error))) from error
    _failed.discard(path)


def _settings(path: str) -> dict[str, str]:
    """Give GDAL's settings for a path, but for those that the user has made."""
    outer = rasterio.env.getenv() if rasterio.env.hasenv() else {}
    settings = REMOTE if is_remote(path) else LOCAL
    settings = settings | FORGET if path in _failed else settings
    return {key: value for key, value in settings.items() if key not in outer and key not in os.environ}


def _why(error: BaseException) -> str:
    """Join the reasons of an error and of what caused it, the last word first, each once."""
    reasons: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).strip().rstrip(".")
        if text and not any(text in reason for reason in reasons):
            reasons.append(text)
        cause = cause.__cause__ or cause.__context__
    return ": ".join(reasons)

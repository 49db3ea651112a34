"""Folders of small images and masks, as one image of which each file is a chunk."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import rasterio
import xarray as xr
from dask._task_spec import Task
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from lsdask import schema
from lsdask.errors import BadInput, NotFound, Unreadable, sentence
from lsdask.graphs import Chunked, Key, Node
from lsdask.schema import UNKNOWN

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Kind:
    """What all files of a stack have in common: dtype, band names, nodata, and size (y, x) in pixels."""

    dtype: str
    bands: tuple[str, ...]
    nodata: float | int | None
    shape: tuple[int, int]


def pairs(images: Paths, masks: Paths | None) -> tuple[list[Path], list[Path] | None]:
    """Pair images with the masks of the same names.

    Raises
    ------
    NotFound, BadInput
        If there are no files, a name comes twice, or an image or a mask is without the other.
    """
    files = files_of(images, "images")
    if masks is None:
        return files, None
    stems, truths = _stems(files, "images"), _stems(files_of(masks, "masks"), "masks")
    for alone, of in ((stems.keys() - truths.keys(), "mask"), (truths.keys() - stems.keys(), "image")):
        if alone:
            got = f"no {of} for {_few(alone)}"
            raise BadInput(sentence("masks", "be of the same names as images", got, "Pass the files of both as lists"))
    return files, [truths[file.stem] for file in files]


def files_of(paths: Paths, name: str) -> list[Path]:
    """List the image files of a folder by name, or take those given."""
    if not isinstance(paths, str | Path):
        files = [Path(path) for path in paths]
    elif Path(paths).is_dir():
        files = sorted(file for file in Path(paths).iterdir() if file.suffix.lower() in SUFFIXES)
    else:
        raise NotFound(sentence(name, "name a folder, or be a list of files", f"{name}={paths}, where there is none"))
    if not files:
        raise NotFound(sentence(name, f"hold files ending in {', '.join(SUFFIXES)}", f"none in {paths}"))
    return files


def _stems(files: list[Path], name: str) -> dict[str, Path]:
    twice = {stem for stem, times in Counter(file.stem for file in files).items() if times > 1}
    if twice:
        raise BadInput(sentence(name, "have a name only once", f"{_few(twice)} twice"))
    return {file.stem: file for file in files}


def _few(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def stack(images: Paths, *, size: int | None = None) -> xr.DataArray:
    """Lay image files one under the other, each a chunk, as one lazy image: as ``statistics.bands`` takes it.

    Every file's header is read now, its pixels when they are needed.

    Parameters
    ----------
    images : path, or sequence of paths
        A folder of PNG, JPEG or TIFF files, or the files.
    size : int, optional
        Resize every file to ``size`` x ``size`` pixels, bilinear; a pixel that mixes void with data is void or data
        as GDAL decides. Without it all must be of one size.

    Returns
    -------
    DataArray (band, file * y, x), as stored, without CRS or coordinates but the bands'

    Raises
    ------
    NotFound, BadInput
        If there are no files, or they differ in size, dtype, bands or nodata, or have palettes.
    """
    files = files_of(images, "images")
    kinds = [_kind(file, size) for file in files]
    for file, kind in zip(files, kinds):
        if kind != kinds[0]:
            do = "" if kind.shape == kinds[0].shape else "Pass size= to resize them"
            rule = f"all be as {files[0].name}, {_text(kinds[0])}"
            raise BadInput(sentence("images", rule, f"{file.name}, {_text(kind)}", do))
    kind = kinds[0]
    data = _lazy(read_image_block, files, (len(kind.bands), *kind.shape), kind.dtype, kind)
    void = None if kind.nodata is None or data.dtype.kind == "f" else data.dtype.type(kind.nodata)
    attrs = {} if void is None else {"_FillValue": void}
    return xr.DataArray(data, dims=schema.MOSAIC, coords={"band": list(kind.bands)}, attrs=attrs, name="images")


def stack_masks(
    files: Sequence[Path], shape: tuple[int, int], *, size: int | None, positive: int | None
) -> xr.DataArray:
    """Lay mask files one under the other, each a chunk, as one lazy mask.

    Parameters
    ----------
    files : sequence of Path
    shape : (int, int)
        Of an image, in pixels (y, x).
    size, positive
        As of ``TileStream.from_folder``.

    Returns
    -------
    DataArray (file * y, x) uint8

    Raises
    ------
    BadInput
        If a mask is of another size than the images, or of several bands or another dtype where ``positive`` is None.
    """
    for file in files:
        kind = _kind(file, size)
        if kind.shape != shape:
            rule = f"be of the images' size, {shape[0]} x {shape[1]} px"
            raise BadInput(sentence("masks", rule, f"{file.name}, {_text(kind)}", "Pass size= to resize both"))
        if positive is None and (len(kind.bands) > 1 or kind.dtype != "uint8"):
            do = "Pass positive=1 for masks of which all but 0 is landslide"
            raise BadInput(sentence("masks", "be uint8 of one band", f"{file.name}, {_text(kind)}", do))
    data = _lazy(read_mask_block, files, shape, "uint8", shape, positive)
    return xr.DataArray(data, dims=schema.MASK, name="masks")


def _kind(file: Path, size: int | None) -> Kind:
    """Read a file's header; of what size it will be."""
    with _opened(file) as image:
        if ColorInterp.palette in image.colorinterp:
            do = "Write it again in colours: PIL.Image.open(file).convert('RGB')"
            raise BadInput(sentence("images", "hold colours or numbers", f"{file.name}, which has a palette", do))
        shape = image.shape if size is None else (size, size)
        void = None if image.nodata is None or np.isnan(image.nodata) else image.nodata  # NaN is void undeclared
        return Kind(image.dtypes[0], _bands(image), void, (shape[0], shape[1]))


def _bands(image: Any) -> tuple[str, ...]:
    """Name the bands: as the file does, by their colours, or by number."""
    if all(image.descriptions):
        return tuple(image.descriptions)
    colours = [colour.name for colour in image.colorinterp]
    plain = len(set(colours)) == len(colours) and "undefined" not in colours
    return tuple(colours) if plain else tuple(f"band_{i + 1}" for i in range(image.count))


def _text(kind: Kind) -> str:
    void = "" if kind.nodata is None else f", nodata {kind.nodata:g}"
    return f"{kind.shape[0]} x {kind.shape[1]} px of {', '.join(kind.bands)} in {kind.dtype}{void}"


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with rasterio.Env(GDAL_PNG_WHOLE_IMAGE_OPTIM=False):  # which reads a torn PNG as zeros
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                image = rasterio.open(file)
            with image:
                yield image
    except RasterioError as error:
        raise Unreadable(f"{file} cannot be read: {error}") from error


def read_image_block(file: Path, kind: Kind) -> np.ndarray:
    """Read an image file, resized if it is of another size: (band, y, x), NaN where a float is void."""
    with _opened(file) as image:
        values = image.read(out_shape=(image.count, *kind.shape), resampling=Resampling.bilinear)
    if kind.nodata is not None and values.dtype.kind == "f":
        values[values == kind.nodata] = np.nan
    return values


def read_mask_block(file: Path, shape: tuple[int, int], positive: int | None) -> np.ndarray:
    """Read a mask file, to the nearest pixel if it is of another size: (y, x) uint8; what is transparent is 0.

    Raises
    ------
    BadInput
        If it holds 0, 1 and 255 alone and ``positive`` is 1: 255 may mean landslide or unknown.
    """
    with _opened(file) as image:
        values = image.read(out_shape=(image.count, *shape), resampling=Resampling.nearest)
        alpha = np.array([colour == ColorInterp.alpha for colour in image.colorinterp])
    values, drawn = values[~alpha], values[alpha].all(axis=0)
    if positive is None:
        return values[0]
    if positive == 1 and np.isin(values, (0, 1, UNKNOWN)).all() and {1, UNKNOWN} <= set(np.unique(values).tolist()):
        do = "Pass positive=None where 255 is unknown, or positive=2 where it is landslide"
        raise BadInput(sentence("masks", "say what 255 is beside 1", file.name, do))
    return ((values >= positive).any(axis=0) & drawn).astype("uint8")


class Files(Chunked):
    """A layer of one task a file, which lie one under the other."""

    def __init__(self, name: str, function: Callable[..., Any], files: Sequence[Path], ndim: int, *rest: Any) -> None:
        super().__init__(name, (*(1 for _ in range(ndim - 2)), len(files), 1))
        self.function, self.files, self.rest = function, files, rest

    def tasks(self, block: tuple[int, ...]) -> dict[Key, Node]:
        key = (self.name, *block)
        return {key: Task(key, self.function, self.files[block[-2]], *self.rest)}


def _lazy(
    function: Callable[..., Any], files: Sequence[Path], shape: tuple[int, ...], dtype: str, *rest: Any
) -> da.Array:
    """Make the array of which each file is a chunk of this shape."""
    times = [(file, file.stat().st_mtime_ns) for file in files]
    name = f"lsdask-files-{tokenize(function.__name__, times, *rest)}"
    graph = HighLevelGraph({name: Files(name, function, files, len(shape), *rest)}, {name: set()})
    chunks = (*((side,) for side in shape[:-2]), (shape[-2],) * len(files), (shape[-1],))
    return da.Array(graph, name, chunks=chunks, meta=np.empty((0,) * len(shape), dtype))

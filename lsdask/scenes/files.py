"""Files on disk or behind a URL become one lazy cube (time, band, y, x) on one grid.

Headers are read once, by a pool of threads; pixels are read later, chunk by chunk, in windows, and a chunk opens only
the files that touch it. ``painting`` says what counts as data.
"""

import glob
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox

from lsdask import schema
from lsdask.errors import BadInput, NotFound, sentence
from lsdask.scenes import headers, painting, placing
from lsdask.scenes.chunks import lazy
from lsdask.scenes.headers import Header
from lsdask.scenes.painting import Layer, Target
from lsdask.scenes.placing import Outline

PathLike = str | os.PathLike[str]
Paths = PathLike | Sequence[PathLike] | Mapping[str, Any]
Reads = tuple[tuple[int, ...], tuple[int, ...]]
"""The bands to read of a file, from 1, and where each goes in the cube."""


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
    found = headers.read([path for _, path in files], nodata)
    names, reads = _bands([group for group, _ in files], found, bands)
    steps = sorted(set(stamps))
    order = {stamp: step for step, stamp in enumerate(steps)}
    wanted = [number for number, (numbers, _) in enumerate(reads) if numbers]
    shape = painting.target(_grid(found, grid), len(names), _dtype(found), resampling=resampling)
    layers, step = _layers(found, reads, wanted, shape), [order[stamps[number]] for number in wanted]
    declared = _declared(shape, layers, step, len(steps))
    target = replace(shape, fill=0 if declared is None else declared)
    data = lazy(target, layers, step, len(steps), chunks)
    coords = {"band": list(names)} | ({} if times is None else {"time": pd.DatetimeIndex(steps)})
    return schema.wrap(data, target.grid, schema.CUBE, name=name, coords=coords, nodata=declared)


# Files and times: from what the user names to paths


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
    if headers.is_remote(path) or os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        found = sorted(str(p) for p in Path(path).iterdir() if p.suffix.lower() in (".tif", ".tiff"))
        what = "hold *.tif or *.tiff files"
    else:
        found, what = sorted(p for p in glob.glob(path, recursive=True) if os.path.isfile(p)), "exist"
    if not found:
        raise NotFound(sentence("paths", what, f"{path!r}, where there are none", "Check the folder's name"))
    return found


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


# Bands: which of them, where they go, and their names


def _bands(groups: Sequence[str | None], found: Sequence[Header], bands: Any) -> tuple[tuple[str, ...], list[Reads]]:
    """Give the names of the cube's bands and, for each file, its bands to read (from 1) and their slots in the cube."""
    counts = Counter(len(header.names) for header in found)
    if groups[0] is None:
        _same_count(found, counts)
        names, numbers = _choose(_file_names(found), counts.popitem()[0], bands, named=_named(found))
        return names, [(numbers, tuple(range(len(names))))] * len(found)
    for header in found:
        if len(header.names) != 1:
            rule = "hold one band, as paths names it by that band"
            raise BadInput(sentence(header.path, rule, f"{len(header.names)} bands"))
    keys = tuple(dict.fromkeys(str(group) for group in groups))
    names, numbers = _choose(keys, len(keys), bands, named=True)
    slots: dict[str | None, tuple[int, ...]] = {key: () for key in keys}
    for slot, number in enumerate(numbers):
        slots[keys[number - 1]] += (slot,)
    return names, [((1,) * len(slots[group]), slots[group]) for group in groups]


def _same_count(found: Sequence[Header], counts: Counter[int]) -> None:
    if len(counts) > 1:
        usual = counts.most_common(1)[0][0]
        odd = next(header for header in found if len(header.names) != usual)
        rule = f"have {usual} bands, as the other files"
        raise BadInput(sentence(odd.path, rule, f"{len(odd.names)}", "Open them apart, or pass a mapping by band"))


def _named(found: Sequence[Header]) -> bool:
    """Say whether the files name their bands, all of them, and all alike."""
    names = found[0].names
    return all(names) and len(set(names)) == len(names) and all(header.names == names for header in found)


def _file_names(found: Sequence[Header]) -> tuple[str, ...]:
    return found[0].names if _named(found) else tuple(f"band_{i + 1}" for i in range(len(found[0].names)))


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


def _grid(found: Sequence[Header], grid: Any) -> Any:
    if grid is None:
        return placing.union([_outline(header) for header in found], [header.path for header in found])
    return schema.geobox(grid, "grid") if isinstance(grid, xr.DataArray) else grid


def _outline(header: Header) -> Outline:
    return Outline(header.crs, header.transform, header.shape)


def _dtype(found: Sequence[Header]) -> np.dtype:
    return np.result_type(*sorted({header.dtype for header in found}))


def _layers(found: Sequence[Header], reads: Sequence[Reads], wanted: Sequence[int], target: Target) -> list[Layer]:
    boxes = placing.boxes([_outline(found[number]) for number in wanted], target.outline).tolist()
    return [
        Layer(found[number].path, *reads[number], tuple(box), header=found[number])
        for number, box in zip(wanted, boxes)
    ]


def _declared(target: Target, layers: Sequence[Layer], step: Sequence[int], steps: int) -> float | None:
    """Give the value that stands for void in the cube, or None if no pixel can be void."""
    dtype = np.dtype(target.dtype)
    if dtype.kind == "f":
        return float("nan")
    told = [layer.header for layer in layers if layer.header is not None]
    first = next((header.nodata for header in told if header.nodata is not None), None)
    if first is not None or (_covered(target, layers, step, steps) and not any(header.masked for header in told)):
        return first
    return 0 if dtype.kind == "u" else int(np.iinfo(dtype).min)


def _covered(target: Target, layers: Sequence[Layer], step: Sequence[int], steps: int) -> bool:
    """Say whether files on the grid leave no pixel of it bare, at any time, in any band."""
    boxes: dict[tuple[int, int], list[Any]] = {}
    for layer, number in zip(layers, step):
        if layer.header is not None and painting.place(_outline(layer.header), target)[1]:
            for slot in layer.slots:
                boxes.setdefault((number, slot), []).append(layer.box)
    if len(boxes) < steps * target.bands:
        return False
    return all(placing.covers(parts, target.shape) for parts in boxes.values())

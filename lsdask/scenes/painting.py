"""Painting: the pixels of one chunk, read from the files that touch it and laid on each other.

What counts as data, value by value:

- integers: what differs from the file's nodata, declared in it or given; and what its mask or alpha band shows.
- floats: what is finite, below 1e30 in size, and differs from the file's nodata. The lowest float32
  (-3.4028235e38, which ESRI's software writes for void) is thus void, declared or not, and so are infinities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from lsdask import schema
from lsdask.errors import BadInput, Unreadable, sentence
from lsdask.scenes import headers, placing
from lsdask.scenes.headers import Header
from lsdask.scenes.placing import ON_GRID, Box, Outline

VOID_SIZE = 1e30
"""A float of this size or larger is no measurement: it is the lowest float32 in one of its customary writings
(-3.4028235e38, -3.4e38), or what interpolating between it and a neighbour left of it."""

EXACT = 1e-12
"""The warper's tolerance in pixels. Its default, 0.125, makes a pixel depend on its chunk; 0 fails in rasterio 1.5."""


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
    overviews : bool
        Whether a file much finer than the grid may be read from its overviews; never with ``"nearest"``.
    """

    crs: str
    transform: Affine
    shape: tuple[int, int]
    bands: int
    dtype: str
    fill: float | int
    resampling: str
    overviews: bool = False

    @property
    def grid(self) -> GeoBox:
        """The grid of the cube."""
        return GeoBox(self.shape, self.transform, self.crs)

    @property
    def outline(self) -> Outline:
        """The grid of the cube, for ``placing``."""
        return Outline(self.crs, self.transform, self.shape)


@dataclass(frozen=True)
class Layer:
    """One file in its place on the grid.

    Attributes
    ----------
    path : str
    bands : tuple of int
        The file's bands to read, from 1.
    slots : tuple of int
        Where each of them goes in the cube.
    box : (top, left, bottom, right)
        The pixels of the grid that it may touch.
    header : Header or None
        None if it is read only when the pixels are.
    fallback : float or None
        What stands for void if ``header`` is None and the file declares nothing.
    declared : bool
        Whether ``box`` is from a statement of where the file's pixels lie, which then must be true.
    """

    path: str
    bands: tuple[int, ...]
    slots: tuple[int, ...]
    box: Box
    header: Header | None = None
    fallback: float | None = None
    declared: bool = False


@dataclass(frozen=True)
class Chunk:
    """One task: a window (top, left, bottom, right) of the grid, and the files that touch it in painting order."""

    target: Target
    window: Box
    layers: tuple[Layer, ...]


def target(
    grid: GeoBox, bands: int, dtype: Any, *, resampling: str, fill: float | int = 0, overviews: bool = False
) -> Target:
    """Describe a cube, or raise BadInput if its grid or resampling is none that files can be put on."""
    if resampling not in Resampling.__members__ or resampling == "gauss":
        known = ", ".join(name for name in Resampling.__members__ if name != "gauss")
        raise BadInput(sentence("resampling", f"be one of {known}", f"resampling={resampling!r}"))
    if not isinstance(grid, GeoBox) or grid.crs is None:
        raise BadInput(sentence("grid", "be a GeoBox with a CRS, or a DataArray", f"{grid!r}"))
    if grid.transform.b or grid.transform.d or grid.transform.a <= 0 or grid.transform.e >= 0:
        raise BadInput(sentence("grid", "lie north up, without rotation", f"{tuple(grid.transform)[:6]}"))
    shape = grid.shape[0], grid.shape[1]
    return Target(
        str(grid.crs.to_wkt()), grid.transform, shape, bands, np.dtype(dtype).str, fill, resampling, overviews
    )


def read_block(chunk: Chunk) -> np.ndarray:
    """Read one chunk: paint the files that touch it, the first on top.

    Parameters
    ----------
    chunk : Chunk

    Returns
    -------
    (1, band, y, x) array
        A read-only broadcast of the fill, of no size in memory, where no file touches the chunk.

    Raises
    ------
    Unreadable
        If a file cannot be read; it is named.
    BadInput
        If a file holds values that the cube's dtype cannot.
    """
    target, (top, left, bottom, right) = chunk.target, chunk.window
    shape, dtype = (target.bands, bottom - top, right - left), np.dtype(target.dtype)
    if not chunk.layers:
        return np.broadcast_to(dtype.type(target.fill), (1, *shape))
    image, bare = np.full(shape, target.fill, dtype), np.ones(shape, bool)
    for layer in chunk.layers:
        part = _part(placing.common(layer.box, chunk.window), chunk.window)
        if any(bare[slot][part].any() for slot in layer.slots):
            window, values, known = _read(layer, chunk.window, target)
            part = _part(window, chunk.window)
            paint_block(image[:, *part], bare[:, *part], values, known, layer.slots)
    return image[np.newaxis]


def _part(box: Box, window: Box) -> tuple[slice, slice]:
    """Give a box of the grid as slices of a window."""
    return slice(box[0] - window[0], box[2] - window[0]), slice(box[1] - window[1], box[3] - window[1])


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


# One file


def _read(layer: Layer, window: Box, target: Target) -> tuple[Box, np.ndarray, np.ndarray]:
    """Read a window of the grid from one file: the box that it fills of it, values (n, y, x) in the file's dtype, and
    where they are data."""
    with headers.opened(layer.path, rasterio.open if layer.header is None else headers.Pixels) as file:
        header = layer.header or headers.of(file, layer.path, fallback=layer.fallback)
        _check_bands(layer, header)
        outline = placing.turn(Outline(header.crs, header.transform, header.shape), target.outline)
        whole, exact = place(outline, target)
        _check_place(layer, whole)
        box = placing.common(whole, window)
        if box[0] >= box[2] or box[1] >= box[3]:
            return _nothing(layer, window, header)
        if exact:
            values, known = _cut(file, layer, header, whole, box)
        else:
            values, known = _warp(file, layer, header, outline, box, target)
    _check_values(layer.path, values, known, target)
    return box, values, known


def place(outline: Outline, target: Target) -> tuple[Box, bool]:
    """Give the pixels of the grid that a file may touch, and whether its pixels are the grid's, so that no warping
    is needed."""
    extent = placing.extents([outline], target.outline)
    same = placing.equal(outline.crs, target.crs)
    top, left, bottom, right = placing.rounded(extent, 0 if same else 1)[0].tolist()
    box = (top, left, bottom, right)
    exact = same and (bottom - top, right - left) == outline.shape and np.abs(extent[0] - box).max() < ON_GRID
    return box, bool(exact)


def _nothing(layer: Layer, window: Box, header: Header) -> tuple[Box, np.ndarray, np.ndarray]:
    shape = (len(layer.bands), 0, 0)
    return (window[0], window[1], window[0], window[1]), np.empty(shape, header.dtype), np.empty(shape, bool)


def _cut(file: Any, layer: Layer, header: Header, whole: Box, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Read pixels that are the grid's."""
    top, left, bottom, right = box
    part = Window(left - whole[1], top - whole[0], right - left, bottom - top)
    values = file.read(list(layer.bands), window=part)
    known = known_block(values, header.nodata)
    if header.masked:
        known &= file.read_masks(1, window=part) > 0
    return values, known


def _warp(
    file: Any, layer: Layer, header: Header, outline: Outline, box: Box, target: Target
) -> tuple[np.ndarray, np.ndarray]:
    """Read pixels of another grid, from an overview where that is asked for and fine enough."""
    scale = placing.scale(outline, target.outline)
    level = _overview(file, layer.bands[0], scale) if target.overviews and target.resampling != "nearest" else None
    if level is None:
        return _resample(file, layer, header, outline, box, target, scale)
    with headers.opened(layer.path, headers.Pixels, overview_level=level) as small:
        factors = header.shape[0] / small.height, header.shape[1] / small.width
        place = outline.transform @ Affine.scale(factors[1], factors[0])
        coarse = Outline(outline.crs, place, small.shape)
        return _resample(small, layer, header, coarse, box, target, (scale[0] * factors[0], scale[1] * factors[1]))


def _overview(file: Any, band: int, scale: tuple[float, float]) -> int | None:
    """Give the coarsest overview whose pixels are no larger than the grid's, or None if there is none."""
    fine = [level for level, factor in enumerate(file.overviews(band)) if factor * max(scale) <= 1 + ON_GRID]
    return fine[-1] if fine else None


def _resample(
    file: Any,
    layer: Layer,
    header: Header,
    outline: Outline,
    box: Box,
    target: Target,
    scale: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    top, left, bottom, right = box
    floats = np.dtype(header.dtype).kind == "f"
    nodata = header.nodata
    if floats and nodata is None:
        nodata = float(np.finfo("float32").min)
    if nodata is not None:
        void: dict[str, Any] = {"src_nodata": nodata, "nodata": float("nan") if floats else nodata}
    else:
        void = {"add_alpha": ColorInterp.alpha not in file.colorinterp}
    with WarpedVRT(
        file,
        src_crs=CRS.from_wkt(outline.crs),
        src_transform=outline.transform,
        crs=CRS.from_wkt(target.crs),
        transform=target.transform @ Affine.translation(left, top),
        width=right - left,
        height=bottom - top,
        resampling=Resampling[target.resampling],
        tolerance=EXACT,
        **void,
        XSCALE=repr(scale[1]),  # else GDAL takes them from each window, and chunks would show
        YSCALE=repr(scale[0]),
        UNIFIED_SRC_NODATA="PARTIAL",  # a band void by itself is left out by itself, and never mixed in
    ) as warped:
        values = warped.read(list(layer.bands))
        known = known_block(values, header.nodata)
        return values, known if nodata is not None else known & (warped.read_masks(1) > 0)


# What a file must be, seen when it is read


def _check_bands(layer: Layer, header: Header) -> None:
    if max(layer.bands) > len(header.names):
        got = f"{len(header.names)}"
        raise BadInput(sentence(layer.path, f"have a band {max(layer.bands)}, as asked", got))


def _check_place(layer: Layer, whole: Box) -> None:
    """Raise if a file reaches out of the place that its item gave, as what lies there would never be read."""
    given = layer.box
    outside = max(given[0] - whole[0], given[1] - whole[1], whole[2] - given[2], whole[3] - given[3])
    if layer.declared and outside > 1:
        got = f"a file that reaches {outside} pixels of the grid farther"
        do = "Correct proj:transform and proj:shape of the item, or take them out of it"
        raise Unreadable(sentence(layer.path, "lie where its item says", got, do))


def _check_values(path: str, values: np.ndarray, known: np.ndarray, target: Target) -> None:
    """Raise if data does not fit the dtype of the cube, instead of wrapping it round."""
    dtype = np.dtype(target.dtype)
    if np.can_cast(values.dtype, dtype, "safe") or dtype.kind == "f" or not known.any():
        return
    limits, data = np.iinfo(dtype), values[known]
    low, high = data.min(), data.max()
    if values.dtype.kind == "f" or low < limits.min or high > limits.max:
        got = f"{values.dtype} from {low:g} to {high:g}"
        raise BadInput(sentence(path, f"hold values that fit {dtype}", got, f"Pass dtype='{values.dtype}'"))

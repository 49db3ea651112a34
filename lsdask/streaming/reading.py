"""What a stream reads: the layers of an image and a mask, window by window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import sampling, schema, store, terrain
from lsdask.errors import BadInput, Unreadable, sentence
from lsdask.streaming.holding import Batch
from lsdask.streaming.lost import Watched, span, watched

WIDEST = 2048
"""Layers of chunks that differ are read in cells that are whole chunks of each, up to this side, in pixels."""


@dataclass(frozen=True)
class Layer:
    """A part of the image, or the mask.

    Attributes
    ----------
    reader : Reader or Watched
    bands : int
    nodata : float, int or None
    chunk : (int, int) or None
        Sides (y, x) of what is decoded at once; None for what lies in memory.
    """

    reader: store.Reader | Watched
    bands: int
    nodata: float | int | None
    chunk: tuple[int, int] | None

    def read(self, y: slice, x: slice) -> np.ndarray:
        """Read a window, once again if it fails."""
        return read_twice(self.reader, y, x, self.chunk or (y.stop, x.stop))


@dataclass(frozen=True)
class Source:
    """An image of one or more layers, one after the other on the band axis, and perhaps a mask; small, to travel.

    Attributes
    ----------
    layers : tuple of Layer
    mask : Layer or None
    dtype : numpy dtype
        Of the image: the layers' own, or float32 (NaN where void) if they differ in dtype or nodata.
    nodata : float, int or None
    """

    layers: tuple[Layer, ...]
    mask: Layer | None
    dtype: np.dtype
    nodata: float | int | None

    @property
    def bands(self) -> int:
        """Bands of all layers."""
        return sum(layer.bands for layer in self.layers)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """Sides (y, x) of the chunks of each layer that has chunks, the mask among them."""
        layers = [*self.layers, *([] if self.mask is None else [self.mask])]
        return [layer.chunk for layer in layers if layer.chunk is not None]

    def read(self, window: Sequence[int]) -> Batch:
        """Read a window y0, x0, y1, x1 of image and mask: (band, y, x) and (y, x).

        Raises
        ------
        Unreadable
            If it cannot be read twice running.
        """
        y, x = slice(window[0], window[2]), slice(window[1], window[3])
        image = self._image(y, x)
        if self.mask is None:
            return Batch(image, None)
        known = schema.valid_block(image, self.nodata)
        return Batch(image, np.where(known, self.mask.read(y, x), np.uint8(schema.UNKNOWN)))

    def _image(self, y: slice, x: slice) -> np.ndarray:
        if len(self.layers) == 1:
            return self.layers[0].read(y, x)
        out = np.empty((self.bands, y.stop - y.start, x.stop - x.start), self.dtype)
        ends = np.cumsum([layer.bands for layer in self.layers]).tolist()
        for layer, end in zip(self.layers, ends):
            values = layer.read(y, x)
            # Layers of the image's own dtype have its nodata too: NaN if they are floats, one for all if integers.
            kept = values.dtype == self.dtype
            out[end - layer.bands : end] = values if kept else schema.floats_block(values, layer.nodata)
        return out


def source_of(
    images: Sequence[xr.DataArray], mask: xr.DataArray | None
) -> tuple[Source, tuple[str, ...], tuple[int, int]]:
    """Look at layers and mask.

    Parameters
    ----------
    images : sequence of DataArray (band, y, x)
        The first says the grid; those on another are resampled to it.
    mask : DataArray (y, x) or None

    Returns
    -------
    source : Source
    bands : tuple of str
    cell : (int, int)
        Pixels (y, x) that are best read at once: whole chunks of all layers.

    Raises
    ------
    BadInput
        If a layer has other dims, a band's name comes twice, or the mask is not uint8 or off the grid.
    """
    for i, image in enumerate(images):
        schema.check(image, schema.MOSAIC, _name(i, len(images)))
    bands = tuple(name for image in images for name in schema.bands(image))
    twice = sorted({name for name in bands if bands.count(name) > 1})
    if twice:
        do = "Name them apart: image.assign_coords(band=[...])"
        raise BadInput(sentence("images", "have bands of different names", f"{', '.join(twice)} twice", do))
    first = images[0]
    _check_mask(mask, first)
    fits = [i == 0 or _on_grid(image, first, i) for i, image in enumerate(images)]
    here = [image for image, fit in zip(images, fits) if fit]
    cell = _cell([chunk for chunk in map(chunk_of, [*here, mask]) if chunk], sampling.shape_of(first))
    placed = [image if fit else _resampled(image, first, cell) for image, fit in zip(images, fits)]
    layers = tuple(layer_of(image, image.sizes["band"]) for image in placed)
    alike = len({(image.dtype, str(schema.nodata(image))) for image in placed}) == 1
    dtype, nodata = (first.dtype, schema.nodata(first)) if alike else (np.dtype("float32"), float("nan"))
    return Source(layers, None if mask is None else layer_of(mask, 1), dtype, nodata), bands, cell


def layer_of(image: xr.DataArray, bands: int) -> Layer:
    """Make a layer of what is on the grid."""
    return Layer(watched(image), bands, schema.nodata(image), chunk_of(image))


def chunk_of(image: xr.DataArray | None) -> tuple[int, int] | None:
    """Give the sides (y, x) of an image's chunks: as stored, else Dask's; None if it is in memory."""
    if image is None:
        return None
    if store.source(image) is not None:
        sides = image.encoding["chunks"][-2:]
    elif isinstance(image.data, da.Array):
        sides = tuple(axis[0] for axis in image.data.chunks[-2:])
    else:
        return None
    return min(sides[0], image.sizes["y"]), min(sides[1], image.sizes["x"])


def _cell(chunks: list[tuple[int, int]], shape: tuple[int, int]) -> tuple[int, int]:
    """Give the smallest cell that is whole chunks of all layers, or the largest chunk where that is too wide."""
    sides = []
    for each, size in zip(zip(*(chunks or [(512, 512)])), shape):
        largest = min(max(each), size)
        common = math.lcm(*(min(side, size) for side in each))
        sides.append(min(common if common <= max(WIDEST, largest) else largest, size))
    return sides[0], sides[1]


def _name(i: int, count: int) -> str:
    return "image" if count == 1 else f"image[{i}]"


def _on_grid(image: xr.DataArray, first: xr.DataArray, i: int) -> bool:
    """Say whether a layer is on the grid of the first; without a CRS only the shapes can tell."""
    if not (_has_crs(image) and _has_crs(first)):
        if sampling.shape_of(image) != sampling.shape_of(first):
            rule = f"have the shape of image[0], {sampling.shape_of(first)}, where either has no CRS"
            raise BadInput(sentence(f"image[{i}]", rule, str(sampling.shape_of(image))))
        return True
    try:
        schema.on_grid(image, first, f"image[{i}]", "image[0]")
    except BadInput:
        return False  # what is no grid at all, resampling will refuse
    return True


def _has_crs(image: xr.DataArray) -> bool:
    return "spatial_ref" in image.coords and bool(image["spatial_ref"].attrs.get("crs_wkt"))


def _resampled(image: xr.DataArray, first: xr.DataArray, cell: tuple[int, int]) -> xr.DataArray:
    """Put a layer on the grid of the first, cell by cell, from chunks as small as it is stored in."""
    path = store.source(image)
    if path is not None:
        image = store.open(path, chunks=1, name=str(image.name))
    return terrain.resample(image, first.chunk({"y": cell[0], "x": cell[1]}))


def _check_mask(mask: xr.DataArray | None, image: xr.DataArray) -> None:
    """Raise BadInput if a mask is not uint8, off the image's grid, or of another shape where either has no CRS."""
    if mask is None:
        return
    schema.check(mask, schema.MASK, "mask")
    if mask.dtype not in (np.uint8, bool):  # of floats, what lies between two classes would pass for a class
        raise BadInput(sentence("mask", "be uint8", str(mask.dtype), "Use mask.astype('uint8')"))
    if _has_crs(mask) and _has_crs(image):
        schema.on_grid(mask, image, "mask", "image")
    elif mask.shape != sampling.shape_of(image):
        raise BadInput(sentence("mask", f"have the image's shape {sampling.shape_of(image)}", str(mask.shape)))


def read_twice(reader: store.Reader | Watched, y: slice, x: slice, chunk: tuple[int, int]) -> np.ndarray:
    """Read a window, once again if it fails, and if that fails too name the chunk.

    Raises
    ------
    Unreadable
        Naming the window and its first chunk that cannot be read alone.
    """
    try:
        return reader.read(y, x)
    except Unreadable:
        pass
    try:
        return reader.read(y, x)
    except Unreadable as error:
        raise Unreadable(f"{error} (first in {_bad_chunk(reader, y, x, chunk)}; tried twice)") from error


def _bad_chunk(reader: store.Reader | Watched, y: slice, x: slice, chunk: tuple[int, int]) -> str:
    """Name the first chunk (row, column) of a window that cannot be read alone."""
    for row, column in product(span(y, chunk[0]), span(x, chunk[1])):
        try:
            reader.read(_meet(y, row, chunk[0]), _meet(x, column, chunk[1]))
        except Unreadable:
            return f"chunk ({row}, {column})"
    return "no chunk alone"


def _meet(span: slice, i: int, side: int) -> slice:
    return slice(max(i * side, span.start), min((i + 1) * side, span.stop))

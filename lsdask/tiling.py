"""Tiles, blocks and halos as integers: no arrays of pixels, no Dask, no I/O.

A two-dimensional grid is the product of two axes, so there is no case for corners. On each axis the
image of ``size`` pixels is cut into tiles of ``tile`` pixels; a tile's block is the tile with ``halo``
pixels on both sides. Every block has the same shape: what lies outside the image is taken from inside it
by an index (reflection), or is a constant; the last partial tile too. Pixels further outside than the halo, where
the last tile is partial, repeat those at the halo's end: no pixel of the image has them in its halo.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np

from lsdask.errors import BadInput, sentence

Edge = Literal["reflect", "nearest", "constant"]

STRIP = 4
"""Rows of tiles that ``Grid.walk`` takes together."""


@dataclass(frozen=True)
class Span:
    """One tile on one axis, in pixels; every range is half open.

    Attributes
    ----------
    write : slice
        The tile's own pixels in the image; the spans of an axis cover it once.
    read : slice
        The pixels of the image that its block needs, clipped to the image.
    keep : slice
        Where ``write`` lies in the block.
    block : int
        Length of the block, ``tile + 2 * halo``, the same for every span.
    """

    write: slice
    read: slice
    keep: slice
    block: int
    size: int

    def index(self, edge: Edge = "reflect") -> np.ndarray | None:
        """Give the position in ``read`` of each pixel of the block, or None where the block is ``read`` itself.

        Returns
        -------
        (block,) int64 array or None
        """
        if self.block == self.read.stop - self.read.start:
            return None
        halo = self.keep.start
        near = np.clip(self._positions(), -halo, self.size - 1 + halo)
        return outside_to_inside(near, self.size, edge) - self.read.start

    def outside(self) -> np.ndarray:
        """Say which pixels of the block lie outside the image: (block,) bool array."""
        positions = self._positions()
        return (positions < 0) | (positions >= self.size)

    def _positions(self) -> np.ndarray:
        start = self.write.start - self.keep.start
        return np.arange(start, start + self.block)


@dataclass(frozen=True)
class Tile:
    """One tile of a grid: its place ``(row, column)`` and its spans on y and x."""

    place: tuple[int, int]
    y: Span
    x: Span

    @property
    def write(self) -> tuple[slice, slice]:
        """The tile's window in the image, (y, x)."""
        return self.y.write, self.x.write

    @property
    def read(self) -> tuple[slice, slice]:
        """The block's window in the image, clipped to it, (y, x)."""
        return self.y.read, self.x.read

    @property
    def keep(self) -> tuple[slice, slice]:
        """The tile's window in its block, (y, x)."""
        return self.y.keep, self.x.keep

    @property
    def block(self) -> tuple[int, int]:
        """Shape of the block, (y, x)."""
        return self.y.block, self.x.block


@dataclass(frozen=True)
class Grid:
    """An image of ``shape`` (y, x) cut into tiles, each with a halo.

    Attributes
    ----------
    shape : (int, int)
        The image, in pixels (y, x).
    tile : (int, int)
        A tile, in pixels (y, x).
    halo : int
        Context on each side of a tile, in pixels; may exceed the image.
    """

    shape: tuple[int, int]
    tile: tuple[int, int]
    halo: int = 0

    @property
    def count(self) -> tuple[int, int]:
        """Tiles on each axis, (rows, columns)."""
        return -(-self.shape[0] // self.tile[0]), -(-self.shape[1] // self.tile[1])

    def __len__(self) -> int:
        return self.count[0] * self.count[1]

    def __getitem__(self, place: tuple[int, int]) -> Tile:
        row, column = place
        return Tile(
            (row, column),
            span(row, self.shape[0], self.tile[0], self.halo),
            span(column, self.shape[1], self.tile[1], self.halo),
        )

    def places(self) -> Iterator[tuple[int, int]]:
        """Give every (row, column), row by row."""
        rows, columns = self.count
        return ((row, column) for row in range(rows) for column in range(columns))

    def walk(self) -> Iterator[tuple[int, int]]:
        """Give every (row, column), strip by strip of ``STRIP`` rows and column by column in each.

        So what neighbours share is used again soon, however wide the image is.
        """
        rows, columns = self.count
        strips = (range(top, min(top + STRIP, rows)) for top in range(0, rows, STRIP))
        return ((row, column) for strip in strips for column in range(columns) for row in strip)


def grid(shape: tuple[int, int], tile: int | tuple[int, int], *, halo: int = 0) -> Grid:
    """Cut an image into tiles.

    Parameters
    ----------
    shape : (int, int)
        The image, in pixels (y, x).
    tile : int or (int, int)
        Side of a tile, or its sides (y, x), in pixels.
    halo : int
        Context on each side of a tile, in pixels.

    Returns
    -------
    Grid

    Raises
    ------
    BadInput
        If a size is not positive or the halo negative.

    Examples
    --------
    >>> grid((1000, 500), 512, halo=64).count
    (2, 1)
    """
    sides = (tile, tile) if isinstance(tile, int) else (tile[0], tile[1])
    for name, values, least in (("shape", shape, 1), ("tile", sides, 1), ("halo", (halo,), 0)):
        if any(not isinstance(value, int | np.integer) or value < least for value in values):
            raise BadInput(sentence(name, f"be whole and at least {least} pixel", f"{name}={values}"))
    return Grid((int(shape[0]), int(shape[1])), (int(sides[0]), int(sides[1])), int(halo))


@lru_cache(maxsize=65536)
def span(i: int, size: int, tile: int, halo: int) -> Span:
    """Give tile ``i`` of an axis.

    Examples
    --------
    >>> span(1, 1000, 512, 64)
    Span(write=slice(512, 1000, None), read=slice(448, 1000, None), keep=slice(64, 552, None), block=640, size=1000)
    """
    start, stop = i * tile, min((i + 1) * tile, size)
    return Span(
        write=slice(start, stop),
        read=slice(max(start - halo, 0), min(stop + halo, size)),
        keep=slice(halo, halo + stop - start),
        block=tile + 2 * halo,
        size=size,
    )


def outside_to_inside(position: np.ndarray, size: int, edge: Edge) -> np.ndarray:
    """Map pixel positions of an endless axis into ``[0, size)``.

    Parameters
    ----------
    position : int array
        Positions, any sign.
    size : int
        Length of the axis.
    edge : {"reflect", "nearest", "constant"}
        ``reflect`` mirrors about the centre of the edge pixel (period ``2 * size - 2``, as
        ``numpy.pad(mode="reflect")``); the others give the edge pixel.

    Returns
    -------
    int array of the same shape
    """
    if edge not in get_args(Edge):
        raise BadInput(sentence("edge", f"be one of {', '.join(get_args(Edge))}", f"edge={edge!r}"))
    if edge != "reflect" or size == 1:
        return np.clip(position, 0, size - 1)
    period = 2 * size - 2
    folded = np.abs(position) % period
    return np.where(folded >= size, period - folded, folded)


def extend_block(data: Any, tile: Tile, edge: Edge = "reflect", value: float = 0) -> Any:
    """Complete what was read for a tile to its whole block.

    Parameters
    ----------
    data : (..., y, x) array
        The pixels of ``tile.read``.
    tile : Tile
        The tile they were read for.
    edge : {"reflect", "nearest", "constant"}
        What stands outside the image.
    value : number
        That constant.

    Returns
    -------
    (..., y, x) array of shape ``tile.block``; ``data`` itself where nothing is missing.
    """
    rows, columns = tile.y.index(edge), tile.x.index(edge)
    if rows is not None:
        data = data.take(rows, axis=-2)
    if columns is not None:
        data = data.take(columns, axis=-1)
    if edge == "constant" and (rows is not None or columns is not None):
        data[..., tile.y.outside(), :] = value
        data[..., tile.x.outside()] = value
    return data

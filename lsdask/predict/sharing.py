"""Decoded chunks shared by the tiles of a process, so that a halo does not decode its chunks again for each tile."""

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain, groupby, product
from typing import Any

import numpy as np
import xarray as xr

from lsdask import store, tiling

Chunk = tuple[int, int]
"""A chunk's (row, column)."""

Chunks = dict[Chunk, "Future[np.ndarray]"]
"""Chunks that are here or being read."""


@dataclass(frozen=True)
class SharedReader:
    """Reads windows as ``store.Reader`` does, and keeps the chunks that a neighbouring tile will need.

    Attributes
    ----------
    reader : store.Reader
    shape : (int, int)
        The image, pixels (y, x).
    side : (int, int)
        A stored chunk, pixels (y, x).
    grid : tiling.Grid
        The tiles that are read, in the order of ``grid.walk``.
    """

    reader: store.Reader
    shape: tuple[int, int]
    side: tuple[int, int]
    grid: tiling.Grid

    def read(self, y: slice, x: slice) -> np.ndarray:
        """Read a window, all leading axes with it. Raises as ``store.Reader.read`` does."""
        rows, columns = (_touched(part, side) for part, side in zip((y, x), self.side))
        places = [(row, column) for row in rows for column in columns]
        again = {place: readers for place in places if (readers := self._readers(place)) > 1}
        mine, theirs = self._kept().claim(again)
        parts = chain(self._read(sorted(set(places) - theirs.keys()), mine), self._wait(theirs))
        first = next(parts)
        out = np.empty((*first[-1].shape[:-2], y.stop - y.start, x.stop - x.start), first[-1].dtype)
        for top, left, part in chain([first], parts):
            paste_block(out, (y.start, x.start), part, (top * self.side[0], left * self.side[1]))
        self._kept().release(again, self._most())
        return out

    def _read(self, places: list[Chunk], shared: Chunks) -> Iterator[tuple[int, int, np.ndarray]]:
        """Read chunks, those that make a rectangle together; share some; give each rectangle and where it begins."""
        try:
            for top, bottom, left, right in rectangles(places):
                window = (
                    slice(a * side, min(b * side, size))
                    for a, b, side, size in zip((top, left), (bottom, right), self.side, self.shape)
                )
                part = self.reader.read(*window)
                self._kept().decoded += (bottom - top) * (right - left)
                self._share(top, left, part, shared)
                yield top, left, part
        except BaseException as error:
            self._kept().fail(shared, error)
            raise

    def _share(self, top: int, left: int, part: np.ndarray, shared: Chunks) -> None:
        rows, columns = (-(-size // side) for size, side in zip(part.shape[-2:], self.side))
        for row, column in product(range(rows), range(columns)):
            waiting = shared.get((top + row, left + column))
            if waiting is not None:
                y, x = (slice(i * side, (i + 1) * side) for i, side in zip((row, column), self.side))
                waiting.set_result(part[..., y, x].copy())  # a view would keep the whole rectangle alive

    def _wait(self, theirs: Chunks) -> Iterator[tuple[int, int, np.ndarray]]:
        """Give the chunks that others have read; one that failed there may have been read beside a torn one."""
        for place, waiting in theirs.items():
            if waiting.exception() is None:
                yield *place, waiting.result()
            else:
                yield from self._read([place], {})

    def _readers(self, place: Chunk) -> int:
        """Count the tiles that read a chunk."""
        axes = zip(place, self.side, self.shape, self.grid.tile)
        return math.prod(_readers(i, side, size, tile, self.grid.halo) for i, side, size, tile in axes)

    def _most(self) -> int:
        """Count the chunks that a column of a strip of tiles and its halo touch: what is needed until the next one."""
        (high, wide), (rows, columns) = self.grid.tile, self.side
        margin = 2 * self.grid.halo
        return (-(-(tiling.STRIP * high + margin) // rows) + 2) * (-(-(wide + margin) // columns) + 2)

    def decoded(self) -> int:
        """Count the chunks that were read in this process so far."""
        return self._kept().decoded

    def _kept(self) -> "_Kept":
        with _making:
            if "_chunks" not in self.__dict__:
                object.__setattr__(self, "_chunks", _Kept())
        kept: _Kept = self.__dict__["_chunks"]
        return kept

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_chunks"}


_making = threading.Lock()


@dataclass
class _Held:
    """A chunk, here or being read, and how many tiles have not read it yet."""

    chunk: "Future[np.ndarray]"
    left: int


class _Kept:
    """Chunks by place, each read by one thread while others wait for it; the least recently used go first."""

    def __init__(self) -> None:
        self.decoded = 0
        self._lock = threading.Lock()
        self._held: OrderedDict[Chunk, _Held] = OrderedDict()

    def claim(
        self, again: dict[Chunk, int]
    ) -> "tuple[dict[Chunk, Future[np.ndarray]], dict[Chunk, Future[np.ndarray]]]":
        """Give, of chunks that so many tiles read, what the caller must read, and what is here or read by others."""
        with self._lock:
            theirs = {place: self._held[place].chunk for place in again if place in self._held}
            mine: Chunks = {place: Future() for place in again if place not in theirs}
            self._held.update({place: _Held(chunk, again[place]) for place, chunk in mine.items()})
        return mine, theirs

    def fail(self, mine: Chunks, error: BaseException) -> None:
        """Forget what could not be read, and tell those who wait for it."""
        with self._lock:
            for place, waiting in mine.items():
                self._held.pop(place, None)
                if not waiting.done():
                    waiting.set_exception(error)

    def release(self, used: Iterable[Chunk], most: int) -> None:
        """Let go of chunks that all tiles have read, mark the others as just used, and hold at most so many."""
        with self._lock:
            for place in used:
                held = self._held.get(place)
                if held is None:
                    continue
                held.left -= 1
                if held.left:
                    self._held.move_to_end(place)
                else:
                    del self._held[place]
            while len(self._held) > most:
                self._held.popitem(last=False)


def shared(image: xr.DataArray, grid: tiling.Grid) -> "SharedReader | store.Reader":
    """Make a reader of an image's tiles: one that shares chunks if the image is a store and the tiles have a halo."""
    reader, path = store.reader(image), store.source(image)
    if path is None:
        return reader
    side = store.array(path, name=str(image.name)).chunks[-2:]
    aligned = all(tile % chunk == 0 for tile, chunk in zip(grid.tile, side))
    if grid.halo == 0 and aligned:
        return reader
    return SharedReader(reader, grid.shape, (side[0], side[1]), grid)


def amplification(grid: tiling.Grid, side: tuple[int, int]) -> float:
    """Count how often one process decodes each chunk of an image on average, at most, if it computes every tile.

    Within a strip of tiles (``grid.walk``) every chunk is decoded once. Strips share none, unless the image is so
    narrow that the chunks between two strips are still held.

    Parameters
    ----------
    grid : tiling.Grid
    side : (int, int)
        A stored chunk, pixels (y, x).

    Examples
    --------
    >>> amplification(tiling.grid((65536, 65536), 2048, halo=128), (512, 512))
    1.109375
    """
    size, high = grid.shape[0], tiling.STRIP * grid.tile[0]
    strips = [(max(top - grid.halo, 0), min(top + high + grid.halo, size)) for top in range(0, size, high)]
    rows = sum(-(-bottom // side[0]) - top // side[0] for top, bottom in strips)
    return rows / -(-size // side[0])


def rectangles(places: list[Chunk]) -> Iterator[tuple[int, int, int, int]]:
    """Put places that lie side by side together: (top, bottom, left, right), half open, each place once.

    Examples
    --------
    >>> list(rectangles([(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)]))
    [(0, 2, 0, 2), (2, 3, 1, 2)]
    """
    runs = [(row, *run) for row, line in groupby(places, lambda place: place[0]) for run in _runs([c for _, c in line])]
    open_: dict[tuple[int, int], tuple[int, int]] = {}
    for row, left, right in runs:
        top, bottom = open_.get((left, right), (row, row))
        if bottom != row:
            yield top, bottom, left, right
            top = row
        open_[left, right] = top, row + 1
    for (left, right), (top, bottom) in open_.items():
        yield top, bottom, left, right


def _runs(columns: list[int]) -> Iterator[tuple[int, int]]:
    for _, run in groupby(enumerate(columns), lambda pair: pair[1] - pair[0]):
        line = [column for _, column in run]
        yield line[0], line[-1] + 1


def _touched(part: slice, side: int) -> range:
    return range(part.start // side, -(-part.stop // side))


def paste_block(out: np.ndarray, at: Chunk, part: np.ndarray, lies: Chunk) -> None:
    """Put what two windows of an image share from one into the other.

    Parameters
    ----------
    out, part : (..., y, x) array
        The windows.
    at, lies : (int, int)
        Where each begins in the image, pixels (y, x).
    """
    sizes = zip(at, out.shape[-2:], lies, part.shape[-2:])
    spans = [(a, b, max(a, b), min(a + long, b + wide)) for a, long, b, wide in sizes]
    to, of = zip(*((slice(low - a, high - a), slice(low - b, high - b)) for a, b, low, high in spans))
    out[..., to[0], to[1]] = part[..., of[0], of[1]]


def _readers(i: int, side: int, size: int, tile: int, halo: int) -> int:
    """Count the tiles of an axis whose blocks touch chunk ``i``."""
    first = max(i * side - halo, 0) // tile
    last = (min((i + 1) * side, size) - 1 + halo) // tile
    return min(last, (size - 1) // tile) - first + 1

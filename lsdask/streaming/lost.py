"""Stored objects that get lost: Zarr reads them as void, a stream must not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import xarray as xr
import zarr
from zarr.core.sync import sync

from lsdask import schema, store
from lsdask.errors import Unreadable


@dataclass(frozen=True)
class Watched:
    """A reader of a store that knows which objects (shards, or chunks that lie alone) there were when it was made.

    An object that is not there reads as void, as it must where a mosaic is empty. So where a window reads as void
    all over an object that was there, the store is asked whether it still is.

    Attributes
    ----------
    reader : Reader
    sides : tuple of int
        Of an object, on each axis of the store: bands may lie in objects of their own.
    there : bool array, an axis for each of the store's
        The objects that there were.
    void : number or None
        What an object that is not there reads as.
    """

    reader: store.Reader
    sides: tuple[int, ...]
    there: np.ndarray
    void: float | int | None

    def read(self, y: slice, x: slice) -> np.ndarray:
        """Read a window as ``Reader.read`` does.

        Raises
        ------
        Unreadable
            If it cannot be read, or an object of it is gone.
        """
        values = self.reader.read(y, x)
        gone = [place for place in self._empty(values, y, x) if not self._exists(place)]
        if gone:
            where = f"rows {y.start} to {y.stop}, columns {x.start} to {x.stop} of {self.reader.path}"
            raise Unreadable(f"{where} cannot be read: object {gone[0]} was there and is gone")
        return values

    def _empty(self, values: np.ndarray, y: slice, x: slice) -> Iterator[tuple[int, ...]]:
        """Find the objects that were there of which a window holds only void."""
        axes = list(zip((*(slice(0, size) for size in values.shape[:-2]), y, x), self.sides, strict=True))
        for place in product(*(span(axis, side) for axis, side in axes)):
            part = values[tuple(within(axis, i, side) for i, (axis, side) in zip(place, axes))]
            if self.there[place] and not schema.known_block(part, self.void).any():
                yield place

    def _exists(self, place: tuple[int, ...]) -> bool:
        array = store.array(str(self.reader.path), name=self.reader.name)
        with store.told(self.reader.path):
            return sync((array.store_path / _key(array, place)).exists())


def watched(image: xr.DataArray) -> "Watched | store.Reader":
    """Make a reader of an image: one that notices what gets lost, where it is a store that can list its objects."""
    reader = store.reader(image)
    if reader.path is None:
        return reader
    array = store.array(reader.path, name=reader.name)
    if not array.store_path.store.supports_listing:
        return reader
    sides = array.shards or array.chunks
    with store.told(reader.path):
        there = _listed(array, [-(-size // side) for size, side in zip(array.shape, sides)])
    return Watched(reader, sides, there, array.fill_value)


def _listed(array: zarr.Array, shape: Sequence[int]) -> np.ndarray:
    keys = sync(_keys(array))
    prefix = f"{array.store_path.path}/" if array.store_path.path else ""
    there = [prefix + _key(array, place) in keys for place in product(*map(range, shape))]
    return np.array(there, dtype=bool).reshape(shape)


async def _keys(array: zarr.Array) -> set[str]:
    return {key async for key in array.store_path.store.list_prefix(f"{array.store_path.path}/")}


def _key(array: zarr.Array, place: tuple[int, ...]) -> str:
    return array.metadata.encode_chunk_key(place)


def span(window: slice, side: int) -> range:
    """Give the numbers of the pieces of an axis, ``side`` pixels each, that a window touches."""
    return range(window.start // side, -(-window.stop // side))


def within(window: slice, i: int, side: int) -> slice:
    """Give where the ``i``-th piece of an axis lies in a window that touches it."""
    return slice(max(i * side - window.start, 0), min((i + 1) * side, window.stop) - window.start)

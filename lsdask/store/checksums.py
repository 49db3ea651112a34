"""Checksums of stored objects: taken of what ``put`` writes as it passes, and of what is stored later.

The CRC-32 of an object's bytes as stored tells a torn, altered or missing one without decoding it. It runs at
several gigabytes a second, a hundredth of the time that compressing the same bytes takes.
"""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Self

import zarr
from zarr.abc.store import Store
from zarr.core.array import AsyncArray
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import StorePath, WrapperStore

from lsdask.store import places
from lsdask.store.places import Place

_noted: ContextVar[dict[str, int] | None] = ContextVar("noted", default=None)


@contextmanager
def noting() -> Iterator[dict[str, int]]:
    """Collect the checksum of each object that ``put`` writes in this block, in this thread.

    Yields
    ------
    dict
        From the key of an object in its store to its checksum, 0 if all its pixels are void and nothing is stored.
    """
    noted: dict[str, int] = {}
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def noted(array: zarr.Array) -> zarr.Array:
    """Give an array that notes what is written to it, if there is a ``noting`` block to note it for."""
    notes = _noted.get()
    if notes is None:
        return array
    place = StorePath(_Noting(array.store_path.store, notes), array.store_path.path)
    return zarr.Array(AsyncArray(metadata=array.metadata, store_path=place))


class _Noting(WrapperStore[Store]):
    """A store that notes the checksum of each object written to it."""

    def __init__(self, store: Store, notes: dict[str, int]) -> None:
        super().__init__(store)
        self._notes = notes

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self._notes)

    async def set(self, key: str, value: Buffer) -> None:
        self._notes[key] = _crc(value)
        await super().set(key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        self._notes[key] = _crc(value)
        super().set_sync(key, value)

    async def delete(self, key: str) -> None:
        self._notes[key] = 0
        await super().delete(key)

    def delete_sync(self, key: str) -> None:
        self._notes[key] = 0
        super().delete_sync(key)


def checksum(path: Place, key: str) -> int:
    """Read an object and give its checksum, 0 if there is none.

    Parameters
    ----------
    path : str, Path or zarr Store
        A group.
    key : str
        The object in it.

    Raises
    ------
    Unreadable, BadInput
        If the store cannot be reached.
    """
    with places.told(path):
        held = sync((places.group(path).store_path / key).get(default_buffer_prototype()))
        return 0 if held is None else _crc(held)


def remove(path: Place, key: str) -> None:
    """Remove an object, if it is there."""
    with places.told(path):
        sync((places.group(path, write=True).store_path / key).delete())


def fold(notes: Mapping[str, int]) -> int:
    """Make one checksum of those of several objects, whatever their order.

    Examples
    --------
    >>> fold({"b": 2, "a": 1}) == fold({"a": 1, "b": 2}) != fold({"a": 2, "b": 1})
    True
    """
    return zlib.crc32(b"".join(notes[key].to_bytes(4) for key in sorted(notes)))


def _crc(value: Buffer) -> int:
    return zlib.crc32(value.as_buffer_like())

"""Checksums of stored objects: taken of what ``put`` writes as it passes, and of what is stored later.

The CRC-32 of an object's bytes as stored tells a torn, altered or missing one without decoding it. It runs at
several gigabytes a second, a hundredth of the time that compressing the same bytes takes.
"""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Self

import zarr
from zarr.abc.store import Store
from zarr.core.array import AsyncArray
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import StorePath, WrapperStore

from lsdask.store import places
from lsdask.store.places import Place


class Stored(NamedTuple):
    """A stored object: the CRC-32 and the number of its bytes; both 0 if there is none."""

    checksum: int
    size: int


NOTHING = Stored(0, 0)

_noted: ContextVar[dict[str, Stored] | None] = ContextVar("noted", default=None)


@contextmanager
def noting() -> Iterator[dict[str, Stored]]:
    """Collect what ``put`` writes in this block, in this thread.

    Yields
    ------
    dict
        From the key of an object in its store to what was stored: nothing if all its pixels are void.
    """
    noted: dict[str, Stored] = {}
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

    def __init__(self, store: Store, notes: dict[str, Stored]) -> None:
        super().__init__(store)
        self._notes = notes

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self._notes)

    async def set(self, key: str, value: Buffer) -> None:
        self._notes[key] = _stored(value)
        await super().set(key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        self._notes[key] = _stored(value)
        super().set_sync(key, value)

    async def delete(self, key: str) -> None:
        self._notes[key] = NOTHING
        await super().delete(key)

    def delete_sync(self, key: str) -> None:
        self._notes[key] = NOTHING
        super().delete_sync(key)


def examine(path: Place, key: str) -> Stored:
    """Read an object and say what it is.

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
        return NOTHING if held is None else _stored(held)


def remove(path: Place, key: str) -> None:
    """Remove an object, if it is there."""
    with places.told(path):
        sync((places.group(path, write=True).store_path / key).delete())


def fold(objects: Mapping[str, Stored]) -> int:
    """Make one checksum of those of several objects, whatever their order.

    Parameters
    ----------
    objects : mapping
        From their keys.

    Returns
    -------
    int below 2**32

    Examples
    --------
    >>> fold({"b": Stored(2, 9), "a": Stored(1, 9)}) == fold({"a": Stored(1, 9), "b": Stored(2, 9)})
    True
    """
    return zlib.crc32(b"".join(objects[key].checksum.to_bytes(4) for key in sorted(objects)))


def _stored(value: Buffer) -> Stored:
    return Stored(zlib.crc32(value.as_buffer_like()), len(value))

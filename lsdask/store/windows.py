"""Windows of an image, read where they are needed: in a thread, on a worker, block by block of a lazy image."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask._task_spec import Task, TaskRef, convert_legacy_graph
from dask.blockwise import optimize_blockwise
from dask.local import get_sync
from zarr.core.sync import sync

from lsdask.errors import BadInput, Unreadable
from lsdask.store import checksums, places, reading
from lsdask.store.places import Place

_opening = threading.Lock()


def put(path: Place, values: np.ndarray, y: slice, x: slice, *, name: str) -> None:
    """Write a window of whole shards, whatever those held before.

    A shard that the edge of the image cuts is removed first: Zarr would read it to fill up what lies beyond the edge,
    which fails where a run was killed while writing it.

    Parameters
    ----------
    path : str or Path
        A store.
    values : (..., y, x) array
        Of the window; all leading axes.
    y, x : slice
        Rows and columns: whole shards, or up to the edge.
    name : str
        The variable.

    Raises
    ------
    BadInput, Unreadable
        If the store cannot be reached.
    """
    with places.told(path):
        held = checksums.noted(reading.array(path, mode="r+", name=name))
        rows, columns = (held.shards or held.chunks)[-2:]
        lead = (0,) * (held.ndim - 2)
        for row, column in product(_whole(y, rows), _whole(x, columns)):
            sweep(path, f"{held.path}/{held.metadata.encode_chunk_key((*lead, row, column))}")
            if (row + 1) * rows > held.shape[-2] or (column + 1) * columns > held.shape[-1]:
                sync((held.store_path / held.metadata.encode_chunk_key((*lead, row, column))).delete())
        held[..., y, x] = values


def sweep(path: Place, key: str) -> None:
    """Remove what a killed run has left of an object that it was writing: Zarr writes beside it, then renames.

    Parameters
    ----------
    path : str or Path
        A store; nothing is done if it is not local, as object stores keep no such rests.
    key : str
        The object, which no other run is writing.
    """
    if places.is_local(path):
        whole = Path(str(path)) / key
        for rest in whole.parent.glob(f"{whole.name}.*.partial"):
            rest.unlink(missing_ok=True)


def _whole(part: slice, side: int) -> range:
    """Give the shards of an axis that a window touches."""
    return range(part.start // side, -(-part.stop // side))


@dataclass(frozen=True)
class Reader:
    """Reads windows of an image; small enough to travel to a worker.

    Attributes
    ----------
    path : str or None
        The store, if the image is one; each window is then read from it directly.
    name : str or None
        Its variable.
    image : DataArray or None
        Any other image, which travels with the reader.
    """

    path: str | None = None
    name: str | None = None
    image: xr.DataArray | None = None

    def read(self, y: slice, x: slice) -> np.ndarray:
        """Read a window, all leading axes with it.

        Of a lazy image, only the blocks that the window touches are computed, one after the other in this thread,
        so that memory holds the window and what one block needs.

        Parameters
        ----------
        y, x : slice
            Rows and columns, in pixels, with a start and a stop.

        Returns
        -------
        (..., y, x) array, as stored

        Raises
        ------
        Unreadable
            If a chunk is missing from its shard, torn or altered, or the store does not answer.
        BadInput
            If the store refuses the credentials.
        """
        try:
            with places.told(self.path):
                held = self._held()
                if isinstance(held, _Blocks):
                    return held.read(y, x)
                return np.asarray(held[..., y, x])
        except BadInput:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            where = f"rows {y.start} to {y.stop}, columns {x.start} to {x.stop} of {self.path or 'the image'}"
            raise Unreadable(f"{where} cannot be read: {type(error).__name__}: {error}") from error

    def _held(self) -> "zarr.Array | _Blocks | np.ndarray":
        """Give what the windows are cut from, opened once in each process."""
        with _opening:
            held = self.__dict__.get("_opened")
            if held is None:
                held = reading.array(str(self.path), name=self.name) if self.image is None else _cut(self.image.data)
                object.__setattr__(self, "_opened", held)
        return held

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_opened"}


def reader(image: xr.DataArray) -> Reader:
    """Make a Reader: straight from the store if ``image`` is an opened one, else through the image itself."""
    path = reading.source(image)
    return Reader(image=image) if path is None else Reader(path=path, name=str(image.name))


def _cut(data: Any) -> "_Blocks | np.ndarray":
    return _Blocks(data) if isinstance(data, da.Array) else np.asarray(data)


class _Blocks:
    """The graph of a lazy image, put in order once, of which each window runs its own part.

    ``image[..., y, x].compute()`` would look through the whole graph for every window, and hold the window twice.
    """

    def __init__(self, data: da.Array) -> None:
        self._name, self._shape, self._dtype = data.name, data.shape, data.dtype
        self._starts = [np.cumsum([0, *sizes]) for sizes in data.chunks]
        self._graph = optimize_blockwise(data.__dask_graph__(), keys={data.name})  # layers: no task is made yet

    def read(self, y: slice, x: slice) -> np.ndarray:
        """Compute the blocks under a window into one array; a window that is a block is that block."""
        whole = (slice(0, size) for size in self._shape[:-2])
        window = (*whole, *(slice(*part.indices(size)[:2]) for part, size in zip((y, x), self._shape[-2:])))
        size = [part.stop - part.start for part in window]
        pieces = list(product(*(_pieces(starts, part) for starts, part in zip(self._starts, window))))
        blocks = [(self._name, *(piece.block for piece in place)) for place in pieces]
        tasks = convert_legacy_graph(dict(self._graph.cull(set(blocks))))
        if len(blocks) == 1 and size == self._size(blocks[0]):
            return np.asarray(get_sync(tasks, blocks)[0], self._dtype)
        out = np.empty(size, self._dtype)
        puts = {
            ("put", i): Task(("put", i), _put, out, _slices(place, "out"), TaskRef(block), _slices(place, "of"))
            for i, (place, block) in enumerate(zip(pieces, blocks))
        }
        get_sync({**tasks, **puts}, list(puts))
        return out

    def _size(self, block: tuple[Any, ...]) -> list[int]:
        return [int(starts[i + 1] - starts[i]) for starts, i in zip(self._starts, block[1:])]


@dataclass(frozen=True)
class _Piece:
    """What one block holds of a window, on one axis: pixels ``of`` the block go to ``out`` of the window."""

    block: int
    of: slice
    out: slice


def _pieces(starts: np.ndarray, window: slice) -> Iterator[_Piece]:
    """Cut a window of an axis along blocks that begin at ``starts``, the last of which is the end of the axis."""
    first = max(int(np.searchsorted(starts, window.start, side="right")) - 1, 0)
    for block in range(first, len(starts) - 1):
        start, stop = max(starts[block], window.start), min(starts[block + 1], window.stop)
        if starts[block] >= window.stop:
            return
        if start < stop:
            of = slice(int(start - starts[block]), int(stop - starts[block]))
            yield _Piece(block, of, slice(int(start - window.start), int(stop - window.start)))


def _slices(place: tuple[_Piece, ...], of: str) -> tuple[slice, ...]:
    return tuple(getattr(piece, of) for piece in place)


def _put(out: np.ndarray, where: tuple[slice, ...], block: np.ndarray, part: tuple[slice, ...]) -> None:
    out[where] = block[part]

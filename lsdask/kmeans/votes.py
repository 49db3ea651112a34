"""The label of a tile: the one that most of its pixels have."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import schema, store
from lsdask.compiling import njit
from lsdask.errors import BadInput, sentence
from lsdask.kmeans.book import LABELS


def majority(labels: xr.DataArray, tile: int = 32) -> xr.DataArray:
    """Give each tile the label that most of its valid pixels have. Lazy.

    Parameters
    ----------
    labels : DataArray (k, y, x) uint8
        255 is unknown.
    tile : int
        Side of a tile, in pixels. A tile that reaches over the right or lower border is completed with unknown
        pixels.

    Returns
    -------
    DataArray (k, tile_y, tile_x) uint8
        Ties go to the lowest label; 255 where less than half of the tile's ``tile * tile`` pixels are known.
        Coordinates ``tile_y`` and ``tile_x`` are the row and column of each tile's first pixel.

    Source
    ------
    Garcia et al. (2022), arXiv:2208.02693: tiles of 32 x 32 pixels take their predominant cluster.
    """
    schema.check(labels, LABELS, "labels")
    if labels.dtype != np.uint8:
        raise BadInput(sentence("labels", "be uint8", f"dtype={labels.dtype}"))
    if tile < 1:
        raise BadInput(sentence("tile", "be at least 1 pixel", f"tile={tile}"))
    data = labels.data
    if not isinstance(data, da.Array):
        data = da.from_array(data, chunks=(-1, 2048, 2048), name=False)
    data = data.rechunk({0: -1, **{axis: _whole_tiles(data.chunks[axis], tile) for axis in (1, 2)}})
    counts = tuple(tuple(-(-size // tile) for size in data.chunks[axis]) for axis in (1, 2))
    votes = data.map_blocks(
        majority_block, tile, chunks=(data.chunks[0], *counts), dtype="uint8", meta=np.empty((0, 0, 0), "uint8")
    )
    return _votes(votes, labels, tile)


def _whole_tiles(sizes: Sequence[int], tile: int) -> int:
    """Give a chunk size near the present ones that holds whole tiles."""
    return max(max(sizes) // tile, 1) * tile


def majority_block(labels: np.ndarray, tile: int) -> np.ndarray:
    """Take the vote of every tile of a block that starts at a tile's corner.

    Parameters
    ----------
    labels : (k, y, x) uint8 array
    tile : int

    Returns
    -------
    (k, tile_y, tile_x) uint8 array
    """
    shape = (len(labels), *(-(-size // tile) for size in labels.shape[1:]))
    votes = np.empty(shape, dtype="uint8")
    _vote(np.ascontiguousarray(labels), tile, votes)
    return votes


# Votes beside the labels of a store

NAME = "majority"


@dataclass(frozen=True)
class Votes:
    """The array of votes in a store of labels: one entry a tile, one chunk a shard of the labels.

    Attributes
    ----------
    shape : (int, int, int)
        Of the labels, (k, y, x).
    shard : int
        Side of a shard of the labels, in pixels, a multiple of ``tile``.
    tile : int
    """

    shape: tuple[int, int, int]
    shard: int
    tile: int

    def __call__(self, place: store.Place) -> None:
        """Make the array, empty, in a new store."""
        counts = tuple(-(-size // self.tile) for size in self.shape[1:])
        side = self.shard // self.tile
        store.group(place, write=True).create_array(
            NAME,
            shape=(self.shape[0], *counts),
            chunks=(self.shape[0], side, side),
            dtype="uint8",
            fill_value=schema.UNKNOWN,
            dimension_names=("k", "majority_y", "majority_x"),  # tile_y and tile_x are the ledger's
            attributes={"tile": self.tile},
        )

    def put(self, target: str, labels: np.ndarray, y: slice, x: slice) -> None:
        """Count and write the votes of one shard, (k, y, x)."""
        rows, columns = (slice(axis.start // self.tile, -(-axis.stop // self.tile)) for axis in (y, x))
        store.put(target, majority_block(labels, self.tile), rows, columns, name=NAME)


def read_majority(path: str | Path) -> xr.DataArray:
    """Read the votes that ``write(..., tile=...)`` counted beside the labels.

    Parameters
    ----------
    path : str or Path
        The store of labels.

    Returns
    -------
    DataArray (k, tile_y, tile_x) uint8
        As ``majority`` gives them.

    Raises
    ------
    BadInput
        If the store holds none.
    NotFound, Unreadable
        If it is not there or cannot be read.
    """
    labels = store.open(path)
    if NAME not in store.group(path):
        raise BadInput(sentence("path", "hold the votes of tiles", f"path={path}", "Write it with tile="))
    votes = store.array(path, name=NAME)
    return _votes(np.asarray(votes[:]), labels, int(votes.attrs["tile"]))  # type: ignore[arg-type]


def _votes(data: Any, labels: xr.DataArray, tile: int) -> xr.DataArray:
    """Name the axes of votes."""
    coords = {
        "k": labels["k"].values if "k" in labels.coords else np.arange(labels.sizes["k"]),
        "tile_y": np.arange(data.shape[1]) * tile,
        "tile_x": np.arange(data.shape[2]) * tile,
    }
    attrs = {"_FillValue": np.uint8(schema.UNKNOWN), "tile": tile}
    return xr.DataArray(data, dims=("k", "tile_y", "tile_x"), coords=coords, name=NAME, attrs=attrs)


@njit(nogil=True, cache=True)
def _vote(labels, tile, votes):  # type: ignore[no-untyped-def]
    count = np.zeros(256, dtype=np.int64)
    for k in range(votes.shape[0]):
        for row in range(votes.shape[1]):
            for column in range(votes.shape[2]):
                count[:] = 0
                for y in range(row * tile, min((row + 1) * tile, labels.shape[1])):
                    for x in range(column * tile, min((column + 1) * tile, labels.shape[2])):
                        count[labels[k, y, x]] += 1
                enough = 2 * count[:255].sum() >= tile * tile
                votes[k, row, column] = np.argmax(count[:255]) if enough else 255

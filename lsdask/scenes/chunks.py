"""Chunks: the lazy array of a cube, one task a chunk, made when Dask asks for it.

The graph holds the files once, not once a task: ten thousand of them make one mosaic.
"""

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.blockwise import BlockwiseDep, blockwise
from dask.highlevelgraph import HighLevelGraph

from lsdask.errors import BadInput, sentence
from lsdask.scenes.painting import Chunk, Layer, Target, read_block


class Chunks(BlockwiseDep):
    """Gives the task of each chunk when Dask asks for it, so that a graph of any size is a list of files.

    Parameters
    ----------
    target : Target
    layers : sequence of Layer
        In painting order.
    step : sequence of int
        The time step of each layer.
    steps : int
        Time steps in all.
    chunks : (int, int)
        Pixels of a chunk, (y, x).
    """

    produces_tasks = False

    def __init__(
        self, target: Target, layers: Sequence[Layer], step: Sequence[int], steps: int, chunks: tuple[int, int]
    ) -> None:
        order = np.argsort(np.asarray(step, "int64"), kind="stable")  # a chunk then looks at its own step alone
        self.target, self.chunks = target, chunks
        self.layers = tuple(layers[i] for i in order)
        self.boxes = np.array([layer.box for layer in self.layers], dtype="int64").reshape(-1, 4)
        self.edges = np.searchsorted(np.asarray(step, "int64")[order], np.arange(steps + 1))
        self.numblocks = (steps, 1, *(-(-size // side) for size, side in zip(target.shape, chunks)))

    def __getitem__(self, idx: tuple[int, ...]) -> Chunk:
        step, _, row, column = idx
        top, left = row * self.chunks[0], column * self.chunks[1]
        bottom = min(top + self.chunks[0], self.target.shape[0])
        right = min(left + self.chunks[1], self.target.shape[1])
        first, last = self.edges[step : step + 2]
        boxes = self.boxes[first:last]
        touches = (boxes[:, 0] < bottom) & (boxes[:, 1] < right) & (boxes[:, 2] > top) & (boxes[:, 3] > left)
        layers = tuple(self.layers[first + i] for i in np.flatnonzero(touches))
        return Chunk(self.target, (top, left, bottom, right), layers)


def lazy(target: Target, layers: Sequence[Layer], step: Sequence[int], steps: int, chunks: Any) -> da.Array:
    """Make the Dask array (time, band, y, x) whose chunks ``read_block`` reads.

    Parameters
    ----------
    target, layers, step, steps
        As ``Chunks`` takes them.
    chunks : int or (int, int)
        Pixels of a chunk, (y, x).

    Raises
    ------
    BadInput
        If ``chunks`` is anything else.
    """
    sides = (chunks, chunks) if isinstance(chunks, int | np.integer) else tuple(chunks)
    if len(sides) != 2 or any(not isinstance(side, int | np.integer) or side < 1 for side in sides):
        raise BadInput(sentence("chunks", "be one or two positive numbers of pixels", f"chunks={chunks!r}"))
    height, width = (min(int(side), size) for side, size in zip(sides, target.shape))
    places = Chunks(target, layers, step, steps, (height, width))
    name = "scenes-" + tokenize(repr((target, layers, list(step), height, width)))  # as text: a tenth of the time
    layer = blockwise(read_block, name, "tbyx", places, "tbyx", numblocks={}, concatenate=True)
    sizes = da.core.normalize_chunks((1, -1, height, width), (steps, target.bands, *target.shape))
    graph = HighLevelGraph.from_collections(name, layer)
    return da.Array(graph, name, chunks=sizes, meta=np.empty((0, 0, 0, 0), np.dtype(target.dtype)))

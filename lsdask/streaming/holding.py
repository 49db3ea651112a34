"""Pixels at hand: held while tiles need them, and cut into batches ahead of time."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from lsdask.streaming.planning import Plan, overlap


class Batch(NamedTuple):
    """Tiles that go through a model together.

    Attributes
    ----------
    image : (tile, band, y, x) array, as stored
    mask : (tile, y, x) uint8 array or None
        1 landslide, 0 not, 255 where unknown or where the image has no data.
    """

    image: np.ndarray
    mask: np.ndarray | None


Batches = Generator[Batch, None, None]
"""Gives batches, and is closed by who needs no more of them: what reads ahead then stops."""


class Held:
    """The pixels at hand: reads that tiles are still cut from, and tiles that wait for further reads."""

    def __init__(self, plan: Plan, windows: np.ndarray) -> None:
        self._plan, self._windows = plan, windows
        self._side = (windows[0, 2:] - windows[0, :2]).tolist()
        self._starts = np.searchsorted(plan.pieces[:, 0], np.arange(len(plan.reads) + 1))
        self._home = np.full(len(windows), -1)
        self._home[plan.pieces[:, 1]] = plan.pieces[:, 0]
        self._home[plan.across] = -1
        self._reads: dict[int, Batch] = {}
        self._waiting: dict[int, Batch] = {}
        self._arrived = 0

    def __len__(self) -> int:
        """Reads that have come."""
        return self._arrived

    def rows(self, read: int) -> np.ndarray:
        """Give the rows of the tile index that have pixels in a read."""
        return self._plan.pieces[self._starts[read] : self._starts[read + 1], 1]

    def add(self, block: Batch) -> None:
        """Take the next read, and copy its parts of tiles that lie across reads."""
        i = self._arrived
        self._reads[i], self._arrived = block, i + 1
        rows = self.rows(i)
        for row in rows[self._plan.across[rows]].tolist():
            tile = self._waiting.setdefault(row, _empty(block, (), self._side))
            there, here = overlap(self._plan.reads[i].tolist(), self._windows[row].tolist())
            tile.image[:, *here] = block.image[:, *there]
            if tile.mask is not None and block.mask is not None:
                tile.mask[here] = block.mask[there]

    def cut(self, batch: int) -> Batch:
        """Give a batch, and let go of the reads that no later batch is cut from."""
        rows = self._plan.order[self._plan.bounds[batch] : self._plan.bounds[batch + 1]]
        tiles = [self._tile(*place) for place in zip(rows.tolist(), self._home[rows].tolist())]
        out = _empty(tiles[0], (len(tiles),), self._side)
        for j, tile in enumerate(tiles):
            out.image[j] = tile.image
            if out.mask is not None and tile.mask is not None:
                out.mask[j] = tile.mask
        for i in [i for i in self._reads if self._plan.last[i] <= batch]:
            del self._reads[i]
        return out

    def _tile(self, row: int, home: int) -> Batch:
        if home < 0:
            return self._waiting.pop(row)
        there, _ = overlap(self._plan.reads[home].tolist(), self._windows[row].tolist())
        block = self._reads[home]
        return Batch(block.image[:, *there], None if block.mask is None else block.mask[there])


def _empty(like: Batch, lead: tuple[int, ...], side: tuple[int, int]) -> Batch:
    image = np.empty((*lead, like.image.shape[0], *side), like.image.dtype)
    return Batch(image, None if like.mask is None else np.empty((*lead, *side), like.mask.dtype))


def prepared(batches: Batches, ahead: int) -> Batches:
    """Give what an iterator gives, got by a thread that is at most so many items ahead."""
    if not ahead:
        yield from batches
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="lsdask-stream-cut")
    coming: deque[Future[Batch | None]] = deque()
    try:
        while True:
            coming.extend(pool.submit(next, batches, None) for _ in range(ahead + 1 - len(coming)))
            batch = coming.popleft().result()
            if batch is None:
                return
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        batches.close()

"""Which batches of which tiles an epoch has, and who makes which: integers only, no pixels and no I/O."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsdask import sampling
from lsdask.errors import BadInput, sentence
from lsdask.streaming import planning
from lsdask.streaming.planning import Layout, Plan


@dataclass(frozen=True)
class Windows:
    """What is cut, one window a tile.

    Attributes
    ----------
    places : (tile, 4) int array
        y0, x0, y1, x1, all of one size.
    bounds : (batch + 1,) int array, optional
        Where each batch begins, if they are not to be cut by a size.
    names : sequence of str, optional
        What people call the tiles.
    """

    places: np.ndarray
    bounds: np.ndarray | None = None
    names: Sequence[str] | None = None

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of a tile."""
        y0, x0, y1, x1 = self.places[0].tolist()
        return y1 - y0, x1 - x0

    def name(self, row: int) -> str:
        """Name a tile, for people."""
        if self.names is not None:
            return self.names[row]
        return f"{row} (y={self.places[row, 0]}, x={self.places[row, 1]})"


def windows_of(tiles: pd.DataFrame, shape: tuple[int, int]) -> Windows:
    """Check a tile index, and give its windows.

    Raises
    ------
    BadInput
        If it is empty, of several sizes, or not inside an image of this shape.
    """
    sampling.check(tiles)
    sampling.check_inside(tiles, shape)
    sizes = np.unique(tiles["size"])
    if len(sizes) > 1:
        raise BadInput(sentence("tiles", "have one size", f"sizes {sizes.tolist()}", "Make a stream for each"))
    y, x, size = (tiles[column].to_numpy(dtype="int64") for column in ("y", "x", "size"))
    return Windows(np.stack([y, x, y + size, x + size], axis=1))


@dataclass(frozen=True)
class Order:
    """The order of a stream: the n-th batch of an epoch is the same whoever makes it.

    An epoch of a rank's share is made of *lanes*, which are read each by itself and whose batches take turns: the
    n-th is of lane ``n % lanes``.

    Attributes
    ----------
    windows : Windows
    layout : Layout
    batch_size, shuffle, seed, drop_last, rank, world, lanes
        As of TileStream.
    """

    windows: Windows
    layout: Layout
    batch_size: int
    shuffle: bool
    seed: int
    drop_last: bool
    rank: int = 0
    world: int = 1
    lanes: int = 1

    def __post_init__(self) -> None:
        check_counts(1, batch_size=self.batch_size, world=self.world, lanes=self.lanes)
        check_counts(0, seed=self.seed)
        if not 0 <= self.rank < self.world:
            raise BadInput(sentence("rank", f"be from 0 to {self.world - 1}, below world", f"rank={self.rank}"))

    def __len__(self) -> int:
        return len(self._share(np.arange(len(self.windows.places)))[1]) - 1

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this order from others; JSON."""
        cut = [part for part in (self.windows.places, self.windows.bounds) if part is not None]
        tiles = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in cut)).hexdigest()[:16]
        layout = [*self.layout.cell, self.layout.region, self.layout.keep]
        names = ("batch_size", "shuffle", "seed", "drop_last", "rank", "world", "lanes")
        plain = {name: np.asarray(getattr(self, name)).item() for name in names}  # numpy's numbers are no JSON
        return {**plain, "tiles": tiles, "layout": layout}

    def turns(self, begin: int, worker: int, workers: int) -> dict[int, int]:
        """Say which lanes are a worker's, and how many batches of each come before batch ``begin`` of the epoch.

        Worker i of n makes every n-th batch from the ``begin + i``-th on, as a torch DataLoader takes them.

        Examples
        --------
        >>> order = Order(Windows(np.zeros((1, 4), int)), None, 1, True, 0, False, lanes=4)
        >>> order.turns(5, 0, 2), order.turns(5, 1, 2)
        ({1: 1, 3: 1}, {0: 2, 2: 1})
        """
        mine = [lane for lane in range(self.lanes) if (lane - begin) % workers == worker]
        return {lane: -((lane - begin) // self.lanes) for lane in mine}

    def plan(self, epoch: int, lane: int = 0, skip: int = 0) -> Plan:
        """Plan an epoch of a lane, but for its first ``skip`` batches."""
        places, n = self.windows.places, len(self.windows.places)
        if self.shuffle:
            pieces, homes = planning.reads_shuffled(places, self.layout, [self.seed, epoch, 0])
            rows, bounds = self._lane(*self._share(np.argsort(planning.completed(pieces, n), kind="stable")), lane)
            order = rows[self._spread(rows, pieces, [self.seed, epoch, 1, lane])]
        else:
            pieces, homes = planning.reads_in_order(places, self.layout)
            order, bounds = self._lane(*self._share(np.arange(n)), lane)
        order, bounds = order[bounds[skip] :], bounds[skip:] - bounds[skip]
        return planning.schedule(order, bounds, pieces, homes, places, self.layout)

    def rows(self, epoch: int) -> list[np.ndarray]:
        """Give the rows of the tile index in each batch of an epoch."""
        batches: list[np.ndarray] = [np.empty(0, dtype="int64")] * len(self)
        for lane in range(self.lanes):
            plan = self.plan(epoch, lane)
            batches[lane :: self.lanes] = np.split(plan.order, plan.bounds[1:-1])[: len(plan.bounds) - 1]
        return batches

    def _share(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take this rank's share of rows that are in the order of their reads, and cut it into batches."""
        own = self.windows.bounds
        if own is not None:
            batches = np.arange(len(own))[planning.share(len(own) - 1, self.rank, self.world)]
            bounds = own[batches[0] : batches[-1] + 2] if len(batches) else own[:1]
            return rows[bounds[0] : bounds[-1]], bounds - bounds[0]
        full = len(rows) // self.world // self.batch_size * self.batch_size
        rows = rows[planning.share(len(rows), self.rank, self.world)][: full if self.drop_last else None]
        return rows, np.append(np.arange(0, len(rows), self.batch_size), len(rows))

    def _lane(self, rows: np.ndarray, bounds: np.ndarray, lane: int) -> tuple[np.ndarray, np.ndarray]:
        """Take a lane's batches: neighbours, to be shuffled; else every so-many-th, so that the table's order stays."""
        batches = np.arange(len(bounds) - 1)
        part = planning.share(len(batches), lane, self.lanes) if self.shuffle else slice(lane, None, self.lanes)
        mine = np.zeros(len(batches), dtype=bool)
        mine[part] = True
        sizes = np.diff(bounds)
        return rows[np.repeat(mine, sizes)], np.cumsum([0, *sizes[mine]])

    def _spread(self, rows: np.ndarray, pieces: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """Order these rows over their own reads."""
        mine = np.zeros(len(self.windows.places), dtype=bool)
        mine[rows] = True
        pieces = pieces[mine[pieces[:, 1]]]
        used, read = np.unique(pieces[:, 0], return_inverse=True)
        complete = planning.completed(np.stack([read, pieces[:, 1]], axis=1), len(mine))
        return planning.spread(complete[rows], len(used), self.layout.keep, seed)


def check_counts(least: int, **counts: int) -> None:
    """Raise BadInput if one is not a whole number, or below ``least``."""
    for name, value in counts.items():
        if not isinstance(value, int | np.integer) or value < least:
            raise BadInput(sentence(name, f"be a whole number, at least {least}", f"{name}={value!r}"))

"""Runs: the unbroken stretches of true pixels of each row, found, joined across tiles, and told apart by area.

Runs are few, and they join across tiles by being laid end to end. Pixels are joined by their sides, or their corners
too. Integers only: no CRS, no Dask, no I/O.
"""

from typing import Any, NamedTuple

import numpy as np

from lsdask.compiling import njit


class Runs(NamedTuple):
    """Stretches of true pixels, sorted by row and start.

    Attributes
    ----------
    row, start, stop : (run,) int64
        Pixels ``[start, stop)`` of a row of the whole map.
    total, top : (run,) float64
        Sum and largest of the values of these pixels.
    """

    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    total: np.ndarray
    top: np.ndarray

    def take(self, chosen: np.ndarray) -> "Runs":
        """Give some of the runs, by a bool array or by their positions in rising order."""
        return Runs(*(part[chosen] for part in self))


@njit(cache=True, nogil=True)
def _scan(values: Any, low: Any, high: Any, row: Any, start: Any, stop: Any, total: Any, top: Any) -> int:
    """Write the runs of values from low to high, as many as there is room for; give how many there are."""
    n, room = 0, row.size
    for r in range(values.shape[0]):
        j = 0
        while j < values.shape[1]:
            if not low <= values[r, j] <= high:
                j += 1
                continue
            first, added, most = j, 0.0, values[r, j]
            while j < values.shape[1] and low <= values[r, j] <= high:
                added += values[r, j]
                most = max(most, values[r, j])
                j += 1
            if n < room:
                row[n], start[n], stop[n], total[n], top[n] = r, first, j, added, most
            n += 1
    return n


def runs_block(values: np.ndarray, low: Any, high: Any, *, corner: tuple[int, int] = (0, 0)) -> Runs:
    """Find the runs of pixels whose value lies from ``low`` to ``high``.

    Parameters
    ----------
    values : (y, x) array
        NaN lies in no range.
    low, high : number
        Both included.
    corner : (int, int)
        Row and column of the first pixel in the whole map.

    Returns
    -------
    Runs
    """
    room = values.size // 32 + 1024
    while True:
        places = [np.empty(room, "int64") for _ in range(3)]
        sums = [np.empty(room, "float64") for _ in range(2)]
        n = _scan(values, low, high, *places, *sums)
        if n <= room:
            row, start, stop = (part[:n] for part in places)
            return Runs(row + corner[0], start + corner[1], stop + corner[1], sums[0][:n], sums[1][:n])
        room = n


def merge(pieces: list[Runs]) -> Runs:
    """Put the runs of neighbouring tiles together: sorted, and one where two meet end to end.

    Returns
    -------
    Runs
    """
    runs = Runs(*(np.concatenate(parts) for parts in zip(*pieces)))
    runs = runs.take(np.lexsort((runs.start, runs.row)))
    if not len(runs.row):
        return runs
    meets = (runs.row[1:] == runs.row[:-1]) & (runs.start[1:] == runs.stop[:-1])
    first = np.flatnonzero(np.concatenate([[True], ~meets]))
    last = np.append(first[1:], len(runs.row)) - 1
    total, top = np.add.reduceat(runs.total, first), np.maximum.reduceat(runs.top, first)
    return Runs(runs.row[first], runs.start[first], runs.stop[last], total, top)


@njit(cache=True, nogil=True)
def _root(parent: Any, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def areas_block(row: Any, start: Any, stop: Any, reach: int) -> Any:
    """Say which area each run belongs to.

    Parameters
    ----------
    row, start, stop : (run,) int64
        As in ``Runs``.
    reach : int
        0 joins pixels by their sides (4-connected), 1 by their corners too (8-connected).

    Returns
    -------
    (run,) int64
        The position of the area's first run.
    """
    parent = np.arange(row.size)
    above = 0
    for i in range(row.size):
        while above < i and (row[above] < row[i] - 1 or (row[above] < row[i] and stop[above] + reach <= start[i])):
            above += 1
        j = above
        while j < i and row[j] < row[i] and start[j] < stop[i] + reach:
            a, b = _root(parent, i), _root(parent, j)
            parent[max(a, b)] = min(a, b)
            j += 1
    for i in range(row.size):
        parent[i] = _root(parent, i)
    return parent


def parted(runs: Runs, marked: np.ndarray, *, reach: int) -> tuple[Runs, Runs]:
    """Part runs into those of areas none of whose runs is marked, and the others.

    Parameters
    ----------
    runs : Runs
    marked : (run,) bool
    reach : int
        As for ``areas``.

    Returns
    -------
    (Runs, Runs)
    """
    area = areas_block(runs.row, runs.start, runs.stop, reach)
    goes_on = np.zeros(len(area), dtype=bool)
    goes_on[area[marked]] = True
    return runs.take(~goes_on[area]), runs.take(goes_on[area])

"""Outlines of the true pixels of a map of any size, as integers: no CRS, no Dask, no I/O.

A map is first reduced to ``runs``. An outline follows from the runs of two neighbouring rows alone: it has a corner
wherever a run begins or ends in one row and not in the other. So a tile traces what lies inside it and hands on the
runs of what touches its edge; tracing those again, all tiles together, gives the outlines that the whole map would
have given, point for point.

Rings never touch themselves: the parts of an area that meet
only at corners are rings of their own, so every geometry made of them is valid.
"""

from typing import Any, NamedTuple

import numpy as np

from lsdask.compiling import njit
from lsdask.inventory.runs import Runs, areas_block, parted, runs_block


class Rings(NamedTuple):
    """Outlines of areas, in pixel coordinates; positive (clockwise, y falling) outside, negative round a hole.

    Attributes
    ----------
    corners : (corner, 2) int64
        (x, y), ring after ring; a ring's first corner is not repeated.
    size : (ring,) int64
        Corners of each ring.
    part : (ring,) int64
        The 4-connected part that each ring bounds, as the position of its first run; outside first, then its holes.
    """

    corners: np.ndarray
    size: np.ndarray
    part: np.ndarray


@njit(cache=True, nogil=True)
def _corners(row: Any, start: Any, stop: Any) -> Any:
    """Find every corner of every outline and the corner that follows it.

    Each line between two rows is swept from left to right over the ends of the runs above and below it. Where a
    run begins or ends on one side only, the outline turns; where one ends above and another begins below (or the
    other way about), two corners of one place belong to the two runs that meet there.

    Returns
    -------
    x, y : (corner,) int64
    follower : (corner,) int64
        The next corner, with the area on the right hand.
    twin : (corner,) int64
        The other corner of the same place, or -1.
    run : (corner,) int64
        A run of the area it bounds.
    """
    n = row.size
    x, y = np.empty(4 * n, np.int64), np.empty(4 * n, np.int64)
    follower, twin, run = np.empty(4 * n, np.int64), np.full(4 * n, -1, np.int64), np.empty(4 * n, np.int64)
    opened = np.empty(2 * n, np.int64)  # the corner at the upper end of the side a run's start or stop lies on
    made = 0
    a0, a1, b1 = 0, 0, 0
    while a1 > a0 or b1 < n:
        if a1 > a0 and (b1 == n or row[b1] > row[a0] + 1):
            line, b0 = row[a0] + 1, b1  # below lies an empty row
        else:
            line, b0 = row[b1], b1
            while b1 < n and row[b1] == line:
                b1 += 1
        i, k = 2 * a0, 2 * b0  # ends of runs above and below: 2 * run for its start, 2 * run + 1 for its stop
        waiting = -1
        while i < 2 * a1 or k < 2 * b1:
            up = (stop[i // 2] if i % 2 else start[i // 2]) if i < 2 * a1 else np.int64(2**62)
            down = (stop[k // 2] if k % 2 else start[k // 2]) if k < 2 * b1 else np.int64(2**62)
            if up == down and i % 2 == k % 2:
                opened[k] = opened[i]
                i, k = i + 1, k + 1
                continue
            here = min(up, down)
            both = up == down
            for turn in range(2 if both else 1):
                c = made
                made += 1
                x[c], y[c] = here, line
                # At a place of two corners, the one whose horizontal side lies to the left comes first.
                ends = (turn == (1 - i % 2)) if both else up < down
                if ends:
                    run[c] = i // 2
                    if i % 2:
                        follower[opened[i]] = c
                    else:
                        follower[c] = opened[i]
                else:
                    run[c] = k // 2
                    opened[k] = c
                if waiting < 0:
                    waiting = c
                else:
                    # The area lies above this side if, just left of here, a run above is open.
                    if i % 2:
                        follower[c] = waiting
                    else:
                        follower[waiting] = c
                    waiting = -1
            if both:
                twin[made - 1], twin[made - 2] = made - 2, made - 1
            if up == here:
                i += 1
            if down == here:
                k += 1
        a0, a1 = b0, b1
    return x[:made], y[:made], follower[:made], twin[:made], run[:made]


@njit(cache=True, nogil=True)
def _follow(x: Any, y: Any, follower: Any, twin: Any) -> Any:
    """Walk from corner to corner; where a walk comes back to a place, what it went round is a ring of its own.

    Returns
    -------
    order : (corner,) int64
        The corners, ring after ring.
    size : (ring,) int64
    hole : (ring,) bool
    """
    order, size = np.empty(x.size, np.int64), np.empty(x.size // 4 + 1, np.int64)
    hole = np.empty(size.size, np.bool_)
    path, place = np.empty(x.size, np.int64), np.full(x.size, -1, np.int64)
    seen = np.zeros(x.size, np.bool_)
    rings, written = 0, 0
    for first in range(x.size):
        if seen[first]:
            continue
        c, length = first, 0
        while True:
            back = -1
            if seen[c]:
                back = 0
            elif twin[c] >= 0 and place[twin[c]] >= 0:
                back = place[twin[c]]
            if back >= 0:
                twice = np.int64(0)
                for k in range(back, length):
                    a, b = path[k], path[k + 1 if k + 1 < length else back]
                    twice += x[a] * y[b] - x[b] * y[a]
                    place[a] = -1
                    order[written + k - back] = a
                size[rings], hole[rings] = length - back, twice < 0
                written, rings, length = written + length - back, rings + 1, back
            if seen[c]:
                break
            seen[c] = True
            path[length], place[c] = c, length
            c, length = follower[c], length + 1
    return order, size[:rings], hole[:rings]


def rings_block(runs: Runs) -> Rings:
    """Trace the outlines of runs.

    Parameters
    ----------
    runs : Runs

    Returns
    -------
    Rings
        Without corners on a straight line; no ring touches itself.
    """
    x, y, follower, twin, run = _corners(runs.row, runs.start, runs.stop)
    order, size, hole = _follow(x, y, follower, twin)
    first = np.concatenate([[0], np.cumsum(size)])[:-1].astype(int)
    part = areas_block(runs.row, runs.start, runs.stop, 0)[run[order[first]]]
    sorted_ = np.lexsort((hole, part))
    corners = np.stack([x, y], axis=1)[order[spans(first[sorted_], size[sorted_])]]
    return Rings(corners, size[sorted_], part[sorted_])


def spans(first: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Give the positions of some ranges, one range after the other."""
    ends = np.cumsum(size)
    return np.repeat(first - ends + size, size) + np.arange(ends[-1] if len(ends) else 0)


class Areas(NamedTuple):
    """Traced areas, in the order of their first runs.

    Attributes
    ----------
    corners : (corner, 2) int64
        (x, y) in pixels, ring after ring; the first corner of a ring is not repeated.
    size : (ring,) int64
        Corners of each ring, part after part; a part's outside first, then its holes.
    rings : (part,) int64
        Rings of each 4-connected part, area after area.
    parts : (area,) int64
        Parts of each area: 1, or more where they meet only at corners.
    place : (area, 2) int64
        Row and column of its first pixel.
    pixels : (area,) int64
    total, top : (area,) float64
        Sum and largest of its pixels' values.
    """

    corners: np.ndarray
    size: np.ndarray
    rings: np.ndarray
    parts: np.ndarray
    place: np.ndarray
    pixels: np.ndarray
    total: np.ndarray
    top: np.ndarray


def areas(runs: Runs, *, reach: int = 0, least: int = 1) -> Areas:
    """Trace the areas that runs make up.

    Parameters
    ----------
    runs : Runs
    reach : int
        0 for 4-connected areas, 1 for 8-connected.
    least : int
        Leave out areas of fewer pixels.

    Returns
    -------
    Areas
    """
    first, area = np.unique(areas_block(runs.row, runs.start, runs.stop, reach), return_inverse=True)
    pixels = np.bincount(area, runs.stop - runs.start, len(first)).astype("int64")
    large = pixels >= least
    runs, area = runs.take(large[area]), (np.cumsum(large) - 1)[area[large[area]]]
    top = np.zeros(int(large.sum()))
    np.maximum.at(top, area, runs.top)
    corners, size, rings, parts = _traced(runs, area, len(top))
    place = np.stack([runs.row, runs.start], axis=1)[np.unique(area, return_index=True)[1]]
    return Areas(corners, size, rings, parts, place, pixels[large], np.bincount(area, runs.total, len(top)), top)


def together(pieces: list[Areas]) -> Areas:
    """Put the areas of several places into one table."""
    return Areas(*(np.concatenate(parts) for parts in zip(*pieces)))


def _traced(runs: Runs, area: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Trace runs, with rings in the order of their areas: corners, size, rings and parts, as in ``Areas``."""
    traced = rings_block(runs)
    order = np.argsort(area[traced.part], kind="stable")
    first = np.cumsum(traced.size) - traced.size
    corners = traced.corners[spans(first[order], traced.size[order])]
    part = traced.part[order]
    begins = np.flatnonzero(np.diff(part, prepend=-1))
    rings = np.diff(begins, append=len(part))
    return corners, traced.size[order], rings, np.bincount(area[part[begins]], minlength=n)


def trace_block(
    values: np.ndarray,
    low: Any,
    high: Any,
    *,
    corner: tuple[int, int],
    shape: tuple[int, int],
    reach: int = 0,
    least: int = 1,
) -> tuple[Areas, Runs]:
    """Trace the areas of a tile that touch no other tile.

    Parameters
    ----------
    values : (y, x) array
        The tile.
    low, high : number
        Pixels of values from low to high, both included, are traced.
    corner, shape : (int, int)
        Row and column of the tile's first pixel in the whole map; rows and columns of the whole map.
    reach, least : int
        As for ``areas``.

    Returns
    -------
    Areas
        What lies inside.
    Runs
        What reaches another tile.
    """
    runs = runs_block(values, low, high, corner=corner)
    (top, left), (bottom, right) = corner, (corner[0] + values.shape[0], corner[1] + values.shape[1])
    crosses = (runs.row == top) & (top > 0) | (runs.row == bottom - 1) & (bottom < shape[0])
    crosses |= (runs.start == left) & (left > 0) | (runs.stop == right) & (right < shape[1])
    inside, crossing = parted(runs, crosses, reach=reach)
    return areas(inside, reach=reach, least=least), crossing

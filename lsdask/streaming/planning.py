"""In which order tiles come, and what is read for them when: integers only, no pixels and no I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lsdask import sampling

WIDEST_CELL = 2048
"""Cells grow to this side, in pixels, before the order is confined to regions."""


@dataclass(frozen=True)
class Layout:
    """How an image is cut into cells.

    Attributes
    ----------
    shape : (int, int)
        The image, in pixels (y, x).
    cell : (int, int)
        What is read at once, in pixels (y, x): whole chunks.
    region : int
        Cells on each side of a region.
    keep : int
        Cells that the shuffle buffer holds.
    """

    shape: tuple[int, int]
    cell: tuple[int, int]
    region: int
    keep: int

    @property
    def columns(self) -> int:
        """Cells in a row of the image."""
        return -(-self.shape[1] // self.cell[1])


@dataclass(frozen=True)
class Plan:
    """Which tiles come when, and what is read for them.

    Attributes
    ----------
    order : (tile,) int array
        Rows of the tile index, in the order they come.
    bounds : (batch + 1,) int array
        Where each batch begins in ``order``.
    reads : (read, 4) int array
        Windows y0, x0, y1, x1 of the image, in the order they are read.
    pieces : (piece, 2) int array
        Read and row of the tile index, sorted: which tiles have pixels in which read.
    first, last : (read,) int arrays
        The first batch that needs a read, and the last that is cut from it.
    across : bool array, one a row of the tile index
        Whether a tile has pixels in several reads.
    """

    order: np.ndarray
    bounds: np.ndarray
    reads: np.ndarray
    pieces: np.ndarray
    first: np.ndarray
    last: np.ndarray
    across: np.ndarray

    def decodes(self, chunk: tuple[int, int]) -> tuple[int, int]:
        """Count the chunks that are decoded, and how many of them are different ones."""
        return decodes(self.reads, chunk)

    def peak(self, pixel: int, tile: int) -> int:
        """Give the most bytes held at a time, for so many bytes a pixel and a tile."""
        batch = np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))
        begun = np.full(len(self.across), len(self.bounds))
        np.minimum.at(begun, self.pieces[:, 1], self.first[self.pieces[:, 0]])
        across = self.across[self.order]
        area = (self.reads[:, 2:] - self.reads[:, :2]).prod(axis=1)
        cells = _held(self.first, self.last, area * pixel, len(self.bounds))
        tiles = _held(begun[self.order[across]], batch[across], np.full(across.sum(), tile), len(self.bounds))
        return int((cells + tiles).max())


def decodes(reads: np.ndarray, chunk: tuple[int, int]) -> tuple[int, int]:
    """Count the chunks that windows (rows of ``reads``) decode, and how many of them are different ones."""
    first, last = reads[:, :2] // chunk, (reads[:, 2:] - 1) // chunk
    _, chunks = sampling.touched(list(first.T), list(last.T), int(last[:, 1].max()) + 1)
    return len(chunks), len(np.unique(chunks))


def touching(windows: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Pair tiles (rows of ``windows``) with the cells they have pixels in, sorted by cell."""
    first, last = windows[:, :2] // layout.cell, (windows[:, 2:] - 1) // layout.cell
    return sampling.touched(list(first.T), list(last.T), layout.columns)


def reads_in_order(windows: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Read every cell that a tile touches once, row by row.

    Returns
    -------
    pieces : (piece, 2) int array
        Read and tile, sorted.
    homes : (read,) int array
        The cell of each read.
    """
    tile, cell = touching(windows, layout)
    homes, read = np.unique(cell, return_inverse=True)
    return np.stack([read, tile], axis=1), homes


def reads_shuffled(windows: np.ndarray, layout: Layout, seed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Read cells in a random order, region by region; a cell is read again for another region's tiles.

    Returns
    -------
    pieces : (piece, 2) int array
        Read and tile, sorted.
    homes : (read,) int array
        The cell of each read.
    """
    draw = np.random.default_rng(list(seed))
    tile, cell = touching(windows, layout)
    side = layout.region * np.asarray(layout.cell)
    row, column = (windows[tile, :2] // side).T
    cells = int(cell.max()) + 1
    keys, read = np.unique((row * -(-layout.shape[1] // side[1]) + column) * cells + cell, return_inverse=True)
    regions, region = np.unique(keys // cells, return_inverse=True)
    order = np.lexsort((draw.random(len(keys)), draw.permutation(len(regions))[region]))
    return _sorted_pieces(np.argsort(order)[read], tile), keys[order] % cells


def completed(pieces: np.ndarray, n: int) -> np.ndarray:
    """Give for each of ``n`` tiles the read that brings its last pixels; -1 for tiles without pieces."""
    last = np.full(n, -1)
    np.maximum.at(last, pieces[:, 1], pieces[:, 0])
    return last


def spread(complete: np.ndarray, reads: int, keep: int, seed: Sequence[int]) -> np.ndarray:
    """Order tiles so that each waits a random time in a buffer of ``keep`` reads.

    A tile completed by read r comes at a time drawn evenly from [r, r + keep), and none before the buffer is full;
    so at no time are more than ``keep`` reads needed.

    Parameters
    ----------
    complete : (tile,) int array
        The read, below ``reads``, that completes each tile.
    reads, keep : int
    seed : sequence of int

    Returns
    -------
    (tile,) int array
        Positions in ``complete``, in the order the tiles come.
    """
    keep = min(keep, reads)
    low, high = np.maximum(complete, keep - 1), np.minimum(complete + keep, reads)
    return np.argsort(low + (high - low) * np.random.default_rng(list(seed)).random(len(complete)), kind="stable")


def share(n: int, part: int, parts: int, unit: int = 1) -> slice:
    """Give one of several contiguous shares of ``n`` things, cut at multiples of ``unit`` and as even as can be.

    Examples
    --------
    >>> [share(10, part, 3) for part in range(3)]
    [slice(0, 4, None), slice(4, 7, None), slice(7, 10, None)]
    """
    each, left = divmod(-(-n // unit), parts)
    start, stop = (min((each * i + min(i, left)) * unit, n) for i in (part, part + 1))
    return slice(start, stop)


def schedule(
    order: np.ndarray, bounds: np.ndarray, pieces: np.ndarray, homes: np.ndarray, windows: np.ndarray, layout: Layout
) -> Plan:
    """Find when each read is needed by the batches of an order; reads that none of its tiles needs are left out.

    Parameters
    ----------
    order, bounds : int arrays
        As in Plan.
    pieces, homes : int arrays
        As ``reads_in_order`` gives them, perhaps for more tiles.
    windows : (tile, 4) int array
        y0, x0, y1, x1.
    layout : Layout
    """
    batch = np.full(len(windows), -1)
    batch[order] = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    pieces = pieces[batch[pieces[:, 1]] >= 0]
    tile = pieces[:, 1]
    across = np.bincount(tile, minlength=len(windows)) > 1
    used, read = np.unique(pieces[:, 0], return_inverse=True)
    first = np.full(len(used), len(bounds))
    np.minimum.at(first, read, batch[tile])
    last = first.copy()
    np.maximum.at(last, read[~across[tile]], batch[tile][~across[tile]])
    turn = np.argsort(first, kind="stable")
    pieces = _sorted_pieces(np.argsort(turn)[read], tile)
    reads = _needed(pieces, homes[used[turn]], windows, layout)
    return Plan(order, bounds, reads, pieces, first[turn], last[turn], across)


def overlap(read: Sequence[int], tile: Sequence[int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Give where two windows y0, x0, y1, x1 overlap: in the first, and in the second.

    Examples
    --------
    >>> overlap((0, 0, 10, 10), (8, 4, 12, 8))
    ((slice(8, 10, None), slice(4, 8, None)), (slice(0, 2, None), slice(0, 4, None)))
    """
    y0, y1 = max(read[0], tile[0]), min(read[2], tile[2])
    x0, x1 = max(read[1], tile[1]), min(read[3], tile[3])
    first = slice(y0 - read[0], y1 - read[0]), slice(x0 - read[1], x1 - read[1])
    return first, (slice(y0 - tile[0], y1 - tile[0]), slice(x0 - tile[1], x1 - tile[1]))


def _needed(pieces: np.ndarray, homes: np.ndarray, windows: np.ndarray, layout: Layout) -> np.ndarray:
    """Give the window of each read: the part of its cell that its tiles cover."""
    corner = np.stack(np.divmod(homes, layout.columns), axis=1) * layout.cell
    low = np.maximum(windows[pieces[:, 1], :2], corner[pieces[:, 0]])
    high = np.minimum(windows[pieces[:, 1], 2:], (corner + layout.cell)[pieces[:, 0]])
    begin = np.searchsorted(pieces[:, 0], np.arange(len(homes)))
    return np.concatenate([np.minimum.reduceat(low, begin), np.maximum.reduceat(high, begin)], axis=1)


def _sorted_pieces(read: np.ndarray, tile: np.ndarray) -> np.ndarray:
    order = np.lexsort((tile, read))
    return np.stack([read[order], tile[order]], axis=1)


def _held(first: np.ndarray, last: np.ndarray, weight: np.ndarray, n: int) -> np.ndarray:
    """Sum, at each of ``n`` times, the weights of what is held from ``first`` to ``last``."""
    return np.cumsum(np.bincount(first, weight, n + 1) - np.bincount(last + 1, weight, n + 1))[:n]


def best_layout(
    windows: np.ndarray, shape: tuple[int, int], chunk: tuple[int, int], *, buffer: int, pixel: int
) -> Layout:
    """Choose the layout that mixes best and reads least within a buffer.

    Small cells mix best, but more tiles lie across them, waiting. So, until two thirds of the buffer hold the
    cells that are kept and the rest the tiles that wait: fewer cells are kept, then cells grow, and at last the
    order is confined to regions, at whose borders chunks are read twice.

    Parameters
    ----------
    windows : (tile, 4) int array
        y0, x0, y1, x1, all of one size.
    shape, chunk : (int, int)
        Of the image, in pixels (y, x).
    buffer : int
        Bytes.
    pixel : int
        Bytes of a pixel.

    Returns
    -------
    Layout
        Of two cells of a chunk if nothing fits.
    """
    tile = windows[0, 2:] - windows[0, :2]
    confined: list[Layout] = []
    for cell in _growing_cells(shape, chunk, max(WIDEST_CELL, 2 * int(tile.max())), buffer * 2 // 3 // pixel):
        waits = _waits(windows, shape, cell)
        most = max(2, buffer * 2 // 3 // pixel // (cell[0] * cell[1]))
        for keep in sorted({most, max(2, most // 2), max(2, most // 4)}, reverse=True):
            room = (buffer // pixel - (keep + 1) * cell[0] * cell[1]) // int(tile.prod())
            for region in _shrinking(max(waits.shape[1:])):
                if waiting(waits, region, keep) <= room or region == 1:
                    confined.append(Layout(shape, cell, region, keep))
                    break
            if confined[-1].region == max(waits.shape[1:]):
                return confined[-1]
    return max(confined, key=lambda layout: layout.region * layout.cell[0])


def _growing_cells(
    shape: tuple[int, int], chunk: tuple[int, int], widest: int, pixels: int
) -> Iterator[tuple[int, int]]:
    """Give cells of 1, 4, 16 and 64 chunks, as far as they are not wider than that and two fit in ``pixels``."""
    for times in (1, 2, 4, 8):
        sides = times * chunk[0], times * chunk[1]
        if times == 1 or (max(sides) <= widest and 2 * sides[0] * sides[1] <= pixels):
            yield min(sides[0], shape[0]), min(sides[1], shape[1])


def _shrinking(cells: int) -> list[int]:
    """Give sides of regions that cut a row of cells evenly, from all of it down to 1."""
    return sorted({-(-cells // regions) for regions in range(1, cells + 1)}, reverse=True)


def _waits(windows: np.ndarray, shape: tuple[int, int], cell: tuple[int, int]) -> np.ndarray:
    """Count the tiles that lie across cells, by the cell of their first pixel.

    Of tiles with p pieces that come at random times in a region's reads, at most a share of 1 - 2^(1 - p) has some
    but not all: 1 - t^p - (1 - t)^p is greatest half-way.

    Returns
    -------
    (2, row, column) float64 array
        The tiles, and the most of them that wait.
    """
    first, last = windows[:, :2] // cell, (windows[:, 2:] - 1) // cell
    pieces = (last - first + 1).prod(axis=1)
    rows, columns = -(-shape[0] // cell[0]), -(-shape[1] // cell[1])
    home = (first[:, 0] * columns + first[:, 1]).astype("int64", copy=False)
    across = np.bincount(home, pieces > 1, rows * columns)
    waits = np.bincount(home, 1 - 0.5 ** (pieces - 1.0), rows * columns)
    return np.stack([across, waits]).reshape(2, rows, columns)


def waiting(waits: np.ndarray, region: int, keep: int) -> float:
    """Estimate the most tiles that wait at a time: for further reads, then for their turn among ``keep`` reads.

    Parameters
    ----------
    waits : (2, row, column) array
        Tiles across cells, and the most of them that wait for reads, of each cell.
    region, keep : int
        As in Layout.
    """
    for axis in (1, 2):
        waits = np.add.reduceat(waits, np.arange(0, waits.shape[axis], region), axis=axis)
    across, unread = waits.max(axis=(1, 2))
    return float(min(across, unread + across * keep / (2 * region**2)))

"""Batches of tiles out of an image on disk, about as fast as out of memory.

The image is read in *cells*, one or a few neighbouring chunks; each is read once, ahead of time, by threads. Tiles
that lie in one cell are cut from it; tiles that lie across several are put together as their cells come by. The
order is planned in integers before anything is read:

1. Cells come in a random order (inside *regions*, themselves in a random order, where an image is so large that
   the tiles waiting for another cell would not fit the buffer).
2. The tiles that a cell completes are spread evenly over the next cells to come, as many as the buffer holds; so a
   batch mixes tiles of all cells in the buffer.

So the order of an epoch depends on the seed and the epoch, never on threads or timing; any batch of it can be gone
on from; and ranks and loader workers take disjoint shares of it.
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from lsdask import sampling, schema, store
from lsdask.errors import BadInput, Unreadable, sentence

MIB = 2**20
WIDEST_CELL = 2048
"""Cells grow to this side, in pixels, before the order is confined to regions."""


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
        first, last = self.reads[:, :2] // chunk, (self.reads[:, 2:] - 1) // chunk
        _, chunks = sampling.touched(list(first.T), list(last.T), int(last[:, 1].max()) + 1)
        return len(chunks), len(np.unique(chunks))

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


class TileStream:
    """Batches of tiles, each tile once an epoch; iterate for an epoch of ``Batch(image, mask)``.

    An iteration that comes to its end raises ``epoch`` by one, so that the next has another order. Without
    ``shuffle`` tiles come in the table's order, and memory is what that order needs (for a grid, a row of chunks).

    Parameters
    ----------
    image : DataArray (band, y, x)
        Opened from a store (whose chunks are then read directly), any other Dask array, or in memory.
    tiles : DataFrame
        A tile index (``sampling``), of one size.
    mask : DataArray (y, x) uint8, optional
        0 not landslide, 1 landslide (or other classes below ``classes``), 255 unknown.
    batch_size : int
        Tiles a batch; the last of an epoch may have fewer.
    shuffle : bool
        A random order, by ``seed`` and ``epoch``.
    seed : int
    buffer : int
        Bytes of decoded pixels to shuffle among, at least two cells. ``explain()`` gives the planned peak, with
        the cells that ``threads`` read ahead.
    threads : int
        Threads that read ahead; the order does not depend on them.
    prefetch : int
        Batches that another thread cuts ahead while a model works on one; 0 cuts them when asked.
    drop_last : bool
        Leave out what does not fill a batch or would give ranks different lengths.
    rank, world : int
        Take the ``rank``-th of ``world`` disjoint shares of the tiles.
    classes : int
        The mask may hold 0 to ``classes - 1``, and always 0 and 1.

    Attributes
    ----------
    epoch : int
    bands : tuple of str
    nodata : float, int or None
        What stands for no data in ``Batch.image``.

    Raises
    ------
    BadInput
        If the tile index is empty, of several sizes or not inside the image, or the mask is off the image's grid.
        On iterating, if a tile's mask holds other values, or without ``shuffle`` the table's order needs more
        memory than ``buffer``.
    Unreadable
        On iterating, if a window cannot be read twice running; names the window and the chunk.

    Examples
    --------
    >>> image = xr.DataArray(np.zeros((4, 100, 100), "uint16"), dims=("band", "y", "x"))
    >>> stream = TileStream(image, sampling.grid(image, 32), batch_size=10)
    >>> [batch.image.shape for batch in stream]
    [(10, 4, 32, 32), (6, 4, 32, 32)]
    """

    def __init__(
        self,
        image: xr.DataArray,
        tiles: pd.DataFrame,
        *,
        mask: xr.DataArray | None = None,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int = 0,
        buffer: int = 256 * MIB,
        threads: int = 2,
        prefetch: int = 2,
        drop_last: bool = False,
        rank: int = 0,
        world: int = 1,
        classes: int = 1,
    ) -> None:
        schema.check(image, schema.MOSAIC)
        sampling.check(tiles)
        sampling.check_inside(tiles, sampling.shape_of(image))
        _check_mask_grid(mask, image)
        sizes = np.unique(tiles["size"])
        if len(sizes) > 1:
            raise BadInput(sentence("tiles", "have one size", f"sizes {sizes.tolist()}", "Make a stream for each"))
        _check_counts(1, batch_size=batch_size, buffer=buffer, threads=threads, world=world)
        _check_counts(0, prefetch=prefetch)
        if not 0 <= rank < world:
            raise BadInput(sentence("rank", f"be from 0 to {world - 1}, below world", f"rank={rank}"))
        self.batch_size, self.shuffle, self.seed, self.drop_last = batch_size, shuffle, seed, drop_last
        self.buffer, self.threads, self.prefetch, self.rank, self.world = buffer, threads, prefetch, rank, world
        self.bands, self.nodata, self.dtype = schema.bands(image), schema.nodata(image), image.dtype
        self.epoch = 0
        self._image = store.reader(image)
        self._mask = None if mask is None else store.reader(mask)
        self._highest = max(classes, 2) - 1
        y, x, size = (tiles[column].to_numpy(dtype="int64") for column in ("y", "x", "size"))
        self._windows = np.stack([y, x, y + size, x + size], axis=1)
        self._shape, self._chunk = sampling.shape_of(image), _chunk(image)
        self._own: np.ndarray | None = None
        self._given = self._skip = 0
        self._worker, self._workers = 0, 1
        self._process = os.getpid()

    @classmethod
    def from_xbatcher(
        cls,
        generator: Any,
        *,
        mask: xr.DataArray | None = None,
        batch_size: int | None = None,
        edges: bool = False,
        **options: Any,
    ) -> "TileStream":
        """Stream the patches of an ``xbatcher.BatchGenerator``: the same batches and values, each chunk read once.

        Patch i of a batch is ``Batch.image[i]``, in xbatcher's order.

        Parameters
        ----------
        generator : xbatcher.BatchGenerator
            Over a DataArray (band, y, x), with patches on y and x.
        mask : DataArray (y, x) uint8, optional
        batch_size : int, optional
            Cut the patches into batches anew; needed to shuffle them. The generator's own batches by default.
        edges : bool
            Add the patches at the right and lower edge that xbatcher leaves out, shifted back inside the image.
            Needs ``batch_size``.
        **options
            As of TileStream; ``shuffle`` is off by default.

        Raises
        ------
        BadInput
            If the generator cuts anything but a DataArray (band, y, x), or cuts its bands.
        """
        schema.check(generator.ds, schema.MOSAIC, "generator.ds")
        batches = [batch for batch in generator._batch_selectors.selectors.values() if batch]
        windows = np.array([_patch(patch, generator.ds) for batch in batches for patch in batch])
        if batch_size is None and (edges or options.get("shuffle")):
            raise BadInput(sentence("batch_size", "be given with edges or shuffle", "None", "Pass batch_size=32"))
        if edges:
            windows = _with_edges(windows, sampling.shape_of(generator.ds))
        corners = sampling.table(windows[:, 0], windows[:, 1], 1)  # patches may be oblong: their windows follow
        stream = cls(generator.ds, corners, mask=mask, **{"shuffle": False, "batch_size": batch_size or 1, **options})
        stream._windows = windows
        if batch_size is None:
            stream._own = np.cumsum([0, *(len(batch) for batch in batches)])
        return stream

    def torch(self) -> Any:
        """Give a ``torch.utils.data.IterableDataset`` of the batches.

        Its items are whole batches: image float32 (tile, band, y, x) with NaN for no data, as the networks of
        ``models`` take it, and mask uint8 (tile, y, x); or the image alone where there is no mask. Pass it to
        ``DataLoader(..., batch_size=None)``. Loader workers take disjoint shares; they must be started with
        ``multiprocessing_context="spawn"`` or ``"forkserver"``, and get their epoch when an iteration starts, so
        call ``set_epoch`` before each (or pass ``persistent_workers=True``).
        """
        return _dataset(self)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._bounds(np.arange(len(self._windows)))[1]) - 1

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches of the current epoch, or those left of it after ``load_state_dict``."""
        if os.getpid() != self._process:
            do = "Pass multiprocessing_context='spawn' or 'forkserver' to the DataLoader"
            raise BadInput(sentence("a stream", "not be used in a forked process, where Zarr may hang", "a fork", do))
        self._given, self._skip = self._skip, 0
        for batch in prepared(self._run(self._plan(self.epoch, self._given)), self.prefetch):
            self._given += 1
            yield batch
        self.epoch, self._given = self.epoch + 1, 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _process=os.getpid())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, and so the order, of the next iteration."""
        self.epoch, self._given, self._skip = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Say where the stream is: its epoch, how many batches of it were given, and what the order depends on."""
        return {"epoch": self.epoch, "batch": self._given, **self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken: the next iteration gives the batches left of that epoch.

        Raises
        ------
        BadInput
            If the state is of a stream with other tiles, order or shares.
        """
        for key, mine in self._identity.items():
            if state.get(key) != mine:
                raise BadInput(sentence("state", f"be of a stream with {key}={mine}", f"{key}={state.get(key)}"))
        self.epoch, self._given, self._skip = state["epoch"], state["batch"], state["batch"]

    def plan(self, epoch: int | None = None) -> Plan:
        """Plan an epoch of this stream's share, the current one by default; ``plan().order`` tells its tiles."""
        return self._plan(self.epoch if epoch is None else epoch, 0)

    def explain(self) -> dict[str, float]:
        """Say what an epoch does: tiles, batches, reads, chunks, decodes a chunk, and the most bytes held."""
        plan = self.plan()
        decoded, chunks = plan.decodes(self._chunk)
        peak = plan.peak(self._pixel, self._tile) + self.threads * int(np.prod(self._layout.cell)) * self._pixel
        facts = {"tiles": len(plan.order), "batches": len(plan.bounds) - 1, "reads": len(plan.reads)}
        return {**facts, "chunks": chunks, "decodes_per_chunk": decoded / chunks, "bytes": peak}

    @property
    def _identity(self) -> dict[str, Any]:
        tiles = hashlib.sha256(np.ascontiguousarray(self._windows).tobytes()).hexdigest()[:16]
        layout = [*self._layout.cell, self._layout.region, self._layout.keep]
        named = {name: getattr(self, name) for name in ("batch_size", "shuffle", "seed", "drop_last", "rank", "world")}
        return {**named, "worker": [self._worker, self._workers], "tiles": tiles, "layout": layout}

    @property
    def _pixel(self) -> int:
        """Bytes of a decoded pixel, its mask included."""
        return len(self.bands) * self.dtype.itemsize + (self._mask is not None)

    @property
    def _side(self) -> tuple[int, int]:
        """Height and width of a tile."""
        y0, x0, y1, x1 = self._windows[0].tolist()
        return y1 - y0, x1 - x0

    @property
    def _tile(self) -> int:
        """Bytes of a tile."""
        return self._side[0] * self._side[1] * self._pixel

    @cached_property
    def _layout(self) -> Layout:
        if not self.shuffle:
            return Layout(self._shape, self._chunk, 1, 1)
        return best_layout(self._windows, self._shape, self._chunk, buffer=self.buffer, pixel=self._pixel)

    def _bounds(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take this share of rows that are in the order of their reads, and cut it into batches."""
        if self._own is not None:
            batches = np.arange(len(self._own))[share(len(self._own) - 1, self.rank, self.world)]
            batches = batches[share(len(batches), self._worker, self._workers)]
            bounds = self._own[batches[0] : batches[-1] + 2] if len(batches) else self._own[:1]
            return rows[bounds[0] : bounds[-1]], bounds - bounds[0]
        full = len(rows) // self.world // self.batch_size * self.batch_size
        rows = rows[share(len(rows), self.rank, self.world)][: full if self.drop_last else None]
        rows = rows[share(len(rows), self._worker, self._workers, self.batch_size)]
        return rows, np.append(np.arange(0, len(rows), self.batch_size), len(rows))

    def _plan(self, epoch: int, skip: int) -> Plan:
        """Plan an epoch of this share, but for its first ``skip`` batches."""
        n = len(self._windows)
        if self.shuffle:
            pieces, homes = reads_shuffled(self._windows, self._layout, [self.seed, epoch, 0])
            rows, bounds = self._bounds(np.argsort(completed(pieces, n), kind="stable"))
            order = rows[self._spread(rows, pieces, [self.seed, epoch, 1])]
        else:
            pieces, homes = reads_in_order(self._windows, self._layout)
            order, bounds = self._bounds(np.arange(n))
        order, bounds = order[bounds[skip] :], bounds[skip:] - bounds[skip]
        plan = schedule(order, bounds, pieces, homes, self._windows, self._layout)
        if not self.shuffle:
            self._check_fits(plan)
        return plan

    def _spread(self, rows: np.ndarray, pieces: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """Order this share's rows over this share's reads."""
        mine = np.zeros(len(self._windows), dtype=bool)
        mine[rows] = True
        pieces = pieces[mine[pieces[:, 1]]]
        used, read = np.unique(pieces[:, 0], return_inverse=True)
        complete = completed(np.stack([read, pieces[:, 1]], axis=1), len(mine))
        return spread(complete[rows], len(used), self._layout.keep, seed)

    def _check_fits(self, plan: Plan) -> None:
        needs = plan.peak(self._pixel, self._tile) if len(plan.order) else 0
        if needs > self.buffer:
            do = f"Pass buffer={needs}, or shuffle=True, or tiles sorted by y and x"
            raise BadInput(sentence("buffer", "hold what the table's order needs", f"buffer={self.buffer}", do))

    def _run(self, plan: Plan) -> Iterator[Batch]:
        """Read ahead, and cut the batches of a plan."""
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="lsdask-stream")
        held = _Held(plan, self._windows)
        coming: deque[Future[Batch]] = deque()
        needed = np.searchsorted(plan.first, np.arange(len(plan.bounds) - 1), "right")
        try:
            for batch, reads in enumerate(needed.tolist()):
                for arrived in range(len(held), reads + 1):
                    while arrived + len(coming) < min(arrived + self.threads, len(plan.reads)):
                        coming.append(pool.submit(self._read, plan, arrived + len(coming)))
                    if arrived < reads:
                        held.add(coming.popleft().result())
                yield held.cut(batch)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, plan: Plan, i: int) -> Batch:
        """Read one window of image and mask: (band, y, x) and (y, x)."""
        y0, x0, y1, x1 = plan.reads[i].tolist()
        image = read_twice(self._image, slice(y0, y1), slice(x0, x1), self._chunk)
        if self._mask is None:
            return Batch(image, None)
        mask = read_twice(self._mask, slice(y0, y1), slice(x0, x1), self._chunk)
        other = (mask > self._highest) & (mask != schema.UNKNOWN)
        if other.any():
            self._refuse_mask(mask, other, plan, i)
        return Batch(image, np.where(schema.valid_block(image, self.nodata), mask, np.uint8(schema.UNKNOWN)))

    def _refuse_mask(self, mask: np.ndarray, other: np.ndarray, plan: Plan, i: int) -> None:
        """Raise BadInput if a tile's mask holds what stands for nothing."""
        for row in plan.pieces[plan.pieces[:, 0] == i, 1].tolist():
            there, _ = overlap(plan.reads[i].tolist(), self._windows[row].tolist())
            if other[there].any():
                y, x = self._windows[row, :2].tolist()
                got = f"{mask[there][other[there]][0]} in tile {row} (y={y}, x={x})"
                raise BadInput(sentence("mask", f"hold 0 to {self._highest} and {schema.UNKNOWN} (unknown)", got))


class MixedStream:
    """Batches of several streams (inventories, scenes) in one epoch; each batch is of one stream.

    Parameters
    ----------
    streams : sequence of TileStream
        With the same bands, dtype and nodata; all with a mask or none.
    weights : sequence of float, optional
        How often a stream's batches come in an epoch: 1 (by default) gives each once, 2 each twice, 0.5 half of
        them, drawn anew each epoch if the stream shuffles.
    seed : int
        Of the order in which the streams take turns.

    Attributes
    ----------
    epoch : int
    bands, nodata
        As of the streams.

    Raises
    ------
    BadInput
        If the streams differ, or the weights do not fit them.
    """

    def __init__(self, streams: Sequence[TileStream], *, weights: Sequence[float] | None = None, seed: int = 0) -> None:
        weights = [1.0] * len(streams) if weights is None else list(weights)
        if not streams or len(weights) != len(streams) or min(weights) < 0:
            raise BadInput(sentence("weights", "be one for each of one or more streams, at least 0", str(weights)))
        if len(set(map(id, streams))) < len(streams):
            raise BadInput(sentence("streams", "all be different", "one of them twice", "Give it a weight of 2"))
        for what in ("bands", "nodata", "dtype"):
            values = [str(getattr(stream, what)) for stream in streams]
            if len(set(values)) > 1:
                raise BadInput(sentence("streams", f"have the same {what}", " and ".join(values)))
        if len({stream._mask is None for stream in streams}) > 1:
            raise BadInput(sentence("streams", "all have a mask or none", "some with and some without"))
        self.streams, self.weights, self.seed, self.epoch = list(streams), weights, seed, 0
        self.bands, self.nodata, self.dtype = streams[0].bands, streams[0].nodata, streams[0].dtype
        self._given = self._skip = 0

    def __len__(self) -> int:
        """Batches an epoch."""
        return sum(self._counts)

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches of the current epoch, or those left of it after ``load_state_dict``."""
        self._given, self._skip = self._skip, 0
        turns = np.random.default_rng([self.seed, self.epoch]).permutation(
            np.repeat(np.arange(len(self.streams)), self._counts)
        )
        past = np.bincount(turns[: self._given], minlength=len(self.streams)).tolist()
        sources = [self._batches(i, begin) for i, begin in enumerate(past)]
        try:
            for turn in turns[self._given :].tolist():
                batch = next(sources[turn])
                self._given += 1
                yield batch
        finally:
            for source in sources:
                source.close()  # type: ignore[attr-defined]
        self.epoch, self._given = self.epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, and so the order, of the next iteration."""
        self.epoch, self._given, self._skip = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Say where the stream is, and what its order depends on."""
        return {"epoch": self.epoch, "batch": self._given, **self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; BadInput if that was of another mix."""
        for key, mine in self._identity.items():
            if state.get(key) != mine:
                raise BadInput(sentence("state", f"be of a stream with {key}={mine}", f"{key}={state.get(key)}"))
        self.epoch, self._given, self._skip = state["epoch"], state["batch"], state["batch"]

    @property
    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "weights": [float(weight) for weight in self.weights],
            "streams": [stream._identity for stream in self.streams],
        }

    @property
    def _counts(self) -> list[int]:
        """Batches of each stream in an epoch."""
        return [round(weight * len(stream)) for weight, stream in zip(self.weights, self.streams)]

    def _batches(self, i: int, begin: int) -> Iterator[Batch]:
        """Give a stream's batches from its ``begin``-th of this epoch on, for as many of its own as it takes."""
        stream = self.streams[i]
        own = self.epoch * -(-self._counts[i] // max(len(stream), 1)) + begin // max(len(stream), 1)
        stream.set_epoch(own)
        stream._skip = begin % max(len(stream), 1)
        while True:
            yield from stream


def _dataset(stream: TileStream) -> Any:
    """Make the torch face; a function, so that torch is loaded by those who use it and workers can be spawned."""
    import torch

    class Tiles(torch.utils.data.IterableDataset):
        def __len__(self) -> int:
            return len(stream)

        def __iter__(self) -> Iterator[Any]:
            worker = torch.utils.data.get_worker_info()
            if worker is not None:
                stream._worker, stream._workers = worker.id, worker.num_workers
            for image, mask in stream:
                floats = torch.from_numpy(floats_block(image, stream.nodata))
                yield floats if mask is None else Batch(floats, torch.from_numpy(mask))  # type: ignore[arg-type]

        def __reduce__(self) -> Any:
            return _dataset, (stream,)

    return Tiles()


def floats_block(image: np.ndarray, nodata: float | int | None) -> np.ndarray:
    """Turn stored values into float32, NaN where there is no data; any shape."""
    values = image.astype("float32")
    if nodata is not None and not np.isnan(nodata):
        values[image == nodata] = np.nan
    return values


def _patch(patch: Any, image: xr.DataArray) -> tuple[int, int, int, int]:
    """Give the window y0, x0, y1, x1 of an xbatcher patch."""
    spans = [patch.get(dim, slice(None)).indices(image.sizes[dim]) for dim in schema.MOSAIC]
    if spans[0] != (0, image.sizes["band"], 1):
        raise BadInput(sentence("generator", "take all bands in a patch", f"bands {spans[0][0]} to {spans[0][1]}"))
    return spans[1][0], spans[2][0], spans[1][1], spans[2][1]


def _with_edges(windows: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Add the windows that end with the image, in the rows and columns of those there are."""
    side = windows[0, 2:] - windows[0, :2]
    starts = [np.union1d(windows[:, axis], shape[axis] - side[axis]) for axis in (0, 1)]
    corners = np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2)
    edge = (corners + side == shape).any(axis=1)
    more = np.concatenate([corners, corners + side], axis=1)[edge]
    known = set(map(tuple, windows.tolist()))
    new = [window for window in more.tolist() if tuple(window) not in known]
    return np.concatenate([windows, np.array(new, dtype="int64").reshape(-1, 4)])


def prepared(batches: Iterator[Batch], ahead: int) -> Iterator[Batch]:
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
        batches.close()  # type: ignore[attr-defined]


class _Held:
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

    def add(self, block: Batch) -> None:
        """Take the next read, and copy its parts of tiles that lie across reads."""
        i = self._arrived
        self._reads[i], self._arrived = block, i + 1
        rows = self._plan.pieces[self._starts[i] : self._starts[i + 1], 1]
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


def read_twice(reader: store.Reader, y: slice, x: slice, chunk: tuple[int, int]) -> np.ndarray:
    """Read a window, once again if it fails, and if that fails too name the chunk.

    Raises
    ------
    Unreadable
        Naming the window and its first chunk that cannot be read alone.
    """
    try:
        return reader.read(y, x)
    except Unreadable:
        pass
    try:
        return reader.read(y, x)
    except Unreadable as error:
        raise Unreadable(f"{error} (first in {_bad_chunk(reader, y, x, chunk)}; tried twice)") from error


def _bad_chunk(reader: store.Reader, y: slice, x: slice, chunk: tuple[int, int]) -> str:
    """Name the first chunk (row, column) of a window that cannot be read alone."""
    for row in range(y.start // chunk[0], -(-y.stop // chunk[0])):
        for column in range(x.start // chunk[1], -(-x.stop // chunk[1])):
            try:
                reader.read(_meet(y, row, chunk[0]), _meet(x, column, chunk[1]))
            except Unreadable:
                return f"chunk ({row}, {column})"
    return "no chunk alone"


def _meet(span: slice, i: int, side: int) -> slice:
    return slice(max(i * side, span.start), min((i + 1) * side, span.stop))


def _chunk(image: xr.DataArray) -> tuple[int, int]:
    """Give the sides (y, x) of an image's chunks: as stored, else Dask's, else as good as any."""
    if store.source(image) is not None:
        sides = image.encoding["chunks"][-2:]
    elif image.chunks is not None:
        sides = tuple(image.chunks[axis][0] for axis in (-2, -1))
    else:
        sides = (512, 512)
    return min(sides[0], image.sizes["y"]), min(sides[1], image.sizes["x"])


def _check_mask_grid(mask: xr.DataArray | None, image: xr.DataArray) -> None:
    """Raise BadInput if a mask is off the image's grid, or of another shape where either has no CRS."""
    if mask is None:
        return
    schema.check(mask, schema.MASK, "mask")
    if "spatial_ref" in mask.coords and "spatial_ref" in image.coords:
        schema.on_grid(mask, image, "mask", "image")
    elif mask.shape != sampling.shape_of(image):
        raise BadInput(sentence("mask", f"have the image's shape {sampling.shape_of(image)}", str(mask.shape)))


def _check_counts(least: int, **counts: int) -> None:
    for name, value in counts.items():
        if value < least:
            raise BadInput(sentence(name, f"be at least {least}", f"{name}={value}"))

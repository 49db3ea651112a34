"""The stream of one image's tiles."""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lsdask import sampling, schema, store
from lsdask.errors import BadInput, sentence
from lsdask.streaming import planning
from lsdask.streaming.planning import Layout, Plan
from lsdask.streaming.reading import Batch, Held, floats_block, prepared, read_twice

MIB = 2**20


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
        return planning.best_layout(self._windows, self._shape, self._chunk, buffer=self.buffer, pixel=self._pixel)

    def _bounds(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take this share of rows that are in the order of their reads, and cut it into batches."""
        if self._own is not None:
            batches = np.arange(len(self._own))[planning.share(len(self._own) - 1, self.rank, self.world)]
            batches = batches[planning.share(len(batches), self._worker, self._workers)]
            bounds = self._own[batches[0] : batches[-1] + 2] if len(batches) else self._own[:1]
            return rows[bounds[0] : bounds[-1]], bounds - bounds[0]
        full = len(rows) // self.world // self.batch_size * self.batch_size
        rows = rows[planning.share(len(rows), self.rank, self.world)][: full if self.drop_last else None]
        rows = rows[planning.share(len(rows), self._worker, self._workers, self.batch_size)]
        return rows, np.append(np.arange(0, len(rows), self.batch_size), len(rows))

    def _plan(self, epoch: int, skip: int) -> Plan:
        """Plan an epoch of this share, but for its first ``skip`` batches."""
        n = len(self._windows)
        if self.shuffle:
            pieces, homes = planning.reads_shuffled(self._windows, self._layout, [self.seed, epoch, 0])
            rows, bounds = self._bounds(np.argsort(planning.completed(pieces, n), kind="stable"))
            order = rows[self._spread(rows, pieces, [self.seed, epoch, 1])]
        else:
            pieces, homes = planning.reads_in_order(self._windows, self._layout)
            order, bounds = self._bounds(np.arange(n))
        order, bounds = order[bounds[skip] :], bounds[skip:] - bounds[skip]
        plan = planning.schedule(order, bounds, pieces, homes, self._windows, self._layout)
        if not self.shuffle:
            self._check_fits(plan)
        return plan

    def _spread(self, rows: np.ndarray, pieces: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """Order this share's rows over this share's reads."""
        mine = np.zeros(len(self._windows), dtype=bool)
        mine[rows] = True
        pieces = pieces[mine[pieces[:, 1]]]
        used, read = np.unique(pieces[:, 0], return_inverse=True)
        complete = planning.completed(np.stack([read, pieces[:, 1]], axis=1), len(mine))
        return planning.spread(complete[rows], len(used), self._layout.keep, seed)

    def _check_fits(self, plan: Plan) -> None:
        needs = plan.peak(self._pixel, self._tile) if len(plan.order) else 0
        if needs > self.buffer:
            do = f"Pass buffer={needs}, or shuffle=True, or tiles sorted by y and x"
            raise BadInput(sentence("buffer", "hold what the table's order needs", f"buffer={self.buffer}", do))

    def _run(self, plan: Plan) -> Iterator[Batch]:
        """Read ahead, and cut the batches of a plan."""
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="lsdask-stream")
        held = Held(plan, self._windows)
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
            there, _ = planning.overlap(plan.reads[i].tolist(), self._windows[row].tolist())
            if other[there].any():
                y, x = self._windows[row, :2].tolist()
                got = f"{mask[there][other[there]][0]} in tile {row} (y={y}, x={x})"
                raise BadInput(sentence("mask", f"hold 0 to {self._highest} and {schema.UNKNOWN} (unknown)", got))


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

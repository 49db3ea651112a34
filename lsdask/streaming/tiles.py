"""The stream of one image's tiles."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from lsdask import sampling, schema
from lsdask.errors import BadInput, sentence
from lsdask.streaming import folders, patches, planning
from lsdask.streaming.epochs import Stream
from lsdask.streaming.feeding import Begin, reads
from lsdask.streaming.holding import Batch, Batches, Held, prepared
from lsdask.streaming.ordering import Order, Windows, check_counts, windows_of
from lsdask.streaming.planning import Layout, Plan
from lsdask.streaming.reading import source_of

if TYPE_CHECKING:
    from distributed import Client

MIB = 2**20


class TileStream(Stream):
    """Batches of tiles, each tile once an epoch; iterate for an epoch of ``Batch(image, mask)``.

    With its last batch ``epoch`` rises by one, so that the next iteration has another order. Without ``shuffle``
    tiles come in the table's order, and memory is what that order needs (for a grid, a row of chunks).

    Parameters
    ----------
    image : DataArray (band, y, x), or a sequence of them
        Opened from a store (whose chunks are then read directly), any other Dask array, or in memory. Several are
        the bands of one image, in this order: before, after, heights. If they differ in dtype or nodata, batches are
        float32, NaN where void (exact for integers up to 2^24). One on another grid than the first is resampled to
        it while it is read, by ``terrain.resample``, bilinear; for many epochs, store that once and pass the store.
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
        the cells that are read ahead.
    threads : int
        Threads that read ahead; the order does not depend on them.
    prefetch : int
        Batches that another thread cuts ahead while a model works on one; 0 cuts them when asked.
    drop_last : bool
        Leave out what does not fill a batch or would give ranks different lengths.
    rank, world : int
        Take the ``rank``-th of ``world`` disjoint shares of the tiles.
    lanes : int
        Parts of an epoch that are read side by side, each in its share of ``buffer``, whose batches take turns. The
        order depends on it, but not on the loader workers (``Processes``) who share it, any number that divides it.
    classes : int
        The mask may hold 0 to ``classes - 1``, and always 0 and 1.
    client : distributed.Client, optional
        Its workers read, ``threads`` windows at a time, instead of threads; batches are cut here, and are the same.

    Attributes
    ----------
    epoch : int
    bands : tuple of str
    nodata : float, int or None
        What stands for no data in ``Batch.image``.

    Raises
    ------
    BadInput
        If the tile index is empty, of several sizes or not inside the image, layers have bands of the same name, or
        the mask is not uint8 or off the image's grid. On iterating, if a tile's mask holds other values, or without
        ``shuffle`` the table's order needs more memory than ``buffer``.
    Unreadable
        On iterating, if a window cannot be read twice running; names the window and the chunk. A stored object
        that was there when the stream was made and is gone cannot be read either, but on a web server, which lists
        nothing, and under a layer that is resampled.

    Examples
    --------
    >>> image = xr.DataArray(np.zeros((4, 100, 100), "uint16"), dims=("band", "y", "x"))
    >>> stream = TileStream(image, sampling.grid(image, 32), batch_size=10)
    >>> [batch.image.shape for batch in stream]
    [(10, 4, 32, 32), (6, 4, 32, 32)]
    """

    def __init__(
        self,
        image: xr.DataArray | Sequence[xr.DataArray],
        tiles: pd.DataFrame | Windows,
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
        lanes: int = 1,
        classes: int = 1,
        client: "Client | None" = None,
    ) -> None:
        super().__init__()
        images = [image] if isinstance(image, xr.DataArray) else _layers(image)
        self._source, self.bands, cell = source_of(images, mask)
        self.nodata, self.dtype, self.masked = self._source.nodata, self._source.dtype, self._source.mask is not None
        check_counts(1, buffer=buffer, threads=threads)
        check_counts(0, prefetch=prefetch)
        self.buffer, self.threads, self.prefetch, self.client, self.lanes = buffer, threads, prefetch, client, lanes
        self._highest = max(classes, 2) - 1
        shape = sampling.shape_of(images[0])
        windows = tiles if isinstance(tiles, Windows) else windows_of(tiles, shape)
        self._pixel = len(self.bands) * self.dtype.itemsize + self.masked  # bytes
        layout = Layout(shape, cell, 1, 1)
        if shuffle:
            layout = planning.best_layout(
                windows.places, shape, cell, buffer=buffer // max(lanes, 1), pixel=self._pixel
            )
        self._order = Order(windows, layout, batch_size, shuffle, seed, drop_last, rank, world, lanes)

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
        windows = patches.patches_of(generator)
        if batch_size is None and (edges or options.get("shuffle")):
            raise BadInput(sentence("batch_size", "be given with edges or shuffle", "None", "Pass batch_size=32"))
        if edges:
            windows = patches.with_edges(windows, sampling.shape_of(generator.ds))
        if batch_size is not None:
            windows = replace(windows, bounds=None)
        return cls(generator.ds, windows, mask=mask, **{"shuffle": False, "batch_size": batch_size or 1, **options})

    @classmethod
    def from_folder(
        cls,
        images: str | Path | Sequence[str | Path],
        masks: str | Path | Sequence[str | Path] | None = None,
        *,
        size: int | None = None,
        positive: int | None = 1,
        **options: Any,
    ) -> "TileStream":
        """Stream the image files of a folder, each whole; ``where`` names them.

        Parameters
        ----------
        images : path, or sequence of paths
            A folder of PNG, JPEG or TIFF files, taken by name, or the files. All of one dtype and number of bands.
        masks : path or sequence of paths, optional
            Masks of the same names, but for what comes after the last dot.
        size : int, optional
            Resize every file to ``size`` x ``size`` pixels: images bilinear, masks to the nearest. Without it they
            must be of one size.
        positive : int or None
            What is landslide in a mask: its pixels of this value and above, in any of its colours. 1 is right for
            masks of 0 and 1 and for 0 and 255; 128 for those whose edges are blurred. None takes the values as
            they are, with 255 for unknown.
        **options
            As of TileStream.

        Raises
        ------
        BadInput
            If there are no files, files of different kinds, images without masks or masks without images. On
            iterating, if a mask holds 0, 1 and 255, which may mean either.
        """
        files, truths = folders.pairs(images, masks)
        stack = folders.stack(files, size=size)
        height, width = stack.data.chunksize[-2:]
        mask = None
        if truths is not None:
            mask = folders.stack_masks(truths, (height, width), size=size, positive=positive)
        y, x = np.arange(len(files)) * height, np.zeros(len(files), dtype="int64")
        windows = Windows(np.stack([y, x, y + height, x + width], axis=1), names=[file.name for file in files])
        return cls(stack, windows, mask=mask, **options)

    def __len__(self) -> int:
        return len(self._order)

    def batches(self, epoch: int, begin: int = 0, *, worker: int = 0, workers: int = 1) -> Batches:
        self.check_workers(workers)
        return prepared(self._batches(epoch, self._order.turns(begin, worker, workers), begin), self.prefetch)

    def part(self, rank: int, world: int, *, drop_last: bool = False) -> Self:
        if self._order.world > 1:
            raise BadInput(sentence("stream", "be whole to be shared", f"rank {self._order.rank} of its ranks"))
        other = copy(self)
        other._order = replace(self._order, rank=rank, world=world, drop_last=drop_last or self._order.drop_last)
        other.set_epoch(0)
        return other

    def rows(self, epoch: int | None = None) -> list[np.ndarray]:
        """Give the rows of the tile index in each batch of an epoch, the current one by default, in their order."""
        return self._order.rows(self.epoch if epoch is None else epoch)

    def where(self, batch: int, epoch: int | None = None) -> str:
        named = [self._order.windows.name(row) for row in self.rows(epoch)[batch].tolist()]
        return f"tiles {', '.join(named[:8])}{' ...' if len(named) > 8 else ''}"

    def plan(self, epoch: int | None = None, lane: int = 0) -> Plan:
        """Plan an epoch of this stream's share, the current one by default; if it has lanes, of one of them."""
        return self._order.plan(self.epoch if epoch is None else epoch, lane)

    def explain(self) -> dict[str, float]:
        """Say what an epoch does: tiles, batches, reads, chunks, decodes a chunk, and the most bytes held."""
        plans = [self.plan(lane=lane) for lane in range(self.lanes)]
        windows = np.concatenate([plan.reads for plan in plans])
        cell = self._order.layout.cell
        counts = [planning.decodes(windows, chunk) for chunk in self._source.chunks or [cell]]
        decoded, chunks = np.sum(counts, axis=0).tolist()
        ahead = max(self.threads, self.lanes) * cell[0] * cell[1] * self._pixel
        facts = {"tiles": sum(len(plan.order) for plan in plans), "batches": len(self), "reads": len(windows)}
        held = sum(self._peak(plan) for plan in plans) + ahead
        return {**facts, "chunks": chunks, "decodes_per_chunk": decoded / chunks, "bytes": held}

    @property
    def identity(self) -> dict[str, Any]:
        return self._order.identity

    def __getstate__(self) -> dict[str, Any]:
        if self.client is not None:
            do = "Leave out one of them: both read in other processes"
            raise BadInput(sentence("client", "be None for a stream that other processes take", "a client", do))
        return self.__dict__

    def _peak(self, plan: Plan) -> int:
        height, width = self._order.windows.side
        return plan.peak(self._pixel, height * width * self._pixel)

    def _check_fits(self, plans: Iterable[Plan]) -> None:
        needs = sum(self._peak(plan) for plan in plans if len(plan.order))
        if needs > self.buffer and not self._order.shuffle:
            do = f"Pass buffer={needs}, or shuffle=True, or tiles sorted by y and x"
            raise BadInput(sentence("buffer", "hold what the table's order needs", f"buffer={self.buffer}", do))

    def _batches(self, epoch: int, lanes: Mapping[int, int], begin: int) -> Batches:
        """Read ahead, and take a batch of each lane in turn."""
        plans = {lane: self._order.plan(epoch, lane, skip) for lane, skip in lanes.items()}
        self._check_fits(plans.values())
        ahead = max(1, self.threads // max(len(lanes), 1))
        with reads(self._source, self.threads, self.client) as read:
            runs = {lane: self._run(plan, read, ahead) for lane, plan in plans.items()}
            for batch in range(begin, len(self)):
                if batch % self.lanes in runs:
                    yield next(runs[batch % self.lanes])

    def _run(self, plan: Plan, read: Begin, ahead: int) -> Iterator[Batch]:
        """Begin the reads of a plan ahead of time, and cut its batches."""
        held = Held(plan, self._order.windows.places)
        coming: deque[Any] = deque()
        needed = np.searchsorted(plan.first, np.arange(len(plan.bounds) - 1), "right")
        for batch, count in enumerate(needed.tolist()):
            for arrived in range(len(held), count + 1):
                while arrived + len(coming) < min(arrived + ahead, len(plan.reads)):
                    coming.append(read(plan.reads[arrived + len(coming)].tolist()))
                if arrived < count:
                    block = coming.popleft().result()
                    self._check_mask(block.mask, plan.reads[arrived].tolist(), held.rows(arrived))
                    held.add(block)
            yield held.cut(batch)

    def _check_mask(self, mask: np.ndarray | None, window: list[int], rows: np.ndarray) -> None:
        """Raise BadInput if the mask of one of these tiles holds what stands for nothing."""
        if mask is None or not (other := (mask > self._highest) & (mask != schema.UNKNOWN)).any():
            return
        for row in rows.tolist():
            there, _ = planning.overlap(window, self._order.windows.places[row].tolist())
            if other[there].any():
                got = f"{mask[there][other[there]][0]} in tile {self._order.windows.name(row)}"
                raise BadInput(sentence("mask", f"hold 0 to {self._highest} and {schema.UNKNOWN} (unknown)", got))


def _layers(images: Any) -> list[xr.DataArray]:
    if isinstance(images, list | tuple) and len(images) > 0:
        return list(images)
    got = f"a {type(images).__name__}" + (" of none" if isinstance(images, list | tuple) else "")
    raise BadInput(sentence("image", "be a DataArray (band, y, x) or a list of one or more", got))

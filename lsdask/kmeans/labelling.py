"""Labels of mosaics: lazy, or into a store."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import schema, store, tasks, tiling
from lsdask.errors import BadInput, sentence
from lsdask.kmeans.book import LABELS, Book, book_of
from lsdask.kmeans.nearest import assign_block
from lsdask.kmeans.votes import Votes

if TYPE_CHECKING:
    from distributed import Client

NAME = "labels"
"""The variable of a store of labels."""


def assign(mosaic: xr.DataArray, centers: xr.DataArray) -> xr.DataArray:
    """Label every pixel with its nearest centre, for every k in one read. Lazy.

    Parameters
    ----------
    mosaic : DataArray (band, y, x)
        With the bands the centres were fitted on.
    centers : DataArray (k, cluster, band)
        From ``fit`` or ``open``.

    Returns
    -------
    DataArray (k, y, x) uint8
        Cluster ids from 0; ties go to the lowest id; 255 where a band has no data or is infinite. Distances are
        compared in float64, as ``sklearn.cluster.KMeans.predict`` does on standardised or raw bands.

    Raises
    ------
    BadInput
        If the centres are of other bands, or there are more than 254 of one k.
    """
    book = book_of(centers, mosaic)
    data = mosaic.data
    if not isinstance(data, da.Array):
        data = da.from_array(data, chunks=(-1, 2048, 2048), name=False)
    data = data.rechunk({0: -1})
    labels = data.map_blocks(
        assign_block,
        schema.nodata(mosaic),
        book,
        chunks=((len(book),), *data.chunks[1:]),
        dtype="uint8",
        meta=np.empty((0, 0, 0), dtype="uint8"),
    )
    return labels_like(labels, mosaic, centers)


def labels_like(data: Any, mosaic: xr.DataArray, centers: xr.DataArray) -> xr.DataArray:
    places = {name: mosaic.coords[name] for name in ("y", "x", "spatial_ref") if name in mosaic.coords}
    attrs = {"_FillValue": np.uint8(schema.UNKNOWN), "long_name": "cluster"}
    return xr.DataArray(data, dims=LABELS, coords={"k": centers["k"].values, **places}, name=NAME, attrs=attrs)


@dataclass(frozen=True)
class Labeller:
    """Labels one tile of a mosaic and writes it; a kernel of ``tasks.run``.

    Attributes
    ----------
    source : store.Reader
        The mosaic.
    target : str
        The store of labels.
    nodata : float, int or None
        Of the mosaic.
    book : Book
    votes : Votes or None
        Where the votes of small tiles go.
    """

    source: store.Reader
    target: str
    nodata: float | int | None
    book: Book
    votes: Votes | None = None

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        """Label a tile; give how many of its pixels are valid, the bytes read, and the seconds of each step."""
        begun = time.perf_counter()
        data = self.source.read(*tile.write)
        read = time.perf_counter()
        labels = assign_block(data, self.nodata, self.book)
        valid = int(np.count_nonzero(labels[0] != schema.UNKNOWN))
        computed = time.perf_counter()
        store.put(self.target, labels, *tile.write, name=NAME)
        if self.votes is not None:
            self.votes.put(self.target, labels, *tile.write)
        written = time.perf_counter()
        return {
            "valid": valid,
            "bytes": float(data.nbytes),
            "read_s": read - begun,
            "compute_s": computed - read,
            "write_s": written - computed,
        }


def write(
    mosaic: xr.DataArray,
    centers: xr.DataArray,
    path: str | Path,
    *,
    shard: int = 2048,
    tile: int | None = None,
    client: "Client | None" = None,
    workers: int | None = None,
    progress: bool = True,
) -> tasks.Report:
    """Label a mosaic for every k into a store, one task a shard; run again to go on where it stopped.

    Each pixel of the mosaic is read once. Memory is that of a few shards, whatever the mosaic's size.

    Parameters
    ----------
    mosaic : DataArray (band, y, x)
        Best opened by ``store.open``: its tiles are then read straight from the store.
    centers : DataArray (k, cluster, band)
        From ``fit`` or ``open``.
    path : str or Path
        The store to make, or to go on with: (k, y, x) uint8, 255 unknown; ``store.open`` opens it.
    shard : int
        Side of a task and of a stored shard, in pixels.
    tile : int, optional
        Also count the majority of tiles of this side, in the same reading; ``read_majority`` gives them.
    client : distributed.Client, optional
        Where to run; default a pool of threads in this process.
    workers : int, optional
        Threads of that pool.
    progress : bool
        Show a bar once the run has taken two seconds.

    Returns
    -------
    tasks.Report
        ``metrics["valid"]`` is the number of labelled pixels of this run; ``bottleneck()`` the step that took most.

    Raises
    ------
    BadInput, OtherPlan
        If the centres are of other bands, ``shard`` is no multiple of ``tile``, or ``path`` holds something else.
    """
    book = book_of(centers, mosaic)
    if tile is not None and (tile < 1 or shard % tile):
        raise BadInput(sentence("tile", f"divide shard, {shard}", f"tile={tile}"))
    votes = None if tile is None else Votes((len(book), mosaic.sizes["y"], mosaic.sizes["x"]), shard, tile)
    template = labels_like(da.zeros((len(book), *mosaic.shape[1:]), chunks=-1, dtype="uint8"), mosaic, centers)
    plan: dict[str, Any] = {
        "kind": "kmeans.write",
        "mosaic": store.fingerprint(mosaic),
        "k": [int(k) for k in centers["k"].values],
        "centers": hashlib.sha256(book.centers.tobytes() + book.scale.tobytes()).hexdigest()[:16],
    }
    if tile is not None:
        plan["majority"] = tile
    return tasks.run(
        Labeller(store.reader(mosaic), store.absolute(path), schema.nodata(mosaic), book, votes),
        target=path,
        template=template,
        tile=shard,
        plan=plan,
        client=client,
        workers=workers,
        progress=progress,
        label="labels",
        beside=votes,
    )

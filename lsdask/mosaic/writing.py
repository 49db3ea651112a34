"""Lazy images become stores, shard by shard, as runs that may be killed and go on."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from lsdask import schema, store, tasks, tiling
from lsdask.errors import BadInput, sentence

if TYPE_CHECKING:
    from distributed import Client


def write(
    image: xr.DataArray,
    path: str | Path,
    *,
    chunk: int = 512,
    shard: int = 2048,
    client: "Client | None" = None,
    workers: int | None = None,
    retries: int = 2,
    progress: bool = True,
) -> tasks.Report:
    """Write a lazy image to a store, one shard a task, so that a run of hours may be killed and goes on.

    Run again with the same arguments it computes only what is not done; with another image it raises.

    Parameters
    ----------
    image : DataArray (..., y, x)
        A mosaic, or anything else on a grid, lazy or in memory. Lazy chunks that divide a shard are read once.
    path : str or Path
        The target store, made if there is nothing: a local path, ``s3://``, ``gs://``, ``az://``, or ``https://`` of
        a server that speaks WebDAV (with the extra ``cloud``), or ``icechunk:`` before a local path or ``s3://``
        (with the extra ``icechunk``), where a run is one commit, made by this process: if it is killed nothing is
        committed, if a worker is only its shards in flight are computed again.
    chunk, shard : int
        Sides of a chunk and of a shard, in pixels; a shard is a task.
    client : distributed.Client, optional
        Where to run; default a pool of threads in this process.
    workers : int, optional
        Threads of that pool; default one a core.
    retries : int
        How often a shard is tried again after a failed read or write.
    progress : bool
        Show a bar once the run has taken two seconds.

    Returns
    -------
    tasks.Report
        Its ``failed`` names shards that could not be written and why; ``report.check()`` raises if there are any.

    Raises
    ------
    BadInput
        If ``image`` has no grid, ``shard`` is not a multiple of ``chunk``, or ``path`` cannot be written.
    OtherPlan
        If ``path`` holds another run, or another run writes it now.
    Unreadable
        If an object store does not answer.

    Examples
    --------
    >>> write(composite(cube), "mosaic.zarr").check()  # doctest: +SKIP
    """
    if not isinstance(image, xr.DataArray) or image.dims[-2:] != ("y", "x"):
        raise BadInput(sentence("image", "be a DataArray with 'y' and 'x' as its last dims", f"{type(image).__name__}"))
    schema.geobox(image)
    return tasks.run(
        WriteTile(store.reader(image), store.absolute(path), str(image.name or "image")),
        target=path,
        template=image,
        tile=shard,
        chunk=chunk,
        plan=_plan(image),
        client=client,
        workers=workers,
        retries=retries,
        progress=progress,
        label="mosaic",
    )


def _plan(image: xr.DataArray) -> Mapping[str, Any]:
    return {"work": "mosaic.write", "image": str(image.name), "source": store.fingerprint(image)}


@dataclass(frozen=True)
class WriteTile:
    """The kernel of ``write``: computes a window of the image and writes it as one shard of the target."""

    source: store.Reader
    target: str
    name: str

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        y, x = tile.write
        begun = time.perf_counter()
        values = self.source.read(y, x)
        read = time.perf_counter()
        store.put(self.target, values, y, x, name=self.name)
        return {
            "pixels": float(values.shape[-2] * values.shape[-1]),
            "bytes": float(values.nbytes),
            "read_s": read - begun,  # of a lazy image with all that is computed
            "write_s": time.perf_counter() - read,
        }

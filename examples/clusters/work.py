"""The work of every example in this folder: scenes to a mosaic, to clusters of pixels, to scores.

It takes a Dask client and says nothing of where its workers are. Given none, it runs in this process: the same bits.
Workers import lsdask and nothing of this folder, so that it need not be where they are.
"""

import argparse
import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import xarray as xr

import lsdask as ls

SIZE, TILE = 512, 256


def work(client: Any, out: Path) -> dict[str, str]:
    """Make a mosaic, its clusters and its scores; give a checksum of the pixels of each.

    Parameters
    ----------
    client : distributed.Client or None
    out : Path
        Made if it is not there, on a disk that all workers see. Whole paths: workers have other working folders.

    Returns
    -------
    dict
        From the name of a store to the SHA-256 of its pixels.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    mosaic, clusters, scores = out / "mosaic.zarr", out / "clusters.zarr", out / "scores.zarr"
    image = ls.mosaic.composite(scenes(), method="median").rename("mosaic")
    ls.mosaic.write(image, mosaic, chunk=128, shard=TILE, client=client).check()

    image = ls.store.open(mosaic)
    centers = ls.kmeans.fit(image, [2, 4], n_samples=20_000)
    ls.kmeans.write(image, centers, clusters, shard=TILE, client=client).check()

    if not (out / "model").exists():
        ls.models.save(network(image), out / "model")
    ls.predict.run(mosaic, scores, out / "model", tile=TILE, precision="float32", client=client).check()
    return {store.name: checksum(ls.store.open(store)) for store in (mosaic, clusters, scores)}


def scenes() -> xr.DataArray:
    """Two dates of one place, of which each lacks a part: (time, band, y, x) uint16, lazy."""
    whole = ls.synthetic.scene((SIZE, SIZE), seed=1, chunks=TILE)
    column = xr.DataArray(range(SIZE), dims="x")
    dates = [whole.where(column < 400, 0), whole.where(column >= 100, 0)]
    return xr.concat(dates, xr.DataArray(["2024-01-01", "2024-01-06"], dims="time").astype("datetime64[ns]"))


def network(image: xr.DataArray) -> ls.models.Segmenter:
    """A small network as it was born; yours is the folder that ``ls.training.fit`` wrote."""
    torch.manual_seed(0)
    stats = ls.statistics.bands(image)
    means, stds = stats["mean"].values, stats["std"].values
    return ls.models.build("soares_unet", bands=ls.schema.bands(image), mean=means, std=stds, filters=4)


def checksum(image: xr.DataArray) -> str:
    """Sum up pixels, whatever their chunks."""
    return hashlib.sha256(image.values.tobytes()).hexdigest()


def main(cluster: Callable[[int], AbstractContextManager[Any]], about: str) -> None:
    """Do the work on so many workers of a cluster; print a line a store."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("on-a-cluster"))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with cluster(options.workers) as client:
        for name, digest in work(client, options.out).items():
            print(digest, name)

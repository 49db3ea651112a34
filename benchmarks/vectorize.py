"""B9: polygons from a score map, across tiles, against rasterio.features.shapes on the whole array.

Prints one JSON line. The ratios are of seconds in one run: lsdask (attributes, table and all) over rasterio, on one
thread and on two. Memory is the growth of a fresh process's peak while lsdask works on a map it holds already.

``--million`` prints another line instead: a store of 16384^2 pixels with more than a million polygons, and by how much
the peak of a fresh process grows to make a table of them, to write them to GeoParquet as they are finished, and to
write them filled and simplified.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import rasterio.features
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy import ndimage
from shapely.geometry import shape

from lsdask import inventory, schema, store

CRS = "EPSG:32723"
TRANSFORM = Affine(8, 0, 360_000, 0, -8, 7_400_000)
STEP = 125


def score_map(size: int) -> np.ndarray:
    """Make scores (y, x) uint8 of which two in a hundred pixels, in blobs, reach 0.5."""
    smooth = np.random.default_rng(0).random((size, size), dtype="float32")
    smooth = ndimage.gaussian_filter(smooth, 3)
    level = np.quantile(smooth[::7, ::7], 0.98)
    return np.clip((smooth - smooth.mean()) / (level - smooth.mean()) * STEP, 0, schema.SCORE_STEPS).astype("uint8")


def best(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Give the least time of some runs, and the last result."""
    times, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


def wrapped(values: np.ndarray, tile: int) -> Any:
    """Make lazy scores (class, y, x) of a map, in tiles."""
    lazy = da.from_array(values[None], chunks=(1, tile, tile), name=False)
    grid = GeoBox(values.shape, TRANSFORM, CRS)
    return schema.wrap(lazy, grid, schema.SCORES, name="scores", coords={"class": ["landslide"]})


def traced(scores: Any, threads: int) -> Any:
    """Trace on so many threads."""
    with dask.config.set(scheduler="threads", num_workers=threads):
        return inventory.vectorize(scores)


def peak_mb() -> float:
    """Give this process's peak memory so far, MB. Linux keeps a forked process's ru_maxrss through its exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def growth(path: str, tile: int) -> float:
    """Give by how much tracing raises the peak of a process that holds the map, MB; the kernels are loaded first."""
    values = np.load(path)
    traced(wrapped(values[:256, :256], 128), 1)
    before = peak_mb()
    traced(wrapped(values, tile), 1)
    return peak_mb() - before


def memory_grown(values: np.ndarray, tile: int) -> float:
    """Give the growth that a fresh process sees."""
    with TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
        path = Path(folder) / "scores.npy"
        np.save(path, values)
        return pool.apply(growth, (str(path), tile))


def crowded(size: int, side: int = 2048) -> Any:
    """Make lazy scores (class, y, x) in which landslides are as small and many as never on Earth."""

    def block(block_info: Any = None) -> np.ndarray:
        (y0, y1), (x0, x1) = block_info[None]["array-location"][1:]
        smooth = np.random.default_rng([y0, x0]).random((y1 - y0, x1 - x0), dtype="float32")
        smooth = ndimage.gaussian_filter(smooth, 1.5)
        level = np.quantile(smooth[::7, ::7], 0.95)
        return np.clip((smooth - 0.5) / (level - 0.5) * STEP, 0, schema.SCORE_STEPS).astype("uint8")[None]

    sides = tuple(min(side, size - start) for start in range(0, size, side))
    lazy = da.map_blocks(block, chunks=((1,), sides, sides), dtype="uint8", meta=np.empty((0, 0, 0), "uint8"))
    grid = GeoBox((size, size), TRANSFORM, CRS)
    return schema.wrap(lazy, grid, schema.SCORES, name="scores", coords={"class": ["landslide"]})


def smooth(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Fill holes, and take the steps of the pixels off."""
    return inventory.simplify(inventory.fill_holes(frame), tolerance_m=2 * TRANSFORM.a)


def made(path: str, out: str | None, shaped: bool) -> tuple[int, float, float]:
    """Make a table of a store's polygons, or write them as they come: polygons, growth of the peak (MB), seconds."""
    scores = store.open(path)
    traced(scores[:, :256, :256], 1)
    before, start = peak_mb(), time.perf_counter()
    with dask.config.set(scheduler="threads", num_workers=2):
        if out is None:
            count = len(inventory.vectorize(scores))
        else:
            frames = inventory.batches(scores, apart=shaped)
            inventory.write(map(smooth, frames) if shaped else frames, out)
            count = pq.read_metadata(out).num_rows
    return count, peak_mb() - before, time.perf_counter() - start


def million(size: int) -> dict[str, Any]:
    """Measure the memory of very many polygons."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "scores.zarr")
        store.write(crowded(size), path, chunk=512, shard=2048)
        runs = {}
        out = str(Path(folder) / "polygons.parquet")
        for name, given in (("table", (None, False)), ("written", (out, False)), ("shaped", (out, True))):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                runs[name] = pool.apply(made, (path, *given))
    line: dict[str, Any] = {"benchmark": "very many polygons", "size": size, "polygons": runs["table"][0]}
    for name, (count, grown, seconds) in runs.items():
        line |= {f"{name}_grown_mb": round(grown), f"{name}_s": round(seconds, 1), f"{name}_polygons": count}
    return line


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8192, help="side of the map, pixels")
    parser.add_argument("--tile", type=int, default=2048, help="side of a tile, pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-memory", action="store_true", help="do not start the process that measures memory")
    parser.add_argument("--million", action="store_true", help="measure the memory of very many polygons instead")
    args = parser.parse_args()
    if args.million:
        print(json.dumps(million(2 * args.size)))
        return

    values = score_map(args.size)
    scores = wrapped(values, args.tile)
    positive = values >= STEP
    traced(scores, 1)  # compiles
    one, frame = best(lambda: traced(scores, 1), args.repeats)
    two, _ = best(lambda: traced(scores, 2), args.repeats)
    whole, found = best(
        lambda: list(
            rasterio.features.shapes(positive.view("uint8"), mask=positive, connectivity=4, transform=TRANSFORM)
        ),
        args.repeats,
    )
    theirs = sorted(shape(geometry).normalize().wkb for geometry, _ in found)
    mine = sorted(each.normalize().wkb for each in frame.geometry)
    line = {
        "benchmark": "B9 vectorize",
        "size": args.size,
        "polygons": len(frame),
        "identical": mine == theirs,
        "ratio_one_thread": round(one / whole, 3),
        "ratio_two_threads": round(two / whole, 3),
        "target": 1.2,
        "rasterio_s": round(whole, 3),
        "memory_grown_mb": None if args.no_memory else round(memory_grown(values, args.tile), 1),
        "map_mb": round(values.nbytes / 1e6, 1),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

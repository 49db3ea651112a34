"""B9: polygons from a score map, across tiles, against rasterio.features.shapes on the whole array.

Prints one JSON line. The ratios are of seconds in one run: lsdask (attributes, table and all) over rasterio, on one
thread and on two. Memory is the growth of a fresh process's peak while lsdask works on a map it holds already.
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
import numpy as np
import rasterio.features
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy import ndimage
from shapely.geometry import shape

from lsdask import inventory, schema

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


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8192, help="side of the map, pixels")
    parser.add_argument("--tile", type=int, default=2048, help="side of a tile, pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-memory", action="store_true", help="do not start the process that measures memory")
    args = parser.parse_args()

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

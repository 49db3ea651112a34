"""B10: counts at 101 thresholds in one pass, against one numpy histogram and scikit-learn at one threshold.

Prints one JSON line. The ratios are of times on one core in one process; times themselves mean little elsewhere.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from sklearn import metrics

from lsdask import evaluate, schema


def images(size: int, chunk: int) -> tuple[xr.DataArray, xr.DataArray]:
    """Make uint8 scores (1, y, x) and a mask (y, x) with 3 % landslides and 5 % unknown, in memory."""
    rng = np.random.default_rng(0)
    mask = np.where(rng.random((size, size), dtype="float32") < 0.03, np.uint8(1), np.uint8(0))
    scores = rng.integers(0, 150, (size, size), dtype="uint8") + mask * rng.integers(
        0, 100, (size, size), dtype="uint8"
    )
    scores[rng.random((size, size), dtype="float32") < 0.05] = schema.UNKNOWN
    grid = GeoBox((size, size), Affine(8, 0, 450000, 0, -8, 7390000), "EPSG:32723")
    lazy_scores, lazy_mask = da.from_array(scores[None], chunks=(1, chunk, chunk)), da.from_array(mask, chunks=chunk)
    return (
        schema.wrap(lazy_scores, grid, schema.SCORES, name="scores"),
        schema.wrap(lazy_mask, grid, schema.MASK, name="mask"),
    )


def histogram(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Do the limit: one numpy histogram of scores, for landslide and not."""
    return np.bincount(((mask.astype("uint16") << 8) | scores).ravel(), minlength=512)


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Time the fastest of a few runs."""
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return min(took)


def run(size: int, chunk: int = 2048, repeats: int = 3) -> dict[str, Any]:
    """Measure.

    Returns
    -------
    dict
        ``sweep_over_histogram`` is B10's ratio (target <= 1.5); the others say how much longer scikit-learn takes
        for one threshold than the sweep for 101.
    """
    scores, mask = images(size, chunk)
    stored, truth = scores.values[0], mask.values
    known = stored != schema.UNKNOWN
    y, p = truth[known], (stored[known] >= 125).view("uint8")
    floats = scores.copy(data=da.from_array(schema.decode_scores_block(stored)[None], chunks=(1, chunk, chunk)))
    with dask.config.set(scheduler="synchronous"):
        evaluate.sweep(scores[..., :64, :64], mask[:64, :64])
        evaluate.sweep(floats[..., :64, :64], mask[:64, :64])
        times = {
            "histogram": seconds(lambda: histogram(stored, truth), repeats),
            "sweep": seconds(lambda: evaluate.sweep(scores, mask), repeats),
            "sweep_float32": seconds(lambda: evaluate.sweep(floats, mask), repeats),
            "count": seconds(lambda: evaluate.count(scores, mask), repeats),
            "sklearn_prf": seconds(lambda: metrics.precision_recall_fscore_support(y, p, average="binary"), 1),
            "sklearn_mcc": seconds(lambda: metrics.matthews_corrcoef(y, p), 1),
        }
    with dask.config.set(scheduler="threads"):
        times["sweep_threads"] = seconds(lambda: evaluate.sweep(scores, mask), repeats)
    same = evaluate.count(scores, mask).tp == int((p & (y == 1)).sum())
    return {
        "benchmark": "B10 evaluate",
        "size": size,
        "sweep_over_histogram": round(times["sweep"] / times["histogram"], 3),
        "sweep_float32_over_histogram": round(times["sweep_float32"] / times["histogram"], 3),
        "sklearn_prf_over_sweep": round(times["sklearn_prf"] / times["sweep"], 1),
        "sklearn_mcc_over_sweep": round(times["sklearn_mcc"] / times["sweep"], 1),
        "agrees": same,
        "seconds": {name: round(took, 4) for name, took in times.items()},
    }


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8192, help="side of the image, pixels")
    parser.add_argument("--chunk", type=int, default=2048, help="side of a chunk, pixels")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, of which the fastest counts")
    args = parser.parse_args()
    print(json.dumps(run(args.size, args.chunk, args.repeats)))


if __name__ == "__main__":
    main()

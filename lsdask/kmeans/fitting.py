"""The centres of every k, from one sample of the mosaic and so one read."""

import warnings
from collections.abc import Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from lsdask import schema, store
from lsdask.errors import BadInput, sentence
from lsdask.kmeans.book import CENTERS, check_k
from lsdask.kmeans.drawing import BLOCK_ROWS, draw
from lsdask.kmeans.lloyd import Sampled, Sums, fold_totals, move, ordered, polish

STARTS = 5
"""k-means++ starts for every k."""

_START_ROWS = 32_768  # the starts are tried on the first rows of the sample


def fit(
    mosaic: xr.DataArray,
    n_clusters: int | Sequence[int],
    *,
    n_samples: int = 1_000_000,
    seed: int = 0,
    standardise: bool = False,
    refine: int = 0,
) -> xr.DataArray:
    """Find the centres of every k, from one sample and so one read of the mosaic.

    For each k: k-means++ starts on part of the sample, mini-batches over all of it in its shuffled order
    (``dask_ml.wrappers.Incremental``), the better of the two, and exact Lloyd steps on the sample. A centre without
    pixels moves to the sampled pixel farthest from its own centre. The result does not depend on the chunks, the
    scheduler or the number of workers.

    Parameters
    ----------
    mosaic : DataArray (band, y, x)
        Any integer or float dtype; NaN or the declared nodata in any band is void.
    n_clusters : int or sequence of int
        1 to 254 each, no two the same.
    n_samples : int
        Pixels to sample; all valid ones where there are fewer (``attrs["n_samples"]`` says how many they were).
    seed : int
        Of the sample and the starts.
    standardise : bool
        Measure distances in standard deviations of each band's sample instead of its own units.
    refine : int
        Exact Lloyd steps over all valid pixels, for all k together; each reads the mosaic once, and one more read
        gives the final inertia and sizes.

    Returns
    -------
    DataArray (k, cluster, band) float64, in the mosaic's units, NaN beyond k
        Clusters are ordered by the mean of their centre over the bands, darkest first (in standard deviations if
        standardised). Coordinates: ``inertia`` (k), the sum of squared distances, and ``size`` (k, cluster), the
        pixels of each cluster, both over what ``attrs["counted"]`` says: the sample or, after ``refine``, all valid
        pixels; ``scale`` (band), the units of distance. Attributes say what was done: ``standardised``, ``refined``,
        ``seed``, ``n_samples`` of ``n_valid``; and of which ``mosaic``, by path and ``fingerprint`` if it is a store.

    Raises
    ------
    BadInput
        If k is out of range, no pixel is valid, one is infinite, or the sample has fewer distinct pixels than k.
    """
    ks = _check_ks(n_clusters)
    if refine < 0:
        raise BadInput(sentence("refine", "be 0 or more steps", f"refine={refine}"))
    drawn = draw(mosaic, n_samples, seed)
    _check_distinct(drawn.rows, max(ks))
    scale = _scale(drawn.rows) if standardise else np.ones(drawn.rows.shape[1])
    sampled = Sampled(np.ascontiguousarray(drawn.rows.T), scale)
    centers = polish(sampled, [start(sampled, k, seed) for k in ks])
    for _ in range(refine):
        centers = move(fold_totals(mosaic, centers, scale), centers, sampled)
    centers = [ordered(block, scale) for block in centers]
    totals = fold_totals(mosaic, centers, scale) if refine else sampled.totals(centers)
    attrs = {
        "n_samples": len(drawn.rows),
        "n_valid": drawn.valid,
        "seed": seed,
        "standardised": bool(standardise),
        "refined": refine,
        "counted": "all valid pixels" if refine or len(drawn.rows) == drawn.valid else "sample",
        "mosaic": store.source(mosaic) or str(mosaic.name or ""),
        "fingerprint": store.fingerprint(mosaic) if store.source(mosaic) else "",
        "mosaic_shape": [mosaic.sizes["y"], mosaic.sizes["x"]],
    }
    return _centers(ks, centers, schema.bands(mosaic), scale, totals, attrs)


def _check_ks(n_clusters: int | Sequence[int]) -> list[int]:
    ks = [check_k(int(k)) for k in np.atleast_1d(np.asarray(n_clusters))]
    if not ks or len(set(ks)) < len(ks):
        raise BadInput(sentence("n_clusters", "be one or more different numbers", f"n_clusters={n_clusters}"))
    return ks


def _check_distinct(rows: np.ndarray, k: int) -> None:
    seen = rows[:0]
    for begin in range(0, len(rows), BLOCK_ROWS):
        seen = np.unique(np.concatenate([seen, rows[begin : begin + BLOCK_ROWS]]), axis=0)
        if len(seen) >= k:
            return
    rule = f"be at most the distinct pixels of the sample, {len(seen)}"
    raise BadInput(sentence("n_clusters", rule, f"n_clusters={k}", "Ask for fewer, or a larger n_samples"))


def _scale(rows: np.ndarray) -> np.ndarray:
    deviation = rows.astype("float64").std(axis=0)
    return np.where(deviation > 0, deviation, 1.0)


def _centers(
    ks: Sequence[int],
    centers: Sequence[np.ndarray],
    bands: Sequence[str],
    scale: np.ndarray,
    totals: Sequence["Sums"],
    attrs: dict[str, Any],
) -> xr.DataArray:
    values = np.full((len(ks), max(ks), len(bands)), np.nan)
    size = np.zeros((len(ks), max(ks)), dtype="int64")
    for i, (block, total) in enumerate(zip(centers, totals)):
        values[i, : len(block)] = block
        size[i, : len(block)] = total.pixels.count
    coords = {
        "k": list(ks),
        "cluster": np.arange(max(ks)),
        "band": list(bands),
        "scale": ("band", scale),
        "inertia": ("k", [total.inertia(block, scale) for block, total in zip(centers, totals)]),
        "size": (("k", "cluster"), size),
    }
    return xr.DataArray(values, dims=CENTERS, coords=coords, name="centers", attrs=attrs)


# Starts


def start(sampled: Sampled, k: int, seed: int) -> np.ndarray:
    """Give good first centres: the best of some k-means++ starts, then mini-batches where they do better."""
    from threadpoolctl import threadpool_limits

    # scikit-learn's sums depend on its threads; with one they do not.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Number of distinct clusters")
        starts = _plus_plus(sampled, k, seed)
        batches = _mini_batches(sampled, starts, seed)
    inertias = [
        total.inertia(block, sampled.scale)
        for block, total in zip((starts, batches), sampled.totals([starts, batches]))
    ]
    return (starts, batches)[int(np.argmin(inertias))]


def _plus_plus(sampled: Sampled, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    rows = sampled.scaled(slice(0, max(_START_ROWS, 50 * k)))
    model = KMeans(min(k, len(rows)), n_init=STARTS, random_state=_sklearn_seed(seed, k), copy_x=False)
    return model.fit(rows).cluster_centers_ * sampled.scale


def _mini_batches(sampled: Sampled, starts: np.ndarray, seed: int) -> np.ndarray:
    from dask_ml.wrappers import Incremental
    from sklearn.cluster import MiniBatchKMeans

    rows = da.from_array(sampled.scaled(slice(None)), chunks=(BLOCK_ROWS, -1), name=False)
    model = MiniBatchKMeans(
        len(starts), init=starts / sampled.scale, n_init=1, reassignment_ratio=0.0, random_state=_sklearn_seed(seed, 0)
    )
    with dask.config.set(scheduler="synchronous"):  # the rows are here already
        return Incremental(model, shuffle_blocks=False).fit(rows).estimator_.cluster_centers_ * sampled.scale


def _sklearn_seed(seed: int, k: int) -> int:
    return int(np.random.default_rng([seed, 1, k]).integers(2**31))

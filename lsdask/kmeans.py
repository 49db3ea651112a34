"""K-means over mosaics of any size: centres from one fair sample, labels for every k in one read.

The centres come from a uniform sample of the valid pixels, not from the chunks: a mosaic's chunks differ from each
other, and centres fitted to them one after another follow the last ones. Every pixel has a random key, made from the
seed, its row and its column; the sample is the pixels with the smallest keys, in the order of their keys. So it is
fair, shuffled, and the same whatever the chunks and workers. Sums are exact (see ``statistics``), so nothing else
depends on them either.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from numba import njit

from lsdask import schema, statistics, store, tasks, tiling
from lsdask.errors import BadInput, NotFound, Unreadable, sentence

if TYPE_CHECKING:
    from distributed import Client

CENTERS = ("k", "cluster", "band")
LABELS = ("k", "y", "x")
NAME = "labels"
"""The variable of a store of labels."""

MOST_CLUSTERS = 254
"""Labels are uint8 and 255 is unknown."""

ITERATIONS = 100
"""Most Lloyd steps on the sample."""

TOLERANCE = 1e-6
"""Lloyd steps end when all centres together move less than this share of the mean variance, squared distances."""

STARTS = 5
"""k-means++ starts for every k."""

_START_ROWS = 32_768  # the starts are tried on the first rows of the sample
_BLOCK_ROWS = 65_536  # a block of the sample
_STRIP = 65_536  # pixels labelled and summed while they are in cache
_LANES = 512  # pixels labelled side by side
_EXPECTED_VOID = 64  # a sample takes a second pass where fewer than one pixel in this many is valid
_EPSILON = 2.0**-24  # rounding of a float32


# Sampling


def sample(mosaic: xr.DataArray, n: int, seed: int) -> da.Array:
    """Draw pixels fairly: uniform over the valid pixels of the whole mosaic, without replacement, shuffled.

    Reads the mosaic once, now (a second time only if it has more than 64 ``n`` pixels of which fewer than one in
    64 is valid), and holds a few times ``n`` rows. The same rows in the same order for any chunks and workers.

    Parameters
    ----------
    mosaic : DataArray (band, y, x)
        Any integer or float dtype.
    n : int
        Rows to draw; all valid pixels where there are fewer.
    seed : int
        Another seed, another sample.

    Returns
    -------
    Dask array (pixel, band), dtype as stored, in blocks of 65 536 rows

    Raises
    ------
    BadInput
        If no pixel is valid, or a valid one is infinite.
    """
    drawn = _draw(mosaic, n, seed)
    return da.from_array(drawn.rows, chunks=(_BLOCK_ROWS, -1))


@dataclass(frozen=True)
class _Drawn:
    """Some valid pixels, those with the smallest keys, and how many valid ones there are.

    Attributes
    ----------
    keys : (n,) uint64 array
    rows : (n, band) array
    valid : int
    infinite : int
        Pixels that have data in every band, but infinite.
    """

    keys: np.ndarray
    rows: np.ndarray
    valid: int
    infinite: int

    def least(self, n: int) -> "_Drawn":
        """Keep the ``n`` rows with the smallest keys, in any order."""
        if len(self.keys) <= n:
            return self
        kept = np.argpartition(self.keys, n - 1)[:n]
        return _Drawn(self.keys[kept], self.rows[kept], self.valid, self.infinite)

    def shuffled(self) -> "_Drawn":
        """Order the rows by their keys."""
        order = np.argsort(self.keys)
        return _Drawn(self.keys[order], self.rows[order], self.valid, self.infinite)


def _draw(mosaic: xr.DataArray, n: int, seed: int) -> _Drawn:
    schema.check(mosaic, schema.MOSAIC, "mosaic")
    if n < 1:
        raise BadInput(sentence("n_samples", "be at least 1", f"n_samples={n}"))
    pixels = mosaic.sizes["y"] * mosaic.sizes["x"]
    drawn = _draw_below(mosaic, n, seed, _EXPECTED_VOID * n / max(pixels, 1))
    while len(drawn.keys) < min(n, drawn.valid):
        # Eight standard deviations more than are needed: once is enough.
        drawn = _draw_below(mosaic, n, seed, (n + 8 * n**0.5 + 64) / drawn.valid)
    if drawn.infinite:
        do = "Make them NaN with mosaic.where(np.isfinite(mosaic))"
        raise BadInput(sentence("mosaic", "hold finite values", f"{drawn.infinite} infinite pixels", do))
    if drawn.valid == 0:
        rule = "have pixels with data in every band"
        raise BadInput(sentence("mosaic", rule, f"none in {pixels}", "Look at its nodata value"))
    return drawn.shuffled()


def _draw_below(mosaic: xr.DataArray, n: int, seed: int, share: float) -> _Drawn:
    """Draw from the pixels whose keys lie in the lowest ``share`` of all keys."""
    salts = np.random.default_rng([seed, 0]).integers(0, 2**64, 2, dtype="uint64")
    limit = _Limit(2**64 - 1 if share >= 1 else int(share * 2.0**64), n)
    nodata = schema.nodata(mosaic)

    def partial(block: np.ndarray, y: int, x: int) -> _Drawn:
        return limit.keep(draw_block(block, nodata, y=y, x=x, salts=salts, limit=np.uint64(limit.value)))

    return statistics.fold(mosaic, partial, lambda parts: limit.keep(_join(parts)))


class _Limit:
    """The largest key that may still be among the ``n`` smallest.

    Whatever ``n`` pixels have been kept, no key above all of theirs is needed any more. Knowing it spares the chunks
    that follow in this process most of their work, and changes nothing in what is kept in the end.
    """

    def __init__(self, value: int, n: int) -> None:
        self.value, self._n = value, n

    def keep(self, drawn: _Drawn) -> _Drawn:
        """Keep the ``n`` smallest, and remember their largest if there are ``n``."""
        kept = drawn.least(self._n)
        if len(kept.keys) == self._n:
            self.value = min(self.value, int(kept.keys.max()))
        return kept


def _join(parts: list[_Drawn]) -> _Drawn:
    return _Drawn(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.rows for part in parts]),
        sum(part.valid for part in parts),
        sum(part.infinite for part in parts),
    )


def draw_block(
    data: np.ndarray, nodata: float | int | None, *, y: int, x: int, salts: np.ndarray, limit: np.uint64
) -> _Drawn:
    """Draw the valid pixels of a block whose keys do not exceed ``limit``.

    A key is a mix of the pixel's place in the mosaic, a bijection on 64 bits, so no two pixels have the same.

    Parameters
    ----------
    data : (band, y, x) array
    nodata : float, int or None
    y, x : int
        The row and column of the block's first pixel in the mosaic.
    salts : (2,) uint64 array
        From the seed.
    limit : uint64

    Source
    ------
    Steele, Lea and Flood (2014), Fast splittable pseudorandom number generators, doi:10.1145/2660193.2660195,
    with Stafford's variant 13 of the mix.
    """
    flat = np.ascontiguousarray(data).reshape(len(data), -1)
    missing, declared = _missing(data.dtype, nodata)
    size = int(flat.shape[1] * min(float(limit) / 2.0**64 * 1.1, 1.0)) + 1024
    while True:
        places, keys = np.empty(size, dtype="int64"), np.empty(size, dtype="uint64")
        found, valid, infinite = _keys(flat, missing, declared, y, x, data.shape[2], salts, limit, places, keys)
        if found <= size:
            rows = np.ascontiguousarray(flat[:, places[:found]].T)
            return _Drawn(keys[:found].copy(), rows, valid, infinite)
        size = found


def _missing(dtype: Any, nodata: float | int | None) -> tuple[Any, bool]:
    """Give the value that stands for no data, in the data's own dtype, and whether there is one."""
    declared = nodata is not None and not np.isnan(nodata)
    return np.dtype(dtype).type(nodata if declared else 0), declared


@njit(nogil=True, cache=True)
def _mix(z):  # type: ignore[no-untyped-def]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(nogil=True, cache=True)
def _keys(flat, missing, declared, top, left, width, salts, limit, places, keys):  # type: ignore[no-untyped-def]
    found, valid, infinite = 0, 0, 0
    for row in range(flat.shape[1] // width):
        line = (np.uint64(top + row) << np.uint64(32)) + np.uint64(left)
        for column in range(width):
            i = row * width + column
            known, finite = True, True
            for band in range(flat.shape[0]):
                value = flat[band, i]
                known &= not (declared and value == missing)
                known &= value == value
                finite &= np.float64(value) - np.float64(value) == 0.0
            valid += known and finite
            infinite += known and not finite
            if known and finite:
                key = _mix(_mix(line + np.uint64(column) + salts[0]) + salts[1])
                if key <= limit:
                    if found < len(keys):
                        places[found] = i
                        keys[found] = key
                    found += 1
    return found, valid, infinite


# Centres as the kernels need them


@dataclass(frozen=True)
class Book:
    """The centres of several k, one after another, as the labelling kernel reads them.

    A pixel's nearest centre is the one of largest ``x . weights + bias``, x measured from ``origin``: half the
    squared distance, less what all centres share.

    Attributes
    ----------
    starts : (k + 1,) int64 array
        Where each k's centres begin.
    centers : (centre, band) float64 array
    scale : (band,) float64 array
        Distances are measured in these units, band by band.
    origin : (band,) float64 array
        Near the data, so that float32 is enough for nearly every pixel.
    weights : (centre, padded band) float32 array
    bias : (centre,) float32 array
    """

    starts: np.ndarray
    centers: np.ndarray
    scale: np.ndarray
    origin: np.ndarray
    weights: np.ndarray
    bias: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def groups(self) -> Iterator[slice]:
        """Give where each k's centres lie."""
        return (slice(int(start), int(stop)) for start, stop in zip(self.starts[:-1], self.starts[1:]))


def _book(centers: Sequence[np.ndarray], scale: np.ndarray) -> Book:
    """Make a Book of (cluster, band) centres, one array a k."""
    every = np.ascontiguousarray(np.concatenate(centers), dtype="float64")
    origin = np.rint(every.mean(axis=0)).astype("float32").astype("float64")
    moved = (every - origin) / scale
    weights = np.zeros((len(every), -(-every.shape[1] // 4) * 4), dtype="float32")
    weights[:, : every.shape[1]] = moved / scale
    bias = (-0.5 * (moved**2).sum(axis=1)).astype("float32")
    starts = np.cumsum([0, *(len(block) for block in centers)])
    return Book(starts, every, np.asarray(scale, dtype="float64"), origin, weights, bias)


def _book_of(centers: xr.DataArray, mosaic: xr.DataArray) -> Book:
    """Make a Book of a centres DataArray, for labelling this mosaic."""
    schema.check(mosaic, schema.MOSAIC, "mosaic")
    schema.check(centers, CENTERS, "centers")
    if schema.bands(centers) != schema.bands(mosaic):
        rule = f"have the bands of mosaic, {schema.bands(mosaic)}"
        raise BadInput(sentence("centers", rule, str(schema.bands(centers)), "Fit them on these bands"))
    ks = [_check_k(int(k)) for k in centers["k"].values]
    blocks = [np.asarray(centers.values[i, :k], dtype="float64") for i, k in enumerate(ks)]
    for k, block in zip(ks, blocks):
        if block.shape[0] != k or not np.isfinite(block).all():
            raise BadInput(sentence("centers", f"hold {k} finite centres for k={k}", "fewer"))
    scale = centers["scale"].values if "scale" in centers.coords else np.ones(centers.sizes["band"])
    return _book(blocks, np.asarray(scale, dtype="float64"))


def _check_k(k: int) -> int:
    if not 1 <= k <= MOST_CLUSTERS:
        rule = f"lie from 1 to {MOST_CLUSTERS}, as labels are uint8 and 255 is unknown"
        raise BadInput(sentence("n_clusters", rule, f"n_clusters={k}"))
    return k


# Labels


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
    book = _book_of(centers, mosaic)
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
    return _labels(labels, mosaic, centers)


def _labels(data: Any, mosaic: xr.DataArray, centers: xr.DataArray) -> xr.DataArray:
    places = {name: mosaic.coords[name] for name in ("y", "x", "spatial_ref") if name in mosaic.coords}
    attrs = {"_FillValue": np.uint8(schema.UNKNOWN), "long_name": "cluster"}
    return xr.DataArray(data, dims=LABELS, coords={"k": centers["k"].values, **places}, name=NAME, attrs=attrs)


def assign_block(data: np.ndarray, nodata: float | int | None, book: Book) -> np.ndarray:
    """Label the pixels of a block, for every k of a book.

    Scores are float32; where the two best are nearer to each other than rounding can be (a bound from the
    magnitudes at hand), the pixel is decided again in float64. So labels are those of float64 throughout.

    Parameters
    ----------
    data : (band, y, x) array
        As stored.
    nodata : float, int or None
    book : Book

    Returns
    -------
    (k, y, x) uint8 array, 255 where a band has no data or is not finite
    """
    labels = np.empty((len(book), *data.shape[1:]), dtype="uint8")
    flat = np.ascontiguousarray(data).reshape(len(data), -1)
    _label(flat, nodata, book, labels.reshape(len(book), -1))
    return labels


def _label(flat: np.ndarray, nodata: float | int | None, book: Book, labels: np.ndarray) -> None:
    missing, declared = _missing(flat.dtype, nodata)
    reach = np.abs(book.weights).max(axis=0)
    slack = np.float32(2 * (flat.shape[0] + 4) * _EPSILON)
    floor = np.abs(book.bias).max()
    _nearest(
        flat, missing, declared, book.starts, book.centers, book.scale, book.origin,
        book.weights, book.bias, reach, floor, slack, labels,
    )  # fmt: skip


@njit(nogil=True, cache=True, fastmath={"contract"})
def _nearest(  # type: ignore[no-untyped-def]
    flat, missing, declared, starts, centers, scale, origin, weights, bias, reach, floor, slack, labels
):
    size = flat.shape[1]
    x = np.zeros((weights.shape[1], _LANES), dtype=np.float32)
    doubt = np.empty(_LANES, dtype=np.float32)
    score = np.empty(_LANES, dtype=np.float32)
    best = np.empty(_LANES, dtype=np.float32)
    second = np.empty(_LANES, dtype=np.float32)
    label = np.empty(_LANES, dtype=np.int32)
    known = np.empty(_LANES, dtype=np.bool_)
    for begin in range(0, size, _LANES):
        n = min(_LANES, size - begin)
        if not _load(flat, begin, n, missing, declared, origin, x, known):
            labels[:, begin : begin + n] = 255
            continue
        _bound(x, n, reach, floor, slack, doubt)
        for k in range(len(starts) - 1):
            best[:n] = -np.inf
            second[:n] = -np.inf
            first = starts[k]
            if x.shape[0] == 4:  # two centres at a time halve the traffic with best, second and label
                for centre in range(first, starts[k + 1] - 1, 2):
                    _keep_pair(x, n, weights, bias, centre, starts[k], best, second, label)
                first = starts[k + 1] - (starts[k + 1] - starts[k]) % 2
            for centre in range(first, starts[k + 1]):
                _score(x, n, weights[centre], bias[centre], score)
                _keep(score, n, centre - starts[k], best, second, label)
            if _settle(n, known, doubt, best, second, label, labels[k, begin : begin + n]):
                for i in range(n):
                    if known[i] and not best[i] - second[i] > doubt[i]:
                        labels[k, begin + i] = _decide(flat, begin + i, centers, scale, starts[k], starts[k + 1])


@njit(nogil=True, cache=True)
def _settle(n, known, doubt, best, second, label, labels):  # type: ignore[no-untyped-def]
    """Write the labels; say how many are in doubt (also those that an overflow made NaN)."""
    doubtful = np.int32(0)
    for i in range(n):
        sure = best[i] - second[i] > doubt[i]
        doubtful += np.int32(known[i] and not sure)
        labels[i] = np.uint8(label[i]) if known[i] else np.uint8(255)
    return doubtful


@njit(nogil=True, cache=True)
def _load(flat, begin, n, missing, declared, origin, x, known):  # type: ignore[no-untyped-def]
    """Take some pixels from the block, measured from the origin; say whether any has data."""
    known[:n] = True
    for band in range(flat.shape[0]):
        for i in range(n):
            value = np.float64(flat[band, begin + i])
            known[i] &= value - value == 0.0
            x[band, i] = np.float32(value - origin[band])
        if declared:
            for i in range(n):
                known[i] &= flat[band, begin + i] != missing
    return known[:n].any()


@njit(nogil=True, cache=True, fastmath={"contract"})
def _bound(x, n, reach, floor, slack, doubt):  # type: ignore[no-untyped-def]
    """Bound twice the rounding error of any score of each pixel."""
    doubt[:n] = floor
    for band in range(x.shape[0]):
        for i in range(n):
            doubt[i] += abs(x[band, i]) * reach[band]
    for i in range(n):
        doubt[i] *= slack


@njit(nogil=True, cache=True, fastmath={"contract"})
def _score(x, n, weight, bias, score):  # type: ignore[no-untyped-def]
    """Score some pixels for one centre, four bands at a time."""
    for i in range(n):
        score[i] = bias + x[0, i] * weight[0] + x[1, i] * weight[1] + x[2, i] * weight[2] + x[3, i] * weight[3]
    for band in range(4, x.shape[0], 4):
        for i in range(n):
            score[i] += (
                x[band, i] * weight[band]
                + x[band + 1, i] * weight[band + 1]
                + x[band + 2, i] * weight[band + 2]
                + x[band + 3, i] * weight[band + 3]
            )


@njit(nogil=True, cache=True)
def _keep(score, n, cluster, best, second, label):  # type: ignore[no-untyped-def]
    for i in range(n):
        better = score[i] > best[i]
        runner_up = best[i] if better else score[i]
        second[i] = runner_up if runner_up > second[i] else second[i]
        best[i] = score[i] if better else best[i]
        label[i] = np.int32(cluster) if better else label[i]


@njit(nogil=True, cache=True, fastmath={"contract"})
def _keep_pair(x, n, weights, bias, centre, start, best, second, label):  # type: ignore[no-untyped-def]
    """Do ``_score`` and ``_keep`` for two centres of four bands, in registers."""
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    a0, a1, a2, a3 = weights[centre, 0], weights[centre, 1], weights[centre, 2], weights[centre, 3]
    b0, b1, b2, b3 = weights[centre + 1, 0], weights[centre + 1, 1], weights[centre + 1, 2], weights[centre + 1, 3]
    a_bias, b_bias, cluster = bias[centre], bias[centre + 1], centre - start
    for i in range(n):
        a = a_bias + x0[i] * a0 + x1[i] * a1 + x2[i] * a2 + x3[i] * a3
        b = b_bias + x0[i] * b0 + x1[i] * b1 + x2[i] * b2 + x3[i] * b3
        top, next_, name = best[i], second[i], label[i]
        better = a > top
        runner_up = top if better else a
        next_ = runner_up if runner_up > next_ else next_
        name = np.int32(cluster) if better else name
        top = a if better else top
        better = b > top
        runner_up = top if better else b
        next_ = runner_up if runner_up > next_ else next_
        name = np.int32(cluster + 1) if better else name
        best[i] = b if better else top
        second[i] = next_
        label[i] = name


@njit(nogil=True, cache=True)
def _decide(flat, i, centers, scale, start, stop):  # type: ignore[no-untyped-def]
    """Give the nearest of some centres to one pixel in float64, the first of equals."""
    least, label = np.inf, 0
    for centre in range(start, stop):
        distance = 0.0
        for band in range(flat.shape[0]):
            difference = (np.float64(flat[band, i]) - centers[centre, band]) / scale[band]
            distance += difference * difference
        if distance < least:
            least, label = distance, centre - start
    return label


# Centres


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
        pixels; ``scale`` (band), the units of distance.

    Raises
    ------
    BadInput
        If k is out of range, no pixel is valid, one is infinite, or the sample has fewer distinct pixels than k.
    """
    ks = _check_ks(n_clusters)
    if refine < 0:
        raise BadInput(sentence("refine", "be 0 or more steps", f"refine={refine}"))
    drawn = _draw(mosaic, n_samples, seed)
    _check_distinct(drawn.rows, max(ks))
    scale = _scale(drawn.rows) if standardise else np.ones(drawn.rows.shape[1])
    sampled = _Sampled(np.ascontiguousarray(drawn.rows.T), scale)
    centers = _polish(sampled, [_start(sampled, k, seed) for k in ks])
    for _ in range(refine):
        centers = _move(_fold_totals(mosaic, centers, scale), centers, sampled)
    centers = [_ordered(block, scale) for block in centers]
    totals = _fold_totals(mosaic, centers, scale) if refine else sampled.totals(centers)
    attrs = {
        "n_samples": len(drawn.rows),
        "n_valid": drawn.valid,
        "seed": seed,
        "standardised": bool(standardise),
        "refined": refine,
        "counted": "all valid pixels" if refine or len(drawn.rows) == drawn.valid else "sample",
        "mosaic": store.source(mosaic) or str(mosaic.name or ""),
        "mosaic_shape": [mosaic.sizes["y"], mosaic.sizes["x"]],
    }
    return _centers(ks, centers, schema.bands(mosaic), scale, totals, attrs)


def _check_ks(n_clusters: int | Sequence[int]) -> list[int]:
    ks = [_check_k(int(k)) for k in np.atleast_1d(np.asarray(n_clusters))]
    if not ks or len(set(ks)) < len(ks):
        raise BadInput(sentence("n_clusters", "be one or more different numbers", f"n_clusters={n_clusters}"))
    return ks


def _check_distinct(rows: np.ndarray, k: int) -> None:
    seen = rows[:0]
    for begin in range(0, len(rows), _BLOCK_ROWS):
        seen = np.unique(np.concatenate([seen, rows[begin : begin + _BLOCK_ROWS]]), axis=0)
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
    totals: Sequence["_Totals"],
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


# Exact Lloyd steps


@dataclass(frozen=True)
class _Totals:
    """Exact sums of one k: of the pixels of each cluster, and of the squares of all."""

    pixels: statistics.Totals
    squares: np.ndarray

    def __add__(self, other: "_Totals") -> "_Totals":
        return _Totals(self.pixels + other.pixels, self.squares + other.squares)

    def means(self) -> np.ndarray:
        """Give the (cluster, band) means, NaN where a cluster has no pixel; each is rounded once."""
        pairs = zip(self.pixels.count.tolist(), self.pixels.sums)
        return np.array([[float(Fraction(x) / n) if n else np.nan for x in sums] for n, sums in pairs])

    def inertia(self, centers: np.ndarray, scale: np.ndarray) -> float:
        """Give the sum of squared distances to ``centers``, by which the clusters were made; rounded once."""
        total = Fraction(0)
        for band, (unit, squares) in enumerate(zip(scale.tolist(), self.squares)):
            spread = Fraction(squares)
            for n, sums, center in zip(self.pixels.count.tolist(), self.pixels.sums, centers[:, band].tolist()):
                spread += Fraction(center) * (n * Fraction(center) - 2 * Fraction(sums[band]))
            total += spread / Fraction(unit) ** 2
        return float(total)


def totals_block(data: np.ndarray, nodata: float | int | None, book: Book) -> list[_Totals]:
    """Label the pixels of a block for every k and add them up by cluster, exactly.

    Parameters
    ----------
    data : (band, ...) array
        As stored.
    nodata : float, int or None
    book : Book

    Returns
    -------
    list of sums, one a k
    """
    flat = np.ascontiguousarray(data).reshape(len(data), -1)
    adders = [statistics.Adder(flat.dtype, len(flat), group.stop - group.start) for group in book.groups()]
    squares = statistics.Adder(flat.dtype, len(flat), 1, squared=True)
    for begin in range(0, flat.shape[1], _STRIP):
        strip = np.ascontiguousarray(flat[:, begin : begin + _STRIP])
        found = np.empty((len(book), strip.shape[1]), dtype="uint8")
        _label(strip, nodata, book, found)
        squares.add(strip, (found[0] == schema.UNKNOWN).view("uint8"))
        for adder, groups in zip(adders, found):
            adder.add(strip, groups)
    square = squares.totals().sums[0]
    return [_Totals(adder.totals(), square) for adder in adders]


def _fold_totals(mosaic: xr.DataArray, centers: Sequence[np.ndarray], scale: np.ndarray) -> list[_Totals]:
    """Label all valid pixels of the mosaic and add them up, in one read."""
    book, nodata = _book(centers, scale), schema.nodata(mosaic)
    return statistics.fold(mosaic, lambda block, *_: totals_block(block, nodata, book), _merge_totals)


def _merge_totals(parts: list[list[_Totals]]) -> list[_Totals]:
    return [reduce(lambda one, other: one + other, same) for same in zip(*parts)]


@dataclass(frozen=True)
class _Sampled:
    """The sample, (band, pixel) as stored, and the units of distance."""

    values: np.ndarray
    scale: np.ndarray

    def totals(self, centers: Sequence[np.ndarray]) -> list[_Totals]:
        return totals_block(self.values, None, _book(centers, self.scale))

    def scaled(self, rows: slice) -> np.ndarray:
        """Give (pixel, band) float64 rows in units of distance."""
        return self.values[:, rows].T.astype("float64") / self.scale

    def farthest(self, centers: np.ndarray, n: int) -> np.ndarray:
        """Give the ``n`` distinct sampled pixels farthest from their nearest centre, (n, band)."""
        labels = np.empty((1, self.values.shape[1]), dtype="uint8")
        _label(self.values, None, _book([centers], self.scale), labels)
        distance = (((self.values.T - centers[labels[0]]) / self.scale) ** 2).sum(axis=1)
        found: dict[bytes, np.ndarray] = {}
        for place in np.argsort(-distance, kind="stable"):
            found.setdefault(self.values[:, place].tobytes(), self.values[:, place])
            if len(found) == n:
                break
        return np.array(list(found.values()), dtype="float64")


def _move(totals: Sequence[_Totals], centers: Sequence[np.ndarray], sampled: _Sampled) -> list[np.ndarray]:
    """Move every centre to the mean of its pixels, and one without pixels far away from all others."""
    moved = []
    for total in totals:
        means = total.means()
        empty = np.isnan(means[:, 0])
        if empty.any():
            means[empty] = sampled.farthest(means[~empty], int(empty.sum()))
        moved.append(means)
    return moved


def _polish(sampled: _Sampled, centers: list[np.ndarray]) -> list[np.ndarray]:
    """Do exact Lloyd steps on the sample, all k together, until each has settled."""
    done = list(centers)
    spread = ((sampled.values.astype("float64").T / sampled.scale).var(axis=0)).mean()
    active = list(range(len(centers)))
    for _ in range(ITERATIONS):
        before = [done[i] for i in active]
        after = _move(sampled.totals(before), before, sampled)
        for i, block in zip(active, after):
            done[i] = block
        shifts = [(((new - old) / sampled.scale) ** 2).sum() for new, old in zip(after, before)]
        active = [i for i, shift in zip(active, shifts) if shift > TOLERANCE * spread]
        if not active:
            break
    return done


def _ordered(centers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Order clusters by the mean of their centre over the bands, then by the bands themselves."""
    scaled = centers / scale
    return centers[np.lexsort((*scaled.T[::-1], scaled.mean(axis=1)))]


# Starts


def _start(sampled: _Sampled, k: int, seed: int) -> np.ndarray:
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


def _plus_plus(sampled: _Sampled, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    rows = sampled.scaled(slice(0, max(_START_ROWS, 50 * k)))
    model = KMeans(min(k, len(rows)), n_init=STARTS, random_state=_sklearn_seed(seed, k), copy_x=False)
    return model.fit(rows).cluster_centers_ * sampled.scale


def _mini_batches(sampled: _Sampled, starts: np.ndarray, seed: int) -> np.ndarray:
    from dask_ml.wrappers import Incremental
    from sklearn.cluster import MiniBatchKMeans

    rows = da.from_array(sampled.scaled(slice(None)), chunks=(_BLOCK_ROWS, -1), name=False)
    model = MiniBatchKMeans(
        len(starts), init=starts / sampled.scale, n_init=1, reassignment_ratio=0.0, random_state=_sklearn_seed(seed, 0)
    )
    with dask.config.set(scheduler="synchronous"):  # the rows are here already
        return Incremental(model, shuffle_blocks=False).fit(rows).estimator_.cluster_centers_ * sampled.scale


def _sklearn_seed(seed: int, k: int) -> int:
    return int(np.random.default_rng([seed, 1, k]).integers(2**31))


# Choosing k


def describe(
    pixels: xr.DataArray | da.Array | np.ndarray, centers: xr.DataArray, *, n_samples: int = 100_000, seed: int = 0
) -> pd.DataFrame:
    """Measure how well each k separates the pixels, to choose one.

    Parameters
    ----------
    pixels : DataArray (band, y, x), or (pixel, band) array
        A mosaic, which is sampled in one read, or a sample of it.
    centers : DataArray (k, cluster, band)
        From ``fit`` or ``open``. Distances are in their ``scale``.
    n_samples, seed : int
        Of the sample, if ``pixels`` is a mosaic.

    Returns
    -------
    DataFrame indexed by ``k``
        ``distance2``, the mean squared distance to the own centre (look for the bend); ``silhouette``, simplified,
        -1 to 1 (higher is better); ``davies_bouldin``, 0 and more (lower is better); ``smallest``, the share of
        pixels in the smallest cluster. The middle two are NaN for k=1.

    Raises
    ------
    BadInput
        If the bands are not those of the centres, or no pixel is valid.

    Source
    ------
    Hruschka, Campello and de Castro (2006), doi:10.1016/j.ins.2005.07.015 (simplified silhouette: distances to
    centres, not to pixels); Davies and Bouldin (1979), doi:10.1109/TPAMI.1979.4766909.
    """
    if isinstance(pixels, xr.DataArray):
        _book_of(centers, pixels)
        pixels = sample(pixels, n_samples, seed)
    if pixels.ndim != 2 or pixels.shape[1] != centers.sizes["band"] or not len(pixels):
        rule = f"have shape (pixel, band) with {centers.sizes['band']} bands"
        raise BadInput(sentence("pixels", rule, str(pixels.shape)))
    scale = centers["scale"].values if "scale" in centers.coords else np.ones(centers.sizes["band"])
    rows = np.asarray(pixels, dtype="float64") / scale
    ks = [int(k) for k in centers["k"].values]
    table = [separation_block(rows, centers.values[i, :k] / scale) for i, k in enumerate(ks)]
    return pd.DataFrame(table, index=pd.Index(ks, name="k"))


def separation_block(rows: np.ndarray, centers: np.ndarray) -> dict[str, float]:
    """Measure how well centres separate pixels; see ``describe``.

    Parameters
    ----------
    rows : (pixel, band) float64 array
    centers : (cluster, band) float64 array

    Returns
    -------
    dict of ``distance2``, ``silhouette``, ``davies_bouldin``, ``smallest``
    """
    label, own, other = (np.concatenate(parts) for parts in zip(*_two_nearest(rows, centers)))
    count = np.bincount(label, minlength=len(centers))
    return {
        "distance2": float((own**2).mean()),
        "silhouette": _silhouette(own, other) if len(centers) > 1 else np.nan,
        "davies_bouldin": _davies_bouldin(np.bincount(label, own, len(centers)), count, centers),
        "smallest": float(count.min() / len(rows)),
    }


def _two_nearest(rows: np.ndarray, centers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Give each pixel's cluster, its distance to that centre and to the next, some pixels at a time."""
    for begin in range(0, len(rows), 8192):
        part = rows[begin : begin + 8192]
        squared = sum(np.subtract.outer(part[:, band], centers[:, band]) ** 2 for band in range(rows.shape[1]))
        distance = np.sqrt(squared)
        label = distance.argmin(axis=1)
        own = distance[np.arange(len(part)), label]
        distance[np.arange(len(part)), label] = np.inf
        yield label, own, distance.min(axis=1)


def _silhouette(own: np.ndarray, other: np.ndarray) -> float:
    """Mean of how much nearer the own centre is than the next; 0 for a pixel on both. ``other`` is the larger."""
    return float(np.divide(other - own, other, out=np.zeros_like(own), where=other > 0).mean())


def _davies_bouldin(distance: np.ndarray, count: np.ndarray, centers: np.ndarray) -> float:
    """Mean over clusters of the worst ratio of two clusters' spreads to the distance of their centres."""
    present = count > 0
    if present.sum() < 2:
        return np.nan
    spread, centers = distance[present] / count[present], centers[present]
    apart = np.sqrt(((centers[:, None] - centers[None]) ** 2).sum(axis=2))
    np.fill_diagonal(apart, np.inf)
    return float(((spread[:, None] + spread[None]) / apart).max(axis=1).mean())


# Centres in a file

_FORMAT = "lsdask k-means centres 1"


def save(centers: xr.DataArray, path: str | Path) -> None:
    """Write centres to a JSON file; ``open`` gives the same numbers back, to the bit.

    Parameters
    ----------
    centers : DataArray (k, cluster, band)
        From ``fit``.
    path : str or Path
        Replaced if it is there.
    """
    schema.check(centers, CENTERS, "centers")
    ks = [int(k) for k in centers["k"].values]
    record = {
        "format": _FORMAT,
        "bands": list(schema.bands(centers)),
        "scale": centers["scale"].values.tolist(),
        "inertia": centers["inertia"].values.tolist(),
        "k": {
            str(k): {
                "centers": centers.values[i, :k].tolist(),
                "size": centers["size"].values[i, :k].tolist(),
            }
            for i, k in enumerate(ks)
        },
        "attrs": dict(centers.attrs),
    }
    Path(path).write_text(json.dumps(record, indent=1))


def open(path: str | Path) -> xr.DataArray:
    """Read centres that ``save`` wrote.

    Returns
    -------
    DataArray (k, cluster, band)

    Raises
    ------
    NotFound, Unreadable
        If there is no such file, or it is not one of centres.
    """
    try:
        record = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise NotFound(sentence("path", "name a file of centres", f"path={path}, where there is none")) from error
    except (OSError, ValueError) as error:
        raise Unreadable(sentence("path", "name a file of centres", f"path={path}: {error}")) from error
    try:
        return _from_record(record)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise Unreadable(sentence("path", f"hold {_FORMAT!r}", f"path={path}: {error!r}")) from error


def _from_record(record: dict[str, Any]) -> xr.DataArray:
    if record["format"] != _FORMAT:
        raise ValueError(record["format"])
    ks = [_check_k(int(k)) for k in record["k"]]
    values = np.full((len(ks), max(ks), len(record["bands"])), np.nan)
    size = np.zeros(values.shape[:2], dtype="int64")
    for i, (k, entry) in enumerate(zip(ks, record["k"].values())):
        values[i, :k], size[i, :k] = entry["centers"], entry["size"]
    coords = {
        "k": ks,
        "cluster": np.arange(max(ks)),
        "band": record["bands"],
        "scale": ("band", np.asarray(record["scale"], dtype="float64")),
        "inertia": ("k", np.asarray(record["inertia"], dtype="float64")),
        "size": (("k", "cluster"), size),
    }
    return xr.DataArray(values, dims=CENTERS, coords=coords, name="centers", attrs=record["attrs"])


# Labels in a store


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
    """

    source: store.Reader
    target: str
    nodata: float | int | None
    book: Book

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        """Label a tile; give how many of its pixels are valid."""
        labels = assign_block(self.source.read(*tile.write), self.nodata, self.book)
        valid = int(np.count_nonzero(labels[0] != schema.UNKNOWN))
        store.array(self.target, mode="r+", name=NAME)[(slice(None), *tile.write)] = labels
        return {"valid": valid}


def write(
    mosaic: xr.DataArray,
    centers: xr.DataArray,
    path: str | Path,
    *,
    shard: int = 2048,
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
        Side of a tile and of a stored shard, in pixels.
    client : distributed.Client, optional
        Where to run; default a pool of threads in this process.
    workers : int, optional
        Threads of that pool.
    progress : bool
        Show a bar once the run has taken two seconds.

    Returns
    -------
    tasks.Report
        ``metrics["valid"]`` is the number of labelled pixels of this run.

    Raises
    ------
    BadInput, OtherPlan
        If the centres are of other bands, or ``path`` holds something else.
    """
    book = _book_of(centers, mosaic)
    template = _labels(da.zeros((len(book), *mosaic.shape[1:]), chunks=-1, dtype="uint8"), mosaic, centers)
    plan = {
        "kind": "kmeans.write",
        "mosaic": store.fingerprint(mosaic),
        "k": [int(k) for k in centers["k"].values],
        "centers": hashlib.sha256(book.centers.tobytes() + book.scale.tobytes()).hexdigest()[:16],
    }
    return tasks.run(
        Labeller(store.reader(mosaic), str(path), schema.nodata(mosaic), book),
        target=path,
        template=template,
        tile=shard,
        plan=plan,
        client=client,
        workers=workers,
        progress=progress,
        label="labels",
    )


# The label of a tile


def majority(labels: xr.DataArray, tile: int = 32) -> xr.DataArray:
    """Give each tile the label that most of its valid pixels have. Lazy.

    Parameters
    ----------
    labels : DataArray (k, y, x) uint8
        255 is unknown.
    tile : int
        Side of a tile, in pixels. A tile that reaches over the right or lower border is completed with unknown
        pixels.

    Returns
    -------
    DataArray (k, tile_y, tile_x) uint8
        Ties go to the lowest label; 255 where less than half of the tile's ``tile * tile`` pixels are known.
        Coordinates ``tile_y`` and ``tile_x`` are the row and column of each tile's first pixel.

    Source
    ------
    Garcia et al. (2022), arXiv:2208.02693: tiles of 32 x 32 pixels take their predominant cluster.
    """
    schema.check(labels, LABELS, "labels")
    if labels.dtype != np.uint8:
        raise BadInput(sentence("labels", "be uint8", f"dtype={labels.dtype}"))
    if tile < 1:
        raise BadInput(sentence("tile", "be at least 1 pixel", f"tile={tile}"))
    data = labels.data
    if not isinstance(data, da.Array):
        data = da.from_array(data, chunks=(-1, 2048, 2048), name=False)
    data = data.rechunk({0: -1, **{axis: _whole_tiles(data.chunks[axis], tile) for axis in (1, 2)}})
    counts = tuple(tuple(-(-size // tile) for size in data.chunks[axis]) for axis in (1, 2))
    votes = data.map_blocks(
        majority_block, tile, chunks=(data.chunks[0], *counts), dtype="uint8", meta=np.empty((0, 0, 0), "uint8")
    )
    coords = {
        "k": labels["k"].values if "k" in labels.coords else np.arange(labels.sizes["k"]),
        "tile_y": np.arange(sum(counts[0])) * tile,
        "tile_x": np.arange(sum(counts[1])) * tile,
    }
    attrs = {"_FillValue": np.uint8(schema.UNKNOWN), "tile": tile}
    return xr.DataArray(votes, dims=("k", "tile_y", "tile_x"), coords=coords, name="majority", attrs=attrs)


def _whole_tiles(sizes: Sequence[int], tile: int) -> int:
    """Give a chunk size near the present ones that holds whole tiles."""
    return max(max(sizes) // tile, 1) * tile


def majority_block(labels: np.ndarray, tile: int) -> np.ndarray:
    """Take the vote of every tile of a block that starts at a tile's corner.

    Parameters
    ----------
    labels : (k, y, x) uint8 array
    tile : int

    Returns
    -------
    (k, tile_y, tile_x) uint8 array
    """
    shape = (len(labels), *(-(-size // tile) for size in labels.shape[1:]))
    votes = np.empty(shape, dtype="uint8")
    _vote(np.ascontiguousarray(labels), tile, votes)
    return votes


@njit(nogil=True, cache=True)
def _vote(labels, tile, votes):  # type: ignore[no-untyped-def]
    count = np.zeros(256, dtype=np.int64)
    for k in range(votes.shape[0]):
        for row in range(votes.shape[1]):
            for column in range(votes.shape[2]):
                count[:] = 0
                for y in range(row * tile, min((row + 1) * tile, labels.shape[1])):
                    for x in range(column * tile, min((column + 1) * tile, labels.shape[2])):
                        count[labels[k, y, x]] += 1
                enough = 2 * count[:255].sum() >= tile * tile
                votes[k, row, column] = np.argmax(count[:255]) if enough else 255

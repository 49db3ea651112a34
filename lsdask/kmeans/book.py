"""Centres, as a DataArray (k, cluster, band) and as the kernels need them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from lsdask import schema
from lsdask.errors import BadInput, sentence

CENTERS = ("k", "cluster", "band")
LABELS = ("k", "y", "x")

MOST_CLUSTERS = 254
"""Labels are uint8 and 255 is unknown."""


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


def make_book(centers: Sequence[np.ndarray], scale: np.ndarray) -> Book:
    """Make a Book of (cluster, band) centres, one array a k."""
    every = np.ascontiguousarray(np.concatenate(centers), dtype="float64")
    origin = np.rint(every.mean(axis=0)).astype("float32").astype("float64")
    moved = (every - origin) / scale
    weights = np.zeros((len(every), -(-every.shape[1] // 4) * 4), dtype="float32")
    weights[:, : every.shape[1]] = moved / scale
    bias = (-0.5 * (moved**2).sum(axis=1)).astype("float32")
    starts = np.cumsum([0, *(len(block) for block in centers)])
    return Book(starts, every, np.asarray(scale, dtype="float64"), origin, weights, bias)


def book_of(centers: xr.DataArray, mosaic: xr.DataArray) -> Book:
    """Make a Book of a centres DataArray, for labelling this mosaic."""
    schema.check(mosaic, schema.MOSAIC, "mosaic")
    schema.check(centers, CENTERS, "centers")
    if schema.bands(centers) != schema.bands(mosaic):
        rule = f"have the bands of mosaic, {schema.bands(mosaic)}"
        raise BadInput(sentence("centers", rule, str(schema.bands(centers)), "Fit them on these bands"))
    ks = [check_k(int(k)) for k in centers["k"].values]
    blocks = [np.asarray(centers.values[i, :k], dtype="float64") for i, k in enumerate(ks)]
    for k, block in zip(ks, blocks):
        if block.shape[0] != k or not np.isfinite(block).all():
            raise BadInput(sentence("centers", f"hold {k} finite centres for k={k}", "fewer"))
    scale = centers["scale"].values if "scale" in centers.coords else np.ones(centers.sizes["band"])
    return make_book(blocks, np.asarray(scale, dtype="float64"))


def check_k(k: int) -> int:
    if not 1 <= k <= MOST_CLUSTERS:
        rule = f"lie from 1 to {MOST_CLUSTERS}, as labels are uint8 and 255 is unknown"
        raise BadInput(sentence("n_clusters", rule, f"n_clusters={k}"))
    return k


def missing_value(dtype: Any, nodata: float | int | None) -> tuple[Any, bool]:
    """Give the value that stands for no data, in the data's own dtype, and whether there is one."""
    declared = nodata is not None and not np.isnan(nodata)
    return np.dtype(dtype).type(nodata if declared else 0), declared

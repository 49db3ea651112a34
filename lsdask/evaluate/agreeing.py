"""Maps of an evaluation: where scores and mask agree, and which ground counts."""

from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from lsdask import schema
from lsdask.evaluate.inputs import CHUNK, aligned, rising
from lsdask.evaluate.tallying import check_truth

TN, TP, FP, FN = 0, 1, 2, 3
"""What the map of :func:`agreement` holds, besides 255 where the mask or the scores are unknown."""


def agreement(
    scores: xr.DataArray,
    mask: xr.DataArray,
    *,
    threshold: float = 0.5,
    valid: xr.DataArray | None = None,
    class_: Any = None,
) -> xr.DataArray:
    """Map where scores and mask agree. Lazy if either is.

    Parameters
    ----------
    scores, mask, threshold, valid, class_
        As in :func:`count`.

    Returns
    -------
    DataArray (y, x) uint8
        0 true negative, 1 true positive, 2 false positive, 3 false negative, 255 unknown.

    Raises
    ------
    BadInput
        As :func:`count`.
    """
    (cut,) = rising([threshold])
    arrays = aligned(scores, mask, valid, class_)
    flags = {
        "flag_values": [TN, TP, FP, FN],
        "flag_meanings": "true_negative true_positive false_positive false_negative",
    }
    data = da.map_blocks(agreement_block, *arrays, threshold=cut, dtype="uint8", meta=np.empty((0, 0), "uint8"))
    lazy = any(image.chunks for image in (scores, mask, valid) if image is not None)
    return schema.wrap(
        data if lazy else data.compute(),
        schema.geobox(scores, "scores"),
        schema.MASK,
        name="agreement",
        nodata=schema.UNKNOWN,
        attrs=flags,
    )


def agreement_block(
    scores: np.ndarray, mask: np.ndarray, valid: np.ndarray | None = None, *, threshold: float
) -> np.ndarray:
    """Map where scores and mask agree, pixel by pixel: see :func:`agreement`."""
    truth = mask.view("uint8")
    known = schema.known_block(scores, schema.UNKNOWN if scores.dtype == np.uint8 else None)
    known &= truth != schema.UNKNOWN
    if valid is not None:
        known &= valid
    check_truth(np.bincount(truth.ravel(), minlength=256))
    positive = scores >= (schema.first_step(threshold) if scores.dtype == np.uint8 else scores.dtype.type(threshold))
    codes = np.array([[TN, FP], [FN, TP]], dtype="uint8")
    return np.where(known, codes[(truth == 1).view("uint8"), positive.view("uint8")], np.uint8(schema.UNKNOWN))


def within(tiles: pd.DataFrame, like: xr.DataArray) -> xr.DataArray:
    """Say which pixels lie in any of some tiles, lazily: the ``valid`` of an evaluation on a held-out split.

    Parameters
    ----------
    tiles : DataFrame
        Columns y, x (upper left pixel) and size, in pixels of ``like``.
    like : DataArray (..., y, x)
        Gives grid and chunks.

    Returns
    -------
    DataArray (y, x) bool

    Examples
    --------
    ``count(scores, mask, valid=within(tiles[tiles["split"] == "test"], mask))``
    """
    sides = like.data.chunks[-2:] if like.chunks else CHUNK
    empty = da.zeros(like.shape[-2:], chunks=sides, dtype=bool)
    windows = tiles[["y", "x", "size"]].to_numpy()
    inside = da.map_blocks(_within, empty, windows=windows, dtype=bool, meta=np.empty((0, 0), bool))
    return schema.wrap(inside, schema.geobox(like, "like"), schema.MASK, name="within")


def _within(block: np.ndarray, *, windows: np.ndarray, block_info: Any = None) -> np.ndarray:
    (y0, y1), (x0, x1) = block_info[0]["array-location"]
    return within_block(windows, slice(y0, y1), slice(x0, x1))


def within_block(windows: np.ndarray, y: slice, x: slice) -> np.ndarray:
    """Say which pixels of a window of the image lie in any of some tiles.

    Parameters
    ----------
    windows : (n, 3) int array
        y, x, size of each tile.
    y, x : slice
        The window.

    Returns
    -------
    (y, x) bool array
    """
    inside = np.zeros((y.stop - y.start, x.stop - x.start), dtype=bool)
    top, left = windows[:, 0] - y.start, windows[:, 1] - x.start
    bottom, right = top + windows[:, 2], left + windows[:, 2]
    touching = (bottom > 0) & (right > 0) & (top < inside.shape[0]) & (left < inside.shape[1])
    for i in np.flatnonzero(touching):
        inside[max(top[i], 0) : bottom[i], max(left[i], 0) : right[i]] = True
    return inside

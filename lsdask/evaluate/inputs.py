"""What an evaluation is given: scores, masks and thresholds, checked at the door."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import schema
from lsdask.errors import BadInput, sentence

CHUNK = 2048
"""Pixels a side of the chunks in which images in memory are counted."""


def rising(thresholds: int | Sequence[float] | np.ndarray) -> np.ndarray:
    """Check thresholds and give them as float64, evenly spaced if only their number is said."""
    if isinstance(thresholds, int | np.integer):
        if thresholds < 2:
            raise BadInput(sentence("thresholds", "be 2 or more", f"thresholds={thresholds}"))
        # k / 100 is the float a user writes as 0.35; numpy.linspace gives k * 0.01, which is not.
        return np.arange(thresholds) / (thresholds - 1)
    edges = np.asarray(thresholds, dtype="float64")
    rises = edges.ndim == 1 and edges.size and all(low < high for low, high in pairwise(edges))
    if not (rises and edges[0] >= 0 and edges[-1] <= 1):
        raise BadInput(sentence("threshold", "lie in 0..1, and several must rise", f"{thresholds}"))
    return edges


def aligned(scores: xr.DataArray, mask: xr.DataArray, valid: xr.DataArray | None, class_: Any) -> list[da.Array]:
    """Check what is evaluated and give its arrays (y, x), in chunks that coincide."""
    _check(scores, mask, valid)
    flat = schema.one_class(scores, class_)
    images = [flat, mask] if valid is None else [flat, mask, valid]
    lazy = [image.data.chunks for image in images if image.chunks]
    return [da.asarray(image.data).rechunk(lazy[0] if lazy else CHUNK) for image in images]


def _check(scores: xr.DataArray, mask: xr.DataArray, valid: xr.DataArray | None) -> None:
    """Raise BadInput unless dims, dtypes, nodata and grids are what an evaluation needs."""
    schema.check(scores, schema.MASK if getattr(scores, "ndim", 3) == 2 else schema.SCORES, "scores")
    schema.check(mask, schema.MASK, "mask")
    if not (scores.dtype == np.uint8 or scores.dtype.kind == "f"):
        raise BadInput(sentence("scores", "be uint8 (p x 250) or float", str(scores.dtype)))
    if mask.dtype not in (np.dtype("uint8"), np.dtype("bool")):
        do = "Use mask.fillna(255).astype('uint8')"
        raise BadInput(sentence("mask", "be uint8 (1, 0, 255 unknown) or bool", str(mask.dtype), do))
    for name, image in (("scores", scores), ("mask", mask)):
        declared = schema.nodata(image) if image.dtype.kind == "u" else None
        if declared not in (None, schema.UNKNOWN):
            do = f"Delete {name}.attrs['_FillValue'] if that value is data"
            raise BadInput(sentence(name, "hold 255 where it is unknown", f"_FillValue={declared}", do))
    schema.on_grid(mask, scores, "mask", "scores")
    if valid is not None:
        schema.check(valid, schema.MASK, "valid")
        if valid.dtype != np.bool_:
            raise BadInput(sentence("valid", "be bool, True where to count", str(valid.dtype)))
        schema.on_grid(valid, scores, "valid", "scores")

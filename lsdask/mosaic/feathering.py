"""Dates that fade in from their edges, so that a mean of them shows no seams."""

from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from scipy import ndimage

from lsdask import graphs
from lsdask.errors import BadInput, sentence


def feather(valid: xr.DataArray, pixels: int) -> xr.DataArray:
    """Give weights that grow from where a scene is not valid: w = min(d, n) / n.

    d is the distance from a pixel's centre to the centre of the nearest pixel that is not valid on that date, n is
    ``pixels``. What lies outside the image counts neither way.

    Parameters
    ----------
    valid : DataArray (..., y, x) bool
        ``True`` where a pixel is valid.
    pixels : int
        n, the width of the fade, at least 1.

    Returns
    -------
    DataArray (..., y, x) float32, lazy if ``valid`` is
        0 where not valid, 1 at ``pixels`` from there and farther.

    Raises
    ------
    BadInput
        If ``valid`` is not bool on (..., y, x), or ``pixels`` is less than 1.
    """
    if not isinstance(valid, xr.DataArray) or valid.dims[-2:] != ("y", "x") or valid.dtype != bool:
        raise BadInput(sentence("valid", "be a DataArray of bool on (..., y, x)", f"{type(valid).__name__}"))
    if pixels < 1:
        raise BadInput(sentence("pixels", "be at least 1", f"pixels={pixels}"))
    block = partial(feather_block, pixels=pixels)
    lazy = isinstance(valid.data, da.Array)
    data: Any = graphs.around(block, valid.data, pixels, "float32") if lazy else block(valid.values)
    return valid.copy(data=data).rename("weight")


def feather_block(valid: np.ndarray, pixels: int) -> np.ndarray:
    """Weigh the pixels of a block by their distance to what is not valid.

    Parameters
    ----------
    valid : (..., y, x) bool
    pixels : int

    Returns
    -------
    (..., y, x) float32
    """
    weight = np.ones(valid.shape, "float32")
    for plane in np.ndindex(valid.shape[:-2]):
        if not valid[plane].all():
            distance = ndimage.distance_transform_edt(valid[plane])
            weight[plane] = np.minimum(distance, pixels) / pixels
    return weight

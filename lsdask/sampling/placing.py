"""Where tiles lie: a grid of them, or random places."""

import numpy as np
import pandas as pd
import xarray as xr

from lsdask.errors import BadInput, sentence
from lsdask.sampling.tables import shape_of, table


def grid(image: xr.DataArray, size: int, *, overlap: float = 0.0) -> pd.DataFrame:
    """Cover an image with whole tiles at even steps; the last of a row or column is shifted back inside the image.

    Parameters
    ----------
    image : DataArray (..., y, x)
        Only its shape is used.
    size : int
        Side of a tile, in pixels.
    overlap : float
        Share of a tile's side that it has in common with the next, from 0 to below 1; the step is rounded to
        a whole pixel.

    Returns
    -------
    DataFrame with columns y, x, size
        Row by row; every pixel of the image is in a tile.

    Raises
    ------
    BadInput
        If the image is smaller than a tile, or the overlap not in [0, 1).

    Examples
    --------
    >>> image = xr.DataArray(np.zeros((4, 100, 70)), dims=("band", "y", "x"))
    >>> grid(image, 64)[["y", "x"]].values.tolist()
    [[0, 0], [0, 6], [36, 0], [36, 6]]
    """
    if not 0 <= overlap < 1:
        raise BadInput(sentence("overlap", "be a share of the tile's side, from 0 to below 1", f"overlap={overlap}"))
    height, width = _shape(image, size)
    step = max(1, round(size * (1 - overlap)))
    y, x = np.meshgrid(_starts(height, size, step), _starts(width, size, step), indexing="ij")
    return table(y.ravel(), x.ravel(), size)


def random(image: xr.DataArray, size: int, n: int, *, seed: int) -> pd.DataFrame:
    """Draw tiles anywhere in an image, each place as likely as any other.

    Parameters
    ----------
    image : DataArray (..., y, x)
        Only its shape is used.
    size : int
        Side of a tile, in pixels.
    n : int
        How many; they may overlap, or rarely be the same.
    seed : int
        The same seed gives the same tiles.

    Returns
    -------
    DataFrame with columns y, x, size

    Raises
    ------
    BadInput
        If the image is smaller than a tile, or ``n`` is not positive.
    """
    height, width = _shape(image, size)
    if n < 1:
        raise BadInput(sentence("n", "be at least 1", f"n={n}"))
    draw = np.random.default_rng([seed, 0])
    return table(draw.integers(0, height - size + 1, n), draw.integers(0, width - size + 1, n), size)


def _shape(image: xr.DataArray, size: int) -> tuple[int, int]:
    """Give (height, width) of an image that holds a tile."""
    if not isinstance(image, xr.DataArray) or image.dims[-2:] != ("y", "x"):
        got = str(image.dims) if isinstance(image, xr.DataArray) else f"a {type(image).__name__}"
        raise BadInput(sentence("image", "be an xarray.DataArray with last dims ('y', 'x')", got))
    if not isinstance(size, int | np.integer) or size < 1:
        raise BadInput(sentence("size", "be whole and at least 1 pixel", f"size={size}"))
    height, width = shape_of(image)
    if size > min(height, width):
        got = f"size={size} for an image of {height} x {width} px"
        raise BadInput(sentence("size", "not exceed the image", got, f"Pass at most {min(height, width)}"))
    return height, width


def _starts(length: int, size: int, step: int) -> np.ndarray:
    """Give the first pixels of an axis's tiles; the last tile ends with the axis."""
    starts = np.arange(0, length - size + 1, step)
    return starts if starts[-1] == length - size else np.append(starts, length - size)

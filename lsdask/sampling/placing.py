"""Where tiles lie: on a grid, evenly from edge to edge, at random places, or where polygons are."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr

from lsdask import inventory, schema
from lsdask.errors import BadInput, sentence
from lsdask.sampling.tables import check, check_inside, draws, shape_of, table, windows_of

AT_ONCE = 100_000
"""Tiles whose outlines are held at a time."""


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
    return product(*grid_axes(image, size, overlap), size)


def grid_axes(image: xr.DataArray, size: int, overlap: float) -> tuple[np.ndarray, np.ndarray]:
    """Give the first rows and the first columns of a grid's tiles; raises as ``grid``."""
    _check_overlap(overlap)
    height, width = _shape(image, size)
    step = max(1, round(size * (1 - overlap)))
    return _starts(height, size, step), _starts(width, size, step)


def product(y: np.ndarray, x: np.ndarray, size: int) -> pd.DataFrame:
    """Make a tile index of every pair of a first row and a first column, row by row."""
    y, x = np.meshgrid(y, x, indexing="ij")
    return table(y.ravel(), x.ravel(), size)


def even(image: xr.DataArray, size: int, *, overlap: float = 0.2) -> pd.DataFrame:
    """Spread whole tiles evenly from edge to edge of an image, as the regular squares of Soares et al.

    Where ``grid`` keeps the step and shifts the last tile, this takes the paper's number of tiles and evens out the
    steps; along an image of few tiles they may leave gaps.

    Parameters
    ----------
    image : DataArray (..., y, x)
        Only its shape is used.
    size : int
        Side of a tile, in pixels, at least 2.
    overlap : float
        About the share of a tile's side that it has in common with the next, from 0 to below 1.

    Returns
    -------
    DataFrame with columns y, x, size
        Row by row; steps differ by at most a pixel.

    Raises
    ------
    BadInput
        If the image is smaller than a tile, or the overlap not in [0, 1).

    Source
    ------
    Soares, Dias and Grohmann (2020) and their published notebooks: ``floor(L / (0.8 s))`` squares of side
    ``s = size - 1`` pixels, which cover ``size`` rows of pixels where they do not lie on their edges, along an image
    of ``L`` pixels. Here the tiles do lie on pixels, so none has the empty row and column of theirs.

    Examples
    --------
    >>> image = xr.DataArray(np.zeros((5000, 5000), "uint8"), dims=("y", "x"))
    >>> len(even(image, 64)) == 99**2
    True
    """
    _check_overlap(overlap)
    height, width = _shape(image, size)
    return product(_even_starts(height, size, overlap), _even_starts(width, size, overlap), size)


def _even_starts(length: int, size: int, overlap: float) -> np.ndarray:
    n = max(int(length / (max(size - 1, 1) * (1 - overlap))), 2)
    return np.unique(np.rint(np.linspace(0, length - size, n)).astype("int64"))


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
    draw = draws(seed, 0)
    return table(draw.integers(0, height - size + 1, n), draw.integers(0, width - size + 1, n), size)


def by_location(tiles: pd.DataFrame, polygons: gpd.GeoDataFrame | str | Path, image: xr.DataArray) -> pd.DataFrame:
    """Keep the tiles that share ground with a polygon: positive tiles, without a mask.

    Parameters
    ----------
    tiles : DataFrame
        A tile index.
    polygons : GeoDataFrame or path
        The inventory, in any CRS, as for ``inventory.rasterize``.
    image : DataArray (..., y, x)
        Gives the grid; its pixels are not read.

    Returns
    -------
    DataFrame
        Its rows, numbered anew. A polygon that holds no pixel's centre keeps a tile that has no pixel of the mask.

    Raises
    ------
    BadInput
        If no tile is left, or as ``inventory.load``.
    """
    check(tiles)
    check_inside(tiles, shape_of(image))
    shapes = inventory.on_pixels(inventory.load(polygons), schema.geobox(image))
    keep = _sharing(windows_of(tiles), shapes)
    if not keep.any():
        got, do = f"none in {len(tiles)} tiles", "Look at the CRS of the polygons, or pass more tiles"
        raise BadInput(sentence("polygons", "share ground with a tile", got, do))
    return tiles[keep].reset_index(drop=True)


def _sharing(windows: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Say which windows y0, x0, y1, x1 share ground with any shape, in pixels; an edge in common is not enough."""
    tree = shapely.STRtree(shapes)
    keep = np.zeros(len(windows), dtype=bool)
    for start in range(0, len(windows), AT_ONCE):
        y0, x0, y1, x1 = windows[start : start + AT_ONCE].T
        boxes = shapely.box(x0, y0, x1, y1)
        box, shape = tree.query(boxes, predicate="intersects")
        keep[start + box[~shapely.touches(boxes[box], shapes[shape])]] = True
    return keep


def _check_overlap(overlap: float) -> None:
    if not 0 <= overlap < 1:
        raise BadInput(sentence("overlap", "be a share of the tile's side, from 0 to below 1", f"overlap={overlap}"))


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

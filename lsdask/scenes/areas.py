"""The part of a grid that a place needs. Reached as ``scenes.around``."""

from typing import Any

import numpy as np
import pyproj
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from lsdask.errors import BadInput, sentence
from lsdask.scenes.catalogue import outline

STEP = 0.05
"""Degrees between the points at which the outline of a place is put on a grid: straight lines bend."""

NEARLY = 1e-6
"""An outline that lies on the edge of a pixel to so much of it needs no further pixel."""


def around(aoi: Any, grid: GeoBox) -> GeoBox:
    """Give the smallest grid of the same pixels that holds a place.

    Parameters
    ----------
    aoi
        As ``search`` takes it.
    grid : GeoBox
        Says CRS, pixel size and where pixels begin; the place may lie beyond it.

    Returns
    -------
    GeoBox
        Its edges are those of pixels of ``grid``, or of pixels that go on beyond it. On a grid in degrees that
        crosses the antimeridian, longitudes run on as the grid's do.

    Raises
    ------
    BadInput
        If ``aoi`` is no place, or cannot be put on the grid.

    Examples
    --------
    >>> grid = GeoBox.from_bbox((4e5, 73e5, 4.1e5, 73.1e5), "epsg:32723", resolution=10)
    >>> around((-45.5, -23.8, -45.2, -23.6), grid).shape
    Shape2d(x=3065, y=2223)
    """
    points = shapely.get_coordinates(shapely.segmentize(outline(aoi), STEP))
    if grid.crs is None:
        raise BadInput(sentence("grid", "have a CRS", "none"))
    if grid.crs.geographic:
        middle = (grid.boundingbox.left + grid.boundingbox.right) / 2
        points[:, 0] += 360 * np.round((middle - points[:, 0]) / 360)
        x, y = points.T
    else:
        x, y = pyproj.Transformer.from_crs("EPSG:4326", grid.crs.proj, always_xy=True).transform(*points.T)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise BadInput(sentence("aoi", f"be a place that {grid.crs} can show", f"aoi={aoi}", "Pass another crs="))
    columns, rows = ~grid.transform @ (x, y)
    left, top = (int(np.floor(axis.min() + NEARLY)) for axis in (columns, rows))
    right, bottom = (int(np.ceil(axis.max() - NEARLY)) for axis in (columns, rows))
    return GeoBox(
        (max(bottom - top, 1), max(right - left, 1)), grid.transform @ Affine.translation(left, top), grid.crs
    )

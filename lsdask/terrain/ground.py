"""How large the pixels of a grid are on the ground."""

import math
from dataclasses import dataclass

import numpy as np
from odc.geo.geobox import GeoBox

from lsdask.errors import BadInput, sentence


@dataclass(frozen=True)
class Ground:
    """What the sizes of a grid's pixels follow from.

    Attributes
    ----------
    width, height : float
        Of a pixel: metres on a plane, radians on an ellipsoid.
    top : float
        Latitude of the centres of the first row, radians; 0 on a plane.
    axes : (float, float) or None
        The ellipsoid's semi-axes (equatorial, polar), m; None on a plane.
    """

    width: float
    height: float
    top: float = 0.0
    axes: tuple[float, float] | None = None


def ground_of(grid: GeoBox) -> Ground:
    """Say what the sizes of a grid's pixels follow from: its CRS's own ellipsoid, or the length of its unit.

    Raises
    ------
    BadInput
        If the grid is not north up, has no CRS, or reaches beyond a pole.
    """
    transform = grid.transform
    if grid.crs is None or transform.a <= 0 or transform.e >= 0:
        rule = "have a CRS, a y that falls and an x that rises"
        raise BadInput(
            sentence("dem", rule, f"{grid.crs}, {tuple(transform)[:6]}", "Use dem.sortby('y', ascending=False)")
        )
    crs = grid.crs.proj
    unit = float(crs.axis_info[0].unit_conversion_factor)
    width, height = transform.a * unit, -transform.e * unit
    if not crs.is_geographic:
        return Ground(width, height)
    top = transform.f * unit - height / 2
    bottom = top - (grid.shape[0] - 1) * height
    if max(top, -bottom) > math.pi / 2:
        got = f"{math.degrees(bottom):g} to {math.degrees(top):g} degrees"
        raise BadInput(sentence("dem", "have latitudes from -90 to 90", got))
    ellipsoid = crs.ellipsoid
    if ellipsoid is None:
        raise BadInput(sentence("dem", "have a CRS with an ellipsoid", crs.name))
    return Ground(width, height, top, (ellipsoid.semi_major_metre, ellipsoid.semi_minor_metre))


def sizes_block(ground: Ground, start: int, stop: int) -> np.ndarray:
    """Give the sizes of the pixels of some rows.

    Parameters
    ----------
    ground : Ground
    start, stop : int
        Rows of the grid.

    Returns
    -------
    (2, row) float64
        Width and height, m. On an ellipsoid, arcs of the parallel and of the meridian through the pixel's centre.
        Source: Snyder 1987, Map projections - a working manual, equations 4-18 and 4-20.
    """
    if ground.axes is None:
        return np.repeat([[ground.width], [ground.height]], stop - start, axis=1)
    a, b = ground.axes
    latitude = ground.top - np.arange(start, stop) * ground.height
    squeezed = 1 - (1 - (b / a) ** 2) * np.sin(latitude) ** 2
    parallel = a * np.cos(latitude) / np.sqrt(squeezed)
    meridian = b**2 / a / squeezed**1.5
    return np.stack([parallel * ground.width, meridian * ground.height])

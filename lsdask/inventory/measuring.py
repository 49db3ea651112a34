"""Areas and lengths of polygons in metres, whatever their CRS."""

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from odc.geo.geobox import GeoBox

from lsdask.errors import BadInput, sentence


def crs_of(grid: GeoBox) -> pyproj.CRS:
    """Give the CRS of a grid."""
    if grid.crs is None:
        raise BadInput(sentence("grid", "have a CRS", "none"))
    return grid.crs.proj


def crs_in(frame: gpd.GeoDataFrame) -> pyproj.CRS:
    """Give the CRS of an inventory."""
    if frame.crs is None:
        raise BadInput(sentence("frame", "have a CRS", "none", "Say which it is: frame.set_crs('EPSG:...')"))
    return frame.crs


def metres(crs: pyproj.CRS) -> float:
    """Give the length of a projected CRS's unit in metres."""
    return float(crs.axis_info[0].unit_conversion_factor)


def measure(shapes: np.ndarray, crs: pyproj.CRS) -> tuple[np.ndarray, np.ndarray]:
    """Measure polygons: in the plane of a projected CRS, on the ellipsoid of a geographic one.

    Parameters
    ----------
    shapes : (n,) object array of Polygons and MultiPolygons
    crs : CRS
        Of their coordinates.

    Returns
    -------
    area : (n,) float64
        m2. On an ellipsoid it is that of its cylindrical equal-area projection, in which meridians and parallels stay
        straight, so areas bounded by them come out exact. Source: Snyder 1987, Map projections, chapter 10.
    perimeter : (n,) float64
        m, of outside and holes.
    """
    if not crs.is_geographic:
        unit = metres(crs)
        return shapely.area(shapes) * unit**2, shapely.length(shapes) * unit
    globe = crs.get_geod()
    if globe is None:
        raise BadInput(sentence("scores", "have a CRS with an ellipsoid", str(crs)))
    flat = pyproj.Proj(f"+proj=cea +a={globe.a!r} +b={globe.b!r}")
    area = shapely.area(shapely.transform(shapes, lambda xy: np.stack(flat(xy[:, 0], xy[:, 1]), axis=1)))
    return area, _around(shapes, globe)


def _around(shapes: np.ndarray, globe: pyproj.Geod) -> np.ndarray:
    """Measure perimeters on an ellipsoid, m."""
    rings, owner = shapely.get_rings(shapes, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    along = ring[1:] == ring[:-1]
    _, _, steps = globe.inv(*xy[:-1][along].T, *xy[1:][along].T)
    return np.bincount(owner[ring[:-1][along]], steps, len(shapes))

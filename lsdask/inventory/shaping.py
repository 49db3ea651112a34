"""Polygons made simpler: holes filled, borders smoothed where neighbours share them."""

import geopandas as gpd
import numpy as np
import pyproj
import shapely

from lsdask.errors import BadInput, sentence
from lsdask.inventory.measuring import crs_in, measure, metres


def fill_holes(frame: gpd.GeoDataFrame, *, max_area_m2: float = np.inf) -> gpd.GeoDataFrame:
    """Fill the holes of an inventory. A gap that pixels close only by their corners is a hole of none of them.

    Parameters
    ----------
    frame : GeoDataFrame
        Polygons and MultiPolygons, as ``vectorize`` gives them, or ``batches`` that lie apart.
    max_area_m2 : float
        Leave larger holes open; all are filled unless given.

    Returns
    -------
    GeoDataFrame
        With area and perimeter measured again. A landslide that lay in a filled hole is left out, for it is part of
        the one round it now. Scores remain those of the pixels traced.

    Raises
    ------
    BadInput
        If the inventory has no CRS or the area is negative.
    """
    crs = crs_in(frame)
    if not max_area_m2 >= 0:
        raise BadInput(sentence("max_area_m2", "be 0 or more", f"max_area_m2={max_area_m2}"))
    shapes = frame.geometry.to_numpy()
    filled, holes = _filled(shapes, crs, max_area_m2)
    inside = shapely.STRtree(shapes).query(holes, predicate="contains")[1]
    kept = np.setdiff1d(np.arange(len(shapes)), inside)
    return _measured_again(frame.iloc[kept], filled[kept], crs)


def _filled(shapes: np.ndarray, crs: pyproj.CRS, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Give the polygons without their holes up to an area, and those holes as polygons."""
    parts, owner = shapely.get_parts(shapes, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    outside = np.diff(part, prepend=-1) > 0
    areas = np.asarray(shapely.polygons(rings), dtype=object)
    small = ~outside & (measure(areas, crs)[0] <= largest)
    whole = np.asarray(shapely.polygons(rings[~small], indices=part[~small]), dtype=object)
    ends = np.cumsum(np.bincount(owner, minlength=len(shapes)))
    result = shapes.copy()
    for i in np.unique(owner[part[small]]):  # parts that meet at the corners of a hole may come to share sides
        result[i] = shapely.union_all(whole[ends[i - 1] if i else 0 : ends[i]])
    return result, areas[small]


def simplify(frame: gpd.GeoDataFrame, *, tolerance_m: float) -> gpd.GeoDataFrame:
    """Take the steps of the pixels off an inventory, with borders that neighbours share staying shared.

    Parameters
    ----------
    frame : GeoDataFrame
        Polygons that do not overlap, as ``vectorize`` gives them, or ``batches`` that lie apart, in a projected CRS.
    tolerance_m : float
        Corners go as long as the triangle that each cuts off is smaller than the square of this; twice the size of a
        pixel takes the steps off. Source: Visvalingam and Whyatt 1993, as in GEOS's coverage simplifier.

    Returns
    -------
    GeoDataFrame
        With area and perimeter measured again; neighbours neither overlap nor part.

    Raises
    ------
    BadInput
        If the inventory has no projected CRS, the tolerance is negative, or polygons overlap.
    """
    crs = crs_in(frame)
    if crs.is_geographic:
        raise BadInput(sentence("frame", "have a projected CRS", str(crs.name), "Use frame.to_crs(...) first"))
    if not tolerance_m >= 0:
        raise BadInput(sentence("tolerance_m", "be 0 or more", f"tolerance_m={tolerance_m}"))
    shapes = frame.geometry.to_numpy()
    if not shapely.coverage_is_valid(shapes):
        do = "Pass what vectorize gave, one class at a time"
        raise BadInput(sentence("frame", "hold polygons that do not overlap and share whole borders", "others", do))
    return _measured_again(frame, shapely.coverage_simplify(shapes, tolerance_m / metres(crs)), crs)


def _measured_again(frame: gpd.GeoDataFrame, shapes: np.ndarray, crs: pyproj.CRS) -> gpd.GeoDataFrame:
    """Give a table other polygons, with their area and perimeter."""
    area, perimeter = measure(shapes, crs)
    changed = frame.set_geometry(gpd.GeoSeries(shapes, index=frame.index, crs=crs))
    return changed.assign(area_m2=area, perimeter_m=perimeter)

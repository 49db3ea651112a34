"""The part of a grid that a place needs: on its pixels, all of the place, nothing more."""

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from lsdask import scenes
from lsdask.errors import BadInput

GRID = GeoBox((10, 10), Affine(10, 0, 400_003, 0, -10, 7_300_001), "EPSG:32723")


def corners(box: GeoBox, grid: GeoBox) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a grid in pixels of another."""
    left, top = ~grid.transform @ (box.transform @ (0, 0))
    right, bottom = ~grid.transform @ (box.transform @ (box.shape[1], box.shape[0]))
    return left, top, right, bottom


@given(st.floats(-47, -43), st.floats(-28, -20), st.floats(0.001, 1), st.floats(0.001, 1))
def test_the_place_fits_with_less_than_a_pixel_to_spare(west, south, width, height):
    aoi = (west, south, west + width, south + height)
    left, top, right, bottom = corners(scenes.around(aoi, GRID), GRID)
    assert np.allclose([left, top, right, bottom], np.round([left, top, right, bottom]), atol=1e-6)
    outline = shapely.get_coordinates(shapely.segmentize(shapely.box(*aoi), 0.002))
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32723", always_xy=True).transform(*outline.T)
    columns, rows = ~GRID.transform @ (x, y)
    assert left - 0.05 <= columns.min() < left + 1.001
    assert right - 1.001 < columns.max() <= right + 0.05
    assert top - 0.05 <= rows.min() < top + 1.001
    assert bottom - 1.001 < rows.max() <= bottom + 0.05


def test_a_place_on_the_edges_of_pixels_needs_no_more():
    grid = GeoBox((4, 4), Affine(0.25, 0, 10, 0, -0.25, 50), "EPSG:4326")
    assert corners(scenes.around((10.25, 49.25, 10.75, 50), grid), grid) == (1, 0, 3, 3)
    assert scenes.around((10.3, 49.3, 10.31, 49.31), grid).shape == (1, 1)


def test_across_the_antimeridian():
    utm = GeoBox((10, 10), Affine(100, 0, 0, 0, -100, 8e6), "EPSG:32701")
    found = scenes.around((179.9, -18.1, -179.9, -18.0), utm)
    assert found.shape[1] < 260  # some 21 km and the turn of the grid, not the way round the Earth
    degrees = GeoBox((10, 20), Affine(0.1, 0, 179, 0, -0.1, -17), "EPSG:4326")
    assert corners(scenes.around((179.9, -18.1, -179.9, -18.0), degrees), degrees) == pytest.approx((9, 10, 11, 11))


def test_a_pole():
    polar = GeoBox((10, 10), Affine(1000, 0, 0, 0, -1000, 0), "EPSG:3413")
    found = scenes.around((-180, 85, 180, 90), polar)
    assert found.shape[0] == found.shape[1] > 1000
    assert corners(found, polar)[0] == -corners(found, polar)[2]


def test_no_place():
    with pytest.raises(BadInput, match="aoi must"):
        scenes.around((10, 50, 11, 40), GRID)
    with pytest.raises(BadInput, match="grid must have a CRS"):
        scenes.around((10, 40, 11, 50), GeoBox((4, 4), Affine.identity(), None))

"""What images say about polygons: change from before to after, and the lie of the land, also in degrees."""

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pytest
import shapely
import shapely.affinity
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import ndimage, stats

from lsdask import inventory, schema, terrain
from lsdask.errors import BadInput

UTM = "EPSG:32723"
TRANSFORM = Affine(8.0, 0.0, 360_000.0, 0.0, -8.0, 7_400_000.0)
BANDS = ["pre_red", "pre_nir", "post_red", "post_nir", "post_blue"]


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


def on_grid(values, dims=schema.MASK, *, chunks=None, transform=TRANSFORM, crs=UTM, nodata=None, **coords):
    data = values if chunks is None else da.from_array(values, chunks=(*values.shape[:-2], *chunks))
    return schema.wrap(
        data, GeoBox(values.shape[-2:], transform, crs), dims, name="image", nodata=nodata, coords=coords
    )


# --- change ----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 9999), chunks=st.tuples(st.integers(3, 20), st.integers(3, 20)), lazy=st.booleans())
def test_change_is_that_of_labelled_pixels(seed, chunks, lazy):
    draw = np.random.default_rng(seed)
    positive = draw.random((17, 19)) < 0.6
    values = draw.integers(0, 5, (5, 17, 19)).astype("uint16")
    pair = on_grid(values, schema.MOSAIC, chunks=chunks if lazy else None, nodata=0, band=BANDS)
    frame = inventory.vectorize(on_grid(positive))
    said = inventory.change(frame, pair)
    assert said.id.tolist() == frame.id.tolist()
    known = (values[:4] != 0).all(axis=0)
    red, nir = values[[0, 2]].astype("float64"), values[[1, 3]].astype("float64")
    with np.errstate(invalid="ignore"):
        pre, post = (nir - red) / (nir + red)
    labels, n = ndimage.label(positive)
    for i in range(n):
        inside = (labels == i + 1) & known
        expected = [layer[inside].mean() if inside.any() else np.nan for layer in (pre, post, post - pre)]
        np.testing.assert_allclose(
            said.iloc[i][["ndvi_pre", "ndvi_post", "ndvi_change"]].astype(float), expected, atol=1e-6
        )


def test_another_index_has_its_own_name_and_a_band_that_lacks_is_named():
    values = np.ones((2, 4, 4), "float32") * np.array([3, 1], "float32")[:, None, None]
    pair = on_grid(np.concatenate([values, values[::-1]]), schema.MOSAIC,
                   band=["pre_green", "pre_swir", "post_green", "post_swir"])  # fmt: skip
    frame = inventory.vectorize(on_grid(np.ones((4, 4), bool)))
    said = inventory.change(frame, pair, bands=("green", "swir"), name="mndwi")
    assert said.mndwi_change.tolist() == [-1.0]
    assert said.mndwi_pre.tolist() == [0.5]
    with pytest.raises(
        BadInput, match=r"pair must have the bands pre_nir, .*Got no pre_nir, pre_red, post_nir, post_red"
    ):
        inventory.change(frame, pair)
    for bands in (("green",), ("green", "swir", "green")):
        with pytest.raises(BadInput, match="bands must name two bands"):
            inventory.change(frame, pair, bands=bands)


def test_bands_that_add_up_to_nothing_have_no_index():
    block = np.array([[[0.0]], [[0.0]], [[1.0]], [[3.0]]], "float32")
    assert np.isnan(inventory.change_block(block, None)).ravel().tolist() == [True, False, True]


# --- the lie of the land ---------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 9999))
def test_means_over_pixels_are_those_of_the_terrain(seed):
    draw = np.random.default_rng(seed)
    height = ndimage.gaussian_filter(draw.random((40, 40)), 3).astype("float32") * 2000
    positive = ndimage.gaussian_filter(draw.random((40, 40)), 2) > 0.5
    frame = inventory.vectorize(on_grid(positive))
    said = inventory.terrain(frame, on_grid(height, chunks=(13, 17)))
    slope, aspect = (layer(on_grid(height)).values for layer in (terrain.slope, terrain.aspect))
    labels, n = ndimage.label(positive)
    for i in range(n):
        inside = (labels == i + 1) & ~np.isnan(slope)
        if not inside.any():
            assert np.isnan(said.slope_mean[i])
            continue
        assert said.slope_mean[i] == pytest.approx(slope[inside].mean(), rel=1e-4)
        assert said.elevation_min[i] == height[labels == i + 1].min()
        weights = np.sin(np.radians(slope[inside]))
        angle = np.radians(aspect[inside])
        mean = np.degrees(np.arctan2((weights * np.sin(angle)).sum(), (weights * np.cos(angle)).sum())) % 360
        assert abs((said.aspect_mean[i] - mean + 180) % 360 - 180) < 0.01


def test_aspects_on_both_sides_of_north_have_their_mean_in_the_north():
    """350 and 10 degrees: a plain mean would say south."""
    y, x = np.mgrid[0:40, 0:40] * 8.0
    tilt = np.where(x < 160, 1, -1) * np.tan(np.radians(10)) * (x - 160)
    height = (1000 + 0.5 * y + 0.5 * tilt).astype("float32")
    frame = gpd.GeoDataFrame(geometry=[shapely.box(360_016, 7_399_700, 360_304, 7_399_980)], crs=UTM)
    aspects = terrain.aspect(on_grid(height)).values[3:37, 3:37]
    assert aspects.max() > 345
    assert aspects.min() < 15
    north = stats.circmean(aspects.ravel(), high=360)
    said = inventory.terrain(frame, on_grid(height)).aspect_mean[0]
    assert min(said, 360 - said) < 1
    assert min(north, 360 - north) < 1


@pytest.mark.parametrize("latitude", [0.0, 45.0, -65.0])
@pytest.mark.parametrize("aspect", [20.0, 135.0])
def test_in_degrees_a_scar_is_as_long_steep_and_turned_as_in_metres(latitude, aspect):
    """A plane laid out in metres about a point, seen on a grid in degrees there."""
    step = 1e-4
    grid = Affine(step, 0, 10.0, 0, -step, latitude + 60 * step)
    lon, lat = 10 + (np.arange(120) + 0.5) * step, latitude + 60 * step - (np.arange(120) + 0.5) * step
    local = f"+proj=aeqd +lat_0={latitude} +lon_0={10 + 60 * step} +ellps=WGS84"
    points = gpd.points_from_xy(*(a.ravel() for a in np.meshgrid(lon, lat)), crs=4326).to_crs(local)
    x, y = np.asarray(points.x).reshape(120, 120), np.asarray(points.y).reshape(120, 120)
    sine, cosine = np.sin(np.radians(aspect)), np.cos(np.radians(aspect))
    height = (3000 - 0.4 * (x * sine + y * cosine)).astype("float32")
    scar = shapely.affinity.rotate(shapely.box(-60, -150, 60, 150), -aspect, origin=(0, 0))
    frame = gpd.GeoDataFrame(geometry=[scar], crs=local)
    said = inventory.terrain(frame, on_grid(height, transform=grid, crs="EPSG:4326", chunks=(50, 70))).iloc[0]
    assert said.slope == pytest.approx(np.degrees(np.arctan(0.4)), rel=2e-3)
    assert said.slope_mean == pytest.approx(said.slope, rel=2e-3)
    assert (said.aspect, said.aspect_mean) == pytest.approx((aspect, aspect), abs=0.3)
    assert (said.length_m, said.width_m) == pytest.approx((300, 120), rel=0.01)


def test_level_ground_and_ground_that_is_not_there_have_no_direction():
    frame = gpd.GeoDataFrame(
        geometry=[shapely.box(360_016, 7_399_900, 360_100, 7_399_980), shapely.box(0, 0, 9, 9)], crs=UTM
    )
    said = inventory.terrain(frame, on_grid(np.ones((40, 40), "float32")))
    assert said.slope[0] == said.slope_mean[0] == 0
    assert said[["aspect", "aspect_mean", "length_m", "width_m"]].isna().all(axis=None)
    assert np.isnan(said.slope_mean[1])

"""Heights on another grid: against rasterio's WarpedVRT of the whole image."""

import dask.array as da
import numpy as np
import pyproj
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from scipy import ndimage
from test_terrain import cuts

from lsdask import scenes, schema, terrain
from lsdask.errors import BadInput

DEGREES = GeoBox((60, 70), Affine(0.001, 0, 15.0, 0, -0.001, 60.0), "EPSG:4326")
METHODS = ("nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average")


def heights(*, void=0.0, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    values = (500 + 200 * ndimage.gaussian_filter(rng.normal(size=DEGREES.shape), 2)).astype(dtype)
    if void:
        values[rng.random(values.shape) < void] = np.nan
    return values


def image_of(values, *, chunks=None, nodata=None, grid=DEGREES):
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    return schema.wrap(data, grid, ("y", "x"), name="dem", nodata=nodata)


def metres(resolution, *, crs="EPSG:32633"):
    """A grid over most of DEGREES, and a little beyond its western border."""
    return GeoBox(
        (6400 // resolution, 4800 // resolution), Affine(resolution, 0, 499_400, 0, -resolution, 6.6514e6), crs
    )


def warped(values, grid, method):
    """The whole image in one pass of GDAL, exactly, told how many pixels one of its own makes."""
    across = pyproj.Geod(ellps="WGS84").inv(15.035, 59.975, 15.036, 59.975)[2] / grid.resolution.x
    down = pyproj.Geod(ellps="WGS84").inv(15.035, 59.9745, 15.035, 59.9755)[2] / -grid.resolution.y
    told = {"XSCALE": str(across), "YSCALE": str(down), "tolerance": 1e-12, "resampling": Resampling[method]}
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "nodata": np.nan, "crs": "EPSG:4326"}
    with MemoryFile() as memory:
        with memory.open(transform=DEGREES.transform, height=60, width=70, **profile) as file:
            file.write(values.astype("float32"), 1)
        place = {"transform": grid.transform, "height": grid.shape[0], "width": grid.shape[1]}
        with (
            memory.open() as file,
            WarpedVRT(file, crs=grid.crs.to_wkt(), **told, **place) as vrt,
        ):
            return vrt.read(1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("resolution", [20, 80])  # finer and coarser than 56 x 111 m
@pytest.mark.parametrize("void", [0.0, 0.05])
def test_an_image_is_as_gdal_warps_all_of_it(method, resolution, void):
    values, grid = heights(void=void), metres(resolution)
    expected = warped(values, grid, method)
    got = terrain.resample(image_of(values, chunks=(17, 23)), grid, resampling=method)
    assert got.dtype == "float32"
    assert schema.geobox(got) == grid
    np.testing.assert_array_equal(np.isnan(got.values), np.isnan(expected))
    np.testing.assert_allclose(got.values, expected, atol=1e-3 if resolution == 20 else 0.05)
    assert 0.05 < np.isnan(expected).mean() < 0.6  # the grid reaches beyond the image


@settings(max_examples=15)
@given(
    rows=cuts(60),
    columns=cuts(70),
    pieces=st.tuples(st.integers(5, 60), st.integers(5, 60)),
    method=st.sampled_from(METHODS),
    resolution=st.sampled_from([80, 200, 400]),
    leading=st.booleans(),
)
def test_chunks_do_not_show(rows, columns, pieces, method, resolution, leading):
    values, grid = heights(void=0.02), metres(resolution)
    like = schema.wrap(da.zeros(tuple(grid.shape), chunks=pieces), grid, ("y", "x"), name="like")
    image = image_of(values)
    if leading:
        image = schema.wrap(
            np.stack([values, -values]), DEGREES, ("band", "y", "x"), name="t", coords={"band": [*"ab"]}
        )
    whole = terrain.resample(image, grid, resampling=method)
    chunked = image.chunk({"y": rows, "x": columns})
    lazy = terrain.resample(chunked, like, resampling=method)
    assert isinstance(whole.data, np.ndarray)
    assert lazy.chunks[-2:] == like.chunks
    got = lazy.compute(scheduler="synchronous")
    np.testing.assert_array_equal(np.isnan(got), np.isnan(whole))
    np.testing.assert_allclose(got, whole, atol=2e-3 if method == "average" else 2e-4)
    assert len(lazy.data.__dask_graph__().layers[lazy.data.name]) == lazy.data.npartitions


def test_a_void_pixel_stays_void_and_gives_no_height():
    values = heights()
    values[20:30, 20:30] = np.nan
    shown = values.copy()
    shown[20:30, 20:30] = 9e4  # as if void were a height
    grid = metres(20)
    void = np.isnan(terrain.resample(image_of(values), grid, resampling="nearest").values)
    for method in ("bilinear", "cubic", "cubic_spline", "lanczos"):
        got = terrain.resample(image_of(values), grid, resampling=method).values
        leaked = terrain.resample(image_of(shown), grid, resampling=method).values
        assert np.isnan(got[void]).all()
        assert np.nanmax(got) < values[~np.isnan(values)].max() + 50
        assert np.nanmax(leaked) > 8e4


def test_whole_metres_are_mixed_as_floats():
    values = np.arange(60 * 70).reshape(60, 70).astype("int16")
    values[5, 5] = -1
    grid = metres(20)
    got = terrain.resample(image_of(values, nodata=-1), grid).values
    floats = np.where(values == -1, np.nan, values).astype("float32")
    np.testing.assert_array_equal(got, terrain.resample(image_of(floats), grid).values)
    assert np.unique(got[np.isfinite(got)] % 1).size > 1000


def test_a_grid_elsewhere_is_void():
    like = GeoBox((20, 20), Affine(100, 0, 5e5, 0, -100, 1e6), "EPSG:32733")
    assert np.isnan(terrain.resample(image_of(heights(), chunks=20), like).values).all()


def test_a_polar_grid_sees_the_chunks_around_the_pole():
    # A cone: heights are the distance from the pole, in degrees of latitude.
    world = GeoBox((20, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    values = np.repeat(np.arange(0.5, 20)[:, None], 360, axis=1).astype("float32")
    polar = GeoBox((40, 40), Affine(50_000, 0, -1e6, 0, -50_000, 1e6), "EPSG:3413")
    got = terrain.resample(image_of(values, grid=world, chunks=(5, 45)), polar, resampling="nearest").values
    back = pyproj.Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True)
    _, latitude = back.transform(*np.meshgrid(-975_000 + 50_000 * np.arange(40), 975_000 - 50_000 * np.arange(40)))
    np.testing.assert_allclose(got, 90 - latitude, atol=0.5 + 1e-6)


@pytest.mark.realdata
def test_a_dem_is_resampled_as_its_file_is_opened(data):
    path = data / "copernicus-dem"
    grid = GeoBox((400, 350), Affine(30, 0, 235_000, 0, -30, 30_000), "EPSG:32632")
    opened = scenes.open(path, grid=grid, resampling="bilinear")[0, 0].values
    got = terrain.resample(scenes.open(path, chunks=300)[0, 0], grid).values
    assert np.ptp(got) > 1000
    np.testing.assert_allclose(got, opened, atol=1e-3)


@pytest.mark.realdata
def test_hokkaido_heights_come_to_a_metric_grid_without_steps(data):
    path = data / "hokkaido-2018" / "dsm.tif"
    grid = GeoBox((640, 740), Affine(15, 0, 573_000, 0, -15, 4_735_700), "EPSG:32654")
    whole = scenes.open(path, grid=grid, resampling="bilinear")[0, 0]
    got = terrain.resample(scenes.open(path)[0, 0], grid)
    known = schema.valid(whole).values
    assert known.sum() > 100_000
    np.testing.assert_array_equal(np.isnan(got.values), ~known)
    assert np.abs(got.values - whole.values)[known].max() <= 0.51  # the file's int16 is rounded again by the warper
    steps = np.array([np.unique(image.values[known]).size for image in (got, whole)])
    assert steps[0] > 50 * steps[1]


def test_bad_input_is_refused():
    image = image_of(heights())
    with pytest.raises(BadInput, match="resampling must be one of nearest, bilinear"):
        terrain.resample(image, DEGREES, resampling="mode")
    with pytest.raises(BadInput, match=r"image must have dims \('band', 'y', 'x'\)"):
        terrain.resample(image.expand_dims("time"), DEGREES)
    with pytest.raises(BadInput, match="image must hold whole or real numbers"):
        terrain.resample(image > 0, DEGREES)
    with pytest.raises(BadInput, match="like must have a CRS"):
        terrain.resample(image, image.drop_vars("spatial_ref"))

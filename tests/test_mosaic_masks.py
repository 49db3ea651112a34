"""Masks against the tables of those who made them, and against a loop over pixels."""

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio.features
import shapely
from cubes import GRID, cube_of, random_cube
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from lsdask import mosaic, schema
from lsdask.errors import BadInput, NotFound


def quality(values, *, chunks=None):
    values = np.asarray(values)
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    return schema.wrap(data, GRID[: values.shape[-2], : values.shape[-1]], ("time", "y", "x"), name="quality")


@pytest.mark.parametrize("chunks", [None, 2])
def test_scl_hides_clouds_shadows_and_what_is_asked(chunks):
    scl = quality(np.arange(12, dtype="uint8").reshape(1, 3, 4), chunks=chunks)
    mask = mosaic.mask_scl(scl)
    assert mask.dtype == bool
    assert isinstance(mask.data, da.Array) == (chunks is not None)
    np.testing.assert_array_equal(np.flatnonzero(mask.values), [2, 4, 5, 6, 7, 11])
    snow = mosaic.mask_scl(scl, hide=["snow", "water"])
    np.testing.assert_array_equal(np.flatnonzero(~snow.values), [6, 11])


def test_qa_reads_bits_of_both_collections():
    # Values and their meaning from the USGS tables of QA_PIXEL (2: Landsat 8-9) and BQA (1: Landsat 8).
    second = {
        1: "fill",
        21824: "clear",
        21826: "dilated",
        22280: "cloud",
        23888: "shadow",
        30048: "snow",
        54596: "cirrus",
    }
    qa = quality(np.array([[list(second)]], "uint16"), chunks=2)
    clear = [name in ("clear", "snow") for name in second.values()]
    np.testing.assert_array_equal(mosaic.mask_qa(qa).values[0, 0], clear)
    snowless = mosaic.mask_qa(qa, hide=["snow"]).values[0, 0]
    np.testing.assert_array_equal(snowless, [name != "snow" for name in second.values()])
    first = {
        1: "fill",
        2720: "clear",
        2848: "clear but for a medium shadow",
        3232: "clear but for medium snow",
        4768: "clear but for a medium cirrus",
        2800: "cloud",
        2976: "shadow",
        3744: "snow",
        6816: "cirrus",
    }
    qa = quality(np.array([[list(first)]], "uint16"))
    hide = ["fill", "cloud", "cloud_shadow", "cirrus", "snow"]
    mask = mosaic.mask_qa(qa, hide=hide, bits=mosaic.BQA)
    np.testing.assert_array_equal(mask.values[0, 0], [name.startswith("clear") for name in first.values()])


def test_a_quality_band_of_a_cube_masks_that_cube():
    cube = cube_of(random_cube(1, (3, 2, 6, 6), "uint8", void=0), nodata=0, chunks=(1, 2, 3, 3))
    scl = cube_of(np.full((3, 1, 6, 6), 4, "uint8"), nodata=None, chunks=(1, 1, 3, 3)).copy()
    scl[0] = 9
    image = mosaic.composite(cube, mask=mosaic.mask_scl(scl))
    np.testing.assert_array_equal(image.values, cube.values[1])


@given(
    pixels=st.sampled_from([0, 1, 3, 5, 20]),
    chunks=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.03, 0.3, 1.0]),
)
def test_growing_hides_all_within_the_distance_at_any_chunk(pixels, chunks, seed, share):
    hidden = np.random.default_rng(seed).random((2, 9, 11)) < share
    near = np.zeros_like(hidden)
    for time, y, x in np.argwhere(hidden):
        dy, dx = np.ogrid[-y : 9 - y, -x : 11 - x]
        near[time] |= dy**2 + dx**2 <= pixels**2
    for data in (~hidden, da.from_array(~hidden, chunks=chunks)):
        mask = quality(np.zeros((2, 9, 11), "uint8")).copy(data=data)
        grown = mosaic.grow(mask, pixels)
        np.testing.assert_array_equal(grown.compute(scheduler="synchronous").values, ~near)
        assert grown.chunks == mask.chunks


def test_masks_say_what_is_wrong():
    scl = quality(np.zeros((1, 2, 2), "uint8"))
    cube = cube_of(random_cube(1, (1, 2, 4, 4), "uint8"), nodata=0)
    for call, rule in (
        (lambda: mosaic.mask_scl(scl, hide=["clouds"]), "hide must hold some of no_data, defective"),
        (lambda: mosaic.mask_qa(scl, bits=mosaic.BQA), "hide must hold some of fill, terrain, cloud, cloud_shadow"),
        (lambda: mosaic.mask_scl(scl.astype("float32")), "scl must be a DataArray of integers"),
        (lambda: mosaic.mask_scl(scl.expand_dims(band=2, axis=1)), "scl must have one band. Got 2"),
        (
            lambda: mosaic.mask(scl, "clouds"),
            "kind must be one of scl, qa_pixel, bqa, cmask, udm, udm2. Got kind='clouds'",
        ),
        (lambda: mosaic.mask(scl, "cmask", hide=["snow"]), "hide must hold some of no_data, clear, cloud"),
        (lambda: mosaic.mask_snow(cube, green="b0", swir="b7"), r"swir must be a band of cube \(b0, b1\). Got 'b7'"),
        (lambda: mosaic.mask_snow(scl, green="b0", swir="b1"), r"green must be a band of cube \(which has none\)"),
        (lambda: mosaic.mask_vector(shapely.box(0, 0, 1, 1), scl), r"shapes must be a GeoDataFrame.*Wrap a geometry"),
        (lambda: mosaic.mask_vector(gpd.GeoSeries([shapely.box(0, 0, 1, 1)]), scl), "shapes must have a CRS"),
        (lambda: mosaic.mask_vector(gpd.GeoSeries([shapely.Point(0, 0)], crs=4326), scl), "shapes must hold Polygons"),
        (lambda: mosaic.mask_vector("nowhere.gpkg", scl), "shapes must name a file. Got nowhere.gpkg"),
        (lambda: mosaic.feather(scl, 3), "valid must be a DataArray of bool"),
        (lambda: mosaic.feather(scl > 0, 0), "pixels must be at least 1"),
        (lambda: mosaic.grow(scl, 1), "mask must be a DataArray of bool"),
        (lambda: mosaic.grow(scl > 0, -1), "pixels must not be negative"),
    ):
        with pytest.raises((BadInput, NotFound), match=rule):
            call()


def test_each_kind_of_quality_band_has_a_mask():
    values = {"scl": [0, 4, 8, 11], "qa_pixel": [1, 21824, 22280, 30048], "bqa": [1, 2720, 2800, 3744]}
    for kind, four in {**values, "cmask": [0, 127, 255, 127]}.items():
        band = quality(np.array(four, "uint16").reshape(1, 2, 2), chunks=1)
        mask = mosaic.mask(band, kind)
        assert mask.values.ravel().tolist() == [False, True, False, True], kind
        if kind != "cmask":
            snowless = mosaic.mask(band, kind, hide=[*mosaic.CLOUDS[kind], "snow"])
            assert snowless.values.ravel().tolist() == [False, True, False, False], kind
    udm = quality(np.array([[[0, 1, 2, 4, 64, 128]]], "uint8"))  # the highest bit says nothing
    assert mosaic.mask(udm, "udm").values.ravel().tolist() == [True, False, False, False, False, True]
    assert mosaic.mask(udm, "udm", hide=["cloud"]).values.ravel().tolist() == [True, True, False, True, True, True]
    assert mosaic.mask(udm[..., :2], "udm2").values.ravel().tolist() == [False, True]
    for kind, void in mosaic.NO_DATA.items():
        assert not mosaic.mask(quality(np.full((1, 1, 1), void, "uint16")), kind).values.any(), kind
    assert mosaic.NO_DATA.keys() == mosaic.CLOUDS.keys()
    cmask = quality(np.array([[[0, 127, 255]]], "uint8"))
    assert mosaic.mask_cmask(cmask, hide=["cloud"]).values.ravel().tolist() == [True, True, False]


@pytest.mark.parametrize("lazy", [False, True])
def test_snow_is_where_the_index_is_high(lazy):
    green, swir = np.meshgrid([0, 10, 100, 5000], [0, 1, 40, 100, 4000])
    green[0, 0], swir[0, 0] = 3, 1  # exactly the threshold of 0.5
    values = np.stack([green, swir, np.ones_like(green)])[np.newaxis].astype("uint16")
    cube = cube_of(values, nodata=0, chunks=(1, 3, 2, 2) if lazy else None)
    with np.errstate(invalid="ignore"):
        snow = (green - swir) / (green + swir) > 0.5
    void = (green == 0) | (swir == 0)
    got = mosaic.mask_snow(cube, green="b0", swir="b1", above=0.5)
    assert isinstance(got.data, da.Array) == lazy
    np.testing.assert_array_equal(got.values[0], ~snow | void)
    assert not got.values[0].all()


# Vector masks


def stars(seed, count, size):
    """Random polygons, some with holes and many parts over each other, in pixels of a grid."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, (count, 9)), axis=1)
    radii = rng.uniform(0.3, 12, (count, 9))
    centres = rng.uniform(-4, size + 4, (count, 2))
    rings = centres[:, None] + np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=2)
    return [shapely.make_valid(shapely.Polygon(ring)).buffer(0) for ring in rings]


@given(
    seed=st.integers(0, 999),
    count=st.integers(0, 6),
    chunks=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    inside=st.booleans(),
    all_touched=st.booleans(),
)
def test_vector_masks_equal_the_whole_grid_rasterised_at_once(seed, count, chunks, inside, all_touched):
    grid = GRID[:37, :29]
    shapes = [shapely.transform(star, lambda xy: xy * 10) for star in stars(seed, count, 30)]
    shapes = [shapely.transform(shape, lambda xy: xy * (1, -1) + (0, 1000)) for shape in shapes]
    like = schema.wrap(da.zeros((37, 29), chunks=chunks), grid, schema.MASK, name="like")
    frame = gpd.GeoSeries(shapes, crs="EPSG:32723")
    got = mosaic.mask_vector(frame, like, inside=inside, all_touched=all_touched)
    assert (got.dtype, got.dims, got.chunks) == (np.dtype(bool), ("y", "x"), like.chunks)
    burned = np.zeros((37, 29), "uint8")
    if shapes:
        options = {"transform": grid.transform, "all_touched": all_touched}
        burned = rasterio.features.rasterize(shapes, out_shape=burned.shape, **options)
    np.testing.assert_array_equal(got.compute(scheduler="synchronous").values, (burned == 1) == inside)


@pytest.mark.parametrize("crs", ["EPSG:32723", "EPSG:32633", "EPSG:3857"])
def test_outlines_of_degrees_are_curved_where_they_should_be(crs):
    zone = {"EPSG:32723": (-47, -45, -24, -22), "EPSG:32633": (12, 18, 66, 68), "EPSG:3857": (12, 18, 66, 68)}[crs]
    west, east, south, north = zone
    place = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    grid = GeoBox.from_bbox(place.transform_bounds(west - 1, south - 1, east + 1, north + 1), crs, shape=(300, 200))
    like = schema.wrap(da.zeros(tuple(grid.shape), chunks=64), grid, schema.MASK, name="like")
    box = gpd.GeoSeries([shapely.box(west, south, east, north)], crs="EPSG:4326")
    got = mosaic.mask_vector(box, like)
    x, y = np.meshgrid(like["x"].values, like["y"].values)
    lon, lat = place.transform(x, y, direction="INVERSE")
    expected = (lon > west) & (lon < east) & (lat > south) & (lat < north)
    assert 0.2 < expected.mean() < 0.9
    np.testing.assert_array_equal(got.values, expected)


@pytest.mark.parametrize(
    "sea",
    [
        shapely.box(-180, -90, 180, -24.2),
        shapely.box(-180, -24.2, 180, 90),
        shapely.box(-180, -90, 180, 90).difference(shapely.box(-46, -24.2, -44.9, -22)),
    ],
)
def test_a_sea_of_the_whole_world_is_cut_to_the_grid(sea):
    # Most of the world has no place in a UTM zone: uncut, these outlines come out inside out.
    grid = GeoBox.from_bbox((480000, 7300000, 520000, 7340000), "EPSG:32723", resolution=200)
    like = schema.wrap(np.zeros(tuple(grid.shape)), grid, schema.MASK, name="like")
    got = mosaic.mask_vector(gpd.GeoDataFrame(geometry=[sea], crs="EPSG:4326"), like, inside=False)
    place = pyproj.Transformer.from_crs("EPSG:32723", "EPSG:4326", always_xy=True)
    expected = ~shapely.contains_xy(sea, *place.transform(*np.meshgrid(like["x"].values, like["y"].values)))
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_array_equal(got.values, expected)


@pytest.mark.parametrize("crs", ["EPSG:32723", "EPSG:4326"])
@pytest.mark.parametrize("buffer_m", [300, -300])
def test_buffers_are_metres(tmp_path, crs, buffer_m):
    place = pyproj.Transformer.from_crs("EPSG:32723", crs, always_xy=True)
    bounds = place.transform_bounds(440000, 7380000, 446000, 7386000)
    grid = GeoBox.from_bbox(bounds, crs, shape=(150, 160))
    like = schema.wrap(da.zeros((2, *grid.shape), chunks=(1, 50, 50)), grid, ("band", "y", "x"), name="like")
    disk = shapely.Point(443000, 7383000).buffer(1000, quad_segs=90)
    gpd.GeoSeries([disk], crs="EPSG:32723").to_file(tmp_path / "towns.geojson")
    got = mosaic.mask_vector(tmp_path / "towns.geojson", like, inside=False, buffer_m=buffer_m)
    x, y = place.transform(*np.meshgrid(like["x"].values, like["y"].values), direction="INVERSE")
    far = np.hypot(x - 443000, y - 7383000) - (1000 + buffer_m)
    np.testing.assert_array_equal(got.values[np.abs(far) > 2], far[np.abs(far) > 2] > 0)
    assert mosaic.mask_vector(tmp_path / "towns.geojson", like, buffer_m=-2000).values.sum() == 0


def test_masks_are_combined_by_and_and_the_outlines_travel_once():
    scl = quality(np.full((2, 40, 40), 4, "uint8"), chunks=10)
    scl[0, :20] = 9
    town = gpd.GeoSeries([shapely.box(100, 700, 200, 900)], crs="EPSG:32723")
    mask = mosaic.mask_scl(scl) & mosaic.mask_vector(town, scl, inside=False)
    cube = cube_of(np.full((2, 1, 40, 40), 7, "uint8"), nodata=0, chunks=(1, 1, 10, 10))
    image = mosaic.composite_parts(cube, mask=mask)
    expected = np.where(np.arange(40)[:, None] < 20, 1, 2) * np.ones((40, 40), int)
    expected[10:30, 10:20] = 0
    np.testing.assert_array_equal(image.looks.values, expected)
    graph = dict(dask.optimize(mosaic.mask_vector(town, scl))[0].__dask_graph__())
    assert sum("Burning" in repr(type(getattr(task, "value", None))) for task in graph.values()) == 1

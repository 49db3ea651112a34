"""Terrain against planes and domes worked out by hand, gdaldem, RichDEM, scipy and the ellipsoid."""

import pickle

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from gdaldem import gdaldem
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import ndimage

from lsdask import mosaic, scenes, schema, store, terrain
from lsdask.errors import BadInput

UTM = "EPSG:32633"
NAMES = tuple(terrain.BANDS)
FINE = {"slope": 1e-3, "aspect": 1e-2, "hillshade": 0.5 + 1e-3, "tpi": 1e-3, "tri": 1e-3, "roughness": 1e-3}
"""How near to gdaldem: degrees, of 255 (half of one is its rounding), metres."""

MODES = {"slope": "slope", "aspect": "aspect", "hillshade": "hillshade", "tpi": "TPI", "roughness": "roughness"}


def grid_of(shape, size=(10.0, 10.0), crs=UTM, corner=(500_000.0, 8_600_000.0)):
    """A grid whose pixels have this size (y, x)."""
    return GeoBox(shape, Affine(size[1], 0, corner[0], 0, -size[0], corner[1]), crs)


def dem_of(values, grid=None, *, chunks=None, nodata=None):
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    return schema.wrap(data, grid or grid_of(values.shape), schema.MASK, name="dem", nodata=nodata)


def rough(shape, seed=0, *, void=0.0, dtype="float32"):
    """Mountains: correlated noise of some hundred metres, so low that gdaldem's sums in float32 keep their digits."""
    rng = np.random.default_rng(seed)
    values = 200 + 300 * ndimage.gaussian_filter(rng.normal(size=shape), 2) + rng.normal(size=shape)
    values = values.astype(dtype)
    if void:
        values[rng.random(shape) < void] = np.nan
    return values


def surface(shape, size, function):
    """Heights (y, x) of function(east, north), metres from the middle."""
    rows, columns = np.indices(shape)
    return function((columns - shape[1] // 2) * size[1], (shape[0] // 2 - rows) * size[0])


def turned(angles):
    """Differences of directions, -180 to 180 degrees."""
    return (np.asarray(angles) + 180) % 360 - 180


# Planes and curved surfaces


@given(
    aspect=st.floats(0, 359.9),
    slope=st.floats(0.5, 80),
    size=st.tuples(st.floats(1, 90), st.floats(1, 90)),
    azimuth=st.floats(0, 360),
    altitude=st.floats(1, 90),
)
def test_a_plane_is_known_to_its_corners(aspect, slope, size, azimuth, altitude):
    fall = np.array([np.sin(np.radians(aspect)), np.cos(np.radians(aspect))])
    rise = np.tan(np.radians(slope))
    heights = surface((5, 6), size, lambda east, north: -rise * (fall[0] * east + fall[1] * north))
    dem = dem_of(heights, grid_of((5, 6), size))
    made = terrain.bands(dem, NAMES, edge="extrapolate").sel(band=list(NAMES))
    said = {name: made.sel(band=name).values for name in NAMES}
    np.testing.assert_allclose(said["slope"], slope, rtol=2e-5)
    assert np.abs(turned(said["aspect"] - aspect)).max() < 1e-3
    np.testing.assert_allclose(said["northness"], np.sin(np.radians(slope)) * fall[1], atol=1e-5)
    np.testing.assert_allclose(said["eastness"], np.sin(np.radians(slope)) * fall[0], atol=1e-5)
    np.testing.assert_allclose(said["tpi"], 0, atol=1e-4)
    np.testing.assert_allclose(terrain.slope(dem, units="percent", edge="extrapolate"), 100 * rise, rtol=2e-5)
    np.testing.assert_allclose(terrain.slope(dem, units="radians", edge="extrapolate"), np.arctan(rise), rtol=2e-5)
    normal = np.array([rise * fall[0], rise * fall[1], 1]) / np.hypot(rise, 1)
    sun = np.radians(azimuth), np.radians(altitude)
    ray = np.array([np.sin(sun[0]) * np.cos(sun[1]), np.cos(sun[0]) * np.cos(sun[1]), np.sin(sun[1])])
    shade = terrain.hillshade(dem, azimuth=azimuth, altitude=altitude, edge="extrapolate")
    np.testing.assert_allclose(shade, 1 + 254 * max(normal @ ray, 0), atol=2e-2)


@given(
    terms=st.tuples(*[st.floats(-1e-2, 1e-2)] * 3, *[st.floats(-2, 2)] * 2),
    size=st.tuples(st.floats(2, 90), st.floats(2, 90)),
)
def test_curvatures_of_a_quadratic_surface_are_its_second_derivatives(terms, size):
    xx, yy, xy, east, north = terms
    if np.hypot(east, north) < 0.05:
        east = 0.5
    heights = surface((3, 3), size, lambda x, y: xx * x**2 + yy * y**2 + xy * x * y + east * x + north * y)
    dem = dem_of(heights, grid_of((3, 3), size))
    bent = np.array([[2 * xx, xy], [xy, 2 * yy]])
    down = -np.array([east, north]) / np.hypot(east, north)
    across = np.array([-down[1], down[0]])
    expected = {"profile": down @ bent @ down, "plan": -(across @ bent @ across), "total": -np.trace(bent)}
    for kind, value in expected.items():
        assert terrain.curvature(dem, kind=kind).values[1, 1] == pytest.approx(value, rel=1e-5, abs=1e-8)


def test_a_dome_bulges_by_its_radius():
    radius = 5000.0
    heights = surface((201, 201), (10, 10), lambda x, y: np.sqrt(radius**2 - x**2 - y**2))
    dem = dem_of(heights)
    top = {kind: terrain.curvature(dem, kind=kind).values[100, 100] for kind in ("total", "plan", "profile")}
    assert top == pytest.approx({"total": 2 / radius, "plan": 1 / radius, "profile": -1 / radius}, rel=1e-4)
    level = 600.0  # metres east of the top
    high = np.sqrt(radius**2 - level**2)
    assert terrain.curvature(dem, kind="profile").values[100, 160] == pytest.approx(-(radius**2) / high**3, rel=1e-3)
    assert terrain.curvature(dem, kind="plan").values[100, 160] == pytest.approx(1 / high, rel=1e-3)
    assert terrain.aspect(dem).values[100, 160] == pytest.approx(90, abs=1e-3)
    assert terrain.slope(dem).values[100, 160] == pytest.approx(np.degrees(np.arcsin(level / radius)), rel=1e-3)


def test_level_ground_has_no_aspect_and_no_bend():
    made = terrain.bands(dem_of(np.full((4, 4), 7, "int16")), NAMES).isel(y=1, x=1)
    said = dict(zip(NAMES, made.values.tolist()))
    assert np.isnan(said.pop("aspect"))
    assert said.pop("elevation") == 7
    assert said.pop("hillshade") == pytest.approx(1 + 254 * np.sin(np.radians(45)))
    assert set(said.values()) == {0.0}


def test_a_gradient_is_void_as_a_whole_and_aspect_stays_below_360():
    heights = np.arange(9.0).reshape(3, 3)
    sizes = np.ones((2, 1))
    assert np.isfinite(terrain.horn_block(heights, sizes)).all()
    for hole in np.ndindex(3, 3):
        torn = heights.copy()
        torn[hole] = np.nan
        assert np.isnan(terrain.horn_block(torn, sizes)).all()
        for kind in ("total", "plan", "profile"):
            assert np.isnan(terrain.curvature_block(0 * torn, sizes, kind=kind)).all()
    north = np.array([[[1e-9]], [[-1.0]]], "float32")  # a hair to the west of north
    assert terrain.aspect_block(north) == 0


@settings(max_examples=10)
@given(seed=st.integers(0, 99), quarters=st.integers(0, 3), mirrored=st.booleans())
def test_turned_and_mirrored_ground_is_the_same_ground(seed, quarters, mirrored):
    heights = rough((9, 9), seed, void=0.03)
    moved = np.rot90(np.fliplr(heights) if mirrored else heights, quarters)  # rot90 turns counter-clockwise
    kept = [name for name in NAMES if name not in ("aspect", "northness", "eastness", "hillshade")]
    was, now = terrain.bands(dem_of(heights), kept).values, terrain.bands(dem_of(moved.copy()), kept).values
    back = np.rot90(now, -quarters, axes=(1, 2))
    np.testing.assert_allclose(np.flip(back, 2) if mirrored else back, was, rtol=1e-4, atol=1e-4)
    was, now = terrain.aspect(dem_of(heights)).values, terrain.aspect(dem_of(moved.copy())).values
    back = np.rot90(now, -quarters) + 90 * quarters
    expected = -np.fliplr(was) if mirrored else was
    assert np.nanmax(np.abs(turned(back - expected))) < 1e-2


# Against other programs


@pytest.mark.realdata
def test_longyearbyen_is_what_gdaldem_wrote(data):
    folder = data / "terrain-longyearbyen"
    dem = scenes.open(folder / "dem.tif")[0, 0]
    made = terrain.bands(dem, tuple(FINE)).compute(scheduler="synchronous")
    files = {"slope": "slope_Horn", "aspect": "aspect_Horn", "hillshade": "hillshade_Horn", "tri": "tri_Riley"}
    for name, near in FINE.items():
        with rasterio.open(folder / f"gdal_{files.get(name, name)}.tif") as file:
            expected = file.read(1).astype("float64")
        got = made.sel(band=name).values
        known = ~np.isnan(got)
        assert known.sum() == 2397  # 54 x 50, less the border and what lies beside the void in row 53 and column 0
        away = turned(got - expected) if name == "aspect" else got - expected
        assert np.abs(away[known]).max() <= near, name
    shade = made.sel(band="hillshade").round().fillna(0).astype("uint8").values
    with rasterio.open(folder / "gdal_hillshade_Horn.tif") as file:
        assert (shade == file.read(1))[shade > 0].all()


@pytest.mark.realdata
@pytest.mark.parametrize(("kind", "file"), [("total", ""), ("plan", "planform_"), ("profile", "profile_")])
def test_longyearbyen_curvatures_are_what_richdem_wrote(data, kind, file):
    folder = data / "terrain-longyearbyen"
    with rasterio.open(folder / f"richdem_{file}curvature.tif") as opened:
        expected = opened.read(1)[2:]  # its first row was read as 0 m: values of 190 in the first two rows
    got = 100 * terrain.curvature(scenes.open(folder / "dem.tif")[0, 0], kind=kind).values[2:]
    known = ~np.isnan(got)
    assert known.sum() == 2397 - 47
    np.testing.assert_allclose(got[known], expected[known], atol=1e-5)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 9999),
    size=st.sampled_from([(10.0, 10.0), (30.0, 20.0), (5.0, 45.0)]),
    void=st.sampled_from([0.0, 0.05]),
    sun=st.tuples(st.integers(0, 359), st.integers(1, 90)),
    z=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_mountains_are_what_gdaldem_makes_of_them(seed, size, void, sun, z):
    heights = rough((12, 11), seed, void=void)
    grid = grid_of(heights.shape, size)
    dem = dem_of(heights, grid)
    light = ("-az", str(sun[0]), "-alt", str(sun[1]), "-z", str(z))
    pairs = {
        "slope": (terrain.slope(dem), gdaldem(heights, grid, "slope")),
        "hillshade": (
            terrain.hillshade(dem, azimuth=sun[0], altitude=sun[1], z=z),
            gdaldem(heights, grid, "hillshade", *light),
        ),
        "tpi": (terrain.tpi(dem), gdaldem(heights, grid, "TPI")),
        "tri": (terrain.tri(dem), gdaldem(heights, grid, "TRI", "-alg", "Riley")),
        "roughness": (terrain.roughness(dem), gdaldem(heights, grid, "roughness")),
    }
    for name, (got, expected) in pairs.items():
        np.testing.assert_array_equal(np.isnan(got.values), np.isnan(expected), err_msg=name)
        np.testing.assert_allclose(got.values, expected, atol=FINE[name], err_msg=name)
    percent = gdaldem(heights, grid, "slope", "-p")
    np.testing.assert_allclose(terrain.slope(dem, units="percent").values, percent, rtol=1e-4, atol=1e-3)
    if size[0] == size[1]:
        got, expected = terrain.aspect(dem).values, gdaldem(heights, grid, "aspect")
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
        steep = terrain.slope(dem).values > 5  # the direction of what is nearly level is what is left of float32
        assert np.abs(turned(got - expected)[steep]).max() < FINE["aspect"]


@pytest.mark.parametrize("name", ["slope", "aspect", "hillshade", "tpi", "roughness"])
def test_continued_edges_are_those_of_gdaldem_but_for_its_corners(name):
    heights = rough((9, 8), 3)
    got = getattr(terrain, name)(dem_of(heights), edge="extrapolate").values
    expected = gdaldem(heights, grid_of(heights.shape), MODES[name], "-compute_edges")
    away = turned(got - expected) if name == "aspect" else got - expected
    corners = np.zeros(got.shape, bool)
    corners[np.ix_([0, -1], [0, -1])] = True  # there gdaldem repeats a height, which bends planes
    assert np.isfinite(got).all()
    assert np.abs(away[~corners]).max() <= FINE[name]


@settings(max_examples=10)
@given(seed=st.integers(0, 999))
def test_windows_are_those_of_scipy(seed):
    heights = rough((8, 9), seed).astype("float64")
    means = {
        "roughness": lambda nine: nine.max() - nine.min(),
        "tpi": lambda nine: nine[4] - np.delete(nine, 4).mean(),
        "tri": lambda nine: np.sqrt(((nine - nine[4]) ** 2).sum()),
    }
    for name, formula in means.items():
        expected = ndimage.generic_filter(heights, formula, 3)[1:-1, 1:-1]
        got = getattr(terrain, name)(dem_of(heights)).values[1:-1, 1:-1]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


# On the ground: degrees, feet, other planets


@given(
    latitude=st.floats(-89, 89),
    crs=st.sampled_from(["EPSG:4326", "EPSG:4277", "IAU_2015:49900"]),  # WGS 84, Airy, Mars
    size=st.tuples(st.sampled_from([1 / 3600, 0.01]), st.sampled_from([1 / 3600, 0.01])),
)
def test_pixels_in_degrees_are_as_large_as_on_the_ellipsoid(latitude, crs, size):
    grid = grid_of((3, 3), size, crs, corner=(10, latitude + 1.5 * size[0]))
    width, height = terrain.sizes_block(terrain.ground_of(grid), 0, 3)
    body = pyproj.CRS(crs).get_geod()
    y = latitude + np.array([1, 0, -1]) * size[0]
    _, _, across = body.inv([10 - size[1] / 2] * 3, y, [10 + size[1] / 2] * 3, y)
    _, _, along = body.inv([10] * 3, y - size[0] / 2, [10] * 3, y + size[0] / 2)
    np.testing.assert_allclose(width, across, rtol=1e-6)
    np.testing.assert_allclose(height, along, rtol=1e-6)


@pytest.mark.parametrize("latitude", [0, 45, -60, 75])
def test_slopes_in_degrees_are_those_of_gdaldem_told_the_size_of_pixels(latitude):
    heights = rough((7, 20), 5)
    grid = grid_of(heights.shape, (1 / 3600, 1 / 3600), "EPSG:4326", corner=(10, latitude))
    width, height = terrain.sizes_block(terrain.ground_of(grid), 3, 4)[:, 0] * 3600  # metres a degree
    told = "-xscale", f"{width:.12g}", "-yscale", f"{height:.12g}"
    dem = dem_of(heights, grid, chunks=(2, 5))
    for name, mode in (("slope", "slope"), ("hillshade", "hillshade")):
        got = getattr(terrain, name)(dem).values[3]
        np.testing.assert_allclose(got, gdaldem(heights, grid, mode, *told)[3], atol=FINE[name])


@pytest.mark.parametrize(("crs", "unit"), [("EPSG:2263", 1200 / 3937), ("EPSG:2222", 0.3048), (UTM, 1.0)])
def test_feet_are_turned_into_metres(crs, unit):
    heights = rough((6, 6), 2)
    feet = terrain.bands(dem_of(heights, grid_of((6, 6), (10 / unit, 10 / unit), crs)), NAMES).values
    metres = terrain.bands(dem_of(heights), NAMES).values
    np.testing.assert_allclose(feet, metres, rtol=1e-4, atol=1e-4)


@pytest.mark.realdata
def test_an_island_is_as_steep_in_degrees_as_in_metres(data):
    dem = scenes.open(data / "copernicus-dem", chunks=600)[0, 0].sel(x=slice(6.55, 6.72), y=slice(0.3, 0.1))
    grid = GeoBox.from_bbox((227_500, 11_500, 246_000, 32_800), "EPSG:32632", resolution=30)
    degrees = terrain.resample(terrain.bands(dem, ("slope", "northness")), grid)
    metres = terrain.bands(terrain.resample(dem, grid, resampling="cubic"), ("slope", "northness"))
    both = np.stack([degrees.values, metres.values])
    land = np.isfinite(both).all(axis=(0, 1)) & (both[0, 0] > 2)
    assert land.sum() > 100_000
    apart = both[1][:, land] - both[0][:, land]
    # Resampling smooths the one and not the other, by a degree; a pixel mistaken in size by 1 % would move the median
    # by 0.2 degrees.
    assert abs(np.median(apart[0])) < 0.15
    assert np.sqrt((apart[0] ** 2).mean()) < 1.2
    assert np.corrcoef(both[0, 1][land], both[1, 1][land])[0, 1] > 0.99


# Lazy, whatever the chunks


@st.composite
def cuts(draw, size):
    """Any way to cut an axis into chunks, some of a single pixel."""
    at = draw(st.sets(st.integers(1, size - 1)))
    return tuple(np.diff([0, *sorted(at), size]).tolist())


@settings(max_examples=20)
@given(
    rows=cuts(9),
    columns=cuts(8),
    crs=st.sampled_from([UTM, "EPSG:4326"]),
    edge=st.sampled_from(["void", "extrapolate"]),
)
def test_chunks_do_not_show(rows, columns, crs, edge):
    size, corner = ((10, 10), (5e5, 8e6)) if crs == UTM else ((0.01, 0.01), (10, 70))
    heights, grid = rough((9, 8), 1, void=0.03), grid_of((9, 8), size, crs, corner)
    whole = terrain.bands(dem_of(heights, grid), NAMES, edge=edge)
    lazy = terrain.bands(dem_of(heights, grid, chunks=(rows, columns)), NAMES, edge=edge)
    assert isinstance(lazy.data, da.Array)
    assert lazy.chunks == ((len(NAMES),), rows, columns)
    got = lazy.compute(scheduler="synchronous")
    assert got.dtype == whole.dtype == "float32"
    np.testing.assert_array_equal(got.values, whole.values)
    assert schema.geobox(got) == grid


def test_empty_chunks_are_no_chunks():
    heights = rough((6, 5), 1)
    lazy = terrain.slope(dem_of(heights, chunks=((0, 2, 0, 4), (5, 0))))
    np.testing.assert_array_equal(lazy.values, terrain.slope(dem_of(heights)).values)


def test_a_chunk_is_one_task_and_is_read_once():
    reads = []

    def read(block_info=None):
        reads.append(block_info[None]["chunk-location"])
        return rough(block_info[None]["chunk-shape"])

    heights = da.map_blocks(read, chunks=((16,) * 8, (16,) * 8), dtype="float32", meta=np.empty((0, 0), "float32"))
    made = terrain.bands(schema.wrap(heights, grid_of((128, 128)), schema.MASK, name="dem"), NAMES)
    reads.clear()
    assert len(dask.optimize(made.data)[0].__dask_graph__().to_dict()) <= 2 * 64
    made.data.compute(scheduler="synchronous")
    assert sorted(reads) == sorted(np.ndindex(8, 8))


def test_a_plan_has_the_same_name_each_time_and_another_for_other_options():
    dem = dem_of(rough((6, 6)), chunks=3)
    plans = [terrain.slope(dem), terrain.slope(dem, edge="extrapolate"), terrain.slope(dem, units="percent")]
    plans += [terrain.hillshade(dem), terrain.hillshade(dem, z=2.0), terrain.resample(dem, grid_of((4, 4)))]
    again = terrain.slope(dem), terrain.hillshade(dem), terrain.resample(dem, grid_of((4, 4)))
    assert [plan.data.name for plan in again] == [plans[0].data.name, plans[3].data.name, plans[5].data.name]
    assert len({plan.data.name for plan in plans}) == len(plans)


def test_a_plan_travels():
    dem = dem_of(rough((9, 8)), chunks=4)
    for lazy in (terrain.bands(dem, NAMES), terrain.resample(dem, grid_of((4, 4), (15, 15)))):
        sent = pickle.loads(cloudpickle.dumps(lazy))
        np.testing.assert_array_equal(sent.compute(scheduler="synchronous").values, lazy.values)


def test_terrain_is_written_as_a_mosaic(tmp_path):
    dem = dem_of(rough((100, 90)), chunks=16)
    made = terrain.bands(dem, ("slope", "tpi"))
    mosaic.write(made, tmp_path / "terrain.zarr", chunk=32, shard=64, progress=False).check()
    written = store.open(tmp_path / "terrain.zarr")
    assert schema.bands(written) == ("slope", "tpi")
    np.testing.assert_array_equal(written.values, terrain.bands(dem.compute(), ("slope", "tpi")).values)


# Void


@settings(max_examples=25)
@given(
    seed=st.integers(0, 99),
    holes=st.sets(st.tuples(st.integers(0, 8), st.integers(0, 9)), min_size=1, max_size=6),
    dtype=st.sampled_from(["float32", "float64", "int16", "int32"]),
    fills=st.sampled_from([(-32768, 32767), (0, 1)]),
    chunks=st.sampled_from([None, (1, 3), (4, 4)]),
)
def test_void_hides_its_neighbours_and_nothing_else(seed, holes, dtype, fills, chunks):
    heights = rough((9, 10), seed, dtype=dtype)
    heights[np.isin(heights, fills)] = next(height for height in range(99, 0, -1) if height not in fills)
    void = np.zeros(heights.shape, bool)
    void[tuple(np.transpose(sorted(holes)))] = True
    made = []
    for fill in fills:
        floats = heights.dtype.kind == "f"
        filled = np.where(void, np.nan if floats else fill, heights).astype(dtype)
        dem = dem_of(filled, chunks=chunks, nodata=None if floats else fill)
        made.append(terrain.bands(dem, NAMES).compute(scheduler="synchronous").values)
    np.testing.assert_array_equal(made[0], made[1])  # whatever is written in void pixels does not matter
    expected = terrain.bands(dem_of(heights), NAMES).values
    hidden = ndimage.binary_dilation(void, np.ones((3, 3)))
    hidden = np.broadcast_to(hidden, expected.shape).copy()
    hidden[NAMES.index("elevation")] = void
    np.testing.assert_array_equal(made[0], np.where(hidden, np.nan, expected))


def test_infinite_heights_are_void():
    heights = rough((7, 7))
    heights[3, 3] = np.inf
    expected = heights.copy()
    expected[3, 3] = np.nan
    got, expected = (terrain.bands(dem_of(values), NAMES).values for values in (heights, expected))
    np.testing.assert_array_equal(got, expected)


def test_whole_numbers_beyond_float32_keep_their_digits():
    heights = (2**24 + np.arange(12).reshape(3, 4) % 4).astype("int32")
    assert terrain.slope(dem_of(heights)).values[1, 1] == pytest.approx(np.degrees(np.arctan(0.1)), rel=1e-5)


# What comes out, and what is refused


def test_bands_are_what_the_functions_give():
    dem = dem_of(rough((8, 8), void=0.02))
    made = terrain.bands(dem, NAMES)
    schema.check(made, schema.MOSAIC)
    for name in ("slope", "aspect", "hillshade", "curvature", "roughness", "tpi", "tri"):
        alone = getattr(terrain, name)(dem)
        np.testing.assert_array_equal(made.sel(band=name).values, alone.values)
        assert alone.name == name
        assert alone.attrs["units"] == terrain.BANDS[name].units
    for kind in ("plan", "profile"):
        alone = terrain.curvature(dem, kind=kind)
        np.testing.assert_array_equal(made.sel(band=f"{kind}_curvature").values, alone.values)
    np.testing.assert_array_equal(made.sel(band="elevation").values, dem.values)
    assert terrain.slope(dem, units="percent").attrs["units"] == "percent"


def test_bad_input_is_refused():
    heights = rough((4, 4))
    dem = dem_of(heights)
    rising = dem.isel(y=slice(None, None, -1))
    with pytest.raises(BadInput, match=r"dem must have dims \('y', 'x'\)"):
        terrain.slope(dem.expand_dims("band"))
    with pytest.raises(BadInput, match=r"dem must have a CRS, a y that falls .* ascending=False"):
        terrain.slope(rising.drop_vars("spatial_ref").assign_coords(spatial_ref=_without_transform(dem)))
    with pytest.raises(BadInput, match="dem must hold whole or real numbers"):
        terrain.slope(dem_of(heights > 0))
    with pytest.raises(BadInput, match="dem must have latitudes from -90 to 90"):
        terrain.slope(dem_of(heights, grid_of((4, 4), (1, 1), "EPSG:4326", corner=(0, 91.6))))
    with pytest.raises(BadInput, match="units must be 'degrees', 'percent' or 'radians'"):
        terrain.slope(dem, units="grads")
    with pytest.raises(BadInput, match="edge must be 'void' or 'extrapolate'"):
        terrain.aspect(dem, edge="reflect")
    with pytest.raises(BadInput, match="dem must have two or more rows and columns"):
        terrain.aspect(dem[:, :1].assign_coords(x=dem.x[:1]), edge="extrapolate")
    with pytest.raises(BadInput, match="altitude must be from 0 to 90"):
        terrain.hillshade(dem, altitude=91)
    with pytest.raises(BadInput, match="azimuth and z must be finite"):
        terrain.hillshade(dem, z=0)
    with pytest.raises(BadInput, match="kind must be one of total, profile, plan"):
        terrain.curvature(dem, kind="mean")
    for names in ((), ("slope", "slope"), ("slope", "sun")):
        with pytest.raises(BadInput, match="names must hold some of elevation, slope"):
            terrain.bands(dem, names)


def _without_transform(dem):
    reference = dem["spatial_ref"].copy()
    reference.attrs.pop("GeoTransform", None)
    return reference

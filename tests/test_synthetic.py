"""A made-up landscape: one ground whatever the window, scars like the real ones, a mask that is its polygons'."""

import pickle
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lsdask import inventory, schema, synthetic
from lsdask.errors import BadInput

SHAPE = (384, 448)


def computed(array):
    return array.compute(scheduler="synchronous").values


@pytest.fixture(scope="module")
def whole():
    """One landscape in one chunk each, computed."""
    land = synthetic.landscape(SHAPE, 3, chunks=1000)
    return computed(land.scene), computed(land.mask), computed(synthetic.elevation(SHAPE, 3, chunks=1000))


@settings(max_examples=12)
@given(
    chunks=st.tuples(st.integers(60, 500), st.integers(60, 500)),
    y=st.tuples(st.integers(0, SHAPE[0]), st.integers(0, SHAPE[0])),
    x=st.tuples(st.integers(0, SHAPE[1]), st.integers(0, SHAPE[1])),
    step=st.sampled_from([1, 2, -1]),
)
def test_any_chunking_and_window_gives_the_same_pixels(whole, chunks, y, x, step):
    window = slice(min(y), max(y)), slice(min(x), max(x), step)
    made = (
        synthetic.scene(SHAPE, 3, chunks=chunks),
        synthetic.mask(SHAPE, 3, chunks=chunks),
        synthetic.elevation(SHAPE, 3, chunks=chunks),
    )
    for expected, array in zip(whole, made):
        np.testing.assert_array_equal(computed(array[(..., *window)]), expected[(..., *window)])


def test_the_mask_is_its_polygons_burned_by_rasterio(whole):
    polygons = synthetic.polygons(SHAPE, 3)
    scene = synthetic.scene(SHAPE, 3)
    burned = rasterio.features.rasterize(
        polygons.geometry, SHAPE, transform=schema.geobox(scene).transform, dtype="uint8"
    )
    burned[(whole[0] == 0).all(axis=0)] = 255
    np.testing.assert_array_equal(whole[1], burned)
    np.testing.assert_array_equal(computed(inventory.rasterize(polygons, scene)), burned)
    assert (burned == 1).sum() > 500


@pytest.fixture(scope="module")
def crowded():
    """The scars of a scene with so many candidates that most are displaced by others."""
    return synthetic.polygons((2000, 2000), 3, density=40).set_index("id")


@given(y=st.integers(0, 1900), x=st.integers(0, 1900), size=st.integers(1, 90))
def test_polygons_of_a_window_are_those_of_the_whole_that_touch_it(crowded, y, x, size):
    window = slice(y, y + size), slice(x, x + size)
    some = synthetic.polygons((2000, 2000), 3, density=40, window=window).set_index("id")
    left, top = synthetic.ORIGIN
    box = shapely.box(left + 8 * x, top - 8 * (y + size), left + 8 * (x + size), top - 8 * y)
    expected = crowded[crowded.intersects(box)]
    assert set(some.index) == set(expected.index)
    assert (some.geometry.loc[expected.index].to_wkb() == expected.geometry.to_wkb()).all()


def test_a_window_of_one_pixel_finds_the_scar_that_reaches_it_from_afar(crowded):
    left, top = synthetic.ORIGIN
    for scar in crowded.nlargest(6, "area_m2").itertuples():
        for x, y in shapely.get_coordinates(scar.geometry)[::9]:
            row, column = int((top - y) // 8), int((x - left) // 8)
            window = slice(row, row + 1), slice(column, column + 1)
            assert scar.Index in set(synthetic.polygons((2000, 2000), 3, density=40, window=window).id)


def test_a_finer_resolution_shows_the_same_ground():
    coarse = computed(synthetic.elevation((100, 120), 1, resolution=9.0))
    fine = computed(synthetic.elevation((300, 360), 1, resolution=3.0))
    np.testing.assert_array_equal(fine[1::3, 1::3], coarse)


def test_values_are_ten_bit_counts_and_the_sea_is_void(whole):
    scene, mask, elevation = whole
    sea = elevation == 0
    assert scene.dtype == np.uint16
    assert scene.max() <= synthetic.FULL_SCALE
    assert 0.05 < sea.mean() < 0.3
    np.testing.assert_array_equal((scene == 0).any(axis=0), sea)
    np.testing.assert_array_equal(mask == 255, sea)
    assert sea[-1, -1]
    assert not sea[0, 0]
    lazy = synthetic.scene(SHAPE, 3)
    assert schema.nodata(lazy) == 0
    assert schema.bands(lazy) == synthetic.BANDS


def test_colour_alone_confuses_scars_with_what_is_not(whole):
    scene, mask, _ = whole
    scars, others = scene[:, mask == 1], scene[:, mask == 0]
    assert (scars.mean(axis=1) != others.mean(axis=1)).all()
    low, high = np.percentile(scars, [10, 90], axis=1)
    alike = ((others > low[:, None]) & (others < high[:, None])).all(axis=0).sum()
    assert alike > scars.shape[1]


def test_scars_have_the_sizes_and_shapes_of_the_real_inventory():
    scars = synthetic.polygons((4096, 4096), 0)
    assert scars.geometry.is_valid.all()
    assert (scars.slope > 15).all()
    assert scars.area_m2.between(390, 123_900).all()
    assert 4000 < scars.area_m2.median() < 6500
    assert 0.8 < np.log(scars.area_m2).std() < 1.1
    corners = shapely.get_coordinates(shapely.oriented_envelope(scars.geometry.to_numpy())).reshape(-1, 5, 2)
    sides = np.sort(np.hypot(*np.diff(corners[:, :3], axis=1).transpose(2, 0, 1)), axis=1)
    assert 1.5 < np.median(sides[:, 1] / sides[:, 0]) < 3
    pairs = shapely.STRtree(scars.geometry).query(scars.geometry, predicate="intersects")
    assert pairs.shape[1] == len(scars)


@pytest.mark.realdata
def test_scar_areas_follow_the_serra_do_mar_inventory(data: Path):
    real = np.log(gpd.read_file(data / "serra-do-mar" / "relict_landslides_epsg32723.geojson").area)
    made = np.log(synthetic.polygons((4096, 4096), 0).area_m2)
    np.testing.assert_allclose(made.quantile([0.25, 0.5, 0.75]), real.quantile([0.25, 0.5, 0.75]), atol=0.3)


def test_scars_run_downhill():
    elevation = computed(synthetic.elevation((768, 768), 0))
    scars = synthetic.polygons((768, 768), 0)
    left, top = synthetic.ORIGIN
    outlines = shapely.get_coordinates(scars.geometry).reshape(len(scars), -1, 2)
    inside = ((outlines > [left, top - 768 * 8]) & (outlines < [left + 768 * 8, top])).all(axis=(1, 2))
    heads, toes = outlines[inside, 0], outlines[inside, synthetic.STATIONS - 1]
    heights = [
        elevation[((top - p[:, 1]) // 8).astype(int), ((p[:, 0] - left) // 8).astype(int)] for p in (heads, toes)
    ]
    assert inside.sum() > 30
    assert (heights[0] > heights[1]).mean() > 0.95


def test_a_continent_opens_at_once_with_one_task_a_chunk():
    synthetic.scene((64, 64))
    start = time.perf_counter()
    scene = synthetic.scene((65536, 65536), chunks=4096)
    corner = scene[:, 32768:32800, 30000:30064]
    assert time.perf_counter() - start < 1.0
    assert len(scene.data.dask) <= 16 * 16 + 1
    assert computed(corner).shape == (4, 32, 64)


def test_seeds_differ_and_lazy_arrays_travel():
    one, other = synthetic.scene((64, 64), 1), synthetic.scene((64, 64), 2)
    assert one.data.name != other.data.name
    assert one.data.name == synthetic.scene((64, 64), 1).data.name
    assert (computed(one) != computed(other)).mean() > 0.5
    np.testing.assert_array_equal(computed(pickle.loads(pickle.dumps(one))), computed(one))


def test_a_landscape_without_scars_has_an_empty_inventory_with_its_columns():
    flat = synthetic.polygons((4, 4), 0, density=0.001)
    assert len(flat) == 0
    assert {"id", "slope", "cover", "area_m2", "geometry"} <= set(flat.columns)
    assert set(np.unique(computed(synthetic.mask((4, 4), 0, density=0.001)))) <= {0, 255}


@pytest.mark.parametrize(
    "wrong", [{"shape": (0, 5)}, {"shape": (5,)}, {"resolution": 0}, {"density": 0}, {"seed": -1}, {"seed": 0.5}]
)
def test_bad_input_names_itself(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong)) + " must be "):
        synthetic.scene(**wrong)


def test_a_real_inventory_is_shown_instead_of_made_up_scars():
    left, top = synthetic.ORIGIN
    corners = [(100, 200), (400, 200), (400, 520), (100, 520)], [(900, 900), (1000, 900), (950, 1000)]
    shapes = [shapely.Polygon([(left + 8 * x, top - 8 * y) for x, y in ring]) for ring in corners]
    scars = gpd.GeoDataFrame(geometry=shapes, crs=synthetic.CRS)
    given = {"scars": scars.to_crs(4326), "chunks": 300}
    mask = synthetic.mask((1024, 1024), 3, **given).values
    expected = inventory.rasterize(scars, synthetic.scene((1024, 1024), 3)).values == 1
    on_land = mask != schema.UNKNOWN
    assert on_land[expected].mean() > 0.5
    differs = (mask == 1) != (expected & on_land)  # through another CRS and back: to the pixel
    assert differs.sum() <= 4
    found = synthetic.polygons((1024, 1024), 3, scars=scars)
    assert found["id"].tolist() == ["0.0", "1.0"]
    assert found.geometry.geom_equals_exact(scars.geometry, 1e-6).all()
    seen, bare = (synthetic.scene((1024, 1024), 3, scars=part).values for part in (scars, scars.iloc[:0]))
    changed = (seen != bare).any(axis=0)
    assert not changed[~ndimage.binary_dilation(expected, iterations=2)].any()
    assert changed[expected & on_land].mean() > 0.9

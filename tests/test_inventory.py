"""Inventories: burned as rasterio burns them, traced as GDAL traces the whole map, whatever the tiles."""

import json
import subprocess
import sys
from pathlib import Path

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio.features
import shapely
import shapely.affinity
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odc.geo.geobox import GeoBox
from scipy import ndimage
from shapely.geometry import shape as from_mapping

from lsdask import inventory, schema
from lsdask.errors import BadInput, NotFound
from lsdask.inventory import burning, polygons

UTM = "EPSG:32723"
TRANSFORM = Affine(8.0, 0.0, 360_000.0, 0.0, -8.0, 7_400_000.0)
SERRA = Affine(8.0, 0.0, 439_480.0, 0.0, -8.0, 7_395_072.0)


def on_grid(values, dims=schema.MASK, *, chunks=None, transform=TRANSFORM, crs=UTM, nodata=None, **coords):
    data = values if chunks is None else da.from_array(values, chunks=(*values.shape[:-2], *chunks))
    grid = GeoBox(values.shape[-2:], transform, crs)
    return schema.wrap(data, grid, dims, name="image", nodata=nodata, coords=coords)


def computed(array):
    return array.compute(scheduler="synchronous").values


def traced(*args, **kwargs):
    with dask.config.set(scheduler="synchronous"):
        return inventory.vectorize(*args, **kwargs)


def polygonized(positive, connectivity=4, transform=TRANSFORM):
    """What GDAL traces in the whole map at once."""
    found = rasterio.features.shapes(
        positive.astype("uint8"), mask=positive, connectivity=connectivity, transform=transform
    )
    return [from_mapping(geometry) for geometry, _ in found]


def alike(mine, theirs):
    return sorted(shape.normalize().wkb for shape in mine) == sorted(shape.normalize().wkb for shape in theirs)


# --- rasterize -------------------------------------------------------------------------------------------------------


def outlines(seed, count):
    """Polygons with corners on half pixels and off them, with and without holes, and pairs."""
    draw = np.random.default_rng(seed)
    made = []
    for x, y in draw.integers(-20, 120, (count, 2)) / 2:
        size = draw.choice([0.3, 1.5, 4.0, 13.25, 31.7])
        ring = shapely.Point(x, y).buffer(size, quad_segs=int(draw.choice([1, 2, 5])))
        made.append(ring.difference(ring.buffer(-size / 2)) if draw.random() < 0.5 else ring)
    if count > 2:
        made = [shapely.union_all(made[:2]), *made[2:]]
    return [shapely.transform(each, lambda xy: xy * [8, -8] + [360_000, 7_400_000]) for each in made]


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 6),
    chunks=st.tuples(st.integers(9, 50), st.integers(11, 50)),
)
def test_a_mask_is_what_rasterio_burns_in_the_whole(seed, count, chunks):
    shapes = outlines(seed, count)
    like = on_grid(np.zeros((50, 47), "uint8"), chunks=chunks)
    expected = rasterio.features.rasterize(shapes, (50, 47), transform=TRANSFORM, dtype="uint8")
    mask = inventory.rasterize(gpd.GeoDataFrame(geometry=shapes, crs=UTM), like)
    np.testing.assert_array_equal(computed(mask), expected)
    np.testing.assert_array_equal(computed(mask[3:40:2, ::-1]), expected[3:40:2, ::-1])
    assert mask.data.chunks == like.data.chunks
    assert mask.dtype == np.uint8


@pytest.mark.parametrize("dims", [("y", "x"), ("band", "y", "x"), ("time", "band", "y", "x")])
def test_void_is_unknown_unless_asked_not(dims):
    values = np.ones((2, 3, 10, 12), "uint16")
    values[:, 1, 2:4, 5:7] = 0
    values[0, :, 8, 8] = 0
    values = values[(0,) * (4 - len(dims))]
    like = on_grid(values, dims, nodata=0)
    everywhere = gpd.GeoDataFrame(geometry=[shapely.box(350_000, 7_300_000, 370_000, 7_500_000)], crs=UTM)
    known = (values != 0).all(axis=-3) if len(dims) > 2 else values != 0
    known = known.any(axis=0) if len(dims) > 3 else known
    mask = inventory.rasterize(everywhere, like)
    np.testing.assert_array_equal(computed(mask), np.where(known, 1, 255))
    assert schema.nodata(mask) == 255
    assert (computed(inventory.rasterize(everywhere, like, unknown=False)) == 1).all()


def test_a_chunk_burns_only_the_polygons_that_touch_it(monkeypatch):
    burned = []
    block = burning.burn_block
    monkeypatch.setattr(burning, "burn_block", lambda g, *a, **k: burned.append(len(g)) or block(g, *a, **k))
    squares = [shapely.box(360_000 + 80 * i, 7_399_980, 360_040 + 80 * i, 7_400_000) for i in range(10)]
    like = on_grid(np.zeros((10, 100), "uint8"), chunks=(10, 10))
    computed(inventory.rasterize(gpd.GeoDataFrame(geometry=squares, crs=UTM), like))
    assert len(burned) == 10
    assert max(burned) <= 2


def test_polygons_are_brought_to_the_grid_s_crs():
    like = on_grid(np.zeros((60, 60), "uint8"))
    round_one = gpd.GeoDataFrame(geometry=[shapely.Point(360_240, 7_399_760).buffer(100)], crs=UTM)
    mask = computed(inventory.rasterize(round_one.to_crs(4326), like))
    np.testing.assert_array_equal(mask, computed(inventory.rasterize(round_one, like)))


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".fgb", ".parquet"])
def test_a_written_inventory_is_read_back_and_replaced_whole(tmp_path, suffix):
    frame = traced(on_grid(np.eye(9, dtype=bool)), connectivity=8)
    path = tmp_path / f"landslides{suffix}"
    inventory.write(frame.iloc[:0], path)
    assert inventory.write(frame, path) == path
    assert list(tmp_path.iterdir()) == [path]
    read = inventory.load(path)
    assert read.crs == frame.crs
    np.testing.assert_allclose(read.area_m2, frame.area_m2)
    assert alike(read.geometry, frame.geometry)
    np.testing.assert_array_equal(computed(inventory.rasterize(path, on_grid(np.zeros((9, 9), "uint8")))), np.eye(9))


def test_what_is_not_an_inventory_says_so(tmp_path):
    like = on_grid(np.zeros((4, 4), "uint8"))
    box = shapely.box(360_000, 7_399_980, 360_040, 7_400_000)
    with pytest.raises(BadInput, match="polygons must have a CRS"):
        inventory.rasterize(gpd.GeoDataFrame(geometry=[box]), like)
    with pytest.raises(BadInput, match=r"hold Polygons and MultiPolygons only\. Got Point"):
        inventory.rasterize(gpd.GeoDataFrame(geometry=[box.centroid, box], crs=UTM), like)
    with pytest.raises(NotFound, match=r"polygons must name a file. Got .*absent.gpkg"):
        inventory.rasterize(tmp_path / "absent.gpkg", like)
    (tmp_path / "text.gpkg").write_text("no polygons here")
    with pytest.raises(BadInput, match=r"polygons must name a file of polygons .*text.gpkg"):
        inventory.rasterize(tmp_path / "text.gpkg", like)
    with pytest.raises(BadInput, match="path must end in one of"):
        inventory.write(gpd.GeoDataFrame(geometry=[box], crs=UTM), tmp_path / "one.txt")
    with pytest.raises(NotFound, match="path must lie in a folder that exists"):
        inventory.write(gpd.GeoDataFrame(geometry=[box], crs=UTM), tmp_path / "no" / "one.fgb")


def test_no_polygons_burn_nothing_and_broken_ones_are_mended_aloud():
    like = on_grid(np.zeros((4, 4), "uint8"))
    empty = gpd.GeoDataFrame(geometry=[None, shapely.Polygon()], crs=UTM)
    assert not computed(inventory.rasterize(empty, like)).any()
    left, top = 360_000, 7_400_000
    bowtie = shapely.Polygon([(left, top), (left + 32, top - 32), (left + 32, top), (left, top - 32)])
    with pytest.warns(UserWarning, match="1 of 1 geometries of polygons were not valid and have been mended"):
        mask = inventory.rasterize(gpd.GeoDataFrame(geometry=[bowtie], crs=UTM), like)
    expected = rasterio.features.rasterize([shapely.make_valid(bowtie)], (4, 4), transform=TRANSFORM)
    np.testing.assert_array_equal(computed(mask), expected)
    assert expected.any()


@pytest.mark.realdata
def test_the_serra_do_mar_inventory_burns_as_rasterio_burns_it(data: Path):
    path = data / "serra-do-mar" / "relict_landslides_epsg32723.geojson"
    like = on_grid(np.zeros((3000, 3600), "uint8"), chunks=(700, 900), transform=SERRA)
    real = gpd.read_file(path)
    expected = rasterio.features.rasterize(real.geometry, (3000, 3600), transform=SERRA)
    mask = computed(inventory.rasterize(path, like))
    np.testing.assert_array_equal(mask, expected)
    again = traced(on_grid(mask == 1, chunks=(700, 900), transform=SERRA))
    assert abs(again.area_m2.sum() / real.union_all().area - 1) < 0.02


# --- vectorize -------------------------------------------------------------------------------------------------------

sides = st.tuples(st.integers(1, 14), st.integers(1, 14))
maps = st.builds(
    lambda shape, share, seed: np.random.default_rng(seed).random(shape) < share,
    sides,
    st.sampled_from([0.0, 0.2, 0.5, 0.7, 0.9, 1.0]),
    st.integers(0, 10_000),
)
tiles = st.tuples(st.integers(3, 14), st.integers(2, 14))


@given(positive=maps, chunks=tiles)
def test_polygons_are_those_gdal_traces_in_the_whole(positive, chunks):
    frame = traced_in(positive, chunks)
    assert alike(frame.geometry, polygonized(positive))
    assert frame.geometry.is_valid.all()
    np.testing.assert_allclose(frame.geometry.area, frame.area_m2)
    np.testing.assert_allclose(frame.geometry.length, frame.perimeter_m)


def traced_in(positive, chunks, **kwargs):
    """Trace with tiles as they are, however small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polygons, "CHUNK", 1)
        return traced(on_grid(positive, chunks=chunks), **kwargs)


@given(positive=maps, chunks=tiles)
def test_corners_join_when_asked(positive, chunks):
    frame = traced_in(positive, chunks, connectivity=8)
    theirs = [shapely.make_valid(shape) for shape in polygonized(positive, connectivity=8)]
    assert len(frame) == len(theirs) == ndimage.label(positive, np.ones((3, 3)))[1]
    assert frame.geometry.is_valid.all()
    by_place = {(*shape.bounds, shape.area): shape for shape in theirs}
    for mine in frame.geometry:
        assert mine.symmetric_difference(by_place[(*mine.bounds, mine.area)]).area == 0


@given(
    scores=hnp.arrays("uint8", sides, elements=st.integers(0, 250) | st.just(255)),
    chunks=tiles,
    step=st.integers(0, 250),
    kind=st.sampled_from(["uint8", "float32", "float64"]),
)
def test_attributes_are_those_of_labelled_pixels(scores, chunks, step, kind):
    values = scores if kind == "uint8" else schema.decode_scores_block(scores).astype(kind)
    if kind == "float64":
        values = np.where(scores == 255, np.nan, scores / 250)
    threshold = step / 250
    known = scores != 255
    labels, n = ndimage.label(known & (scores >= step))
    order = range(1, n + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polygons, "CHUNK", 1)
        image = on_grid(values[None], schema.SCORES, chunks=chunks, **{"class": ["landslide"]})
        frame = traced(image, threshold=threshold)
    assert frame.id.tolist() == list(order)
    np.testing.assert_allclose(frame.area_m2, 64.0 * ndimage.sum_labels(known, labels, order))
    np.testing.assert_allclose(frame.mean_score, ndimage.mean(scores / 250, labels, order), rtol=1e-6)
    np.testing.assert_allclose(frame.max_score, ndimage.maximum(scores / 250, labels, order), rtol=1e-6)


def noise(shape, seed=0):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape, dtype="float32"), 2)
    return np.clip((smooth - 0.5) * 10 + 0.4, 0, 1)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_the_result_is_one_whatever_the_chunks_to_the_last_bit(connectivity):
    values = noise((301, 257))
    results = [
        traced(on_grid(values, chunks=chunks), connectivity=connectivity, min_area_m2=300)
        for chunks in ((301, 257), (300, 256))
    ]
    results += [
        traced_in(values, chunks, connectivity=connectivity, min_area_m2=300) for chunks in ((50, 31), (7, 257))
    ]
    for other in results[1:]:
        assert (results[0].geometry.to_wkb() == other.geometry.to_wkb()).all()
        assert results[0].drop(columns="geometry").equals(other.drop(columns="geometry"))
    assert len(results[0]) > 20
    assert results[0].area_m2.min() >= 300


def test_small_ones_are_left_out_at_the_exact_area():
    positive = np.zeros((8, 8), bool)
    positive[0, 0] = positive[2, 0:2] = positive[4, 0:3] = True
    assert len(traced(on_grid(positive), min_area_m2=128.0)) == 2
    assert len(traced(on_grid(positive), min_area_m2=128.1)) == 1
    assert len(traced(on_grid(positive))) == 3


def test_nothing_found_is_an_empty_table_with_its_columns():
    frame = traced(on_grid(np.zeros((5, 5), "uint8")), threshold=0.5)
    assert list(frame.columns) == ["id", "area_m2", "perimeter_m", "mean_score", "max_score", "geometry"]
    assert len(frame) == 0
    assert frame.crs == UTM


def test_on_a_geographic_grid_areas_are_those_on_the_ellipsoid():
    positive = np.zeros((40, 60), bool)
    positive[3:17, 5:40] = True
    positive[5:9, 9:20] = False
    positive[30, 30] = True
    grid = Affine(0.01, 0, -46.0, 0, -0.01, -23.0)
    frame = traced(on_grid(positive, transform=grid, crs="EPSG:4326"), min_area_m2=10)
    globe = pyproj.Geod(ellps="WGS84")
    for row in frame.itertuples():
        dense = shapely.segmentize(row.geometry, 0.0005)  # a parallel is no geodesic
        area, _ = globe.geometry_area_perimeter(shapely.orient_polygons(dense))
        assert row.area_m2 == pytest.approx(abs(area), rel=1e-7)
        assert row.perimeter_m == pytest.approx(globe.geometry_length(dense.boundary), rel=1e-5)
    assert len(traced(on_grid(positive, transform=grid, crs="EPSG:4326"), min_area_m2=2e6)) == 1


def test_feet_are_turned_into_metres():
    frame = traced(on_grid(np.ones((1, 1), bool), transform=Affine(10, 0, 0, 0, -10, 0), crs="EPSG:2263"))
    assert frame.area_m2[0] == pytest.approx(100 * 0.3048006096**2)
    assert frame.perimeter_m[0] == pytest.approx(40 * 0.3048006096)


def test_a_class_is_chosen_by_its_label():
    values = np.zeros((2, 4, 4), "float32")
    values[1, 1, 1] = 0.9
    both = on_grid(values, schema.SCORES, **{"class": ["old", "new"]})
    assert len(traced(both, class_="new")) == 1
    assert len(traced(both, class_="old")) == 0
    with pytest.raises(BadInput, match=r"class_ must be one of \['old', 'new'\]. Got class_=None"):
        traced(both)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"threshold": 1.5}, "threshold must lie in 0..1"),
        ({"threshold": float("nan")}, "threshold must lie in 0..1"),
        ({"min_area_m2": -1}, "min_area_m2 must be 0 or more"),
        ({"connectivity": 6}, "connectivity must be 4 or 8"),
    ],
)
def test_numbers_out_of_range_are_named(wrong, says):
    with pytest.raises(BadInput, match=says):
        traced(on_grid(np.zeros((3, 3), "float32")), **wrong)


def test_scores_of_other_dims_dtypes_or_grids_are_refused():
    with pytest.raises(BadInput, match=r"scores must be uint8 \(p x 250\), float or bool. Got int16"):
        traced(on_grid(np.zeros((3, 3), "int16")))
    with pytest.raises(BadInput, match="scores must have dims"):
        traced(on_grid(np.zeros((1, 3, 3), "float32"), schema.MOSAIC))
    with pytest.raises(BadInput, match="scores must have a CRS"):
        traced(on_grid(np.zeros((3, 3), "float32")).drop_vars("spatial_ref"))


def test_void_scores_are_no_landslide_at_any_threshold():
    stored = np.full((4, 4), 255, "uint8")
    assert len(traced(on_grid(stored), threshold=0)) == 0
    assert len(traced(on_grid(np.full((4, 4), np.nan, "float32")), threshold=0)) == 0


def test_one_task_a_tile_and_small_chunks_are_joined():
    lazy = polygons._tiles(da.zeros((5000, 300), chunks=(512, 100)))
    assert lazy.chunks == ((2048, 2048, 904), (300,))
    assert polygons._tiles(da.zeros((9000, 10), chunks=(4096, 10))).chunks[0] == (4096, 4096, 808)


def test_the_benchmark_runs():
    script = Path(__file__).parents[1] / "benchmarks" / "vectorize.py"
    small = ["--size", "256", "--repeats", "1", "--no-memory"]
    out = subprocess.run([sys.executable, script, *small], capture_output=True, text=True, check=True)
    line = json.loads(out.stdout)
    assert line["identical"] is True
    assert line["polygons"] > 0


@pytest.mark.slow
def test_the_benchmark_of_very_many_polygons_runs():
    script = Path(__file__).parents[1] / "benchmarks" / "vectorize.py"
    small = ["--million", "--size", "128"]
    out = subprocess.run([sys.executable, script, *small], capture_output=True, text=True, check=True)
    line = json.loads(out.stdout)
    assert line["table_polygons"] == line["written_polygons"] >= line["shaped_polygons"] > 0


# --- shaping ---------------------------------------------------------------------------------------------------------


@given(positive=maps, connectivity=st.sampled_from([4, 8]))
def test_filled_areas_have_no_holes_and_swallow_what_lay_in_them(positive, connectivity):
    frame = inventory.fill_holes(traced(on_grid(positive), connectivity=connectivity))
    labels, n = ndimage.label(positive)
    expected = np.zeros_like(positive)
    for i in range(n):
        expected |= ndimage.binary_fill_holes(labels == i + 1)
    assert frame.geometry.is_valid.all()
    assert shapely.union_all(frame.geometry).area == 64 * expected.sum()
    np.testing.assert_allclose(frame.area_m2.sum(), 64 * expected.sum())


def test_holes_are_filled_up_to_an_area():
    positive = np.ones((9, 12), bool)
    positive[2, 2] = positive[5:7, 5:8] = False
    frame = traced(on_grid(positive))
    assert inventory.fill_holes(frame, max_area_m2=64).area_m2[0] == 64 * (9 * 12 - 6)
    assert inventory.fill_holes(frame, max_area_m2=63).area_m2[0] == frame.area_m2[0]
    assert inventory.fill_holes(frame).perimeter_m[0] == 2 * (9 + 12) * 8
    with pytest.raises(BadInput, match="max_area_m2 must be 0 or more"):
        inventory.fill_holes(frame, max_area_m2=-1)


def test_simplified_polygons_stay_apart_and_keep_what_they_share():
    frame = traced(on_grid(noise((200, 180))))
    simple = inventory.simplify(frame, tolerance_m=16)
    corners = [shapely.get_num_coordinates(each.geometry.to_numpy()).sum() for each in (simple, frame)]
    assert corners[0] < 0.6 * corners[1]
    assert simple.geometry.is_valid.all()
    assert abs(simple.area_m2.sum() / frame.area_m2.sum() - 1) < 0.05
    one, other = shapely.STRtree(simple.geometry).query(simple.geometry, predicate="intersects")
    pairs = simple.geometry.to_numpy()[one[one < other]], simple.geometry.to_numpy()[other[one < other]]
    assert shapely.area(shapely.intersection(*pairs)).sum() == 0
    np.testing.assert_allclose(simple.area_m2, simple.area)
    assert inventory.simplify(frame, tolerance_m=0).geometry.geom_equals(frame.geometry).all()


def test_what_cannot_be_simplified_says_so():
    frame = traced(on_grid(np.ones((3, 3), bool)))
    with pytest.raises(BadInput, match="frame must have a projected CRS"):
        inventory.simplify(frame.to_crs(4326), tolerance_m=5)
    with pytest.raises(BadInput, match="tolerance_m must be 0 or more"):
        inventory.simplify(frame, tolerance_m=-5)
    with pytest.raises(BadInput, match="hold polygons that do not overlap"):
        inventory.simplify(gpd.GeoDataFrame(geometry=[*frame.geometry, *frame.buffer(5)], crs=UTM), tolerance_m=5)


# --- attributes ------------------------------------------------------------------------------------------------------


@given(positive=maps, chunks=tiles, seed=st.integers(0, 99))
def test_statistics_in_polygons_are_those_of_labelled_pixels(positive, chunks, seed):
    values = np.random.default_rng(seed).integers(0, 9, (2, *positive.shape)).astype("uint16")
    known = (values != 0).all(axis=0)
    frame = traced(on_grid(positive))
    with dask.config.set(scheduler="synchronous"):
        image = on_grid(values, schema.MOSAIC, chunks=chunks, nodata=0, band=["red", "nir"])
        said = inventory.summarize(frame, image)
    labels, n = ndimage.label(positive)
    for i in range(n):
        pixels = values[:, (labels == i + 1) & known]
        for band, name in zip(pixels, ("red", "nir")):
            expected = (band.mean(), band.min(), band.max()) if band.size else (np.nan,) * 3
            got = [said[f"{name}_{statistic}"][i] for statistic in ("mean", "min", "max")]
            np.testing.assert_allclose(got, expected)


@pytest.mark.parametrize("aspect", [0.0, 45.0, 130.0, 250.0])
def test_terrain_finds_the_plane_a_scar_lies_on(aspect):
    y, x = np.mgrid[0:120, 0:140] * 8.0
    across, down = np.sin(np.radians(aspect)), np.cos(np.radians(aspect))
    height = (3000 - 0.5 * (x * across - y * down)).astype("float32")
    height[:5] = np.nan
    turned = shapely.affinity.rotate(shapely.box(-40, -150, 40, 150), -aspect)
    place = shapely.affinity.translate(turned, 360_560, 7_399_520)
    frame = gpd.GeoDataFrame(geometry=[place, shapely.affinity.translate(turned, 0, 0)], crs=UTM)
    with dask.config.set(scheduler="synchronous"):
        said = inventory.terrain(frame, on_grid(height, chunks=(37, 50)))
    first = said.iloc[0]
    assert first.slope == pytest.approx(np.degrees(np.arctan(0.5)), abs=1e-3)
    assert abs((first.aspect - aspect + 180) % 360 - 180) < 1e-3
    assert (first.length_m, first.width_m) == pytest.approx((300, 80), abs=0.01)
    assert first.relief == pytest.approx(0.5 * 300, rel=0.1)
    assert said.iloc[1][["slope", "aspect", "length_m", "elevation_mean"]].isna().all()


def test_attributes_need_a_name_a_crs_and_a_plane():
    frame = traced(on_grid(np.ones((3, 3), bool)))
    image = on_grid(np.ones((3, 3), "float32"))
    with pytest.raises(BadInput, match="image must have a name"):
        inventory.summarize(frame, image.rename(None))
    with pytest.raises(BadInput, match="frame must have a CRS"):
        inventory.summarize(gpd.GeoDataFrame(geometry=list(frame.geometry)), image)
    with pytest.raises(BadInput, match="frame must have a CRS"):
        inventory.terrain(frame.set_crs(None, allow_override=True), image)
    level = inventory.terrain(frame, image)
    assert level.slope[0] == 0
    assert np.isnan(level.aspect[0])
    assert len(inventory.terrain(frame.iloc[:0], image)) == 0

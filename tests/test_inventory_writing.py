"""Inventories in files: every format reads back, also one written batch by batch, and nothing is half written."""

import json

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from affine import Affine
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import ndimage

from lsdask import inventory, schema
from lsdask.errors import BadInput, NotFound
from lsdask.inventory import polygons, writing

UTM = "EPSG:32723"
TRANSFORM = Affine(8.0, 0.0, 360_000.0, 0.0, -8.0, 7_400_000.0)
SUFFIXES = (".parquet", ".gpkg", ".fgb", ".geojson")


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


def on_grid(values, *, chunks=None):
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    return schema.wrap(data, GeoBox(values.shape, TRANSFORM, UTM), schema.MASK, name="scores")


def blobs(shape=(260, 170), seed=0):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape, dtype="float32"), 2)
    return np.clip((smooth - 0.5) * 10 + 0.4, 0, 1)


def by_place(frame):
    """Rows in an order of their own, without ids."""
    bounds = frame.bounds
    order = np.lexsort((bounds.minx, bounds.miny, frame.area_m2))
    return frame.iloc[order].drop(columns="id").reset_index(drop=True)


def same_rows(mine, theirs):
    mine, theirs = by_place(mine), by_place(theirs)
    assert mine.crs == theirs.crs
    assert (mine.normalize().to_wkb() == theirs.normalize().to_wkb()).all()
    pd.testing.assert_frame_equal(mine.drop(columns="geometry"), theirs.drop(columns="geometry"), check_exact=True)


# --- batches ---------------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    share=st.sampled_from([0.1, 0.5, 0.65, 0.9]),
    chunks=st.tuples(st.integers(1, 9), st.integers(3, 31)),
    at_once=st.integers(1, 9),
    connectivity=st.sampled_from([4, 8]),
)
def test_batches_together_are_the_whole_table(seed, shape, share, chunks, at_once, connectivity):
    positive = np.random.default_rng(seed).random(shape) < share
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polygons, "CHUNK", 1)
        patch.setattr(polygons, "_at_once", lambda client: at_once)
        found = list(inventory.batches(on_grid(positive, chunks=chunks), connectivity=connectivity))
        cut = inventory.vectorize(on_grid(positive, chunks=chunks), connectivity=connectivity)
    whole = inventory.vectorize(on_grid(positive), connectivity=connectivity)
    same_rows(pd.concat(found), whole)
    assert pd.concat(found).id.tolist() == list(range(1, len(whole) + 1))
    assert (cut.to_wkb() == whole.to_wkb()).all().all()


def test_a_polygon_leaves_with_the_row_of_tiles_it_ends_in(monkeypatch):
    monkeypatch.setattr(polygons, "CHUNK", 1)
    monkeypatch.setattr(polygons, "_at_once", lambda client: 1)
    positive = np.zeros((40, 20), bool)
    positive[3, 3] = positive[8:12, 5] = positive[9:35, 9] = positive[20, 12] = True
    read = []
    lazy = da.map_blocks(
        lambda block: read.append(1) or block, da.from_array(positive, chunks=10), meta=np.empty((0, 0), bool)
    )
    image = schema.wrap(lazy, GeoBox((40, 20), TRANSFORM, UTM), schema.MASK, name="scores")
    found, seen = [], []
    for frame in inventory.batches(image):
        found.append(sorted((frame.area_m2 / 64).tolist()))
        seen.append(len(read))
    assert found == [[1], [4], [1], [26]]
    assert seen == [2, 4, 6, 8]


@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 30)),
    share=st.sampled_from([0.1, 0.3, 0.5, 0.65]),
    chunks=st.tuples(st.integers(1, 9), st.integers(3, 31)),
    connectivity=st.sampled_from([4, 8]),
    most=st.sampled_from([64.0, 300.0, np.inf]),
    tolerance=st.sampled_from([5.0, 16.0, 60.0]),
)
def test_batches_apart_are_shaped_as_the_whole_table_is(seed, shape, share, chunks, connectivity, most, tolerance):
    positive = np.random.default_rng(seed).random(shape) < share

    def shaped(frame):
        return inventory.simplify(inventory.fill_holes(frame, max_area_m2=most), tolerance_m=tolerance)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polygons, "CHUNK", 1)
        patch.setattr(polygons, "_at_once", lambda client: 1)
        found = list(inventory.batches(on_grid(positive, chunks=chunks), connectivity=connectivity, apart=True))
    whole = inventory.vectorize(on_grid(positive), connectivity=connectivity)
    same_rows(pd.concat(found), whole)
    assert pd.concat(found).id.tolist() == list(range(1, len(whole) + 1))
    mine, theirs = pd.concat(map(shaped, found)), shaped(whole)
    assert sorted(mine.normalize().to_wkb()) == sorted(theirs.normalize().to_wkb())


def test_batches_apart_leave_once_nothing_to_come_can_meet_them(monkeypatch):
    monkeypatch.setattr(polygons, "CHUNK", 1)
    monkeypatch.setattr(polygons, "_at_once", lambda client: 1)
    positive = np.zeros((60, 20), bool)
    positive[3, 3] = True  # alone
    positive[8:12, 5] = positive[9:35, 9] = True  # beside one that goes on: it could still turn west
    positive[14, 2] = True
    positive[44:53, 4] = positive[46, 2] = True  # and one beside the upper end of one that goes on
    found = inventory.batches(on_grid(positive, chunks=10), apart=True)
    assert [sorted((frame.area_m2 / 64).tolist()) for frame in found] == [[1], [], [], [1, 4, 26], [], [1, 9]]


def test_boxes_that_meet_in_a_chain_leave_together():
    boxes = np.array([[0, 8, 2, 10], [2, 6, 4, 8], [4, 3, 5, 6], [9, 8, 10, 10]], float)
    for below, free in ((3, [0, 0, 0, 1]), (2.9, [1, 1, 1, 1]), (8, [0, 0, 0, 0]), (-np.inf, [1, 1, 1, 1])):
        assert polygons.free_block(boxes, below).tolist() == [bool(each) for each in free]
    assert polygons.free_block(np.empty((0, 4)), 0.0).tolist() == []


def test_small_ones_are_left_out_of_batches_too(monkeypatch):
    monkeypatch.setattr(polygons, "CHUNK", 1)
    monkeypatch.setattr(polygons, "_at_once", lambda client: 3)
    image = on_grid(blobs(), chunks=50)
    found = pd.concat(inventory.batches(image, min_area_m2=1000))
    same_rows(found, inventory.vectorize(image, min_area_m2=1000))
    assert found.area_m2.min() >= 1000
    assert len(found) < len(inventory.vectorize(image))


@pytest.mark.cluster
def test_workers_of_a_cluster_trace_the_same(monkeypatch):
    monkeypatch.setattr(polygons, "CHUNK", 1)
    monkeypatch.setattr(polygons, "AT_ONCE", 1)
    image = on_grid(blobs(), chunks=50)
    with (
        LocalCluster(1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        found = list(inventory.batches(image, client=client))
        whole = inventory.vectorize(image, client=client)
    assert len(found) > 2
    same_rows(pd.concat(found), whole)
    same_rows(whole, inventory.vectorize(image))


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_written_batch_by_batch_holds_the_table(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(polygons, "CHUNK", 1)
    monkeypatch.setattr(polygons, "_at_once", lambda client: 3)
    monkeypatch.setattr(writing, "ROWS", 7)
    image = on_grid(blobs(), chunks=50)
    path = inventory.write(inventory.batches(image, connectivity=8), tmp_path / f"slides{suffix}")
    whole, read = inventory.vectorize(image, connectivity=8), inventory.load(path)
    assert len(whole) > 20
    assert {"Polygon", "MultiPolygon"} <= set(whole.geom_type)
    assert read.crs == whole.crs
    mine, theirs = by_place(read), by_place(whole)
    assert mine.geometry.geom_equals(theirs.geometry).all()
    for column in ("area_m2", "perimeter_m", "mean_score", "max_score"):
        np.testing.assert_allclose(mine[column], theirs[column], rtol=1e-14)
    assert sorted(read.id) == whole.id.tolist()


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb"])
def test_gdal_finds_one_kind_of_geometry(tmp_path, suffix):
    path = inventory.write(inventory.vectorize(on_grid(blobs()), connectivity=8), tmp_path / f"slides{suffix}")
    assert pyogrio.read_info(path)["geometry_type"] == "MultiPolygon"


def test_geoparquet_says_what_it_holds_and_is_read_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "ROWS", 10)
    frame = inventory.vectorize(on_grid(blobs()))
    path = inventory.write(frame, tmp_path / "slides.parquet")
    footer = json.loads(pq.read_metadata(path).metadata[b"geo"])
    assert footer["version"] == "1.1.0"
    column = footer["columns"]["geometry"]
    assert column["geometry_types"] == ["Polygon"]
    assert column["bbox"] == frame.total_bounds.tolist()
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32723}
    assert pq.read_metadata(path).num_row_groups == -(-len(frame) // 10)
    same_rows(gpd.read_parquet(path, columns=list(frame)), frame)
    box = (360_200, 7_399_000, 360_600, 7_399_300)
    part = gpd.read_parquet(path, bbox=box)
    assert 0 < len(part) < len(frame)
    assert sorted(part.id) == sorted(frame[frame.envelope.intersects(shapely.box(*box))].id)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_inventory_of_nothing_is_a_file(tmp_path, suffix):
    path = inventory.write(inventory.vectorize(on_grid(np.zeros((9, 9), bool))), tmp_path / f"none{suffix}")
    assert len(inventory.load(path)) == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path, suffix):
    frame = inventory.vectorize(on_grid(blobs()))
    path = inventory.write(frame, tmp_path / f"slides{suffix}")
    before = path.read_bytes()

    def failing():
        yield frame
        raise RuntimeError("the store is gone")

    with pytest.raises(RuntimeError, match="the store is gone"):
        inventory.write(failing(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_says_so(tmp_path):
    frame = inventory.vectorize(on_grid(np.ones((3, 3), bool)))
    path = tmp_path / "slides.fgb"
    with pytest.raises(BadInput, match="path must end in one of"):
        inventory.write(frame, tmp_path / "slides.txt")
    with pytest.raises(NotFound, match="path must lie in a folder that exists"):
        inventory.write(frame, tmp_path / "no" / "slides.fgb")
    with pytest.raises(BadInput, match=r"polygons must be one table or more\. Got none"):
        inventory.write([], path)
    with pytest.raises(BadInput, match="polygons must have a CRS"):
        inventory.write(frame.set_crs(None, allow_override=True), path)
    with pytest.raises(BadInput, match=r"polygons must be Polygons and MultiPolygons\. Got Point"):
        inventory.write(frame.set_geometry(frame.centroid), path)
    with pytest.raises(BadInput, match="polygons must all have the columns"):
        inventory.write([frame, frame.drop(columns="id")], path)
    assert list(tmp_path.iterdir()) == []

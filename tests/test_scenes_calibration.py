"""Calibration: against the formula in plain numpy, for what catalogues really say of Sentinel-2 and Landsat."""

from datetime import UTC, datetime

import dask
import dask.array as da
import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from lsdask import mosaic, scenes, schema
from lsdask.errors import BadInput

GRID = GeoBox((4, 6), Affine(10, 0, 400_000, 0, -10, 7_400_000), "EPSG:32723")
OLD, NEW = datetime(2021, 6, 1, 13, tzinfo=UTC), datetime(2023, 6, 1, 13, tzinfo=UTC)


def item_of(folder, name, values, when, *, said=None, **properties):
    """A Sentinel-2 item of red and scl; ``said``: scale and offset of its raster extension."""
    made = pystac.Item(name, None, [-45, -23, -44, -22], when, {"proj:code": "EPSG:32723", **properties})
    profile = {"driver": "GTiff", "count": 1, "height": 4, "width": 6, "crs": GRID.crs, "transform": GRID.transform}
    for key, data in (("red", values.astype("uint16")), ("scl", np.full((4, 6), 4, "uint8"))):
        with rasterio.open(folder / f"{name}_{key}.tif", "w", dtype=data.dtype, nodata=0, **profile) as file:
            file.write(data, 1)
        about = {"data_type": str(data.dtype), "nodata": 0} | ({} if key == "scl" else said or {})
        fields = {"proj:shape": [4, 6], "proj:transform": list(GRID.transform)[:6], "raster:bands": [about]}
        made.add_asset(key, pystac.Asset(str(folder / f"{name}_{key}.tif"), roles=["data"], extra_fields=fields))
    return made


def values_of(seed, shape=(4, 6)):
    values = np.random.default_rng(seed).integers(0, 8000, shape)
    values[0, 0], values[0, 1], values[0, 2] = 0, 400, 1000
    return values


CATALOGUES = {
    # what they say of a scene of baseline 05.09: properties, raster extension; and the offset its pixels have
    "declared": ({"s2:processing_baseline": "05.09"}, {"scale": 1e-4, "offset": -0.1}, -0.1),
    "silent, but its baseline": ({"s2:processing_baseline": "05.09"}, {}, -0.1),
    "silent": ({}, {}, -0.1),
    "taken back": ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}, {}, 0.0),
    "taken back, yet declared": (
        {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True},
        {"scale": 1e-4, "offset": -0.1},
        0.0,
    ),
    "not taken back": ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False}, {}, -0.1),
    "older catalogue": ({"sentinel:processing_baseline": "04.00", "sentinel:boa_offset_applied": False}, {}, -0.1),
}


@pytest.mark.parametrize("name", CATALOGUES)
def test_dates_before_and_after_baseline_0400_compare_whatever_the_catalogue_says(tmp_path, name):
    properties, said, offset = CATALOGUES[name]
    shift = 1000 if offset else 0
    true = values_of(1)
    stored = np.where(true > 0, true + shift, 0)
    before = {"s2:processing_baseline": "03.00"} if properties else {}
    old_said = said and {**said, "offset": 0}
    items = [
        item_of(tmp_path, "old", true, OLD, said=old_said, **before),
        item_of(tmp_path, "new", stored, NEW, said=said, **properties),
    ]
    cube = scenes.load(items, bands=["red"], grid=GRID, sensor="sentinel-2-l2a", chunks=3)
    np.testing.assert_array_equal(cube.offset.values, [[0.0], [offset]])
    found = scenes.reflectance(cube)
    assert (found.dtype, found.chunks) == ("float32", cube.chunks)
    for date in (0, 1):
        np.testing.assert_allclose(found.values[date, 0], np.where(true > 0, true * 1e-4, np.nan), atol=2e-7)
    even = scenes.harmonize(cube)
    assert (even.dtype, schema.nodata(even), even.chunks) == ("uint16", 0, cube.chunks)
    np.testing.assert_array_equal(even.values[0], cube.values[0])
    np.testing.assert_array_equal(even.values[1, 0], true)
    np.testing.assert_array_equal(even.offset.values, [[0.0], [0.0]])
    np.testing.assert_allclose(scenes.reflectance(even).values, found.values, atol=2e-7)


def test_reprocessed_scenes_of_before_2022_go_by_their_baseline_not_their_date(tmp_path):
    item = item_of(tmp_path, "a", values_of(1), OLD, **{"s2:processing_baseline": "05.00"})
    cube = scenes.load([item], bands=["red"], grid=GRID, sensor="sentinel-2-l2a")
    assert cube.offset.item() == -0.1


def test_dark_pixels_become_the_number_beside_void_and_void_stays(tmp_path):
    stored = np.array([[0, 1, 999, 1000, 1001, 65535]] * 4)
    items = [item_of(tmp_path, "a", stored, OLD), item_of(tmp_path, "b", stored, NEW)]
    even = scenes.harmonize(scenes.load(items, bands=["red"], grid=GRID, sensor="sentinel-2-l2a"))
    np.testing.assert_array_equal(even.values[1, 0, 0], [0, 1, 1, 1, 1, 64535])
    np.testing.assert_array_equal(schema.valid(even).values[1, 0], [False, True, True, True, True, True])
    alone = scenes.load(items[1:], bands=["red"], grid=GRID, sensor="sentinel-2-l2a")
    np.testing.assert_array_equal(scenes.harmonize(alone).values, alone.values)
    np.testing.assert_array_equal(scenes.harmonize(alone, offset=0).values[0], even.values[1])


@given(
    shift=st.integers(-70_000, 70_000),
    nodata=st.sampled_from([None, 0, 7, 65535]),
    seed=st.integers(0, 99),
)
def test_harmonizing_integers_never_wraps_makes_or_loses_void(shift, nodata, seed):
    values = np.random.default_rng(seed).integers(0, 65536, (2, 1, 5, 7)).astype("uint16")
    values[0, 0, 0, :4] = 0, 7, 65535, 1
    got = scenes.harmonize_block(values, np.array([[shift], [0]], "float64"), nodata=nodata)
    void = np.zeros_like(values, bool) if nodata is None else values == nodata
    exact = values.astype(int) + np.array([shift, 0]).reshape(2, 1, 1, 1)
    assert got.dtype == "uint16"
    if nodata is not None:
        np.testing.assert_array_equal(got == nodata, void)
    fits = (exact >= 0) & (exact <= 65535) & ~void & (exact != (-1 if nodata is None else nodata))
    np.testing.assert_array_equal(got[fits], exact[fits])
    low, high = ~void & (exact < 0), ~void & (exact > 65535)
    assert (got[low] <= 1).all()
    assert (got[high] >= 65534).all()


def test_floats_are_shifted_too_and_nan_stays():
    values = np.array([[[[0.5, np.nan]]]], "float32")
    got = scenes.harmonize_block(values, np.array([[-0.25]]), nodata=np.nan)
    assert got.dtype == "float32"
    np.testing.assert_array_equal(got, [[[[0.25, np.nan]]]])


def test_landsat_by_its_table_and_by_its_items(tmp_path):
    values = values_of(3)
    for said in ({}, {"scale": 2.75e-5, "offset": -0.2}):
        item = item_of(tmp_path, "a", values, NEW, said=said)
        cube = scenes.load([item], bands=["red"], grid=GRID, sensor=None if said else "landsat-8-9-c2-l2")
        expected = np.where(values > 0, values * 2.75e-5 - 0.2, np.nan)
        np.testing.assert_allclose(scenes.reflectance(cube).values[0, 0], expected, atol=1e-6)
        np.testing.assert_array_equal(scenes.harmonize(cube).values, cube.values)


def test_what_is_not_known_is_refused(tmp_path):
    items = [
        item_of(tmp_path, "a", values_of(1), NEW, **{"s2:processing_baseline": "05.00"}),
        item_of(tmp_path, "b", values_of(2), NEW.replace(hour=14), **{"s2:processing_baseline": "03.00"}),
    ]
    plain = scenes.load(items, bands=["red"], grid=GRID)
    options = {"grid": GRID, "sensor": "sentinel-2-l2a"}
    mixed = scenes.load(items, bands=["red"], groupby="solar_day", **options)
    quality = scenes.load(items, bands=["red", "scl"], **options)
    for cube, rule in (
        (plain, r"cube must have a coordinate 'scale' .*sensor="),
        (mixed, r"scale and offset must be known.* several at 2023-06-01T13:00:00 for red. Load with groupby='id'"),
        (quality, r"scale and offset must be known.* at 2023-06-01T13:00:00 for scl"),
    ):
        for asked in (scenes.reflectance, scenes.harmonize):
            with pytest.raises(BadInput, match=rule):
                asked(cube)
    assert "scale" not in plain.coords
    apart = scenes.load(items, bands=["red"], groupby="id", **options)
    np.testing.assert_array_equal(apart.offset.values[:, 0], [-0.1, 0.0])
    uneven = apart.assign_coords(scale=(("time", "band"), [[1e-4], [2e-4]]))
    with pytest.raises(BadInput, match=r"scale must be the same at all times.* several for red"):
        scenes.harmonize(uneven)


def test_chunks_that_no_file_touches_stay_without_memory(tmp_path):
    item = item_of(tmp_path, "a", values_of(1), NEW)
    wide = GeoBox((4, 6), GRID.transform @ Affine.translation(1000, 0), GRID.crs)
    cube = scenes.load([item], bands=["red"], grid=wide, sensor="sentinel-2-l2a")
    for made in (scenes.harmonize(cube, offset=0), scenes.reflectance(cube)):
        block = dask.get(dict(made.__dask_graph__()), (made.data.name, 0, 0, 0, 0))
        assert not any(block.strides)
        assert not schema.valid(made).any()


def test_a_calibrated_cube_is_a_cube_like_any_other(tmp_path):
    items = [item_of(tmp_path, "a", values_of(1), OLD), item_of(tmp_path, "b", values_of(2), NEW)]
    cube = scenes.load(items, bands=["red"], grid=GRID, sensor="sentinel-2-l2a")
    for made in (scenes.harmonize(cube), scenes.reflectance(cube)):
        assert isinstance(made.data, da.Array)
        assert schema.geobox(made) == GRID
        assert schema.bands(made) == ("red",)
        mosaic.write(mosaic.composite(made, method="median"), tmp_path / f"{made.dtype}.zarr", progress=False).check()
    loaded = cube.compute()
    np.testing.assert_array_equal(scenes.harmonize(loaded).values, scenes.harmonize(cube).values)
    np.testing.assert_array_equal(scenes.reflectance(loaded).values, scenes.reflectance(cube).values)

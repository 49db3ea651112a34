"""Mosaics: composites against a loop over pixels, stores against the image in memory."""

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from dask._task_spec import Alias
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from lsdask import mosaic, scenes, schema, store
from lsdask.errors import BadInput, OtherPlan, Unreadable

GRID = GeoBox.from_bbox((0, 0, 1000, 1000), "EPSG:32723", resolution=10)
VOID = {"uint8": 0, "int16": -7, "float32": np.nan}


def cube_of(values, *, nodata, chunks=None):
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    grid = GRID[: values.shape[2], : values.shape[3]]
    coords = {"band": [f"b{i}" for i in range(values.shape[1])]}
    return schema.wrap(data, grid, schema.CUBE, name="cube", coords=coords, nodata=nodata)


def random_cube(seed, shape, dtype, *, void=0.3):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 120, shape).astype(dtype)
    values[rng.random(shape) < void / shape[1]] = VOID[dtype]
    return values


def by_pixel(values, shown, method, nodata):
    """Composite pixel by pixel, as one would by hand."""
    image = np.full(values.shape[1:], nodata, values.dtype)
    for y, x in np.ndindex(values.shape[2:]):
        column = values[:, :, y, x]
        known = ~np.isnan(column) if np.isnan(nodata) else column != nodata
        dates = column[known.all(axis=1) & shown[:, y, x]].astype("float64")
        if len(dates):
            reduced = {
                "first": lambda d: d[0],
                "last": lambda d: d[-1],
                "mean": lambda d: d.mean(axis=0),
                "median": lambda d: np.median(d, axis=0),
                "max": lambda d: d.max(axis=0),
                "min": lambda d: d.min(axis=0),
            }[method](dates)
            image[:, y, x] = reduced if values.dtype.kind == "f" else np.rint(reduced)
    return image


@pytest.mark.parametrize("method", mosaic.METHODS)
@given(
    dtype=st.sampled_from(list(VOID)),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(2, 6), st.integers(2, 6)),
    chunks=st.tuples(*[st.integers(1, 7)] * 4),
    masked=st.sampled_from([None, "tyx", "yx"]),
    seed=st.integers(0, 99),
)
def test_composite_equals_a_loop_over_pixels(dtype, method, shape, chunks, masked, seed):
    values = random_cube(seed, shape, dtype)
    cube = cube_of(values, nodata=VOID[dtype], chunks=tuple(np.minimum(chunks, shape)))
    shown = np.random.default_rng(seed + 1).random((shape[0], *shape[2:])) < 0.7
    mask, hidden = None, np.ones_like(shown)
    if masked is not None:
        mask = cube[:, 0].copy(data=da.from_array(shown, chunks=2)).drop_vars("band")
        mask = mask if masked == "tyx" else mask[0]
        hidden = shown if masked == "tyx" else np.broadcast_to(shown[0], shown.shape)
    result = mosaic.composite(cube, method=method, mask=mask)
    expected = by_pixel(values, hidden, method, VOID[dtype])
    got = result.compute(scheduler="synchronous")
    assert isinstance(result.data, da.Array)
    assert (got.dtype, got.dims) == (values.dtype, schema.MOSAIC)
    np.testing.assert_allclose(got.values, expected, rtol=1e-6)
    eager = mosaic.composite(cube.compute(scheduler="synchronous"), method=method, mask=mask)
    np.testing.assert_array_equal(eager.values, got.values)


def test_a_composite_keeps_grid_bands_and_nodata():
    cube = cube_of(random_cube(1, (3, 2, 20, 30), "int16"), nodata=-7, chunks=(1, 1, 8, 8))
    image = mosaic.composite(cube)
    assert schema.geobox(image) == schema.geobox(cube)
    assert schema.bands(image) == ("b0", "b1")
    assert schema.nodata(image) == -7
    assert image.chunks == ((2,), (8, 8, 4), (8, 8, 8, 6))


def test_bands_of_a_pixel_come_from_one_date():
    values = np.array([[[[1]], [[0]]], [[[0]], [[2]]], [[[3]], [[4]]]], "uint8").repeat(2, 2).repeat(2, 3)
    cube = cube_of(values, nodata=0)
    for method in mosaic.METHODS:
        np.testing.assert_array_equal(mosaic.composite(cube, method=method).values[:, 0, 0], [3, 4])


@pytest.mark.parametrize(("dtype", "fill"), [("uint8", 0), ("int16", -32768)])
def test_integers_get_nodata_only_where_a_mask_makes_void(dtype, fill):
    cube = cube_of(np.full((2, 1, 2, 2), 9, dtype), nodata=None)
    assert schema.nodata(mosaic.composite(cube)) is None
    mask = cube[0, 0].drop_vars("band").copy(data=np.array([[True, False], [True, True]]))
    hidden = mosaic.composite(cube, mask=mask)
    assert schema.nodata(hidden) == fill
    np.testing.assert_array_equal(hidden.values[0], [[9, fill], [9, 9]])


def test_bad_cubes_masks_and_methods():
    cube = cube_of(random_cube(1, (3, 2, 8, 8), "uint8"), nodata=0)
    good = cube[:, 0].drop_vars("band") > 0
    with pytest.raises(BadInput, match=r"cube must have dims \('time', 'band', 'y', 'x'\)"):
        mosaic.composite(cube[0])
    with pytest.raises(BadInput, match=r"method must be one of first, last.* Got method='mode'"):
        mosaic.composite(cube, method="mode")
    with pytest.raises(BadInput, match="cube must have at least one time"):
        mosaic.composite(cube[:0])
    with pytest.raises(BadInput, match=r"mask must be bool, True where a pixel is valid. Got dtype=uint8"):
        mosaic.composite(cube, mask=good.astype("uint8"))
    with pytest.raises(BadInput, match=r"mask must have the 3 times of cube. Got 2"):
        mosaic.composite(cube, mask=good[:2])
    with pytest.raises(BadInput, match=r"mask must lie on the grid of cube"):
        mosaic.composite(cube, mask=good[:, 1:])
    with pytest.raises(BadInput, match=r"mask must be an xarray.DataArray"):
        mosaic.composite(cube, mask=good.values)


def test_one_task_a_chunk_once_fused(tmp_path):
    image = mosaic.composite(open_tiles(tmp_path, 4))
    (optimized,) = dask.optimize(image)
    tasks = [task for task in dict(optimized.__dask_graph__()).values() if not isinstance(task, Alias)]
    assert len(tasks) == image.data.npartitions


# Masks


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
    first = {1: "fill", 2720: "clear", 2800: "cloud", 2976: "shadow", 3744: "snow", 6816: "cirrus"}
    qa = quality(np.array([[list(first)]], "uint16"))
    hide = ["fill", "cloud", "cloud_shadow", "cirrus", "snow"]
    mask = mosaic.mask_qa(qa, hide=hide, bits=mosaic.BQA)
    np.testing.assert_array_equal(mask.values[0, 0], [name == "clear" for name in first.values()])


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
    for call, rule in (
        (lambda: mosaic.mask_scl(scl, hide=["clouds"]), "hide must hold some of no_data, defective"),
        (lambda: mosaic.mask_qa(scl, bits=mosaic.BQA), "hide must hold some of fill, cloud, cloud_shadow"),
        (lambda: mosaic.mask_scl(scl.astype("float32")), "scl must be a DataArray of integers"),
        (lambda: mosaic.mask_scl(scl.expand_dims(band=2, axis=1)), "scl must have one band. Got 2"),
        (lambda: mosaic.grow(scl, 1), "mask must be a DataArray of bool"),
        (lambda: mosaic.grow(scl > 0, -1), "pixels must not be negative"),
    ):
        with pytest.raises(BadInput, match=rule):
            call()


# Writing


def open_tiles(folder, side, **options):
    """A real mosaic of side x side files of 16 pixels, two bands, with gaps."""
    for row, column in np.ndindex(side, side):
        values = random_cube([row, column], (1, 2, 16, 16), "uint8")[0]
        place = GRID.transform @ Affine.translation(20 * column, 20 * row)
        profile = {"driver": "GTiff", "dtype": "uint8", "crs": "EPSG:32723", "transform": place, "nodata": 0}
        with rasterio.open(folder / f"{row}_{column}.tif", "w", width=16, height=16, count=2, **profile) as file:
            file.write(values)
    return scenes.open(folder, chunks=16, **options)


@pytest.mark.parametrize(("chunk", "shards"), [(8, 1), (8, 3), (5, 4), (64, 1)])
def test_a_store_holds_the_image_at_any_chunk_and_shard(tmp_path, chunk, shards):
    image = mosaic.composite(open_tiles(tmp_path, 3))
    report = mosaic.write(image, tmp_path / "m.zarr", chunk=chunk, shard=chunk * shards, workers=2, progress=False)
    assert (report.failed, report.skipped) == ((), 0)
    opened = store.open(tmp_path / "m.zarr")
    xr.testing.assert_identical(opened.compute().drop_attrs(), image.compute(scheduler="synchronous").drop_attrs())
    assert schema.geobox(opened) == schema.geobox(image)
    assert schema.nodata(opened) == schema.nodata(image) == 0


def test_a_broken_file_fails_its_shards_only_and_the_next_run_does_these(tmp_path):
    image = mosaic.composite(open_tiles(tmp_path, 3))
    expected = image.compute(scheduler="synchronous").values
    whole = (tmp_path / "1_1.tif").read_bytes()
    (tmp_path / "1_1.tif").write_bytes(b"cut short")
    options = {"chunk": 8, "shard": 16, "workers": 2, "retries": 0, "progress": False}
    first = mosaic.write(image, tmp_path / "m.zarr", **options)
    assert [failure.place for failure in first.failed] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all("1_1.tif must be a raster that can be read" in failure.why for failure in first.failed)
    (tmp_path / "1_1.tif").write_bytes(whole)
    second = mosaic.write(image, tmp_path / "m.zarr", **options).check()
    assert (second.done, second.skipped) == (4, first.done)
    np.testing.assert_array_equal(store.open(tmp_path / "m.zarr").values, expected)


def test_another_image_is_another_plan(tmp_path):
    cube = open_tiles(tmp_path, 2)
    options = {"chunk": 8, "shard": 16, "progress": False}
    mosaic.write(mosaic.composite(cube), tmp_path / "m.zarr", **options)
    assert mosaic.write(mosaic.composite(cube), tmp_path / "m.zarr", **options).done == 0
    with pytest.raises(OtherPlan, match="source"):
        mosaic.write(mosaic.composite(cube, method="last"), tmp_path / "m.zarr", **options)
    with pytest.raises(BadInput, match="image must"):
        mosaic.write(cube.values, tmp_path / "n.zarr")


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_writes_the_same(tmp_path):
    image = mosaic.composite(open_tiles(tmp_path, 3))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        mosaic.write(image, tmp_path / "m.zarr", chunk=8, shard=16, client=client, progress=False).check()
    np.testing.assert_array_equal(store.open(tmp_path / "m.zarr").values, image.compute().values)


def test_reading_says_which_file_is_broken(tmp_path):
    image = mosaic.composite(open_tiles(tmp_path, 1))
    (tmp_path / "0_0.tif").write_bytes(b"")
    with pytest.raises(Unreadable, match=r"0_0.tif"):
        image.compute(scheduler="synchronous")

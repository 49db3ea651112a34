"""Composites against a loop over pixels."""

import pickle
import subprocess
import sys
import time
import weakref
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rasterio
from cubes import GRID, VOID, cube_of, random_cube
from dask._task_spec import Alias
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from lsdask import mosaic, scenes, schema, store
from lsdask.errors import BadInput
from lsdask.mosaic import reducing


def by_pixel(values, shown, method, nodata, score=None):
    """Composite pixel by pixel, as one would by hand: image, looks and scene."""
    image = np.full(values.shape[1:], nodata, values.dtype)
    looks, scene = np.zeros(image.shape[1:], "uint16"), np.full(image.shape[1:], -1, "int16")
    for y, x in np.ndindex(values.shape[2:]):
        column = values[:, :, y, x].astype("float64")
        known = (~np.isnan(column) if np.isnan(nodata) else column != nodata).all(axis=1) & shown[:, y, x]
        if score is not None:
            known &= score[:, y, x] > 0 if method == "mean" else ~np.isnan(score[:, y, x])
        looks[y, x] = known.sum()
        if not known.any():
            continue
        dates, numbers = column[known], np.flatnonzero(known)
        weights = np.ones(len(dates)) if score is None else score[known, y, x]
        apart = np.sqrt(((dates[:, None] - dates[None]) ** 2).sum(axis=2)).sum(axis=1)
        picks = {"first": 0, "last": -1, "medoid": np.argmin(apart), "best": np.argmax(weights)}
        if method in picks:
            reduced, scene[y, x] = dates[picks[method]], numbers[picks[method]]
        else:
            reduced = {
                "mean": lambda d, w=weights: (d * w[:, None]).sum(axis=0) / w.sum(),
                "median": lambda d: np.median(d, axis=0),
                "max": lambda d: d.max(axis=0),
                "min": lambda d: d.min(axis=0),
            }[method](dates)
        image[:, y, x] = reduced if values.dtype.kind == "f" else np.rint(reduced)
    return image, looks, scene


@pytest.mark.parametrize("method", [*mosaic.METHODS, "weighted"])
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
    rng = np.random.default_rng(seed + 1)
    shown = rng.random((shape[0], *shape[2:])) < 0.7
    plane = cube[:, 0].drop_vars("band")
    mask, hidden, score, by = None, np.ones_like(shown), None, None
    if masked is not None:
        mask = plane.copy(data=da.from_array(shown, chunks=2))
        mask = mask if masked == "tyx" else mask[0]
        hidden = shown if masked == "tyx" else np.broadcast_to(shown[0], shown.shape)
    if method in ("best", "weighted"):
        score = rng.integers(0, 4, shown.shape) / 2  # few values, so that there are ties
        score[rng.random(shown.shape) < 0.1] = np.nan
        by = plane.copy(data=da.from_array(score, chunks=3))
    method = "mean" if method == "weighted" else method
    parts = mosaic.composite_parts(cube, method=method, mask=mask, by=by)
    expected = by_pixel(values, hidden, method, VOID[dtype], score)
    image, looks, scene = dask.compute(*parts, scheduler="synchronous")
    assert isinstance(parts.image.data, da.Array)
    assert (image.dtype, image.dims) == (values.dtype, schema.MOSAIC)
    np.testing.assert_allclose(image.values, expected[0], rtol=1e-6)
    np.testing.assert_array_equal(looks.values, expected[1])
    eager = mosaic.composite_parts(cube.compute(scheduler="synchronous"), method=method, mask=mask, by=by)
    np.testing.assert_array_equal(eager.image.values, image.values)
    np.testing.assert_array_equal(eager.looks.values, looks.values)
    assert (scene is None) == (method in ("mean", "median", "max", "min"))
    if scene is not None:
        np.testing.assert_array_equal(scene.values, expected[2])
        np.testing.assert_array_equal(eager.scene.values, expected[2])


@pytest.mark.parametrize("method", ["first", "last", "mean", "max", "min", "best"])
def test_a_step_leaves_what_it_was_given_as_it_is(method):
    # A scheduler may run a task again, on what an earlier one gave.
    values = random_cube(1, (2, 2, 6, 6), "uint8")
    rule = reducing.Rule(method, 0, "uint8", 0 if method == "best" else None)
    before = reducing.fold_block(None, values[:1], rule=rule)
    kept = [None if part is None else part.copy() for part in before]
    first, again = (reducing.fold_block(before, values[1:], rule=rule, start=1) for _ in range(2))
    for part, copy in zip(before, kept):
        np.testing.assert_array_equal(part, copy)
    for one, two in zip(first, again):
        np.testing.assert_array_equal(one, two)


def test_medians_and_means_of_integers_round_halves_to_even():
    values = np.array([[1, 2], [2, 3], [1, 2], [4, 5]], "uint8").reshape(4, 1, 1, 2).repeat(2, 2)
    cube = cube_of(values[:2], nodata=0)
    np.testing.assert_array_equal(mosaic.composite(cube, method="median").values[0, 0], [2, 2])
    np.testing.assert_array_equal(mosaic.composite(cube, method="mean").values[0, 0], [2, 2])
    np.testing.assert_array_equal(mosaic.composite(cube_of(values, nodata=0), method="median").values[0, 0], [2, 2])


@given(
    dates=st.integers(1, 9),
    chunk=st.integers(1, 9),
    strip=st.sampled_from([1, 40, 2**19]),
    masked=st.sampled_from(["tyx", "yx"]),
)
@pytest.mark.parametrize("method", ["median", "medoid"])
def test_strips_and_time_chunks_do_not_show(method, dates, chunk, strip, masked):
    values = random_cube(dates, (dates, 2, 7, 5), "uint8")
    whole, cube = cube_of(values, nodata=0), cube_of(values, nodata=0, chunks=(chunk, 1, 4, 3))
    shown = np.random.default_rng(dates).random((dates, 7, 5)) < 0.7
    mask = whole[:, 0].drop_vars("band").copy(data=shown)
    mask = mask if masked == "tyx" else mask[0]
    expected = mosaic.composite(whole, method=method, mask=mask).values
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reducing, "STRIP", strip)
        got = mosaic.composite(cube, method=method, mask=mask).compute(scheduler="synchronous")
        eager = mosaic.composite(whole, method=method, mask=mask)
    np.testing.assert_array_equal(got.values, expected)
    np.testing.assert_array_equal(eager.values, expected)


def test_the_best_date_by_a_band():
    values = random_cube(5, (6, 3, 8, 9), "int16")
    cube = cube_of(values, nodata=-7, chunks=(1, 2, 4, 5))
    expected = by_pixel(values, np.ones((6, 8, 9), bool), "best", -7, values[:, 1].astype("float64"))
    got = mosaic.composite_parts(cube, method="best", by="b1")
    np.testing.assert_array_equal(got.image.values, expected[0])
    np.testing.assert_array_equal(got.scene.values, expected[2])


def test_void_scores_of_integers_are_no_look():
    cube = cube_of(np.full((2, 1, 2, 2), 9, "uint8"), nodata=None, chunks=(1, 1, 2, 2))
    score = cube[:, 0].drop_vars("band").copy(data=np.array([[[255, 1], [255, 1]], [[2, 255], [255, 1]]], "uint8"))
    score.attrs["_FillValue"] = np.uint8(255)
    image, looks, scene = dask.compute(*mosaic.composite_parts(cube, method="best", by=score))
    np.testing.assert_array_equal(scene.values, [[1, 0], [-1, 0]])
    np.testing.assert_array_equal(looks.values, [[1, 1], [0, 2]])
    np.testing.assert_array_equal(image.values[0], [[9, 9], [0, 9]])
    assert schema.nodata(image) == 0
    assert schema.nodata(scene) == -1


@given(pixels=st.integers(1, 12), chunks=st.tuples(*[st.integers(3, 14)] * 2), seed=st.integers(0, 99))
def test_feathered_means_are_weighted_by_the_distance_to_void(pixels, chunks, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 200, (3, 2, 12, 14)).astype("float32")
    values[0, :, :, 9:], values[1, :, :, :4] = np.nan, np.nan
    values[2, :, rng.random((12, 14)) < 0.1] = np.nan
    cube = cube_of(values, nodata=None, chunks=(1, 2, *chunks))
    weight = np.zeros((3, 12, 14))
    for date, y, x in np.ndindex(weight.shape):
        void = np.argwhere(np.isnan(values[date, 0]))
        far = np.sqrt(((void - (y, x)) ** 2).sum(axis=1)).min() if len(void) else np.inf
        weight[date, y, x] = min(far, pixels) / pixels
    with np.errstate(invalid="ignore"):
        expected = np.nansum(values * weight[:, None], axis=0) / weight.sum(axis=0)
    got = mosaic.composite(cube, method="mean", feather=pixels).compute(scheduler="synchronous")
    np.testing.assert_allclose(got.values, expected, rtol=1e-5)


@pytest.mark.parametrize("lazy", [False, True])
def test_feathering_fades_what_a_mask_hides_as_what_is_void(lazy):
    values = np.random.default_rng(1).integers(1, 200, (2, 2, 12, 14)).astype("float32")
    shown = np.random.default_rng(2).random((2, 12, 14)) < 0.9
    cube = cube_of(values, nodata=None, chunks=(1, 2, 5, 6) if lazy else None)
    mask = cube[:, 0].drop_vars("band").copy(data=shown)
    holed = cube_of(np.where(shown[:, None], values, np.float32("nan")), nodata=None)
    got = mosaic.composite(cube, method="mean", feather=4, mask=mask)
    np.testing.assert_array_equal(got.values, mosaic.composite(holed, method="mean", feather=4).values)


def test_feathering_takes_a_seam_away():
    left, right = np.full((1, 40, 60), 100.0), np.full((1, 40, 60), 200.0)
    left[:, :, 40:], right[:, :, :20] = np.nan, np.nan
    cube = cube_of(np.stack([left, right]).astype("float32"), nodata=None, chunks=(1, 1, 16, 16))
    steps = {n: np.abs(np.diff(mosaic.composite(cube, method="mean", feather=n).values[0, 0])).max() for n in (0, 20)}
    assert steps[0] == 50
    assert steps[20] < 6


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
        by = "b0" if method == "best" else None
        np.testing.assert_array_equal(mosaic.composite(cube, method=method, by=by).values[:, 0, 0], [3, 4])


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
    times = {"time": np.array(["2020-01-01", "2020-02-01", "2020-03-01"], "datetime64[ns]")}
    dated = cube.assign_coords(times)
    with pytest.raises(BadInput, match=r"mask must have the times of cube"):
        mosaic.composite(dated, mask=(dated[::-1, 0] > 0).drop_vars("band"))
    for options, rule in (
        ({"method": "best"}, r"by must be a score for method='best'.*bands b0, b1. Got by=None"),
        ({"method": "best", "by": "ndvi"}, r"by must be a score .* Got by='ndvi'"),
        ({"method": "best", "by": good[:2]}, r"by must have the 3 times of cube"),
        ({"method": "mean", "by": "b0"}, r"by must be a DataArray of weights"),
        ({"method": "median", "by": "b0"}, r"by must be given with method='best' or 'mean' only. Got method='median'"),
        ({"method": "first", "feather": 3}, r"feather must be 0, or pixels to fade over with method='mean'"),
        ({"method": "mean", "feather": 3, "mask": good.astype(int)}, r"mask must be bool"),
    ):
        with pytest.raises(BadInput, match=rule):
            mosaic.composite(cube, **options)


# The graph


def tasks_of(array):
    (optimized,) = dask.optimize(array)
    return [task for task in dict(optimized.__dask_graph__()).values() if not isinstance(task, Alias)]


def dates_on_disk(folder, dates):
    """A cube of one file a date, 64 pixels in chunks of 16."""
    rng = np.random.default_rng(0)
    files = []
    for date in range(dates):
        files.append(folder / f"{date}.tif")
        profile = {"driver": "GTiff", "dtype": "uint16", "crs": "EPSG:32723", "transform": GRID.transform, "nodata": 0}
        with rasterio.open(files[-1], "w", width=64, height=64, count=2, **profile) as file:
            file.write(rng.integers(0, 9, (2, 64, 64), "uint16"))
    return scenes.open(files, times=pd.date_range("2020", periods=dates), chunks=16)


def test_one_task_a_chunk_reduces_all_dates_where_all_are_needed(tmp_path):
    image = mosaic.composite(dates_on_disk(tmp_path, 5), method="median")
    assert len(tasks_of(image.data)) == 16 * (5 + 1)


def test_two_tasks_a_date_and_chunk_where_dates_come_one_by_one(tmp_path):
    image = mosaic.composite(dates_on_disk(tmp_path, 5))
    assert len(tasks_of(image.data)) == 16 * (5 * 2 - 1)  # the first read is fused with its step
    window = image.data[:, 20:30, 20:40]
    assert len(tasks_of(window)) <= 2 * (5 * 2) + 1


def test_parts_share_their_reading(tmp_path):
    reads = []
    cube = cube_of(random_cube(1, (5, 2, 32, 32), "uint8"), nodata=0, chunks=(1, 2, 16, 16))
    counted = cube.copy(data=cube.data.map_blocks(lambda block: reads.append(1) or block, meta=cube.data._meta))
    for method in ("first", "median"):
        reads.clear()
        dask.compute(*(part for part in mosaic.composite_parts(counted, method=method) if part is not None))
        assert len(reads) == 5 * 4


def test_composites_of_one_cube_do_not_mix_when_computed_together():
    cube = cube_of(random_cube(1, (4, 2, 20, 20), "uint8"), nodata=0, chunks=(1, 2, 8, 8))
    by = {"best": "b0"}
    lazy = {method: mosaic.composite(cube, method=method, by=by.get(method)) for method in mosaic.METHODS}
    lazy |= {f"feather {n}": mosaic.composite(cube, method="mean", feather=n) for n in (2, 5)}
    for (name, image), alone in zip(lazy.items(), dask.compute(*lazy.values())):
        np.testing.assert_array_equal(image.compute().values, alone.values, err_msg=name)
    assert len({image.data.name for image in lazy.values()}) == len(lazy)


def lazy_dates(dates, side, *, watch=None):
    """A cube of 4 bands that is made where it is looked at, chunks of 512 pixels."""

    def make(block_info=None):
        place = block_info[None]
        values = np.random.default_rng(place["chunk-location"]).integers(0, 3000, place["chunk-shape"], "uint16")
        if watch is not None:
            watch.append(weakref.ref(values))
            watch.most = max(watch.most, sum(ref() is not None for ref in watch))
        return values

    chunks = ((1,) * dates, (4,), (512,) * (side // 512), (512,) * (side // 512))
    data = da.map_blocks(make, chunks=chunks, dtype="uint16", meta=np.empty((0,) * 4, "uint16"))
    grid = GeoBox((side, side), GRID.transform, GRID.crs)
    return schema.wrap(data, grid, schema.CUBE, name="cube", coords={"band": list("abcd")}, nodata=0)


class Watch(list):
    """Weak references to blocks, and how many of them were ever in memory at once."""

    most = 0


@pytest.mark.parametrize("method", ["first", "last", "mean", "max", "min", "best"])
def test_no_more_than_a_few_dates_are_in_memory_at_once(method):
    watch = Watch()
    cube = lazy_dates(30, 1024, watch=watch)
    image = mosaic.composite(cube, method=method, by="a" if method == "best" else None)
    image.data.map_blocks(lambda block: block[:, :1, :1]).compute(scheduler="synchronous")
    assert len(watch) == 30 * 4
    assert watch.most <= 3


def grown(cube):
    """A mask of a cube that looks at the chunks around."""
    return mosaic.grow(mosaic.mask_scl(cube.isel(band=[0])), 5)


@pytest.mark.parametrize("looks_around", ["a grown mask", "feathering"])
def test_no_more_than_a_few_dates_are_in_memory_where_chunks_look_at_their_neighbours(looks_around):
    watch = Watch()
    cube = lazy_dates(8, 2048, watch=watch)
    around = {"feather": 20} if looks_around == "feathering" else {"mask": grown(cube)}
    image = mosaic.composite(cube, method="mean", **around)
    got = store.reader(image).read(slice(0, 2048), slice(0, 2048))
    assert len(watch) == 8 * 16  # each block is read once
    assert watch.most <= 16
    np.testing.assert_array_equal(got, image.compute(scheduler="threads").values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "most_mb"),
    [
        ("method='first'", 150),
        ("method='mean'", 250),
        ("method='median'", 450),
        ("method='mean', feather=20", 400),
        ("method='first', mask=grown(cube)", 300),
    ],
)
def test_a_hundred_dates_of_a_shard_fit_in_little_memory(options, most_mb):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_mosaic_composites import grown, lazy_dates
from lsdask import mosaic, store
used = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
cube = lazy_dates(100, 2048)
image = mosaic.composite(cube, {options})
before = used()
store.reader(image).read(slice(0, 2048), slice(0, 2048))
print(used() - before)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(printed) < most_mb


def test_a_plan_for_a_continent_is_small_and_quick():
    grid = GeoBox((65536, 65536), GRID.transform, GRID.crs)
    four, one = (da.zeros((100, n, *grid.shape), chunks=(1, n, 512, 512), dtype="uint16") for n in (4, 1))
    cube = schema.wrap(four, grid, schema.CUBE, name="cube", nodata=0)
    scl = schema.wrap(one, grid, schema.CUBE, name="scl")
    started = time.perf_counter()
    mask = mosaic.grow(mosaic.mask_scl(scl), 3)
    image = mosaic.composite(cube, mask=mask)
    assert len(tasks_of(image[:, :1024, :1024].data)) < 3000
    assert time.perf_counter() - started < 10
    plan = image.data.__dask_graph__()
    assert len(pickle.dumps({name: layer for name, layer in plan.layers.items() if name[:5] == "fold-"})) < 2**20


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_composites_the_same():
    cube = cube_of(random_cube(1, (5, 2, 30, 30), "uint8"), nodata=0, chunks=(1, 2, 10, 10))
    mask = mosaic.grow((cube[:, 0] > 20).drop_vars("band"), 2)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        for method in ("first", "median"):
            parts = mosaic.composite_parts(cube, method=method, mask=mask)
            image, looks = dask.compute(parts.image, parts.looks)
            expected = mosaic.composite_parts(cube.compute(), method=method, mask=mask.compute())
            np.testing.assert_array_equal(image.values, expected.image.values)
            np.testing.assert_array_equal(looks.values, expected.looks.values)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(mosaic.METHODS),
    st.lists(st.booleans(), min_size=1, max_size=6),
    st.sampled_from([None, 2, 3]),
)
def test_dates_on_which_no_file_lies_change_nothing_but_the_work(seed, method, bare, masked):
    rng = np.random.default_rng(seed)
    rule = reducing.Rule(method, 0, "uint16", 0 if method == "best" else None)
    shape = (2, 5, 6)
    blocks = [
        np.broadcast_to(np.uint16(0), (1, *shape)) if none else rng.integers(0, 9, (1, *shape)).astype("uint16")
        for none in bare
    ]
    masks = [rng.random((1, 5, 6)) < 0.7 for _ in blocks]
    plane = rng.random((5, 6)) < 0.7
    chosen = {None: [None] * len(blocks), 2: [plane] * len(blocks), 3: masks}[masked]

    def composite(dates):
        if method in reducing.STACKED:
            return reducing.stack_block([[date] for date in dates], {None: None, 2: plane, 3: masks}[masked], rule=rule)
        pixels = None
        for number, (date, mask) in enumerate(zip(dates, chosen)):
            pixels = reducing.fold_block(pixels, date, mask, rule=rule, start=number)
        return pixels

    got, expected = composite(blocks), composite([block.copy() for block in blocks])
    np.testing.assert_array_equal(reducing.image_block(got, rule=rule), reducing.image_block(expected, rule=rule))
    np.testing.assert_array_equal(got.looks, expected.looks)
    if method in reducing.PICKING:
        np.testing.assert_array_equal(got.scene, expected.scene)

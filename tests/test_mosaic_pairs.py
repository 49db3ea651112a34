"""Pairs, seasons and stacks against composites of dates picked by hand; shifts against shifts made in Fourier space."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from cubes import GRID, cube_of, random_cube
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import fft, ndimage

from lsdask import mosaic, schema
from lsdask.errors import BadInput
from lsdask.mosaic.seasons import divide
from lsdask.mosaic.shifts import shift_block

DATES = ["2018-06-01", "2018-08-20", "2018-09-01T01:30", "2018-09-06T23:00", "2018-09-07T00:10", "2018-11-30"]


def dated_cube(*, dates=DATES, dtype="uint8", chunks=(1, 2, 4, 4)):
    values = random_cube(3, (len(dates), 2, 8, 9), dtype)
    return cube_of(values, nodata=0, chunks=chunks).assign_coords(time=pd.to_datetime(dates, format="ISO8601"))


# Pairs


@pytest.mark.parametrize(
    ("options", "pre", "post"),
    [
        ({}, [0, 1, 2], [4, 5]),
        ({"before": 10}, [2], [4, 5]),
        ({"before": 17, "after": 1}, [1, 2], [4]),
        ({"before": 16}, [2], [4, 5]),
        ({"before": ("2018-08-01", "2018-08-31"), "after": ("2018-11-01", "2018-12-31")}, [1], [5]),
    ],
)
def test_a_pair_is_two_composites(options, pre, post):
    cube = dated_cube()
    mask = cube[:, 0].drop_vars("band") % 3 > 0
    got = mosaic.pair(cube, "2018-09-06", mask=mask, **options)
    assert schema.bands(got) == ("pre_b0", "pre_b1", "post_b0", "post_b1")
    assert isinstance(got.data, da.Array)
    assert (got.dtype, schema.nodata(got)) == (cube.dtype, 0)
    assert schema.geobox(got) == schema.geobox(cube)
    expected = [mosaic.composite(cube[side], method="median", mask=mask[side]).values for side in (pre, post)]
    np.testing.assert_array_equal(got.values, np.concatenate(expected))


@pytest.mark.parametrize("make", [mosaic.seasons, lambda cube: mosaic.pair(cube, "2018-07-01")])
def test_a_continent_of_many_dates_is_planned_without_a_task_a_date(make):
    dates = pd.date_range("2018-01-03", periods=100, freq="3D")
    box = GeoBox((32768, 32768), GRID.affine, GRID.crs)
    data = da.zeros((100, 2, *box.shape), chunks=(1, 2, 512, 512), dtype="uint16")
    cube = schema.wrap(data, box, schema.CUBE, name="cube", coords={"time": dates}, nodata=0)
    planned = make(cube).data.dask
    made = [layer for name, layer in planned.layers.items() if name != data.name and layer.is_materialized()]
    assert sum(map(len, made)) <= 4 * 64 * 64, [(type(layer), len(layer)) for layer in made]


def test_nearest_takes_the_last_before_and_the_first_after():
    cube = dated_cube()
    got = mosaic.pair(cube, pd.Timestamp("2018-09-06 12:00", tz="UTC"), method="nearest").values
    np.testing.assert_array_equal(got[:2], mosaic.composite(cube[:3], method="last").values)
    np.testing.assert_array_equal(got[2:], mosaic.composite(cube[4:], method="first").values)


def test_a_pair_of_two_images():
    cube = dated_cube().astype("float32")
    cube.attrs = {}
    pre, post = cube[0].drop_vars("time"), cube[1, :1].drop_vars("time")
    got = mosaic.pair_of(pre, post)
    assert schema.bands(got) == ("pre_b0", "pre_b1", "post_b0")
    np.testing.assert_array_equal(got.values, np.concatenate([pre.values, post.values]))
    with pytest.raises(BadInput, match="post must lie on the grid of pre"):
        mosaic.pair_of(pre, post[:, 1:])


def test_pairs_say_what_is_wrong():
    cube = dated_cube()
    for call, rule in (
        (lambda: mosaic.pair(cube, "2018-12-01"), r"cube must have a date in the range after 2018-12-01.*2018-06-01, "),
        (lambda: mosaic.pair(cube, "2018-09-06", before=3), r"range before 2018-09-06.*Open more scenes, or widen bef"),
        (lambda: mosaic.pair(cube, "2018-09-06", before=0), r"before must be at least 1 day. Got before=0"),
        (
            lambda: mosaic.pair(cube, "2018-09-06", after=("2018-09-06", "2018-10-01")),
            r"after must be a first and a la",
        ),
        (lambda: mosaic.pair(cube, "2018-09-06", before=("2018-09-03", "2018-09-01")), r"before must be a first"),
        (lambda: mosaic.pair(cube, "2018-09-06", method="best"), r"method must be one of nearest, first, last"),
        (lambda: mosaic.pair(cube.drop_vars("time"), "2018-09-06"), r"cube must have dates.*Open it with times="),
        (lambda: mosaic.pair_of(cube, cube), r"pre must have dims \('band', 'y', 'x'\)"),
    ):
        with pytest.raises(BadInput, match=rule):
            call()


# Seasons


def test_seasons_run_over_the_new_year():
    dates = ["2017-12-31", "2018-02-28", "2018-03-01", "2018-12-01", "2019-01-15", "2019-05-31"]
    cube = dated_cube(dates=dates)
    got = mosaic.seasons(cube, method="mean")
    assert got.dims == schema.CUBE
    assert got["season"].values.tolist() == ["DJF 2018", "MAM 2018", "DJF 2019", "MAM 2019"]
    starts = pd.to_datetime(["2017-12-01", "2018-03-01", "2018-12-01", "2019-03-01"])
    assert (pd.DatetimeIndex(got["time"].values) == starts).all()
    assert schema.geobox(got) == schema.geobox(cube)
    assert schema.nodata(got) == 0
    for step, dates in enumerate(([0, 1], [2], [3, 4], [5])):
        np.testing.assert_array_equal(got[step].values, mosaic.composite(cube[dates], method="mean").values)


def test_own_seasons_months_and_years_and_arrays_on_time():
    cube = dated_cube()
    mask = cube[:, 0].drop_vars("band") % 3 > 0
    dry = mosaic.seasons(cube, of={"dry": (5, 8), "storms": (11, 2)}, method="last", mask=mask)
    assert dry["season"].values.tolist() == ["dry 2018", "storms 2019"]
    np.testing.assert_array_equal(dry[0].values, mosaic.composite(cube[:2], method="last", mask=mask[:2]).values)
    assert mosaic.seasons(cube, of="month")["season"].values.tolist() == [
        "Jun 2018",
        "Aug 2018",
        "Sep 2018",
        "Nov 2018",
    ]
    assert mosaic.seasons(cube, of="year")["season"].values.tolist() == ["2018"]
    with pytest.raises(BadInput, match=r"of must give each month to one season. Got month 8 in dry and wet"):
        mosaic.seasons(cube, of={"dry": (5, 8), "wet": (8, 10)})
    with pytest.raises(BadInput, match="of must give first and last months from 1 to 12"):
        mosaic.seasons(cube, of={"dry": (0, 8)})
    with pytest.raises(BadInput, match="cube must have a date in a season"):
        mosaic.seasons(cube, of={"cold": (1, 2)})
    with pytest.raises(BadInput, match=r"of must be one of season, month, year, or a mapping. Got of='week'"):
        mosaic.seasons(cube, of="week")


@given(days=st.lists(st.dates(pd.Timestamp("1999-01-01").date(), pd.Timestamp("2003-12-31").date()), max_size=30))
def test_each_date_is_in_the_season_xarray_finds(days):
    days = pd.DatetimeIndex(days)
    found = divide(days, mosaic.PERIODS["season"])
    assert list(found) == sorted(found)
    names = xr.DataArray(days, dims="time").dt.season.values if len(days) else []
    assert sorted(np.concatenate([[], *found.values()])) == list(range(len(days)))
    for (start, label), dates in found.items():
        for date in dates:
            assert label.startswith(names[date])
            assert start <= days[date] < start + pd.DateOffset(months=3)


# Stacks


def test_a_stack_of_integers_and_floats_is_floats_with_nan():
    cube = dated_cube(dtype="uint8")
    optical = cube[0].drop_vars("time").astype("uint16")
    slope = cube[1, 0].drop_vars(["time", "band"]).astype("float32").rename("slope")
    slope.attrs = {}
    got = mosaic.stack([optical, slope])
    assert (got.dtype, got.dims, schema.bands(got)) == (np.dtype("float32"), schema.MOSAIC, ("b0", "b1", "slope"))
    assert got.chunks == ((3,), (4, 4), (4, 4, 1))
    np.testing.assert_array_equal(np.isnan(got.values[:2]), optical.values == 0)
    np.testing.assert_array_equal(np.nan_to_num(got.values[:2]), optical.values)
    np.testing.assert_array_equal(got.values[2], slope.values)
    eager = mosaic.stack([optical.compute(), slope.compute()])
    xr.testing.assert_identical(eager, got.compute())
    assert schema.nodata(mosaic.stack([optical, optical], names=list("abcd"))) == 0


def test_stacks_say_what_is_wrong():
    image = dated_cube()[0].drop_vars("time")
    other = image.copy()
    other.attrs = {"_FillValue": np.uint8(255)}
    for call, rule in (
        (lambda: mosaic.stack([]), "images must hold at least one"),
        (lambda: mosaic.stack([image, image]), "names must be 4 names, one a band, each once. Got b0, b1, b0, b1"),
        (lambda: mosaic.stack([image, other], names="abcd"), r"images must share one nodata value.*\[0, 255\]"),
        (lambda: mosaic.stack([image, image[:, :5]], names="abcd"), r"images\[1\] must lie on the grid of images\[0\]"),
        (lambda: mosaic.stack([image.values]), r"images\[0\] must be an xarray.DataArray"),
    ):
        with pytest.raises(BadInput, match=rule):
            call()


# Shifts


def moved(image, dy, dx):
    """Move an image by parts of a pixel, exactly, in Fourier space."""
    ky, kx = (fft.fftfreq(size) for size in image.shape)
    return fft.ifft2(fft.fft2(image) * np.exp(-2j * np.pi * (ky[:, None] * dy + kx * dx))).real


def ground(seed, side=300, width=1.2):
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(1000, 200, (side, side)), width)


@given(dy=st.floats(-20, 20), dx=st.floats(-20, 20), noise=st.sampled_from([0, 0.1, 0.3]), seed=st.integers(0, 99))
def test_a_known_shift_is_found_to_a_tenth_of_a_pixel(dy, dx, noise, seed):
    rng = np.random.default_rng([seed, 1])
    pre = ground(seed)
    post = moved(pre, dy, dx) + noise * pre.std() * rng.normal(size=pre.shape)
    inside = slice(40, 260)
    one = np.ones((220, 220), bool)
    void, *found, peak = shift_block(pre[inside, inside], post[inside, inside], one, one, max_void=0.5).ravel()
    assert void == 0
    assert np.abs(np.subtract(found, (dy, dx))).max() < (0.1 if noise else 0.03)
    assert 10 / 220 < peak <= 1 + 1e-9


@pytest.mark.parametrize(("dy", "dx"), [(0.3, -0.7), (2.25, -3.4), (7, 9.5)])
def test_void_pulls_no_shift_to_zero(dy, dx):
    pre = ground(1)
    post = moved(pre, dy, dx)
    rng = np.random.default_rng([1, 1])
    rows, columns = np.mgrid[:300, :300]
    for known, near in (
        (rows + 0.3 * columns > 120, 0.1),
        (ndimage.gaussian_filter(rng.normal(size=(300, 300)), 8) > -0.02, 0.2),
    ):
        found = shift_block(np.where(known, pre, 0), np.where(known, post, 0), known, known, max_void=0.5).ravel()
        assert found[0] == pytest.approx((~known).mean())
        assert np.abs(found[1:3] - (dy, dx)).max() < near


def test_single_void_pixels_pull_a_shift_little():
    pre = ground(1, width=0.7)
    post = moved(pre, 0.3, -0.7)
    known = np.random.default_rng([1, 2]).random(pre.shape) > 0.1
    found = shift_block(np.where(known, pre, 0), np.where(known, post, 0), known, known, max_void=0.5).ravel()
    assert np.abs(found[1:3] - (0.3, -0.7)).max() < 0.1


def plane_of(values, *, nodata, chunks=None):
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    grid = GeoBox(values.shape, GRID.transform, "EPSG:32723")
    return schema.wrap(data[None], grid, schema.MOSAIC, name="m", coords={"band": ["red"]}, nodata=nodata)


def test_the_table_of_shifts_says_where_and_how_far():
    values = ground(2, 400)
    pre = np.rint(values).astype("uint16")
    post = np.rint(moved(values, -1.5, 2.0)).astype("uint16")
    post[:200, 200:] = 0
    pre[200:, 200:] = np.random.default_rng(0).integers(500, 1500, (200, 200))
    table = mosaic.shift(plane_of(pre, nodata=0, chunks=150), plane_of(post, nodata=0, chunks=90), block=192)
    assert table[["row", "column", "height", "width"]].values.tolist() == [
        [0, 0, 192, 192], [0, 192, 192, 208], [192, 0, 208, 192], [192, 192, 208, 208]
    ]  # fmt: skip
    assert table["sure"].tolist() == [True, False, True, False]
    assert np.isnan(table.loc[1, ["dy", "dx", "east", "north", "peak"]].astype(float)).all()
    assert table["void"].round(2).tolist() == [0, round(200 / 208, 2), 0, round(8 * 208 / 208**2, 2)]
    for row in (0, 2):
        np.testing.assert_allclose(table.loc[row, ["dy", "dx"]].astype(float), [-1.5, 2], atol=0.1)
        np.testing.assert_allclose(table.loc[row, ["east", "north"]].astype(float), [20, 15], atol=1)
    text = mosaic.shift_text(table)
    assert text.startswith("2 of 4 blocks matched: median shift -1.5")
    assert "100% of these are off by more than half a pixel" in text
    assert mosaic.shift_text(table[~table["sure"]]).startswith("None of 2 blocks could be matched")


def test_shifts_say_what_is_wrong():
    image = plane_of(ground(1, 32), nodata=None)
    flat = xr.full_like(image, 7)
    assert np.isnan(mosaic.shift(flat, flat, block=32)["peak"]).all()
    two = mosaic.stack([image, image], names=["a", "b"])
    for call, rule in (
        (lambda: mosaic.shift(two, two), "band must be one of the bands of pre, a, b. Got band=None"),
        (lambda: mosaic.shift(image, image, block=8), "block must be at least 16 pixels"),
        (lambda: mosaic.shift(image, image[:, 1:]), "post must lie on the grid of pre"),
    ):
        with pytest.raises(BadInput, match=rule):
            call()

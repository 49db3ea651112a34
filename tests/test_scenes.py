"""Scenes: against a plain numpy painting, rasterio.merge, rasterio.warp and counted opens."""

from collections import Counter
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.merge import merge
from rasterio.warp import Resampling, reproject

from lsdask import scenes, schema
from lsdask.errors import BadInput, NotFound, Unreadable
from lsdask.scenes import headers

ORIGIN = Affine(10.0, 0.0, 400_000.0, 0.0, -10.0, 7_400_000.0)
CRS = "EPSG:32723"
LOWEST = float(np.finfo("float32").min)


def put(path, values, *, top=0, left=0, nodata=None, crs=CRS, names=None, origin=ORIGIN, **options):
    """Write (band, y, x) values as a GeoTIFF ``top``, ``left`` pixels from the origin."""
    values = np.asarray(values)
    profile = {
        "driver": "GTiff",
        "count": values.shape[0],
        "height": values.shape[1],
        "width": values.shape[2],
        "dtype": values.dtype,
        "crs": crs,
        "transform": origin @ Affine.translation(left, top),
        "nodata": nodata,
    }
    with rasterio.open(path, "w", **profile, **options) as file:
        file.write(values)
        for number, name in enumerate(names or (), 1):
            file.set_band_description(number, name)
    return str(path)


def pixels(seed, *shape, dtype="uint16", void=0.2, nodata=0):
    """Random values from 1 to 200, a share of them void."""
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 200, shape).astype(dtype)
    values[rng.random(shape) < void] = nodata
    return values


def painted(parts, nodata):
    """Paint (values, top, left) on their union, the first on top: the oracle."""
    tops, lefts = [top for _, top, _ in parts], [left for _, _, left in parts]
    bottom = max(top + values.shape[1] for values, top, _ in parts)
    right = max(left + values.shape[2] for values, _, left in parts)
    first = parts[0][0]
    image = np.full((first.shape[0], bottom - min(tops), right - min(lefts)), nodata, first.dtype)
    for values, top, left in reversed(parts):
        window = image[
            :,
            top - min(tops) : top - min(tops) + values.shape[1],
            left - min(lefts) : left - min(lefts) + values.shape[2],
        ]
        np.copyto(window, values, where=~np.isnan(values) if np.isnan(nodata) else values != nodata)
    return image


def read(cube):
    return cube.compute(scheduler="synchronous").values


@pytest.fixture
def opened(monkeypatch):
    """Count how often pixels of each file are opened."""
    count = Counter()

    class Counted(headers.Pixels):
        def __init__(self, path, *args, **kwargs):
            count[Path(path).name] += 1
            super().__init__(path, *args, **kwargs)

    monkeypatch.setattr(headers, "Pixels", Counted)
    return count


placed = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(-9, 9), st.integers(-9, 9))


@given(places=st.lists(placed, min_size=1, max_size=5), chunks=st.integers(1, 20), seed=st.integers(0, 99))
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_files_are_painted_first_on_top_at_any_place_and_chunk(tmp_path_factory, dtype, places, chunks, seed):
    folder = tmp_path_factory.mktemp("tiles")
    nodata = 0 if dtype == "uint16" else np.nan
    parts, paths = [], []
    for number, (height, width, top, left) in enumerate(places):
        values = pixels([seed, number], 2, height, width, dtype=dtype, nodata=nodata)
        parts.append((values, top, left))
        declared = nodata if dtype == "uint16" else None
        paths.append(put(folder / f"{number}.tif", values, top=top, left=left, nodata=declared))
    cube = scenes.open(paths, chunks=chunks)
    assert cube.dtype == dtype
    assert cube.dims == schema.CUBE
    np.testing.assert_array_equal(read(cube)[0], painted(parts, nodata))
    assert len(cube.__dask_graph__()) == cube.data.npartitions


def test_the_grid_of_the_union(tmp_path):
    paths = [put(tmp_path / "a.tif", pixels(1, 1, 4, 5)), put(tmp_path / "b.tif", pixels(2, 1, 3, 3), top=-2, left=6)]
    cube = scenes.open(paths)
    assert schema.geobox(cube) == GeoBox((6, 9), ORIGIN @ Affine.translation(0, -2), CRS)
    assert cube.x.values[0] == 400_005.0
    assert cube.y.values[0] == 7_400_015.0


def test_a_chunk_opens_only_the_files_that_touch_it(tmp_path, opened):
    for row in range(4):
        for column in range(4):
            values = np.full((1, 8, 8), row * 4 + column + 1, "uint8")
            put(tmp_path / f"{row}{column}.tif", values, top=row * 16, left=column * 16)
    cube = scenes.open(tmp_path, chunks=16)
    assert not opened
    window = cube.isel(y=slice(16, 24), x=slice(32, 40))
    np.testing.assert_array_equal(read(window), np.full((1, 1, 8, 8), 7))
    assert opened == {"12.tif": 1}
    opened.clear()
    read(cube)
    assert set(opened.values()) == {1}
    assert len(opened) == 16


def test_a_void_chunk_costs_nothing_and_a_hidden_file_is_not_opened(tmp_path, opened):
    values = np.ones((3, 16, 16), "uint16")
    paths = [put(tmp_path / name, values, nodata=0) for name in ("a.tif", "b.tif")]
    far = put(tmp_path / "far.tif", values, top=160, left=160, nodata=0)
    cube = scenes.open([*paths, far], chunks=16)
    void = dask.get(dict(cube.__dask_graph__()), (cube.data.name, 0, 0, 5, 5))
    assert void.strides == (0, 0, 0, 0)
    assert not void.any()
    assert not opened
    read(cube)
    assert opened == {"a.tif": 1, "far.tif": 1}


def test_times_are_sorted_and_files_of_one_time_are_one_step(tmp_path):
    values = [np.full((1, 4, 4), number, "uint8") for number in (1, 2, 3)]
    stamps = {"a": "2020-03-01", "b": "2020-01-01", "c": "2020-03-01"}
    for name, value, left in zip(stamps, values, (0, 0, 2)):
        put(tmp_path / f"{name}.tif", value, left=left, nodata=0)
    cube = scenes.open(tmp_path, times=lambda path: stamps[Path(path).stem], chunks=3)
    assert list(cube.time.values) == list(pd.DatetimeIndex(["2020-01-01", "2020-03-01"]).values)
    np.testing.assert_array_equal(read(cube)[:, 0, 0], [[2, 2, 2, 2, 0, 0], [1, 1, 1, 1, 3, 3]])
    listed = scenes.open(tmp_path, times=list(stamps.values()))
    np.testing.assert_array_equal(read(listed), read(cube))
    with pytest.raises(BadInput, match=r"times must hold one time a file.* 2 times"):
        scenes.open(tmp_path, times=["2020-03-01", "2020-01-01"])
    with pytest.raises(BadInput, match=r"times must hold .*'tomorrow or so' for"):
        scenes.open(tmp_path, times=lambda path: "tomorrow or so")


def test_one_band_a_file(tmp_path):
    values = {"blue": pixels(1, 1, 6, 6), "red": pixels(2, 1, 6, 6), "nir": pixels(3, 1, 6, 6)}
    paths = {name: put(tmp_path / f"{name}.tif", value, nodata=0) for name, value in values.items()}
    cube = scenes.open(paths, chunks=4)
    assert schema.bands(cube) == ("blue", "red", "nir")
    np.testing.assert_array_equal(read(cube)[0], np.concatenate(list(values.values())))
    some = scenes.open(paths, bands=["nir", "blue"])
    np.testing.assert_array_equal(read(some)[0], np.concatenate([values["nir"], values["blue"]]))
    put(tmp_path / "two.tif", pixels(1, 2, 6, 6))
    with pytest.raises(BadInput, match=r"two.tif must hold one band.* 2 bands"):
        scenes.open({"blue": tmp_path / "two.tif"})


def test_bands_are_picked_by_name_number_or_named(tmp_path):
    values = pixels(1, 3, 5, 5)
    plain, named = put(tmp_path / "p.tif", values), put(tmp_path / "n.tif", values, names=("b", "g", "r"))
    assert schema.bands(scenes.open(plain)) == ("band_1", "band_2", "band_3")
    assert schema.bands(scenes.open(named)) == ("b", "g", "r")
    assert schema.bands(scenes.open(plain, bands=["x", "y", "z"])) == ("x", "y", "z")
    for path, bands, names in (
        (named, ["r", "b"], ("r", "b")),
        (named, [3, 1], ("r", "b")),
        (plain, ["band_3", 1], ("band_3", "band_1")),
        (plain, {"red": 3, "blue": 1}, ("red", "blue")),
    ):
        cube = scenes.open(path, bands=bands)
        assert schema.bands(cube) == names
        np.testing.assert_array_equal(read(cube)[0], values[[2, 0]])
    for bands, got in ((["nir"], "'nir'"), ([4], "4"), ({"red": 0}, "0")):
        with pytest.raises(BadInput, match=f"which have 3: b, g, r. Got {got}. Pass some of these, or numbers"):
            scenes.open(named, bands=bands)
    with pytest.raises(BadInput, match="each once"):
        scenes.open(named, bands=["r", "r"])


# Nodata


@pytest.mark.parametrize("void", [LOWEST, -3.4e38, np.inf, -np.inf, np.nan])
def test_the_lowest_float_and_infinities_are_void_declared_or_not(tmp_path, void):
    values = np.arange(1, 17, dtype="float32").reshape(1, 4, 4)
    values[0, 1, 2] = void
    expected = values.copy()
    expected[0, 1, 2] = np.nan
    for nodata in (None, -9999.0, -3.4e38, LOWEST):
        cube = scenes.open(put(tmp_path / "f.tif", values, nodata=nodata))
        np.testing.assert_array_equal(read(cube)[0], expected)
        np.testing.assert_array_equal(read(scenes.open(tmp_path, nodata=-3.4e38))[0], expected)


def test_given_nodata_overrides_what_is_declared(tmp_path):
    values = np.array([[[1, 2, 255]]], "uint8")
    path = put(tmp_path / "v.tif", values, nodata=255)
    assert schema.nodata(scenes.open(path)) == 255
    cube = scenes.open(path, nodata=2)
    assert schema.nodata(cube) == 2
    np.testing.assert_array_equal(schema.valid(cube).values[0, 0], [True, False, True])
    floats = put(tmp_path / "g.tif", values.astype("float32"), nodata=255)
    np.testing.assert_array_equal(read(scenes.open(floats, nodata=1))[0, 0, 0], [np.nan, 2, 255])


def test_files_keep_their_own_nodata_and_the_cube_has_the_first(tmp_path):
    paths = [
        put(tmp_path / "a.tif", np.array([[[1, 0]]], "uint8"), nodata=0),
        put(tmp_path / "b.tif", np.array([[[7, 9]]], "uint8"), nodata=9, left=2),
    ]
    cube = scenes.open(paths)
    assert schema.nodata(cube) == 0
    np.testing.assert_array_equal(read(cube)[0, 0, 0], [1, 0, 7, 0])


@pytest.mark.parametrize(("dtype", "fill"), [("uint8", 0), ("uint16", 0), ("int16", -32768)])
def test_integers_without_nodata_have_a_fill_only_where_files_leave_the_grid_bare(tmp_path, dtype, fill):
    one, two = pixels(1, 1, 4, 4, dtype=dtype), pixels(2, 1, 4, 4, dtype=dtype)
    paths = [put(tmp_path / "a.tif", one), put(tmp_path / "b.tif", two, left=4)]
    whole = scenes.open(paths)
    assert schema.nodata(whole) is None
    np.testing.assert_array_equal(read(whole)[0], np.concatenate([one, two], axis=2))
    put(tmp_path / "b.tif", two, left=5)
    bare = scenes.open(paths)
    assert schema.nodata(bare) == fill
    assert (read(bare)[..., 4] == fill).all()


def test_a_mask_says_where_data_is(tmp_path):
    values, shown = pixels(1, 2, 6, 6, void=0), np.random.default_rng(1).random((6, 6)) < 0.5
    path = put(tmp_path / "m.tif", values)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(shown)
    cube = scenes.open(path)
    assert schema.nodata(cube) == 0
    np.testing.assert_array_equal(read(cube)[0], np.where(shown, values, 0))
    grid = GeoBox((6, 6), ORIGIN @ Affine.translation(0.3, 0.3), CRS)
    np.testing.assert_array_equal(read(scenes.open(path, grid=grid))[0], np.where(shown, values, 0))


def test_dtypes_are_promoted(tmp_path):
    paths = [
        put(tmp_path / "a.tif", np.array([[[1, 0]]], "uint8"), nodata=0),
        put(tmp_path / "b.tif", np.array([[[-7, 9]]], "int16"), nodata=9, left=2),
    ]
    assert scenes.open(paths).dtype == "int16"
    paths.append(put(tmp_path / "c.tif", np.array([[[2.5]]], "float32"), left=4))
    cube = scenes.open(paths)
    assert cube.dtype == "float32"
    np.testing.assert_array_equal(read(cube)[0, 0, 0], [1, np.nan, -7, np.nan, 2.5])


# Other grids


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("sides", [(3.7, 3.7), (10.0, 10.0), (23.0, 23.0), (6.0, 31.0)])
def test_other_grids_are_warped_as_rasterio_does_at_any_chunk(tmp_path, resampling, dtype, sides):
    values = pixels(3, 2, 40, 50, dtype=dtype, void=0) + np.asarray(500, dtype)
    values[:, np.random.default_rng(4).random((40, 50)) < 0.05] = 0 if dtype == "uint16" else LOWEST
    path = put(tmp_path / "v.tif", values, nodata=0 if dtype == "uint16" else None)
    down, across = sides
    place = Affine(across, 0, 399_961.0, 0, -down, 7_400_021.0)
    grid = GeoBox((int(480 / down), int(600 / across)), place, CRS)
    nodata = 0.0 if dtype == "uint16" else LOWEST
    expected = np.zeros((2, *grid.shape), dtype)
    for band in (0, 1):
        reproject(
            values[band],
            expected[band],
            src_transform=ORIGIN,
            src_crs=CRS,
            src_nodata=nodata,
            dst_transform=place,
            dst_crs=CRS,
            dst_nodata=nodata,
            resampling=Resampling[resampling],
            XSCALE=str(10 / across),
            YSCALE=str(10 / down),
            tolerance=0,
        )
    void = expected == nodata
    for chunks in (512, 13):
        got = read(scenes.open(path, grid=grid, resampling=resampling, chunks=chunks))[0]
        np.testing.assert_array_equal(np.isnan(got) | (got == 0), void)
        np.testing.assert_allclose(got[~void], expected[~void], atol=1 if dtype == "uint16" else 1e-3)


@pytest.mark.parametrize("resampling", ["bilinear", "cubic", "lanczos", "average"])
@pytest.mark.parametrize("nodata", [None, -9999.0])
def test_void_is_never_mixed_in_by_resampling(tmp_path, resampling, nodata):
    values = np.full((2, 30, 30), 100.0, "float32")
    values[0, 10:14, 10:14] = LOWEST
    values[1, 12:18, 12:18] = LOWEST if nodata is None else nodata
    path = put(tmp_path / "v.tif", values, nodata=nodata)
    grid = GeoBox((40, 40), ORIGIN @ Affine.translation(0.3, 0.3) @ Affine.scale(0.7), CRS)
    got = read(scenes.open(path, grid=grid, resampling=resampling))[0]
    assert np.isnan(got).any(axis=(1, 2)).all()
    np.testing.assert_allclose(got[~np.isnan(got)], 100, atol=1e-3)


def test_files_of_another_crs_are_put_on_the_crs_of_most(tmp_path):
    values = pixels(1, 1, 60, 60, void=0)
    paths = [put(tmp_path / "a.tif", values, nodata=0), put(tmp_path / "b.tif", values, nodata=0, left=60)]
    west = Affine(10.0, 0.0, 999_000.0, 0.0, -10.0, 7_400_000.0)
    other = put(tmp_path / "c.tif", values, nodata=0, crs="EPSG:32722", origin=west)
    cube = scenes.open([other, *paths], chunks=64)
    grid = schema.geobox(cube)
    assert grid.crs.epsg == 32723
    assert grid.resolution.x == 10.0
    expected = np.zeros(grid.shape, "uint16")
    options = {"dst_transform": grid.transform, "dst_crs": CRS, "src_nodata": 0, "dst_nodata": 0, "tolerance": 0}
    reproject(values[0], expected, src_transform=west, src_crs="EPSG:32722", **options)
    seen = expected > 0
    assert 3000 < seen.sum() < 4500
    for left in (60, 0):
        row, column = (round(v) for v in (~grid.transform @ (400_000.0 + 10 * left, 7_400_000.0))[::-1])
        window = expected[row : row + 60, column : column + 60]
        np.copyto(window, values[0], where=window == 0)
    np.testing.assert_array_equal(read(cube)[0, 0], expected)


def test_a_finer_file_gives_the_grid_and_a_coarser_one_is_warped(tmp_path):
    fine, coarse = pixels(1, 1, 8, 8, void=0), pixels(2, 1, 4, 4, void=0)
    paths = {
        "pan": put(tmp_path / "pan.tif", fine),
        "red": put(tmp_path / "red.tif", coarse, origin=ORIGIN @ Affine.scale(2)),
    }
    cube = scenes.open(paths)
    np.testing.assert_array_equal(read(cube)[0], np.concatenate([fine, coarse.repeat(2, 1).repeat(2, 2)]))


@given(top=st.integers(-20, 20), left=st.integers(-20, 20), chunks=st.integers(3, 30))
def test_a_given_grid_cuts_and_pads(tmp_path_factory, top, left, chunks):
    path = Path(tmp_path_factory.getbasetemp()) / "given.tif"
    values = pixels(5, 1, 16, 16)
    if not path.exists():
        put(path, values, nodata=0)
    grid = GeoBox((20, 24), ORIGIN @ Affine.translation(left, top), CRS)
    expected = np.zeros((100, 100), "uint16")
    expected[40:56, 40:56] = values[0]
    cube = scenes.open(path, grid=grid, chunks=chunks)
    np.testing.assert_array_equal(read(cube)[0, 0], expected[40 + top : 60 + top, 40 + left : 64 + left])
    np.testing.assert_array_equal(read(scenes.open(path, grid=cube)), read(cube))
    assert schema.geobox(cube) == grid


# Bad input


def test_paths_that_name_nothing(tmp_path):
    for paths in (tmp_path / "none.tif", str(tmp_path / "*.tif"), tmp_path, [tmp_path / "none.tif"]):
        with pytest.raises(NotFound, match="paths must"):
            scenes.open(paths)
    with pytest.raises(NotFound, match="name at least one file"):
        scenes.open([])


def test_files_that_are_no_whole_raster_are_named(tmp_path):
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(Unreadable, match=r"text.tif must be a raster"):
        scenes.open(tmp_path)
    good = put(tmp_path / "whole.tif", pixels(1, 1, 64, 64))
    cut = tmp_path / "cut.tif"
    for share in (0.3, 0.7, 0.95, 0.999):
        data = Path(good).read_bytes()
        cut.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(Unreadable, match=r"cut.tif must be"):
            scenes.open([good, cut])


def test_a_file_that_breaks_later_is_named_while_computing(tmp_path):
    path = put(tmp_path / "later.tif", pixels(1, 1, 64, 64), compress="deflate")
    cube = scenes.open(path)
    Path(path).write_bytes(b"II*\0" + b"\0" * 100)
    with pytest.raises(Unreadable, match=r"later.tif must be a raster that can be read"):
        read(cube)


def test_headers_that_do_not_fit_are_named(tmp_path):
    values = pixels(1, 2, 8, 8)
    bad = {
        "have a CRS": put(tmp_path / "crs.tif", values, crs=None),
        "lie north up": put(tmp_path / "rot.tif", values, origin=ORIGIN @ Affine.rotation(30)),
        "hold whole or real": put(tmp_path / "complex.tif", values.astype("complex64")),
    }
    for rule, path in bad.items():
        with pytest.raises(BadInput, match=f"{Path(path).name} must {rule}"):
            scenes.open(path)
    good = [put(tmp_path / f"good{i}.tif", values) for i in (0, 1)]
    odd = put(tmp_path / "odd.tif", values[:1])
    with pytest.raises(BadInput, match=r"odd.tif must have 2 bands, as the other files. Got 1"):
        scenes.open([odd, *good])


@pytest.mark.parametrize("nodata", [-9999, 65536, 0.5, np.nan])
def test_nodata_out_of_range(tmp_path, nodata):
    path = put(tmp_path / "v.tif", pixels(1, 1, 4, 4))
    with pytest.raises(BadInput, match="nodata must be a whole number from 0 to 65535, the range of its uint16"):
        scenes.open(path, nodata=nodata)


def test_options_out_of_range(tmp_path):
    path = put(tmp_path / "v.tif", pixels(1, 1, 4, 4))
    with pytest.raises(BadInput, match="resampling must be one of nearest, bilinear"):
        scenes.open(path, resampling="sharp")
    for chunks in (0, (4, 4, 4), "auto"):
        with pytest.raises(BadInput, match="chunks must"):
            scenes.open(path, chunks=chunks)
    with pytest.raises(BadInput, match="grid must be a GeoBox"):
        scenes.open(path, grid="EPSG:4326")
    with pytest.raises(BadInput, match="grid must lie north up"):
        scenes.open(path, grid=GeoBox((4, 4), Affine(10, 0, 0, 0, 10, 0), CRS))


def test_a_cube_has_a_name_of_its_own_that_changes_with_its_files(tmp_path):
    path = put(tmp_path / "v.tif", pixels(1, 1, 4, 4))
    first = scenes.open(path)
    assert scenes.open(path).data.name == first.data.name
    assert scenes.open(path, chunks=2).data.name != first.data.name
    put(tmp_path / "v.tif", pixels(2, 1, 4, 4))
    assert scenes.open(path).data.name != first.data.name


# Real scenes


@pytest.mark.realdata
def test_quadrants_equal_rasterio_merge(data):
    paths = sorted((data / "edge-cases").glob("rgb[1-4].tif"))
    expected, transform = merge(paths)
    cube = scenes.open(paths, chunks=100)
    np.testing.assert_array_equal(read(cube)[0], expected)
    assert schema.geobox(cube).transform.almost_equals(transform)


@pytest.mark.realdata
@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_a_sparse_mosaic_of_hundreds_of_tiles_equals_rasterio_merge(data, every):
    paths = sorted((data / "valles-marineris" / "images").glob("*.tif"))[::every]
    expected, transform = merge(paths, indexes=[2, 3], nodata=np.nan)
    expected[expected == LOWEST] = np.nan
    cube = scenes.open(paths, bands=[2, 3])
    assert schema.geobox(cube).transform.almost_equals(transform)
    with dask.config.set(scheduler="threads"):
        got = cube.compute().values[0]
    np.testing.assert_array_equal(got, expected)
    assert 0.7 < np.isnan(got[0]).mean() < 1


@pytest.mark.realdata
def test_odd_files(data):
    folder = data / "edge-cases"
    void = scenes.open(folder / "all-nodata.tif")
    assert schema.bands(void) == ("blue", "green", "red", "nir")
    assert not schema.valid(void).any()
    floats = scenes.open(folder / "float_raster_with_nodata.tif")
    assert np.isnan(read(floats)).any()
    assert np.nanmin(read(floats)) > -1e30
    for name, rule in (("rotated.tif", "lie north up"), ("float_nan.tif", "lie north up")):
        with pytest.raises(BadInput, match=f"{name} must {rule}"):
            scenes.open(folder / name)


@pytest.mark.realdata
def test_the_bands_of_cbers4a(data):
    folder = data / "cbers4a-wpm"
    cube = scenes.open({"blue": folder / "BAND1.tif", "green": folder / "BAND2.tif", "red": folder / "BAND3.tif"})
    assert (cube.dtype, schema.nodata(cube), cube.shape) == ("int16", 0, (1, 3, 610, 802))
    for number in (1, 2, 3):
        with rasterio.open(folder / f"BAND{number}.tif") as file:
            np.testing.assert_array_equal(read(cube)[0, number - 1], file.read(1))

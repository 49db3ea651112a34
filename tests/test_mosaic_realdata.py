"""Masked composites and pairs of real scenes against rasterio's warper and numpy."""

import dask
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from lsdask import mosaic, scenes, schema
from lsdask.mosaic.shifts import shift_block

pytestmark = pytest.mark.realdata


def read(path):
    """The first band of a file and its transform."""
    with rasterio.open(path) as file:
        return file.read(1), file.transform


def warped(path, grid, nodata, **options):
    """One file on a grid, by rasterio alone."""
    place = {"crs": str(grid.crs), "transform": grid.transform, "width": grid.shape[1], "height": grid.shape[0]}
    with rasterio.open(path) as file, WarpedVRT(file, src_nodata=nodata, nodata=nodata, **place, **options) as read:
        return read.read(1)


def taken(name):
    """When a Landsat scene was taken: its day, and 24 seconds for each row of its path."""
    _, _, place, day, *_ = name.split("_")
    return pd.Timestamp(day) + pd.Timedelta(seconds=24 * int(place[3:]))


@pytest.fixture(scope="module")
def landsat(data):
    """The folders of 19 scenes in order of time, and a grid that none of them lies on."""
    folders = sorted((data / "landsat8-ny18").iterdir(), key=lambda folder: taken(folder.name))
    return folders, GeoBox.from_bbox((440000, 4350000, 760000, 4740000), "EPSG:32618", resolution=3000)


def landsat_file(folder, band):
    return next(folder.glob(f"*_{band}.TIF"))


def by_rasterio(folders, grid, bands):
    """All scenes on the grid, and where they are clear by the bits of BQA: arrays."""
    values = np.stack([[warped(landsat_file(folder, band), grid, 0) for band in bands] for folder in folders])
    quality = np.stack([warped(landsat_file(folder, "BQA"), grid, 1) for folder in folders])
    cloud, fill = quality & 0b10000 > 0, quality & 1 > 0
    shadow, cirrus = (quality // 128) % 4 == 3, (quality // 2048) % 4 == 3
    return values, ~(cloud | fill | shadow | cirrus)


@pytest.mark.parametrize("method", ["median", "first", "max"])
def test_landsat_scenes_of_many_grids_composited_under_bqa_equal_rasterio_and_numpy(landsat, method):
    folders, grid = landsat
    bands = ["B5", "B4", "B3"]
    times = [taken(folder.name) for folder in folders]
    options = {"grid": grid, "times": times, "chunks": 50}
    cube = scenes.open({b: [landsat_file(f, b) for f in folders] for b in bands}, nodata=0, **options)
    quality = scenes.open([landsat_file(f, "BQA") for f in folders], nodata=1, **options)
    assert cube.sizes["time"] == 19
    parts = mosaic.composite_parts(cube, method=method, mask=mosaic.mask(quality, "bqa"))
    image, looks, _ = dask.compute(*parts)
    values, clear = by_rasterio(folders, grid, bands)
    shown = clear & (values > 0).all(axis=1)
    assert 0.05 < (~shown.any(axis=0)).mean() < 0.6
    expected = np.zeros(image.shape, "uint16")
    for y, x in zip(*np.nonzero(shown.any(axis=0))):
        dates = values[shown[:, y, x], :, y, x].astype("float64")
        reduced = {"median": np.median(dates, axis=0), "first": dates[0], "max": dates.max(axis=0)}[method]
        expected[:, y, x] = np.rint(reduced)
    np.testing.assert_array_equal(looks.values, shown.sum(axis=0))
    np.testing.assert_array_equal(image.values, expected)
    assert looks.values.max() >= 8


def test_a_median_under_bqa_is_darker_than_one_of_clouds_and_all(landsat):
    folders, grid = landsat
    options = {"grid": grid, "times": [taken(folder.name) for folder in folders], "chunks": 64}
    cube = scenes.open({"red": [landsat_file(f, "B4") for f in folders]}, nodata=0, **options)
    quality = scenes.open([landsat_file(f, "BQA") for f in folders], nodata=1, **options)
    clear = mosaic.composite(cube, method="mean", mask=mosaic.mask(quality, "bqa")).values[0]
    cloudy = mosaic.composite(cube, method="mean").values[0]
    both = clear > 0
    assert np.median(clear[both]) < 0.9 * np.median(cloudy[both])


def test_sentinel_2_under_scl_equals_numpy(data):
    folder = data / "sentinel2-29RKH"
    names = ["B04", "B03", "B02"]
    cube = scenes.open({name: folder / f"{name}.tif" for name in names}, chunks=300)
    scl = scenes.open(folder / "SCL.tif", grid=cube, chunks=300)
    image = mosaic.composite(cube, mask=mosaic.mask(scl, "scl")).compute()
    values = np.stack([read(folder / f"{name}.tif")[0] for name in names])
    classes = read(folder / "SCL.tif")[0].repeat(2, axis=0).repeat(2, axis=1)
    hidden = np.isin(classes, [0, 1, 3, 8, 9, 10]) | (values == 0).any(axis=0)
    assert 0.001 < hidden.mean() < 0.9
    np.testing.assert_array_equal(image.values, np.where(hidden, 0, values))


@pytest.fixture(scope="module")
def hokkaido(data):
    """The pair and its DSM on a grid of 10 m, read once."""
    folder = data / "hokkaido-2018"
    with rasterio.open(folder / "post" / "B3.tif") as file:
        place = pyproj.Transformer.from_crs(file.crs, "EPSG:32654", always_xy=True)
        grid = GeoBox.from_bbox(place.transform_bounds(*file.bounds), "EPSG:32654", resolution=10)
    files = {band: [folder / side / f"{band}.tif" for side in ("pre", "post")] for band in ("B2", "B3", "B4")}
    cube = scenes.open(files, times=["2018-04-01", "2018-10-01"], grid=grid, chunks=300)
    pair, dsm = mosaic.pair(cube, "2018-09-06"), scenes.open(folder / "dsm.tif", grid=grid, chunks=300)[0]
    return *dask.compute(pair, dsm.where(schema.valid(dsm))), folder


def test_a_pair_with_its_terrain_on_a_utm_grid_equals_rasterio(hokkaido):
    pair, dsm, folder = hokkaido
    grid = schema.geobox(pair)
    image = mosaic.stack([pair, dsm], names=[*schema.bands(pair), "elevation"])
    assert image.dtype == np.float32
    assert schema.bands(image) == ("pre_B2", "pre_B3", "pre_B4", "post_B2", "post_B3", "post_B4", "elevation")
    exact = {"resampling": Resampling.nearest, "tolerance": 1e-12}
    sides = [[warped(folder / side / f"B{n}.tif", grid, 0, **exact) for n in (2, 3, 4)] for side in ("pre", "post")]
    for half, expected in zip((image.values[:3], image.values[3:6]), np.array(sides)):
        void = (expected == 0).any(axis=0)
        np.testing.assert_array_equal(np.nan_to_num(half), np.where(void, 0, expected))
    terrain = warped(folder / "dsm.tif", grid, -32768, **exact)
    np.testing.assert_array_equal(np.nan_to_num(image.values[6], nan=-32768), terrain)


def test_the_void_of_a_pair_is_that_of_its_files(hokkaido):
    image, _, folder = hokkaido
    x, y = np.meshgrid(image["x"].values, image["y"].values)
    lon, lat = pyproj.Transformer.from_crs("EPSG:32654", "EPSG:4326", always_xy=True).transform(x, y)
    for half, side in ((image.values[:3], "pre"), (image.values[3:], "post")):
        bands, transform = zip(*(read(folder / side / f"B{n}.tif") for n in (2, 3, 4)))
        known = np.all(np.array(bands) > 0, axis=0)
        columns, rows = (np.floor(one).astype(int) for one in ~transform[0] @ (lon, lat))
        inside = (rows >= 0) & (rows < known.shape[0]) & (columns >= 0) & (columns < known.shape[1])
        expected = inside & known[np.where(inside, rows, 0), np.where(inside, columns, 0)]
        assert ((half > 0).all(axis=0) == expected).mean() > 0.9999
    assert schema.geobox(image).resolution.x == 10
    assert (image.values[1] == 0).mean() == pytest.approx(0.41, abs=0.03)


def test_the_shift_of_a_real_pair_is_reported_and_a_made_one_found(hokkaido):
    pair, _, _ = hokkaido
    pre, post = (pair.sel(band=[f"{side}_B3"]) for side in ("pre", "post"))
    table = mosaic.shift(pre, post)
    assert table["sure"].sum() >= 2
    sure = table[table["sure"]]
    assert (np.hypot(sure["dy"], sure["dx"]) < 5).all()
    assert "blocks matched: median shift" in mosaic.shift_text(table)
    # The same scene, two rows and three columns on, as the grids of two providers may be off.
    here, there = post.isel(y=slice(None, -2), x=slice(None, -3)), post.isel(y=slice(2, None), x=slice(3, None))
    moved = mosaic.shift(here, here.copy(data=there.data))
    found = moved[moved["sure"]]
    assert len(found) >= 4
    np.testing.assert_allclose(found["dy"], -2, atol=0.1)
    np.testing.assert_allclose(found["dx"], -3, atol=0.1)


@pytest.mark.parametrize(
    ("scene", "near"), [("sentinel2-29RKH/B08", 0.02), ("hokkaido-2018/post/B3", 0.02), ("cbers4a-wpm/BAND3", 0.05)]
)
@pytest.mark.parametrize("pixels", [3, 4])
def test_a_shift_below_a_pixel_of_a_real_scene_is_found(data, scene, near, pixels):
    # A coarser sensor sees the mean of some of the scene's pixels, in two passes that begin at different ones.
    fine, _ = read(data / f"{scene}.tif")
    side = min(256, *(length // pixels - 4 for length in fine.shape))
    known = np.ones((side, side), bool)

    def seen(top, left):
        window = fine[top:, left:][: side * pixels, : side * pixels].astype("float64")
        return window.reshape(side, pixels, side, pixels).mean(axis=(1, 3))

    for top, left in ((1, 2), (pixels + 1, 1), (2 * pixels + 1, 2)):
        found = shift_block(seen(0, 0), seen(top, left), known, known, max_void=0.5).ravel()
        np.testing.assert_allclose(found[1:3], [-top / pixels, -left / pixels], atol=near)

"""The command from files with dates to a mosaic: a file a band, clouds by a quality band, terrain, overviews."""

import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from typer.testing import CliRunner

import lsdask as ls
from lsdask import cli
from lsdask.cli.mosaic import date_of
from lsdask.errors import BadInput

runner = CliRunner()
DAYS = ("20180131", "20180405", "20180710")
SHAPE = (40, 60)


def lsdask(*arguments: object, code: int = 0) -> str:
    result = runner.invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return re.sub(r"\s+", " ", result.output)


def write(path: Path, values: np.ndarray, **profile: object) -> None:
    transform = Affine(10, 0, 500_000, 0, -10, 7_000_000)
    values = values if values.ndim == 3 else values[np.newaxis]
    with rasterio.open(
        path, "w", driver="GTiff", width=values.shape[2], height=values.shape[1], count=len(values),
        dtype=values.dtype, crs="EPSG:32723", transform=transform, **profile,
    ) as file:  # fmt: skip
        file.write(values)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """Three dates of two bands, a file a band, with clouds in their Collection 1 quality bits; and a DEM."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    values = rng.integers(1, 2000, (3, 2, *SHAPE)).astype("uint16")
    cloudy = rng.random((3, *SHAPE)) < 0.4
    for day, image, cloud in zip(DAYS, values, cloudy):
        for band, plane in zip(("B4", "B5"), image):
            write(folder / f"LC08_{day}_{band}.tif", plane, nodata=0)
        write(folder / f"LC08_{day}_BQA.tif", np.where(cloud, 2800, 2720).astype("uint16"))
    rows, columns = np.indices(SHAPE)
    write(folder / "dem.tif", (500 - 10 * rows + 0 * columns).astype("float32"))
    return folder, values, cloudy


def test_dates_bands_and_clouds_of_files(scenes: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    folder, values, cloudy = scenes
    lsdask(
        "mosaic", f"red={folder}/*B4.tif", f"nir={folder}/*B5.tif", "--dated", "--method", "median", "--looks",
        "--sensor", "landsat-8-c1-l1", "--quality", f"{folder}/*BQA.tif", "--dem", folder / "dem.tif",
        "--terrain", "slope", "--out", tmp_path / "m.zarr", "--overviews", "--cog", tmp_path / "m.tif",
    )  # fmt: skip
    image = ls.store.open(tmp_path / "m.zarr")
    assert ls.schema.bands(image) == ("red", "nir", "looks", "slope")
    clear = np.where(cloudy[:, np.newaxis], np.nan, values)
    with np.errstate(all="ignore"):
        expected = np.rint(np.nanmedian(clear, axis=0))
    never = cloudy.all(axis=0)
    np.testing.assert_array_equal(image.values[:2][:, ~never], expected[:, ~never])
    assert np.isnan(image.values[:2][:, never]).all()
    np.testing.assert_array_equal(image.values[2], np.where(never, np.nan, (~cloudy).sum(axis=0)))
    np.testing.assert_allclose(image.values[3], 45, atol=1e-4)
    with rasterio.open(tmp_path / "m.tif") as file:
        np.testing.assert_array_equal(file.read(), image.values)
        assert file.descriptions == ("red", "nir", "looks", "slope")


def test_polygons_keep_and_leave_out(scenes: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    folder, _, _ = scenes
    west = shapely.box(500_000, 6_999_600, 500_300, 7_000_000)
    south = shapely.box(500_000, 6_999_600, 500_600, 6_999_800)
    gpd.GeoSeries([west], crs="EPSG:32723").to_file(tmp_path / "west.gpkg")
    gpd.GeoSeries([south], crs="EPSG:32723").to_file(tmp_path / "south.gpkg")
    lsdask("mosaic", f"{folder}/*20180131_B4.tif", "--out", tmp_path / "m.zarr", "--inside", tmp_path / "west.gpkg",
           "--outside", tmp_path / "south.gpkg")  # fmt: skip
    valid = ls.schema.valid(ls.store.open(tmp_path / "m.zarr")).values
    assert valid[:20, :30].all()
    assert valid.sum() == 600


def test_an_event_makes_a_pair(scenes: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    folder, values, _ = scenes
    lsdask("mosaic", f"red={folder}/*B4.tif", "--dated", "--event", "2018-05-01", "--method", "max", "--out",
           tmp_path / "m.zarr")  # fmt: skip
    image = ls.store.open(tmp_path / "m.zarr")
    assert ls.schema.bands(image) == ("pre_red", "post_red")
    np.testing.assert_array_equal(image.values, [values[:2, 0].max(axis=0), values[2, 0]])


def test_the_date_in_a_name() -> None:
    assert date_of("/data/2016/S2A_29RKH_20200219_0_L2A/B04.tif".replace("/B04", "_B04")) == "2020-02-19"
    assert date_of("CBERS_4A_99999999_2020-07-30_BAND1.tif") == "2020-07-30"
    with pytest.raises(BadInput, match="have a date in their names"):
        date_of("20180131/B4.tif")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "scenes must come from one place"),
        (["{folder}", "--stac", "http://127.0.0.1:9"], "scenes must come from one place"),
        (
            ["{folder}", "--method", "median"],
            "files have no dates. Got median. Pass --dated.",
        ),
        (["{folder}/*B4.tif", "--grow", "3"], "scenes must have a quality band"),
        (["{folder}/*B4.tif", "--quality", "{folder}/*BQA.tif"], "sensor must be said"),
        (["{folder}/*B4.tif", "--crs", "EPSG:4326"], "crs must come with a catalogue"),
        (["--stac", "http://127.0.0.1:9"], "collection must be said, as no sensor is. Got none."),
        (["--items", "nowhere.geojson", "--sensor", "rapideye"], "items must name a file."),
        (["--items", "x", "--sensor", "sentinel-3"], "sensor must be one of cbers-4a-wpm"),
        (["--stac", "http://127.0.0.1:9", "--sensor", "rapideye", "--aoi", "1,2"], "aoi must be 4 numbers"),
    ],
)
def test_bad_input(
    scenes: tuple[Path, np.ndarray, np.ndarray], arguments: list[str], said: str, tmp_path: Path
) -> None:
    given = [part.format(folder=scenes[0]) for part in arguments]
    with pytest.raises((BadInput, FileNotFoundError)) as raised:
        lsdask("mosaic", *given, "--out", tmp_path / "m.zarr")
    assert said in str(raised.value)


@pytest.mark.realdata
def test_landsat_scenes_whose_grids_differ(data: Path, tmp_path: Path) -> None:
    folder = data / "landsat8-ny18"
    lsdask(
        "mosaic", f"red={folder}/*/*_B4.TIF", f"nir={folder}/*/*_B5.TIF", "--dated", "--nodata", 0, "--looks",
        "--sensor", "landsat-8-c1-l1", "--quality", f"{folder}/*/*_BQA.TIF", "--method", "median",
        "--out", tmp_path / "m.zarr",
    )  # fmt: skip
    image = ls.store.open(tmp_path / "m.zarr")
    looks = image.sel(band="looks").values
    assert 10 < looks.max() <= 17  # days on which there is a scene
    assert ((looks > 0) == (image.sel(band="red") > 0)).all()

"""The command from a STAC API and a server of pixels, both real and on loopback, to a store: zones, poles, trouble."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import servers
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from test_scenes_placing import nearest
from typer.testing import CliRunner

import lsdask as ls
from lsdask import cli
from lsdask.errors import BadInput
from lsdask.scenes import catalogue, headers

DEGREES, ZONE, NEXT = "EPSG:4326", "EPSG:32633", "EPSG:32634"


def lsdask(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return re.sub(r"\s+", " ", result.output)


def values_of(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Numbers from 1 to 250 that change slowly, so that mixing them means something, with a hole."""
    rows, columns = np.indices(shape)
    waves = 125 + 60 * np.sin(rows / 3 + seed) + 60 * np.cos(columns / 4)
    values = (waves + np.random.default_rng(seed).integers(-4, 5, shape)).astype("uint8")
    values[shape[0] // 2 : shape[0] // 2 + 4, shape[1] // 3 : shape[1] // 3 + 6] = 0
    return values


class Catalogue:
    """Scenes in a folder that a server serves, each with its item, in order."""

    def __init__(self, folder: Path, server: servers.Pixels) -> None:
        self.folder, self.server = folder, server
        self.items: list[pystac.Item] = []
        self.parts: list[tuple[np.ndarray, Affine, str]] = []

    def add(
        self,
        values: np.ndarray,
        place: Affine,
        crs: str,
        *,
        day: int = 1,
        geometry: Any = None,
        nodata: int | None = 0,
        dtype: str = "uint8",
    ) -> None:
        name = f"s{len(self.items)}"
        with rasterio.open(
            self.folder / f"{name}.tif", "w", driver="GTiff", count=1, dtype=dtype, crs=crs, transform=place,
            height=values.shape[0], width=values.shape[1], nodata=nodata, compress="deflate", tiled=True,
        ) as file:  # fmt: skip
            file.write(values, 1)
            bounds = rasterio.warp.transform_bounds(crs, DEGREES, *file.bounds)
        west, south, east, north = bounds
        whole = shapely.box(west, south, east if east > west else east + 360, north) if geometry is None else geometry
        shape = shapely.geometry.mapping(catalogue.wrapped(whole))
        item = pystac.Item(name, shape, list(bounds), datetime(2020, 3, day, 12, tzinfo=UTC), {}, collection="wpm")
        fields = {"proj:code": crs, "proj:transform": list(place)[:6], "proj:shape": list(values.shape)}
        fields["raster:bands"] = [{"data_type": dtype, "nodata": 0}]
        address = self.server.url(f"{name}.tif")
        item.add_asset("b1", pystac.Asset(address, media_type=pystac.MediaType.COG, extra_fields=fields))
        self.items.append(item)
        self.parts.append((values, place, crs))


@pytest.fixture
def scenes(tmp_path: Path, pixels: Callable) -> Catalogue:
    folder = tmp_path / "scenes"
    folder.mkdir()
    return Catalogue(folder, pixels(folder))


def warped(scenes: Catalogue, grid: GeoBox, resampling: str) -> np.ndarray:
    """What rasterio's warper makes of all scenes on a grid, each as a whole, the first on top."""
    image = np.zeros(grid.shape, "uint8")
    place = {"crs": str(grid.crs), "transform": grid.transform, "height": grid.shape[0], "width": grid.shape[1]}
    for item in scenes.items[::-1]:
        options = {"src_nodata": 0, "nodata": 0, "resampling": Resampling[resampling], "tolerance": 1e-12}
        with rasterio.open(scenes.folder / f"{item.id}.tif") as file, WarpedVRT(file, **place, **options) as vrt:
            values = vrt.read(1)
        image = np.where(values > 0, values, image)
    return image


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_two_zones_and_two_resolutions_become_one_mosaic(
    scenes: Catalogue, stac_api: Callable, tmp_path: Path, resampling: str
) -> None:
    scenes.add(values_of(1, (90, 100)), Affine(30, 0, 480_000, 0, -30, 5_200_000), ZONE)
    scenes.add(values_of(2, (60, 50)), Affine(60, 0, 481_500, 0, -60, 5_200_040), ZONE, day=2)
    scenes.add(values_of(3, (90, 90)), Affine(30, 0, 24_000, 0, -30, 5_209_000), NEXT, day=2)
    lsdask("mosaic", "--stac", stac_api(scenes.items), "--collection", "wpm", "--bands", "b1", "--resampling",
           resampling, "--aoi=14.74,46.925,14.795,46.955", "--out", tmp_path / "m.zarr")  # fmt: skip
    image = ls.store.open(tmp_path / "m.zarr")
    grid = ls.schema.geobox(image)
    assert (grid.crs.epsg, grid.resolution.x) == (32633, 30)
    assert ((grid.transform.c - 480_000) % 30, (grid.transform.f - 5_200_000) % 30) == (0, 0)
    expected = warped(scenes, grid, resampling)
    assert 0.5 < (expected > 0).mean() <= 1
    np.testing.assert_array_equal(image.values[0], expected)


@pytest.mark.parametrize(
    "place", [[], ["--crs", DEGREES, "--resolution", 0.001], ["--crs", "EPSG:3832", "--resolution", 90]],
    ids=["the scenes' own", "degrees", "Mercator of the Pacific"],
)  # fmt: skip
def test_a_place_across_the_antimeridian(
    scenes: Catalogue, stac_api: Callable, tmp_path: Path, place: list[object]
) -> None:
    scenes.add(values_of(1, (70, 120)), Affine(100, 0, 812_000, 0, -100, 8_120_000), "EPSG:32760")  # lies on both sides
    scenes.add(values_of(2, (70, 100)), Affine(100, 0, 182_000, 0, -100, 8_119_000), "EPSG:32701")  # east of it
    scenes.add(values_of(3, (70, 100)), Affine(100, 0, 500_000, 0, -100, 8_119_000), "EPSG:32760")  # far to the west
    lsdask("mosaic", "--stac", stac_api(scenes.items), "--collection", "wpm", "--bands", "b1",
           "--aoi=179.96,-17.04,-179.92,-16.99", *place,
           "--out", tmp_path / "m.zarr", "--save-items", tmp_path / "i.json")  # fmt: skip
    assert [item.id for item in ls.scenes.read(tmp_path / "i.json")] == ["s0", "s1"]
    image = ls.store.open(tmp_path / "m.zarr")
    grid = ls.schema.geobox(image)
    assert max(grid.shape) < 200
    expected, sure = nearest(scenes.parts[:2], grid)
    assert sure.mean() > 0.99
    assert (expected > 0).mean() > 0.6
    np.testing.assert_array_equal(image.values[0][sure], expected[sure])


@pytest.mark.parametrize("aoi", ["a box of degrees", "a circle round the pole"])
def test_a_place_round_a_pole(scenes: Catalogue, stac_api: Callable, tmp_path: Path, aoi: str) -> None:
    cap = shapely.box(-180, 88.5, 180, 90)
    scenes.add(values_of(1, (80, 80)), Affine(5000, 0, -203_000, 0, -5000, 201_000), "EPSG:3413", geometry=cap)
    scenes.add(values_of(2, (80, 80)), Affine(5000, 0, -103_000, 0, -5000, 131_000), "EPSG:3413", day=2, geometry=cap)
    scenes.add(values_of(3, (40, 40)), Affine(5000, 0, 450_000, 0, -5000, 8_000_000), ZONE)
    gpd.GeoSeries([shapely.Point(0, 0).buffer(1e5)], crs="EPSG:3413").to_file(tmp_path / "circle.gpkg")
    place = "-180,89,180,90" if aoi == "a box of degrees" else tmp_path / "circle.gpkg"
    lsdask("mosaic", "--stac", stac_api(scenes.items), "--collection", "wpm", "--bands", "b1", f"--aoi={place}",
           "--method", "last", "--out", tmp_path / "m.zarr")  # fmt: skip
    image = ls.store.open(tmp_path / "m.zarr")
    grid = ls.schema.geobox(image)
    left, bottom, right, top = grid.boundingbox
    assert left < -1e5 + 5000
    assert min(-left, -bottom, right, top) > 1e5 - 1
    assert max(grid.shape) < 50
    expected, sure = nearest([scenes.parts[1], scenes.parts[0]], grid)
    assert (expected > 0).mean() > 0.9
    np.testing.assert_array_equal(image.values[0][sure], expected[sure])


@pytest.mark.parametrize("trouble", ["404", "500", "cut short", pytest.param("silence", marks=pytest.mark.slow)])
def test_a_server_in_trouble_costs_its_tile_and_the_command_says_so(
    scenes: Catalogue, stac_api: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    short = {"GDAL_HTTP_RETRY_DELAY": "0.05", "GDAL_HTTP_TIMEOUT": "1", "GDAL_HTTP_MAX_RETRY": "1"}
    monkeypatch.setattr(headers, "REMOTE", headers.REMOTE | short)
    for number in range(3):  # a shard each
        values = values_of(number, (64, 2048))
        scenes.add(values, Affine(10, 0, 400_000 + 20_480 * number, 0, -10, 5_200_000), ZONE)
    api, server = stac_api(scenes.items), scenes.server
    {
        "404": lambda: server.fail("s1.tif", 404),
        "500": lambda: server.fail("s1.tif", 500),
        "silence": lambda: server.stall("s1.tif", seconds=1.2),
        "cut short": lambda: server.cut(scenes.folder / "s1.tif", "s1.tif", 0.5),
    }[trouble]()
    command = "mosaic", "--stac", api, "--collection", "wpm", "--bands", "b1", "--out", tmp_path / "m.zarr"
    said = lsdask(*command, code=1)
    assert "2 of 3 tiles" in said, said
    assert server.url("s1.tif") in said.replace(" ", "")
    assert not trouble.isdigit() or trouble in said
    assert len([path for _, path, _ in server.asked if path == "/s1.tif"]) > 2
    assert ls.ledger.done(tmp_path / "m.zarr").tolist() == [[True, False, True]]
    assert "2 of 3" in lsdask("info", tmp_path / "m.zarr")
    server.heal()
    server.asked.clear()
    assert "1 of 3 tiles" in lsdask(*command)
    assert {path for _, path, _ in server.asked if path.endswith(".tif")} == {"/s1.tif"}
    values = [part[0] for part in scenes.parts]
    np.testing.assert_array_equal(ls.store.open(tmp_path / "m.zarr").values[0], np.hstack(values))


def test_a_scene_without_its_quality_band_is_hidden_and_not_taken_for_clear(
    scenes: Catalogue, stac_api: Callable, tmp_path: Path
) -> None:
    place, values = Affine(10, 0, 400_000, 0, -10, 5_200_000), [np.full((40, 60), 10 * n, "uint8") for n in (1, 2)]
    quality = np.full((40, 60), 0b10, "uint8")  # cloud
    quality[:, 20:40], quality[:, 40:] = 0, 0b1000  # clear; doubtful in its second band
    for day, plane in enumerate((values[0], quality, values[1]), 1):
        scenes.add(plane, place, ZONE, day=day, nodata=None)
    whole, udm, bare = scenes.items
    whole.assets = {"red": whole.assets["b1"], "udm": udm.assets["b1"]}
    for asset in whole.assets.values():
        asset.extra_fields["raster:bands"] = [{"data_type": "uint8"}]
    bare.assets = {"red": bare.assets["b1"]}
    chosen = "--collection", "wpm", "--sensor", "rapideye", "--bands", "red", "--method", "last"
    command = "mosaic", "--stac", stac_api([whole, bare]), *chosen
    lsdask(*command, "--out", tmp_path / "m.zarr")
    expected = np.zeros((40, 60))
    expected[:, 20:40] = 10
    np.testing.assert_array_equal(ls.store.open(tmp_path / "m.zarr").values[0], expected)
    lsdask(*command, "--no-mask", "--out", tmp_path / "all.zarr")
    assert (ls.store.open(tmp_path / "all.zarr").values == 20).all()
    with pytest.raises(BadInput, match=r"items must have the quality band of rapideye, udm. Got none. Pass --no-mask"):
        lsdask("mosaic", "--stac", stac_api([bare]), *chosen, "--out", tmp_path / "none.zarr")


@pytest.mark.parametrize("taken_back", [False, True])
def test_sentinel_2_of_today_is_written_without_the_shift_of_2022_once(
    scenes: Catalogue, tmp_path: Path, taken_back: bool
) -> None:
    true = np.random.default_rng(0).integers(1, 8000, (40, 60)).astype("uint16")
    place = Affine(10, 0, 400_000, 0, -10, 5_200_000)
    scenes.add(true if taken_back else true + np.uint16(1000), place, ZONE, dtype="uint16")
    scenes.add(np.full((40, 60), 4, "uint8"), place, ZONE)
    item, quality = scenes.items
    said = {"data_type": "uint16", "nodata": 0, "scale": 1e-4, "offset": -0.1}  # also where it is taken back
    item.assets = {"red": item.assets["b1"], "scl": quality.assets["b1"]}
    item.assets["red"].extra_fields["raster:bands"] = [said]
    item.properties |= {"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": taken_back}
    item.datetime = datetime(2023, 3, 1, 12, tzinfo=UTC)
    ls.scenes.save([item], tmp_path / "items.json")
    command = "mosaic", "--items", tmp_path / "items.json", "--sensor", "sentinel-2-l2a", "--bands", "red"
    lsdask(*command, "--out", tmp_path / "m.zarr")
    np.testing.assert_array_equal(ls.store.open(tmp_path / "m.zarr").values[0], true)
    lsdask(*command, "--reflectance", "--out", tmp_path / "r.zarr")
    np.testing.assert_allclose(ls.store.open(tmp_path / "r.zarr").values[0], true * 1e-4, atol=2e-7)

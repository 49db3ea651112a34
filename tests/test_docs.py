"""The pages of docs/: what they show is run, in order, as a reader would."""

import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import servers
import shapely
from typer.testing import CliRunner

import lsdask as ls
from lsdask import cli

DOCS = Path(__file__).parents[1] / "docs"
S2 = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "scl": "SCL"}


def blocks(page: str, kind: str) -> list[str]:
    """The code of a page: blocks of a kind, ``python`` or ``sh``."""
    return re.findall(rf"^```{kind}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def served_item(data: Path, address: str) -> Any:
    """The real Sentinel-2 item, with the addresses and the places of the (decimated) files that are here."""
    (item,) = ls.scenes.read(data / "sentinel2-29RKH" / "S2A_29RKH_20200219_0_L2A.json")
    for key, name in S2.items():
        with rasterio.open(data / "sentinel2-29RKH" / f"{name}.tif") as file:
            place = {"proj:shape": list(file.shape), "proj:transform": list(file.transform)[:6]}
        item.assets[key].href = f"{address}/sentinel2-29RKH/{name}.tif"
        item.assets[key].extra_fields |= place
    return item


def write_inputs(folder: Path, data: Path) -> None:
    """A sea in the west of the place, and heights that rise to the east by one in ten."""
    gpd.GeoSeries([shapely.box(-11.7, 24.5, -11.55, 25)], crs="EPSG:4326").to_file(folder / "sea.gpkg")
    with rasterio.open(data / "sentinel2-29RKH" / "B02.tif") as file:
        place, shape, crs = file.transform, file.shape, file.crs
    heights = np.broadcast_to(np.arange(shape[1], dtype="float32") * 10, shape)
    with rasterio.open(
        folder / "dem.tif", "w", driver="GTiff", count=1, dtype="float32", crs=crs, transform=place,
        height=shape[0], width=shape[1],
    ) as file:  # fmt: skip
        file.write(heights, 1)


@pytest.mark.realdata
def test_from_a_catalogue_to_a_mosaic(
    data: Path, pixels: Callable, stac_api: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "from-a-catalogue-to-a-mosaic.md"
    server: servers.Pixels = pixels(data)
    write_inputs(tmp_path, data)
    monkeypatch.setenv("STAC_API", stac_api([served_item(data, server.address)]))
    monkeypatch.chdir(tmp_path)

    space: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), space)
    written = ls.store.open("mosaic.zarr")
    assert ls.schema.bands(written) == ("blue", "green", "red", "nir", "elevation", "slope")
    valid = ls.schema.valid(written).values
    assert 0.3 < valid.mean() < 0.9
    np.testing.assert_allclose(written.sel(band="slope").values[valid], np.degrees(np.arctan(0.1)), atol=1e-3)

    (written_out,) = [block for block in blocks(page, "sh") if "--stac" in block]
    command = shlex.split(written_out.replace("\\\n", " ").replace("$STAC_API", os.environ["STAC_API"]))
    command = [part.replace("mosaic.", "again.") for part in command[1:]]
    result = CliRunner().invoke(cli.app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    again = ls.store.open("again.zarr")
    assert ls.schema.bands(again) == ("blue", "green", "red", "nir", "looks", "elevation", "slope")
    np.testing.assert_array_equal(again.sel(band=written.band).values, written.values)


@pytest.mark.slow
def test_from_your_files_to_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "from-your-files-to-a-map.md"
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(page, "python")[0], page, "exec"), {})
    (written_out,) = blocks(page, "sh")
    for line in written_out.replace("\\\n", " ").splitlines():
        command = shlex.split(line.replace("--epochs 30", "--epochs 1"))[1:]
        result = CliRunner().invoke(cli.app, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert ls.schema.bands(ls.store.open("mosaic.zarr")) == ("green", "red", "nir", "elevation", "slope")
    assert {"slope_mean", "area_m2"} <= set(gpd.read_file("landslides.gpkg").columns)
    assert 0 <= json.loads(Path("scores.json").read_text())["f1"] <= 1
    assert "Landslides of the scene" in Path("report.html").read_text()

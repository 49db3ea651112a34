"""What ``lsdask info`` says of each kind of thing that the commands write, at any width of the terminal."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import s3
from images import random_mosaic
from typer.testing import CliRunner

import lsdask as ls
from lsdask import cli
from lsdask.cli import about
from lsdask.errors import NotFound, Unreadable

OPTIONS = {"chunk": 128, "shard": 256, "progress": False}


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 60 letters, as each letter of the map is two windows to read."""
    monkeypatch.setattr(about.console, "_width", 60)


def info(path: object, *more: object) -> str:
    result = CliRunner().invoke(cli.app, ["info", str(path), *map(str, more)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def rows(said: str) -> dict[str, str]:
    """The table, by the names of its rows; a row may go on on the next line."""
    found: dict[str, str] = {}
    for name, value in re.findall(r"^│ (.*?) *│ (.*?) *│$", said, re.MULTILINE):
        last = name or list(found)[-1]
        found[last] = f"{found.get(last, '')} {value}".strip()
    return found


def letters(said: str) -> list[str]:
    """The lines of the coverage map."""
    return [line.strip() for line in said.splitlines() if line.strip() and not set(line.strip()) - set("·░▓█")]


@pytest.fixture(scope="module")
def image():
    """The western third is void, the rest is known."""
    image = random_mosaic((3, 700, 900), void=0.0, chunks=256)
    image.data = image.data.map_blocks(np.copy)
    return image.where(image.x > image.x[299], 0).astype("uint16").assign_attrs(_FillValue=np.uint16(0))


def check(said: str) -> dict[str, str]:
    found = rows(said)
    assert found["dims"] == "band 3, y 700, x 900"
    assert (found["dtype"], found["nodata"]) == ("uint16", "0")
    assert (found["CRS"], found["pixel"]) == ("EPSG:32723", "10 x 10 metre")
    assert found["bounds"] == "440000, 7393000, 449000, 7400000"
    assert found["band"] == "b0, b1, b2"
    for line in letters(said):
        third = len(line) / 3
        assert set(line[: int(third)]) == {"·"}
        assert set(line[int(third) + 1 :]) == {"█"}
    return found


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_store_at_any_width(image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    ls.mosaic.write(image, tmp_path / "a.zarr", **OPTIONS).check()
    monkeypatch.setattr(about.console, "_width", columns)
    said = info(tmp_path / "a.zarr")
    found = check(said)
    assert (found["chunks"], found["shards"], found["tiles done"]) == ("(3, 128, 128)", "(3, 256, 256)", "12 of 12")
    assert max(map(len, said.splitlines())) <= columns
    assert 50 < len(letters(said)[0]) <= min(columns, 80)


def test_a_picture(image, tmp_path: Path) -> None:
    ls.mosaic.write(image, tmp_path / "a.zarr", **OPTIONS).check()
    said = info(tmp_path / "a.zarr", "--png", tmp_path / "a.png", "--no-coverage")
    assert not letters(said)
    with rasterio.open(tmp_path / "a.png") as file:
        picture = file.read()
    middle = picture[:3, picture.shape[1] // 2]
    assert (middle[:, middle.shape[1] // 6] == 255).all()  # void is white
    assert np.ptp(middle[:, middle.shape[1] // 2 :]) > 100


def test_a_cloud_optimised_geotiff(image, tmp_path: Path) -> None:
    ls.mosaic.to_cog(image, tmp_path / "a.tif")
    found = check(info(tmp_path / "a.tif"))
    with rasterio.open(tmp_path / "a.tif") as file:
        assert found["blocks"] == str(file.block_shapes[0])
        assert found["overviews"] == ", ".join(map(str, file.overviews(1)))
    assert (found["layout"], found["compression"]) == ("COG", "deflate")
    (tmp_path / "torn.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:5000])
    with pytest.raises(Unreadable, match=r"torn.tif must be"):
        info(tmp_path / "torn.tif")
    with pytest.raises(NotFound, match=r"none.tif"):
        info(tmp_path / "none.tif")


@pytest.mark.filterwarnings("ignore")
def test_a_repository_and_an_object_store(image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ls.mosaic.write(image, f"icechunk:{tmp_path}/a", **OPTIONS).check()
    check(info(f"icechunk:{tmp_path}/a"))
    with s3.serving(monkeypatch):
        ls.mosaic.write(image, f"s3://{s3.BUCKET}/a.zarr", **OPTIONS).check()
        said = info(f"s3://{s3.BUCKET}/a.zarr", "--no-coverage")  # whose map is some thousand requests
        assert check(said)["tiles done"] == "12 of 12"


SLOWLY = """
import sys
sys.path.insert(0, {tests!r})
import test_mosaic_restart as test
test.mosaic.write(test.image(1.0), {target!r}, **test.OPTIONS)
"""


def test_a_store_that_is_being_written_and_one_whose_run_was_killed(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    code = SLOWLY.format(tests=str(Path(__file__).parent), target=str(target))
    run = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not target.exists() or not ls.ledger.done(target).any():
            assert run.poll() is None
            time.sleep(0.05)
        said = info(target)
    finally:
        run.kill()
        run.wait()
    done, tiles = map(int, rows(said)["tiles done"].split(" of "))
    assert 0 < done < tiles == 16
    assert "·" in "".join(letters(said))
    assert rows(info(target))["tiles done"].endswith("of 16")

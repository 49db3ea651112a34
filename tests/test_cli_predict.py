"""Predicting from the command line: said before, gone on with, checked after."""

import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from images import random_mosaic
from typer.testing import CliRunner

from lsdask import cli, ledger, models, schema, store
from lsdask.errors import BadInput, NotFound


def lsdask(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return re.sub(r"\s+", " ", result.output)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mosaic, a model and a place."""
    folder = tmp_path_factory.mktemp("predict")
    store.write(random_mosaic((2, 200, 200), void=0.1), folder / "mosaic.zarr", chunk=64, shard=128)
    model = models.build("soares_unet", bands=["b0", "b1"], filters=16, mean=[500.0] * 2, std=[290.0] * 2)
    models.save(model, folder / "model", tile=64, halo=16)
    box = shapely.box(440000, 7399000, 441000, 7400000)  # the upper left hundred pixels
    gpd.GeoDataFrame(geometry=[box], crs="EPSG:32723").to_file(folder / "place.gpkg")
    return folder


def test_a_prediction_from_plan_to_check(folder: Path) -> None:
    places = (folder / "mosaic.zarr", folder / "model", folder / "scores.zarr")
    options = ("--tile", 64, "--halo", 144, "--where", folder / "place.gpkg", "--tta", "flips",
               "--precision", "float32", "--dtype", "float32", "--batch", 3)  # fmt: skip
    said = lsdask("predict", *places, *options, "--dry-run")
    assert "64 px and a halo of 144 px" in said
    assert "time" in said
    assert not (folder / "scores.zarr").exists()
    assert "of 16 tiles" in lsdask("predict", *places, *options)
    scores = store.open(folder / "scores.zarr")
    known = ~np.isnan(scores[0].values)
    inside = np.zeros((200, 200), bool)
    inside[:100, :100] = True
    assert (known == inside & schema.valid(store.open(folder / "mosaic.zarr")).values).all()

    plan = ledger.plan_of(folder / "scores.zarr")
    assert (plan["batch"], plan["compile"]) == (3, [False])
    book = ledger.read(folder / "scores.zarr")
    book.clear((0, 1))
    book.flush()
    assert "1 to do" in lsdask("status", folder / "scores.zarr")
    assert "1 of 16 tiles" in lsdask("predict", "--resume", folder / "scores.zarr")
    np.testing.assert_array_equal(store.open(folder / "scores.zarr").values, scores.values)

    assert "16 of 16 tiles are as they were written" in lsdask("status", folder / "scores.zarr", "--verify")
    shard = folder / "scores.zarr" / "scores" / "c" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-9])
    said = lsdask("status", folder / "scores.zarr", "--verify", code=1)
    assert "tile (0, 0): scores/c/0/0/0: torn or altered" in said
    assert "1 of 16 tiles" in lsdask("predict", *places, *options)


def test_bad_input(folder: Path) -> None:
    for arguments, said in (
        ((), r"mosaic must be given\. Got none\. Pass MOSAIC MODEL OUT, or --resume OUT"),
        ((folder / "mosaic.zarr", folder / "model"), "out must be given"),
        ((folder / "mosaic.zarr", folder / "model", "s", "--halo", "wide"), "halo must be whole pixels or auto"),
        (("--resume", folder / "mosaic.zarr"), "resume must be what a run wrote or writes"),
        ((folder / "mosaic.zarr", folder / "model", "s", "--where", "no.gpkg"), "where must name a file"),
    ):
        with pytest.raises((BadInput, NotFound), match=said):
            lsdask("predict", *arguments)
    with pytest.raises(BadInput, match=r"store must be what a run wrote or writes.*of no run"):
        lsdask("status", folder / "mosaic.zarr")


def test_a_place_outside_the_mosaic_is_told(folder: Path, tmp_path: Path) -> None:
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326").to_file(tmp_path / "far.gpkg")
    said = lsdask("predict", folder / "mosaic.zarr", folder / "model", tmp_path / "s.zarr", "--tile", 64, "--halo", 16,
                  "--where", tmp_path / "far.gpkg")  # fmt: skip
    assert "no pixel was scored" in said

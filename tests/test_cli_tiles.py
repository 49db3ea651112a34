"""`lsdask tiles`: every way to place, choose and divide, on two scenes that overlap."""

import re
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from typer.testing import CliRunner

import lsdask as ls
from lsdask import cli
from lsdask.cli.inputs import streams_of
from lsdask.errors import BadInput

runner = CliRunner()


def tiles(*arguments: object) -> tuple[str, pd.DataFrame]:
    """Run the command, and give what it prints and what it writes."""
    result = runner.invoke(cli.app, ["tiles", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    out = next(path for path in map(Path, map(str, arguments)) if path.name == "t.parquet")
    return re.sub(r"\s+", " ", result.output), pd.read_parquet(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene, the part of it that a second scene shows again, landslides, and scores that are wrong in places."""
    folder = tmp_path_factory.mktemp("tiles")
    grid = GeoBox((192, 256), Affine(8, 0, 360_000, 0, -8, 7_400_000), "EPSG:32723")
    draw = np.random.default_rng(3)
    scene = ls.schema.wrap(draw.integers(1, 99, (2, 192, 256), dtype="uint16"), grid, ls.schema.MOSAIC, name="scene",
                           coords={"band": ["red", "nir"]}, nodata=0)  # fmt: skip
    ls.store.write(scene[:, :, :160], folder / "west.zarr")
    ls.store.write(scene[:, :, 96:], folder / "east.zarr")
    x, y = 360_000 + draw.uniform(0, 2000, 60), 7_400_000 - draw.uniform(0, 1500, 60)
    slides = gpd.GeoDataFrame(geometry=shapely.box(x, y, x + 60, y + 40), crs=grid.crs)
    slides.to_file(folder / "slides.gpkg")
    mask = ls.inventory.rasterize(slides, scene)[:, :160]
    ls.store.write(mask.compute(), folder / "mask.zarr")
    values = np.where(mask.values == 1, 0, 25).astype("uint8")
    values[:, 60:80] = 200
    scores = ls.schema.wrap(
        values[None], ls.schema.geobox(mask), ls.schema.SCORES, name="scores", coords={"class": ["landslide"]},
        attrs=ls.schema.score_attrs("uint8"),
    )  # fmt: skip
    ls.store.write(scores, folder / "scores.zarr")
    return folder


def test_a_grid_is_what_the_rooms_make_of_it(folder: Path, tmp_path: Path) -> None:
    out, table = tiles(
        folder / "west.zarr", tmp_path / "t.parquet", "--mask", folder / "mask.zarr", "--size", 16, "--overlap", 0.5,
        "--scores", folder / "scores.zarr", "--threshold", 0.6, "--block", 32, "--buffer", 4, "--test", "north",
        "--min-valid", 0.9, "--seed", 7,
    )  # fmt: skip
    image, mask, scores = (ls.store.open(folder / f"{name}.zarr") for name in ("west", "mask", "scores"))
    expected = ls.sampling.describe(
        ls.sampling.grid(image, 16, overlap=0.5),
        mask=mask,
        valid=image,
        agreement=ls.evaluate.agreement(scores, mask, threshold=0.6),
    )
    expected = ls.sampling.select(expected, min_valid=0.9)
    options = {"block": 32, "buffer": 4, "test": "north", "seed": 7, "fractions": (0.6, 0.15, 0.25)}
    expected = ls.sampling.split(expected, **options)
    assert set(table.columns) == set(expected.columns)
    pd.testing.assert_frame_equal(table[expected.columns], expected)
    assert re.search(r"train │ [\d,]+ │ [\d.]+% │ [\d,]+ │ [\d.]+% │", out)
    assert out.index(" train ") < out.index(" valid ") < out.index(" test ")
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_random_and_even_places(folder: Path, tmp_path: Path) -> None:
    common = [folder / "west.zarr", tmp_path / "t.parquet", "--size", 16, "--block", 32, "--test", "none"]
    _, table = tiles(*common, "--method", "random", "--n", 300)
    assert len(table) == 300
    _, table = tiles(*common, "--method", "even", "--overlap", 0.2)
    assert len(table) == (192 // 12) * int(160 / 12)


def test_only_positive_tiles(folder: Path, tmp_path: Path) -> None:
    common = [folder / "west.zarr", tmp_path / "t.parquet", "--size", 16, "--mask", folder / "slides.gpkg"]
    _, every = tiles(*common, "--block", 32)
    _, table = tiles(*common, "--block", 32, "--positive")
    assert len(table) == (every["positive"] > 0).sum() < len(every)
    assert (table["positive"] > 0).all()


def test_choices_are_made_among_train_tiles_only(folder: Path, tmp_path: Path) -> None:
    common = [folder / "west.zarr", tmp_path / "t.parquet", "--mask", folder / "mask.zarr", "--size", 16, "--block", 32]
    common += ["--scores", folder / "scores.zarr"]
    _, every = tiles(*common)
    rest = every[every["split"] != "train"].reset_index(drop=True)
    for choice in (["--hard", 0.2], ["--balance", "positive"], ["--draw", 500]):
        _, table = tiles(*common, *choice)
        others = table[table["split"] != "train"].reset_index(drop=True)
        pd.testing.assert_frame_equal(others, rest)
        train = table[table["split"] == "train"]
        positive = (train["positive"] > 0).sum()
        if choice[0] == "--hard":
            learning = every[every["split"] == "train"]
            hard = ((learning["positive"] == 0) & (learning["false_alarm"] > 0)).sum()
            assert 0 < len(train) - positive == min(round(0.2 * positive), hard)
            assert (train.loc[train["positive"] == 0, "false_alarm"] > 0).all()
        elif choice[0] == "--balance":
            assert len(train) == 2 * positive
        else:
            assert len(train) == 500
            assert 200 < positive < 300


def test_folds(folder: Path, tmp_path: Path) -> None:
    common = [folder / "west.zarr", tmp_path / "t.parquet", "--size", 16, "--block", 32, "--overlap", 0.5,
              "--folds", 3]  # fmt: skip
    out, first = tiles(*common)
    _, second = tiles(*common, "--fold", 1)
    assert first["fold"].equals(second["fold"])
    assert ((first["split"] == "test") == (first["fold"] == 0)).all()
    assert ((second["split"] == "test") == (second["fold"] == 1)).all()
    assert re.search(r"fold ┃.*│ none │ [\d,]+ │.*│ 2 │", out)
    lost = round(100 * (first["split"] == "none").mean())
    assert (f"{lost}% of the tiles see two splits and are in none; a larger --block" in out) == (lost > 30)


def test_scenes_that_overlap_share_no_ground_between_splits(folder: Path, tmp_path: Path) -> None:
    west, east = str(folder / "west.zarr"), str(folder / "east.zarr")
    _, table = tiles(west, tmp_path / "t.parquet", "--also", east, "--mask", folder / "slides.gpkg", "--size", 16,
                     "--block", 32, "--buffer", 2, "--test", "east")  # fmt: skip
    assert set(table["scene"]) == {west, east}
    seen = np.zeros((192, 256), dtype=int)
    for tile in table[table["split"] != "none"].itertuples():
        x = tile.x + (96 if tile.scene == east else 0)
        low, high = (0, 160) if tile.scene == west else (96, 256)
        window = np.s_[max(tile.y - 2, 0) : tile.y + 18, max(x - 2, low) : min(x + 18, high)]
        seen[window] |= 1 << ls.sampling.SPLITS.index(tile.split)
    assert set(np.unique(seen)) == {0, 1, 2, 4}
    assert (ls.sampling.read(tmp_path / "t.parquet", scene=west)["scene"] == west).all()
    image = ls.store.open(west)
    with pytest.raises(
        BadInput, match=r"mosaic must be of the table's scenes, .*east.zarr, .*west.zarr. Got .*west.zarr. Pass"
    ):
        streams_of({west: image}, [image[0]], tmp_path / "t.parquet", 4, 0)
    with pytest.raises(BadInput, match="tiles must be of one scene"):
        ls.streaming.TileStream(image, table)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "200"], "size must not exceed the image. Got size=200 for an image of 192 x 160 px."),
        (["--mask", "{far}"], "mask must hold a landslide in a tile. Got none in any tile."),
        (["--mask", "{scores}"], "mask must have dims ('y', 'x')."),
        (["--mask", "{twos}"], "mask must hold 1 (landslide), 0 (not) and 255 (unknown). Got 2."),
        (["--block", "1000"], "tiles must be enough, and far enough apart, for every side. Got no tile for"),
        (["--test", "up"], "test must be one of ['east', 'west', 'south', 'north'], polygons, or a window"),
        (["--scores", "{scores}"], "mask must be given with scores. Got none. Pass --mask."),
        (["--positive"], "mask must be given with positive."),
        (["--hard", "1", "--mask", "{mask}"], "scores must be given with hard."),
        (["--draw", "5"], "mask must be given with draw."),
        (["--balance", "positive"], "mask must be given with balance."),
        (["--balance", "cluster"], "clusters must be given with balance."),
        (["--k", "3"], "clusters must be given with k."),
        (["--fold", "1"], "folds must be given with fold."),
        (["--fractions", "nan,nan,nan"], "fractions must be three shares that sum to 1."),
        (["--mask", "{none}"], "mask must hold polygons. Got none in"),
        (["--seed", "-1"], "seed must be a whole number, at least 0. Got seed=-1."),
        (["--also", "{east}", "--mask", "{mask}"], "mask must be one for each of the 2 mosaics. Got 1."),
        (["--also", "{east}", "--mask", "{mask}", "--mask", "{mask}"], "mask must lie on the grid of valid"),
        (["--folds", "3", "--fold", "3"], "fold must be from 0 to 2. Got fold=3."),
        (["--min-valid", "1", "--method", "random", "--size", "160"], "tiles must be enough"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    folder: Path,
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    mask = ls.store.open(folder / "mask.zarr")
    ls.store.write(ls.schema.wrap(np.full_like(mask.values, 2), ls.schema.geobox(mask), ("y", "x"), name="mask"),
                   tmp_path / "twos.zarr")  # fmt: skip
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32723").to_file(tmp_path / "far.gpkg")
    gpd.GeoDataFrame(geometry=[], crs="EPSG:32723").to_file(tmp_path / "none.gpkg")
    named = {name: folder / f"{name}.zarr" for name in ("east", "mask", "scores")}
    filled = [
        part.format(far=tmp_path / "far.gpkg", twos=tmp_path / "twos.zarr", none=tmp_path / "none.gpkg", **named)
        for part in arguments
    ]
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(
        sys, "argv", ["lsdask", "tiles", str(folder / "west.zarr"), str(out / "t.parquet"), "--size", "16", *filled]
    )
    with pytest.raises(SystemExit) as left:
        cli.main()
    stderr = capsys.readouterr().err
    assert left.value.code == 2
    assert stderr.startswith("lsdask: ")
    assert said in stderr
    assert stderr.count("\n") == 1
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (("{west}", "{out}/t.csv"), "out must name a .parquet file. Got out="),
        (("{west}", "{out}/none/t.parquet"), "out must lie in a folder that is there. Got out="),
        (("{mask}", "{out}/t.parquet"), "mosaic must have dims ('band', 'y', 'x'). Got ('y', 'x')."),
    ],
)
def test_places_that_cannot_be_are_named_and_nothing_is_written(folder: Path, places, said, tmp_path: Path) -> None:
    named = {"west": folder / "west.zarr", "mask": folder / "mask.zarr", "out": tmp_path}
    with pytest.raises(BadInput, match=re.escape(said)):
        runner.invoke(cli.app, ["tiles", *(part.format(**named) for part in places)], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []

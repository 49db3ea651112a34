"""The commands that score a map and make an inventory of it, with all they can write."""

import json
import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

import lsdask as ls
from lsdask import cli
from lsdask.cli.saving import markdown
from lsdask.errors import BadInput, NotFound

runner = CliRunner()
SIDE = 192


def lsdask(*arguments: object, code: int = 0) -> str:
    result = runner.invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return re.sub(r"\s+", " ", result.output)


def guessed(mask: xr.DataArray, noise: float, seed: int) -> xr.DataArray:
    """Scores that are high near landslides, with some noise; unknown where the mask is."""
    soft = ndimage.gaussian_filter((mask.values == 1).astype("float32"), 1.5)
    p = np.clip(0.2 + 0.7 * soft + noise * np.random.default_rng(seed).normal(size=mask.shape), 0, 1)
    values = ls.schema.encode_scores_block(np.where(mask.values == 255, np.nan, p)[None], "uint8")
    attrs, grid = ls.schema.score_attrs("uint8"), ls.schema.geobox(mask)
    return ls.schema.wrap(values, grid, ls.schema.SCORES, name="scores", coords={"class": ["landslide"]}, attrs=attrs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of scores, a worse one, the truth, two regions, tiles of three splits, heights, a pair."""
    folder = tmp_path_factory.mktemp("results")
    land = ls.synthetic.landscape((SIDE, SIDE), seed=4)
    ls.store.write(guessed(land.mask, 0.1, 0), folder / "scores.zarr", chunk=64, shard=128)
    ls.store.write(guessed(land.mask, 0.4, 1), folder / "worse.zarr", chunk=64, shard=128)
    ls.store.write(land.mask, folder / "mask.zarr", chunk=64, shard=128)
    land.polygons.to_file(folder / "slides.gpkg")
    left, bottom, right, top = ls.schema.geobox(land.mask).boundingbox.bbox
    halves = [shapely.box(left, bottom, (left + right) / 2, top), shapely.box((left + right) / 2, bottom, right, top)]
    gpd.GeoDataFrame({"basin": ["west", "east"]}, geometry=halves, crs=land.polygons.crs).to_file(
        folder / "basins.gpkg"
    )
    y, x = 32 * np.stack(np.divmod(np.arange(36), 6))
    split = np.where(x >= 128, "test", np.where(x >= 96, "valid", "train"))
    pd.DataFrame({"y": y, "x": x, "size": 32, "split": split}).to_parquet(folder / "tiles.parquet")
    heights = (1000 + 2.0 * np.arange(SIDE)[:, None] + np.zeros((SIDE, SIDE))).astype("float32")
    dem = ls.schema.wrap(heights, ls.schema.geobox(land.mask), ls.schema.MASK, name="dem")
    ls.mosaic.to_cog(dem, folder / "dem.tif")
    before = land.scene.sel(band=["red", "nir"])
    ls.store.write(ls.mosaic.pair_of(before, before[::-1].assign_coords(band=["red", "nir"])), folder / "pair.zarr")
    return folder


# --- evaluate --------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_room(folder: Path, tmp_path: Path) -> None:
    out = lsdask(
        "evaluate", folder / "scores.zarr", folder / "mask.zarr", "--threshold", 0.6, "--out", tmp_path / "s.json"
    )
    image, mask = ls.store.open(folder / "scores.zarr"), ls.store.open(folder / "mask.zarr")
    counts = ls.evaluate.count(image, mask, threshold=0.6)
    written = json.loads((tmp_path / "s.json").read_text())
    expected = ls.evaluate.score(counts)
    assert {name: written[name] for name in expected} == pytest.approx(expected)
    assert [written[name] for name in ("tp", "fp", "fn", "tn")] == [counts.tp, counts.fp, counts.fn, counts.tn]
    for name, value in expected.items():
        assert f"{name} │ {value:.4f}" in out
    assert f"{counts.tn:,}" in out
    burned = lsdask("evaluate", folder / "scores.zarr", folder / "slides.gpkg", "--threshold", 0.6)
    assert f"{counts.tp:,}" in burned  # the mask is burned of these polygons, and the scores know what it knows


def test_the_threshold_is_chosen_on_valid_tiles_and_judged_on_test_tiles(folder: Path, tmp_path: Path) -> None:
    lsdask("evaluate", folder / "scores.zarr", folder / "mask.zarr", "--tiles", folder / "tiles.parquet",
           "--best", "iou", "--also", folder / "worse.zarr", "--out", tmp_path / "s.csv")  # fmt: skip
    table = pd.read_csv(tmp_path / "s.csv")
    tiles, mask = pd.read_parquet(folder / "tiles.parquet"), ls.store.open(folder / "mask.zarr")
    for row, name in zip(table.itertuples(), ("scores.zarr", "worse.zarr")):
        image = ls.store.open(folder / name)
        inside = {split: ls.evaluate.within(tiles[tiles.split == split], mask) for split in ("valid", "test")}
        chosen = ls.evaluate.best(ls.evaluate.sweep(image, mask, thresholds=251, valid=inside["valid"]), by="iou")
        assert row.threshold == chosen
        scored = ls.evaluate.score(ls.evaluate.count(image, mask, threshold=chosen, valid=inside["test"]))
        assert row.iou == pytest.approx(scored["iou"])
    assert table["f1"][0] > table["f1"][1]


def test_everything_at_once_is_written_drawn_and_mapped(folder: Path, tmp_path: Path) -> None:
    out = lsdask(
        "evaluate", folder / "scores.zarr", folder / "slides.gpkg", "--threshold", 0.6, "--block", 32, "--near", 2,
        "--regions", folder / "basins.gpkg", "--name", "basin", "--objects", "--out", tmp_path / "s.md",
        "--figures", tmp_path / "figures", "--agreement", tmp_path / "agreement.zarr",
    )  # fmt: skip
    image, mask = ls.store.open(folder / "scores.zarr"), ls.store.open(folder / "mask.zarr")
    text = (tmp_path / "s.md").read_text()
    for name in ("scores", "intervals", "regions", "near", "sizes", "objects"):
        assert f"## {name}\n" in text
    assert "| west |" in text
    assert "west" in out
    codes = ls.store.open(tmp_path / "agreement.zarr")
    assert (codes.values == ls.evaluate.agreement(image, mask, threshold=0.6).values).all()
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    figures = ("agreement", "curves", "reliability", "sizes", "thresholds")
    assert drawn == {f"{name}{suffix}" for name in figures for suffix in (".png", ".pdf")}
    assert all(min(Image.open(tmp_path / "figures" / f"{name}.png").size) > 500 for name in figures)


def test_held_out_landslides_are_those_of_the_test_tiles(folder: Path, tmp_path: Path) -> None:
    lsdask("evaluate", folder / "scores.zarr", folder / "slides.gpkg", "--threshold", 0.6, "--objects",
           "--tiles", folder / "tiles.parquet", "--out", tmp_path / "s.json")  # fmt: skip
    tiles, mask = pd.read_parquet(folder / "tiles.parquet"), ls.store.open(folder / "mask.zarr")
    east = np.arange(SIDE) >= 128
    inside = ls.inventory.vectorize((mask == 1).where(east[None], False).astype(bool).assign_coords(mask.coords))
    written = json.loads((tmp_path / "s.json").read_text())
    assert written["objects"][0]["true"] == len(inside)
    assert sum(row["landslides"] for row in written["sizes"]) == len(inside)
    assert written["sizes"][-1]["to_m2"] is None
    assert len(tiles)


def test_tiles_are_of_one_scene_and_of_the_splits_that_are_asked_for(folder: Path, tmp_path: Path) -> None:
    tiles = pd.read_parquet(folder / "tiles.parquet")
    both = pd.concat([tiles.assign(scene="here"), tiles.assign(scene="there", x=0)])
    both.to_parquet(tmp_path / "both.parquet")
    stores = folder / "scores.zarr", folder / "mask.zarr"
    given = "--tiles", tmp_path / "both.parquet", "--out", tmp_path / "s.json"
    lsdask("evaluate", *stores, *given, "--scene", "here")
    image, mask = map(ls.store.open, stores)
    inside = ls.evaluate.within(tiles[tiles.split == "test"], mask)
    assert json.loads((tmp_path / "s.json").read_text())["tp"] == ls.evaluate.count(image, mask, valid=inside).tp > 0
    with pytest.raises(BadInput, match="scene must name a scene of the table"):
        lsdask("evaluate", *stores, *given)
    with pytest.raises(BadInput, match="tiles must hold tiles of the split 'test'"):
        lsdask("evaluate", *stores, *given, "--scene", "nowhere")
    tiles.drop(columns="split").to_parquet(tmp_path / "both.parquet")
    with pytest.raises(BadInput, match="split"):
        lsdask("evaluate", *stores, *given)
    with pytest.raises(NotFound, match="tiles must name a parquet file"):
        lsdask("evaluate", *stores, "--tiles", tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--best", "f1"], "best must come with --tiles"),
        (["--regions", "{folder}/basins.gpkg"], "regions must come with --block"),
        (["--regions", "{folder}/basins.gpkg", "--block", "32", "--name", "state"], "name must be a column of the reg"),
        (["--out", "scores.txt"], "out must end in .json, .md or .csv"),
        (["--class", "scree"], "class must be one of landslide. Got class=scree"),
    ],
)
def test_options_that_do_not_fit_are_named(folder: Path, options: list[str], says: str) -> None:
    given = [option.format(folder=folder) for option in options]
    with pytest.raises(BadInput, match=re.escape(says)):
        lsdask("evaluate", folder / "scores.zarr", folder / "mask.zarr", *given)


def test_a_table_in_markdown() -> None:
    table = pd.DataFrame({"region": ["a|b", "c"], "tp": [3, 10], "f1": [0.12345, np.nan]})
    assert markdown(table) == "| region | tp | f1 |\n| --- | --- | --- |\n| a\\|b | 3 | 0.1235 |\n| c | 10 | nan |\n"


# --- polygons --------------------------------------------------------------------------------------------------------


def test_polygons_leave_with_attributes_and_are_described(folder: Path, tmp_path: Path) -> None:
    out = lsdask("polygons", folder / "scores.zarr", tmp_path / "p.parquet", "--threshold", 0.6, "--min-area", 500,
                 "--image", folder / "pair.zarr", "--dem", folder / "dem.tif",
                 "--cog", tmp_path / "scores.tif")  # fmt: skip
    image, pair = ls.store.open(folder / "scores.zarr"), ls.store.open(folder / "pair.zarr")
    whole = ls.inventory.vectorize(image, threshold=0.6, min_area_m2=500)
    read = gpd.read_parquet(tmp_path / "p.parquet").set_index("id").sort_index()
    assert f"Wrote {len(whole):,} landslides" in out
    assert read.geometry.to_wkb().sort_values().tolist() == whole.geometry.to_wkb().sort_values().tolist()
    assert len(read) > 3
    pixel = abs(ls.schema.geobox(image).transform.e)
    np.testing.assert_allclose(read["slope_mean"].dropna(), np.degrees(np.arctan(2 / pixel)), rtol=1e-3)
    np.testing.assert_allclose(read["aspect_mean"].dropna() % 360, 0, atol=1e-3)
    changed = ls.inventory.change(whole, pair)
    np.testing.assert_allclose(np.sort(read["ndvi_change"]), np.sort(changed["ndvi_change"]), rtol=1e-5)
    assert {"pre_red_mean", "elevation_min", "length_m"} <= set(read)
    item = json.loads((tmp_path / "p.json").read_text())
    assert item["properties"]["landslides"] == len(whole)
    assert {"inventory", "scores", "scores_cog"} == set(item["assets"])
    with rasterio.open(tmp_path / "scores.tif") as cog:
        assert (cog.read(1) == image.values[0]).all()


def test_polygons_are_filled_and_simplified_batch_by_batch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    simplify, opened = ls.inventory.simplify, ls.store.open
    monkeypatch.setattr(ls.store, "open", lambda path: opened(path).chunk(y=64, x=64))
    monkeypatch.setattr(ls.inventory, "simplify", lambda frame, **kw: held.append(len(frame)) or simplify(frame, **kw))
    monkeypatch.setattr("lsdask.inventory.polygons.CHUNK", 64)
    monkeypatch.setattr("lsdask.inventory.polygons._at_once", lambda client: 1)
    lsdask("polygons", folder / "scores.zarr", tmp_path / "p.gpkg", "--threshold", 0.6, "--corners", "--fill", 1e6,
           "--simplify", 20)  # fmt: skip
    image = ls.store.open(folder / "scores.zarr")
    whole = ls.inventory.vectorize(image, threshold=0.6, connectivity=8)
    expected = simplify(ls.inventory.fill_holes(whole, max_area_m2=1e6), tolerance_m=20)
    read = gpd.read_file(tmp_path / "p.gpkg")
    assert len(read) == len(expected) == sum(held)
    assert max(held) < len(expected)
    np.testing.assert_allclose(np.sort(read.area), np.sort(expected.area))


def test_polygons_need_what_they_are_told_of(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="dem must name a file"):
        lsdask("polygons", folder / "scores.zarr", tmp_path / "p.gpkg", "--dem", tmp_path / "no.tif")
    with pytest.raises(BadInput, match="path must end in one of"):
        lsdask("polygons", folder / "scores.zarr", tmp_path / "p.shp")
    for option, value, says in (
        ("--model", tmp_path / "no", "model must name a file"),
        ("--cog", tmp_path / "no" / "scores.tif", "cog must lie in a folder that exists"),
        ("--image", tmp_path / "no.zarr", r"no\.zarr"),
    ):
        with pytest.raises(NotFound, match=says):
            lsdask("polygons", folder / "scores.zarr", tmp_path / "p.gpkg", option, value)
    for index, says in (("nir", "bands must name two bands"), ("nir,swir", "pair must have the bands pre_nir, pre_sw")):
        with pytest.raises(BadInput, match=says):
            lsdask("polygons", folder / "scores.zarr", tmp_path / "p.gpkg", "--image", folder / "pair.zarr",
                   "--index", index)  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_scores_become_a_geotiff_whose_overviews_are_of_known_pixels(tmp_path: Path) -> None:
    p = np.random.default_rng(0).random((2, 700, 1100))
    p[:, :, 400:] = np.nan
    p[:, 100:200, 100:333] = np.nan
    p[1] += 0.001  # no class is the other
    values = ls.schema.encode_scores_block(p, "uint8")
    grid = GeoBox((700, 1100), Affine(8, 0, 360_000, 0, -8, 7_400_000), "EPSG:32723")
    names, attrs = {"class": ["scar", "deposit"]}, ls.schema.score_attrs("uint8")
    image = ls.schema.wrap(values, grid, ls.schema.SCORES, name="scores", coords=names, attrs=attrs)
    ls.store.write(image, tmp_path / "scores.zarr", chunk=128, shard=512)
    lsdask("polygons", tmp_path / "scores.zarr", tmp_path / "p.fgb", "--class", "deposit", "--threshold", 0.99,
           "--cog", tmp_path / "scores.tif")  # fmt: skip
    with rasterio.open(tmp_path / "scores.tif") as cog:
        assert (cog.read() == values).all()
        assert (cog.nodata, cog.descriptions) == (255, ("scar", "deposit"))
        assert cog.scales == (1 / 250, 1 / 250)
        assert (cog.crs.to_epsg(), cog.transform) == (32723, grid.transform)
        assert cog.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert [cog.overviews(i) for i in cog.indexes] == [[2, 4], [2, 4]]
    with rasterio.open(tmp_path / "scores.tif", overview_level=0) as half:
        seen = half.read()
    four = (
        np.where(values == 255, np.nan, values)
        .reshape(2, 350, 2, 550, 2)
        .transpose(0, 1, 3, 2, 4)
        .reshape(2, 350, 550, 4)
    )
    known = ~np.isnan(four)
    mean = np.nansum(four, axis=-1) / np.maximum(known.sum(axis=-1), 1)
    assert ((seen == 255) == ~known.any(axis=-1)).all()
    assert np.abs(seen - mean)[known.any(axis=-1)].max() <= 0.5


@pytest.mark.slow
@pytest.mark.cluster
def test_workers_trace_the_same_polygons(folder: Path, tmp_path: Path) -> None:
    lsdask("polygons", folder / "scores.zarr", tmp_path / "p.fgb", "--threshold", 0.6, "--workers", 2)
    whole = ls.inventory.vectorize(ls.store.open(folder / "scores.zarr"), threshold=0.6)
    read = gpd.read_file(tmp_path / "p.fgb")
    assert len(read) == len(whole)
    np.testing.assert_allclose(np.sort(read.area), np.sort(whole.area))


def test_what_is_no_map_or_no_truth_is_refused(folder: Path, tmp_path: Path) -> None:
    gpd.read_file(folder / "slides.gpkg").iloc[:0].to_file(tmp_path / "none.gpkg")
    for arguments, said in (
        (("evaluate", folder / "mask.zarr", folder / "slides.gpkg"), "scores must hold probabilities"),
        (("polygons", folder / "mask.zarr", tmp_path / "a.gpkg"), "scores must hold probabilities"),
        (("evaluate", folder / "scores.zarr", tmp_path / "none.gpkg"), "mask must hold polygons"),
        (("evaluate", folder / "scores.zarr", folder / "mask.zarr", "--regions", folder / "basins.gpkg"), "--block"),
    ):
        with pytest.raises(BadInput, match=said):
            lsdask(*arguments)
    assert not (tmp_path / "a.gpkg").exists()


def test_an_empty_map_says_so(folder: Path, tmp_path: Path) -> None:
    said = lsdask("polygons", folder / "scores.zarr", tmp_path / "none.gpkg", "--min-area", 1e9)
    assert "no landslide of 1e+09 m² or more has a score of 0.5 or more" in said
    assert "Wrote 0 landslides" in said
    assert "note:" not in lsdask("polygons", folder / "scores.zarr", tmp_path / "some.gpkg")

"""Prakash et al. 2021: the areas table, the layers, the plan of 17 trainings, and all of it at the smallest scale."""

import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import shapely
import torch
from gdaldem import gdaldem
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize
from scipy.ndimage import map_coordinates

from lsdask import models, schema, store, synthetic
from lsdask.errors import BadInput, NotFound
from lsdask.recipes import grid, papers, prakash2021
from lsdask.recipes.prakash2021 import areas, example, layers, results, work
from lsdask.recipes.steps import record
from lsdask.recipes.tables import published

TILE = 32


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The seven made-up areas."""
    folder = tmp_path_factory.mktemp("areas")
    example.write(folder, tile=TILE, seed=0)
    return folder


def row_of(name, rows=example.READ):
    return next(row for row in rows if areas.name_of(row) == name)


# The plan


def test_the_full_plan_is_the_papers(tmp_path):
    steps = prakash2021.steps(tmp_path)
    runs = grid.runs(steps)
    assert len(runs) == 17
    spec = pd.DataFrame([run.spec for run in runs])
    paper = published("prakash2021_runs")
    pd.testing.assert_frame_equal(spec[list(paper)], paper)
    assert spec.groupby("family").size().to_dict() == {"combined": 3, "conventional": 10, "jackknife": 4}
    assert {run.spec["tile"] for run in runs} == {224}
    by_model = spec.set_index("model")
    assert by_model.loc["M_A_6", "sets"] == ["A-RE"]  # the second image set is for combined trainings only
    assert by_model.loc["M_A_6", "tests"] == ["A-RE", "E-S2", "F-S2", "G-S2"]
    assert by_model.loc["M_ALL_30", "sets"] == ["A-RE", "A-S2", "B-S2", "C-Pl", "C-S2", "D-S2"]
    assert by_model.loc["M_ACD_6", "sets"] == ["A-RE", "A-S2", "C-Pl", "C-S2", "D-S2"]
    assert by_model.loc["M_ACD_6", "tests"] == ["A-RE", "B-S2", "C-Pl", "D-S2", "E-S2", "F-S2", "G-S2"]
    assert sum(step.name.startswith("layers/") for step in steps) == 27
    with pytest.raises(BadInput, match="scale must be one of full, small, tiny"):
        prakash2021.steps(tmp_path, scale="huge")
    with pytest.raises(NotFound, match="weights must name a file"):
        prakash2021.steps(tmp_path, weights="none.hdf5")


def test_the_network_has_the_papers_parameters():
    model = models.build(
        work.NETWORK, bands=work.BANDS, terrain=("hillshade", "slope"), pixel_m=6.0, mean=[127.5] * 6 + [0], std=[1] * 7
    )
    learnt = sum(part.numel() for part in model.parameters())
    running = sum(part.numel() for name, part in model.named_buffers() if "running" in name)
    assert (learnt, learnt + running) == (20_753_365, 20_775_893)
    narrow = models.build(work.NETWORK, bands=8, narrow=8)
    assert [tuple(out.shape) for out in narrow.outputs(torch.zeros(1, 8, 64, 96))] == [(1, 1, 64, 96)] * 5
    with pytest.raises(BadInput, match=r"narrow must be one of 1, 2, 4, 8\. Got narrow=3"):
        models.build(work.NETWORK, bands=8, narrow=3)


def test_runs_whose_areas_are_missing_are_left_out(made, tmp_path):
    some = pd.DataFrame(example.ROWS).query("area in ('B', 'F')")
    link(made, tmp_path)
    some.to_csv(tmp_path / "areas.csv", index=False)
    runs = grid.runs(prakash2021.steps(tmp_path))
    assert [run.spec["model"] for run in runs] == ["M_B_6", "M_B_10", "M_B_30"]
    assert runs[0].spec["tests"] == ["B-S2", "F-S2"]
    some.query("area == 'F'").to_csv(tmp_path / "areas.csv", index=False)
    with pytest.raises(BadInput, match=r"areas.csv must hold areas enough for a training, such as A and E\. Got F-S2"):
        prakash2021.steps(tmp_path)


def test_what_trainings_will_cost():
    steps = prakash2021.steps("nowhere")
    load = prakash2021.loads(steps, {})["runs/M_ALL_6"]
    assert (load.side, load.batch, load.epochs, load.loss) == (224, 8, 200, "prakash")
    of_a_tile = (112 * 6) ** 2 / 1e6
    train = [round(0.6 * km2 / of_a_tile) for km2 in (990, 990, 490, 365, 365, 700)]  # A and C have two image sets
    areas = np.array([train[0] + train[1], train[2], train[3] + train[4], train[5]])
    assert load.tiles == np.cumsum(areas).sum()
    known = {f"layers/{name}-30": {"train": 5, "valid": 2, "test": 9} for name in ("A-RE", "E-S2")}
    load = prakash2021.loads(steps, known)["runs/M_A_30"]
    assert (load.tiles, load.judged) == (5, 2)
    tiny = prakash2021.loads(prakash2021.steps("nowhere", scale="tiny"), {})["runs/M_BCD_6"]
    assert tiny.tiles == 6 + (6 + 12) + (6 + 12 + 6)  # at most six of an image set


# The areas table


def link(made, folder):
    """Let a folder have the areas of another, but for the table."""
    for path in made.iterdir():
        if path.is_dir():
            (folder / path.name).symlink_to(path)


def test_a_further_image_set_takes_what_it_leaves_out_from_the_first(made):
    rows = areas.read(made)
    assert rows == example.READ
    first, second = areas.of(rows, "A")
    for name in ("dem", "inventory", "train", "valid", "test"):
        assert second[name] == first[name] != ""
    assert second["post"] != first["post"]
    assert [areas.name_of(row) for row in rows] == [
        "A-RE", "A-S2", "B-S2", "C-Pl", "C-S2", "D-S2", "E-S2", "F-S2", "G-S2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"columns": ["dem"]}, BadInput, r"areas\.csv must have the columns area, .* Got no dem\."),
        ({(0, "pre"): "A/none.tif"}, NotFound, r"pre of A-RE must name a file\. Got .*none\.tif, which is not there\."),
        ({(0, "pre"): ""}, BadInput, r"pre of A-RE must name a file\. Got nothing\."),
        ({(2, "void"): "cloud.gpkg"}, NotFound, r"void of B-S2 must name a file\."),
        ({(2, "train"): "train.gpkg"}, NotFound, r"train of B-S2 must name a file\. Got .*train\.gpkg"),
        ({(2, "test"): ""}, BadInput, r"B-S2 must have the regions train, valid, test\. Got no test\."),
        ({(6, "test"): "0 0 1 1"}, BadInput, r"E-S2 must have no regions, as all of it is test\. Got test=0 0 1 1\."),
        ({(2, "test"): "0.5 0 0.4 1"}, BadInput, r"a region must be left top right bottom, .* Got '0\.5 0 0\.4 1'"),
        ({(1, "test"): "0 0 1 1"}, BadInput, r"test of A-S2 must be that of the area's first row\. Got 0 0 1 1\."),
        ({(0, "stretch"): "400"}, BadInput, r"stretch of A-RE must be two rising numbers\. Got '400'\."),
        ({(0, "area"): "Z"}, BadInput, r"areas\.csv must name areas from A to G, .* Got area='Z', images='RE'\."),
        ({(1, "images"): "RE"}, BadInput, r"areas\.csv must hold one or more image sets, each once\. Got two of A-RE"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_in_a_sentence(made, tmp_path, change, error, message):
    link(made, tmp_path)
    table = pd.DataFrame(example.ROWS)
    for place, value in change.items():
        if place == "columns":
            table = table.drop(columns=value)
        else:
            table.loc[place] = value
    table.to_csv(tmp_path / "areas.csv", index=False)
    with pytest.raises(error, match=message):
        areas.read(tmp_path)


def test_a_folder_without_a_table(tmp_path):
    with pytest.raises(NotFound, match=r"data must hold the table areas\.csv"):
        areas.read(tmp_path)


# The layers


def test_values_are_stretched_alike_before_and_after():
    stored = np.array([[0, 100, 200, 275, 300, 9000]], "uint16")
    got = layers.eight_bit_block(stored, nodata=0, low=100, high=300)
    np.testing.assert_array_equal(got, [[np.nan, 0, 128, 223, 255, 255]])  # 127.5 and 223.125 are rounded, to even
    whole = np.arange(256, dtype="uint8")
    np.testing.assert_array_equal(layers.eight_bit_block(whole, nodata=None, low=0, high=255), whole)


def test_all_layers_lie_on_the_grid_of_the_later_image(made):
    row = row_of("A-RE")
    image = layers.image_of(row, made, 10)
    assert schema.bands(image) == (*layers.OPTICAL, "dem")
    with rasterio.open(made / row["post"]) as file:
        left, low, right, top = file.bounds
        counts, void = file.read(1), file.nodata
    box = schema.geobox(image)
    assert (box.transform.c, box.transform.f, box.transform.a) == (left, top, 10)
    assert image.shape[1:] == (round((top - low) / 10), round((right - left) / 10))
    values = image.values
    np.testing.assert_array_equal(np.isnan(values).any(axis=0), np.isnan(values).all(axis=0))
    y, x = 30, 40  # a pixel of 10 m is four of 5 m, of which the filter takes 16, half of it from these
    inside = np.clip((counts[58:66, 78:86].astype("float64")) / 400, 0, 1) * 255
    assert (counts[58:66, 78:86] != void).all()
    assert inside.min() - 0.5 <= values[3, y, x] <= inside.max() + 0.5
    before, after = values[:3], values[3:6]
    scar = layers.masks_of(row, row, made, image)["train"].values == 1
    other = ~scar & np.isfinite(after[0])
    assert np.abs(after - before)[:, scar].mean() > 3 * np.abs(after - before)[:, other].mean()


def test_clouds_and_void_are_void_in_all_bands_and_unknown(made):
    row = row_of("B-S2")
    image = layers.image_of(row, made, 10)
    (cloud,) = gpd.read_file(made / row["void"]).geometry
    box = schema.geobox(image)
    inside = rasterize([cloud], out_shape=box.shape, transform=box.transform) == 1
    assert inside.sum() > 100
    assert np.isnan(image.values[:, inside]).all()
    for mask in layers.masks_of(row, row, made, image).values():
        assert (mask.values[inside] == schema.UNKNOWN).all()
    sea = np.isnan(layers.image_of({**row, "void": ""}, made, 10).values[0])
    np.testing.assert_array_equal(np.isnan(image.values[0]), sea | inside)


def test_regions_share_no_pixel_and_hold_the_inventory(made):
    row = row_of("A-S2")
    image = layers.image_of(row, made, 10)
    masks = layers.masks_of(row, row_of("A-RE"), made, image)
    box, known = schema.geobox(image), np.isfinite(image.values[0])
    left, top, span_x, span_y = box.transform.c, box.transform.f, box.shape[1] * 10, box.shape[0] * 10
    burn = {}
    shares = {"train": (0, 0, 0.55, 1), "valid": (0.3, 0, 0.55, 0.4), "test": (0.55, 0, 1, 1)}
    for part, (x0, y0, x1, y1) in shares.items():
        region = shapely.box(left + x0 * span_x, top - y1 * span_y, left + x1 * span_x, top - y0 * span_y)
        burn[part] = rasterize([region], out_shape=box.shape, transform=box.transform) == 1
    burn["train"] &= ~burn["valid"]
    scars = rasterize(gpd.read_file(made / row["inventory"]).geometry, out_shape=box.shape, transform=box.transform)
    for part, mask in masks.items():
        expected = np.where(known & burn[part], scars, schema.UNKNOWN)
        np.testing.assert_array_equal(mask.values, expected)
    assert sum((mask.values != schema.UNKNOWN).astype(int) for mask in masks.values()).max() == 1


def test_an_area_that_is_all_test_has_no_other_mask(made):
    row = row_of("E-S2")
    image = layers.image_of(row, made, 30)
    masks = layers.masks_of(row, row, made, image)
    assert list(masks) == ["test"]
    np.testing.assert_array_equal(masks["test"].values == schema.UNKNOWN, np.isnan(image.values[0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train": "0 0 0.6 1"},
            r"train and test of A-RE must share no ground\. Got 1[01]\.\d+% of the test",
        ),
        ({"valid": "0.5 0 1 0.5"}, r"valid and test of A-RE must share no ground\. Got 50\.00% of"),
        ({"valid": "away.geojson"}, r"valid of A-RE must lie in the image\. Got a region outside it\."),
        ({"stretch": ""}, r'stretch of A-RE must say which values .* Got nothing, for uint16\. Write "low high"'),
        ({"pre": "A/dem.tif"}, r"pre of A-RE must have the bands red, green and blue, or three bands in that order"),
        (
            {"post": "four.tif"},
            r"post of A-RE must have the bands red, green and blue, .* Got band_1, .* band_4\.",
        ),
    ],
)
def test_images_and_regions_that_do_not_fit_are_refused(made, tmp_path, change, message):
    link(made, tmp_path)
    left, top = synthetic.ORIGIN
    away = gpd.GeoDataFrame(geometry=[shapely.box(left, top + 100, left + 50, top + 200)], crs=synthetic.CRS)
    away.to_file(tmp_path / "away.geojson")
    with rasterio.open(made / "A/post_RE.tif") as source:
        profile = source.profile | {"count": 4, "driver": "GTiff"}
    with rasterio.open(tmp_path / "four.tif", "w", **profile) as file:
        file.write(np.ones((4, file.height, file.width), "uint16"))
    row = {**row_of("A-RE"), **change}
    with pytest.raises(BadInput, match=message):
        layers.masks_of(row, row, tmp_path, layers.image_of(row, tmp_path, 30))


# Tiles


def test_area_e_has_the_papers_candidates():
    image = np.array([1360, 2336]) * 10  # metres of the published raster
    height, width = np.floor(image / 6 + 0.5).astype(int)
    tiles = work.lattice((width, height), 224)  # 33 down, 19 across, as the notebook has it
    assert (tiles["y"].nunique(), tiles["x"].nunique(), len(tiles)) == (33, 19, 627)


@given(height=st.integers(1, 200), width=st.integers(1, 200), half=st.integers(1, 30))
def test_tiles_lie_as_the_published_loop_lays_them(height, width, half):
    expected = [
        (y - half, x - half)
        for y in range(half + 1, height - (half + 1), half)
        for x in range(half + 1, width - (half + 1), half)
    ]
    tiles = work.lattice((height, width), 2 * half)
    assert list(map(tuple, tiles[["y", "x"]].values.tolist())) == expected


def test_a_tile_is_kept_if_half_of_it_is_known():
    draw = np.random.default_rng(0)
    values = draw.choice(np.array([0, 1, 255], "uint8"), (90, 70), p=[0.4, 0.1, 0.5])
    values[:, 40:] = 255
    mask = schema.wrap(values, synthetic.scene((90, 70)).odc.geobox, schema.MASK, name="mask", nodata=255)
    tiles = work.lattice((90, 70), 16)
    kept = work.known_tiles(tiles, mask)
    cut = {(y, x): values[y : y + 16, x : x + 16] for y, x in tiles[["y", "x"]].values}
    expected = [place for place, part in cut.items() if (part != 255).mean() >= 0.5]
    assert 0 < len(expected) < len(tiles)
    assert list(map(tuple, kept[["y", "x"]].values)) == expected
    shares = [(cut[place] == 1).sum() / (cut[place] != 255).sum() for place in expected]
    np.testing.assert_allclose(kept["positive"], shares)
    assert len(work.known_tiles(work.lattice((10, 10), 16), mask)) == 0
    y, x = np.nonzero(values != 255)
    assert work.box_of(mask != 255) == [y.min(), x.min(), y.max() + 1, x.max() + 1]
    assert work.box_of(mask.where(False, 255) != 255) is None


# Maps


def random_network(image, *, pixel_m=None):
    """A narrow network of random weights whose norms fit noise, so that it does not say the same everywhere."""
    more = {} if pixel_m is None else {"terrain": ("hillshade", "slope"), "pixel_m": pixel_m}
    bands = len(image)
    model = models.build(
        work.NETWORK, bands=schema.bands(image), narrow=8, mean=[127.5] * bands, std=[127.5] * bands, **more
    )
    draw = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for _ in range(30):
            model(255 * torch.rand((2, bands, 64, 64), generator=draw))
    return model.eval()


def test_each_window_keeps_its_middle_and_all_that_is_valid_is_mapped():
    draw = np.random.default_rng(1)
    side, tile, kept, halo = (50, 70), 32, 16, 8
    values = draw.uniform(0, 255, (8, *side)).astype("float32")
    values[:, 20:30, 12:33] = np.nan
    image = schema.wrap(values, synthetic.scene(side).odc.geobox, schema.MOSAIC, name="image")
    model = random_network(image)
    got = work.mapped(image, model, tile).values[0]
    np.testing.assert_array_equal(got == schema.UNKNOWN, np.isnan(values[0]))
    far = [-size % kept for size in side]
    mirrored = np.pad(values, ((0, 0), (halo, halo), (halo, halo)), mode="reflect")
    around = np.pad(mirrored, ((0, 0), (0, far[0]), (0, far[1])), mode="edge")  # which no pixel has in its halo
    whole = np.zeros(side, "float32")
    for y in range(0, side[0], kept):
        for x in range(0, side[1], kept):
            with torch.inference_mode():
                window = torch.from_numpy(around[None, :, y : y + tile, x : x + tile].copy())
                scores = torch.sigmoid(model(window))[0, 0].numpy()
            part = whole[y : y + kept, x : x + kept]
            part[:] = scores[halo : halo + kept, halo : halo + kept][: part.shape[0], : part.shape[1]]
    known = np.isfinite(values[0])
    assert np.ptp(whole[known]) > 0.1
    np.testing.assert_allclose(got[known] / 250, whole[known], atol=0.02)  # bfloat16, where there are units


# Results


def frame():
    """Results of five made-up runs."""
    rows = [
        ("M_A_6", "conventional", {"A": 0.5, "E": 0.1}),
        ("M_A_30", "conventional", {"A": 0.7, "E": 0.3}),
        ("M_ALL_6", "combined", {"A": 0.6, "B": 0.2, "E": 0.3}),
        ("M_BCD_6", "jackknife", {"A": 0.4, "B": 0.25, "E": 0.9}),
        ("M_ACD_6", "jackknife", {"A": 0.65}),
    ]
    return pd.DataFrame(
        [
            {
                "name": f"runs/{model}", "model": model, "family": family, "synthetic": False,
                **{f"{score}_{area}": value + shift for area, value in mcc.items()
                   for score, shift in zip(work.SCORES, (0, 0.01, 0.02, 0.03))},
            }
            for model, family, mcc in rows
        ]
    )  # fmt: skip


def test_runs_are_ranked_by_mcc_area_by_area_beside_the_papers():
    found = results.tables(frame())
    ranked = found["ranking"].set_index(["area", "rank"])
    assert ranked.loc["A", "model"].tolist() == ["M_A_30", "M_ALL_6", "M_A_6"]
    assert found["ranking"].query("area == 'E'")["rank"].tolist() == [1, 1, 3]
    of_a = ranked.loc["A"]
    np.testing.assert_array_equal(of_a["mcc_paper"], [np.nan, 0.818, 0.806])
    np.testing.assert_allclose(of_a.loc[3, ["mcc", "f1", "precision", "recall"]].astype(float), [0.5, 0.51, 0.52, 0.53])
    printed = found["printed"].set_index(["model", "area", "metric"])
    assert printed.loc[("M_ALL_6", "E", "MCC")].tolist() == [0.3, 0.59]
    assert ("M_A_30", "A", "MCC") not in printed.index
    assert results.lead(frame()).startswith("5 runs. The best MCC of each area: A M_A_30 (0.700), B M_ALL_6 (0.200), E")


def test_what_an_area_adds_is_the_difference_to_all_areas():
    found = results.tables(frame())["jackknife"].round(9)
    assert found.columns.tolist() == ["model", "left_out", "A", "B", "E"]
    expected = [["M_BCD_6", "A", -0.2, 0.05, 0.6], ["M_ACD_6", "B", 0.05, np.nan, np.nan]]
    pd.testing.assert_frame_equal(found, pd.DataFrame(expected, columns=found.columns), check_dtype=False)
    none = results.tables(frame().query("family == 'conventional'"))
    assert set(none) == {"ranking", "printed", "all_runs"}


# All of it


def check(out, table, models_there):
    """What holds of any finished experiment."""
    assert table["model"].tolist() == models_there
    for run in table.to_dict("records"):
        for name in run["tests"]:
            area, step = name[0], out / f"layers/{name}-{run['resolution_m']}"
            y0, x0, y1, x1 = record(out, f"layers/{name}-{run['resolution_m']}")["result"]["test_box"]
            if min(y1 - y0, x1 - x0) < run["tile"]:
                assert np.isnan(run[f"mcc_{area}"])
                continue
            truth = store.open(step / "test.zarr").values[y0:y1, x0:x1]
            scores = store.open(out / run["name"] / f"scores_{area}.zarr").values[0]
            known = truth != schema.UNKNOWN
            assert (scores[known] != schema.UNKNOWN).all()  # every valid pixel is mapped
            said, true = scores >= 125, truth == 1
            counts = [int((known & part).sum()) for part in (said & true, said & ~true, ~said & true, ~said & ~true)]
            assert [run[f"{part}_{area}"] for part in ("tp", "fp", "fn", "tn")] == counts
            both = said[known].any() and not said[known].all()
            expected = np.corrcoef(said[known], true[known])[0, 1] if both else 0
            np.testing.assert_allclose(run[f"mcc_{area}"], expected, atol=1e-9)


def test_a_users_folder_from_the_table_to_the_maps(made, tmp_path):
    (tmp_path / "data").mkdir()
    link(made, tmp_path / "data")
    pd.DataFrame(example.ROWS).query("area in ('A', 'E')").to_csv(tmp_path / "data/areas.csv", index=False)
    out = tmp_path / "out"
    only = "runs/M_A_30"
    report = papers.reproduce("prakash2021", tmp_path / "data", out, scale="tiny", only=only, progress=False)
    assert (report.steps, report.done, report.failed) == (3, 3, {})
    check(out, pd.read_parquet(out / "results.parquet"), ["M_A_30"])
    told = models.read_spec(out / only / "model/stage-1")
    assert (told.terrain, told.pixel_m, told.bands) == (("hillshade", "slope"), 30.0, work.BANDS)
    asked = {"loss": "prakash", "optimizer": "adam", "lr": 1e-4, "schedule": "plateau", "monitor": "loss"}
    assert {name: told.record[name] for name in asked} == asked
    for part in ("train", "valid"):
        table = pd.read_parquet(out / f"layers/A-RE-30/{part}.parquet")
        assert (table["valid"] >= 0.5).all()
        assert len(table) == record(out, "layers/A-RE-30")["result"][part]
    text = (out / "report.html").read_text()
    assert text.count('src="data:image/svg+xml') == 4  # for each area its scores and its map
    assert "must be M_B_6" in text
    assert "1 run. The best MCC" in text


@pytest.mark.slow
def test_all_17_trainings_at_the_smallest_scale(tmp_path):
    out = tmp_path / "out"
    report = papers.reproduce("prakash2021", tmp_path, out, scale="tiny", progress=False).check()
    assert (report.steps, report.done) == (45, 45)
    table = pd.read_parquet(out / "results.parquet")
    check(out, table, published("prakash2021_runs")["model"].tolist())
    stages = table.set_index("model")["stages"]
    assert (stages["M_A_6"], stages["M_ALL_6"], stages["M_BCD_6"]) == (1, 4, 3)
    assert table.set_index("model").loc["M_ALL_30", ["mcc_C", "mcc_D"]].isna().all()  # narrower than a tile
    ranked = pd.read_csv(out / "tables/ranking.csv")
    assert ranked.groupby("area").size().to_dict() == {"A": 6, "B": 6, "C": 4, "D": 4, "E": 13, "F": 13, "G": 13}
    assert pd.read_csv(out / "tables/jackknife.csv").shape == (4, 2 + 7)
    assert len(pd.read_csv(out / "tables/printed.csv")) == len(published("prakash2021"))
    assert (out / "report.html").read_text().count('src="data:image/svg+xml') == 7 + 1 + 7
    assert "17 runs on synthetic ground. The best MCC" in (out / "report.html").read_text()
    made = areas.read(out / "shared/areas")  # which can be taken for a user's folder
    assert len(grid.runs(prakash2021.steps(out / "shared/areas"))) == 17
    assert [areas.name_of(row) for row in made] == [f"{area}-{images}" for area, images in example.SETS]


def save_keras(path):
    """Write weights as Keras 2 did, of the layers and shapes that the paper's figure tells."""
    h5py = pytest.importorskip("h5py", reason="no h5py: install lsdask[keras]")
    draw = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for layer in pd.read_csv(Path(__file__).with_name("prakash2021_layers.csv")).itertuples():
            width = int(layer.output.split("x")[2])
            if isinstance(layer.kernel, str):
                side = int(layer.kernel[0])
                depth = (layer.params // width - 1) // side**2
                kernel = draw.normal(0, np.sqrt(2 / (side**2 * depth)), (side, side, depth, width))
                weights = {"kernel": kernel, "bias": np.zeros(width)}
            else:
                weights = {"gamma": np.full(width, 0.7), "beta": np.zeros(width), "moving_mean": np.zeros(width)}
                weights["moving_variance"] = np.ones(width)
            for name, values in weights.items():
                file[f"model_weights/{layer.name}/{layer.name}/{name}:0"] = values.astype("float32")


@pytest.mark.slow
def test_published_weights_map_without_training(made, tmp_path):
    (tmp_path / "data").mkdir()
    link(made, tmp_path / "data")
    table = pd.DataFrame(example.ROWS).query("area == 'A' and images == 'RE'")
    table.assign(area="E", train="", valid="", test="").to_csv(tmp_path / "data/areas.csv", index=False)
    save_keras(tmp_path / "M_ALL_006.hdf5")
    out, choices = tmp_path / "out", papers.options_of(prakash2021, [f"weights={tmp_path / 'M_ALL_006.hdf5'}"])
    report = papers.reproduce("prakash2021", tmp_path / "data", out, progress=False, **choices).check()
    assert report.steps == 2
    run = pd.read_parquet(out / "results.parquet").iloc[0]
    image = store.open(out / "layers/E-RE-6-derived/mosaic.zarr")
    scores = store.open(out / "runs/M_ALL_6/scores_E.zarr")
    assert schema.bands(image) == models.keras.BANDS
    np.testing.assert_array_equal(scores.values[0] != schema.UNKNOWN, np.isfinite(image.values[0]))
    assert run["tp_E"] + run["fp_E"] + run["fn_E"] + run["tn_E"] == np.isfinite(image.values[0]).sum()
    model = models.load_prakash(tmp_path / "M_ALL_006.hdf5")
    with torch.inference_mode():
        window = torch.from_numpy(image.values[None, :, 56:280, 56:280].copy())
        expected = torch.sigmoid(model(window))[0, 0, 56:168, 56:168].numpy()
    got = scores.values[0, 112:224, 112:224]
    known = got != schema.UNKNOWN
    assert np.ptp(expected[known]) > 0.05
    np.testing.assert_allclose(got[known] / 250, expected[known], atol=0.02)  # bfloat16, where there are units
    ranked = pd.read_csv(out / "tables/ranking.csv")
    assert ranked[["area", "model", "mcc_paper"]].values.tolist() == [["E", "M_ALL_6", 0.59]]


# Real images


@pytest.fixture
def hokkaido(data, tmp_path):
    """The folder of Hokkaido as an area, with an inventory made up."""
    shutil.copytree(data / "hokkaido-2018", tmp_path / "E")
    middle = gpd.GeoDataFrame(geometry=[shapely.box(141.95, 42.72, 141.96, 42.73)], crs="EPSG:4326")
    middle.to_file(tmp_path / "E/inventory.geojson")
    row = dict.fromkeys((*areas.COLUMNS, *areas.OPTIONAL), "") | {
        "area": "E", "images": "S2", "dem": "E/dsm.tif", "inventory": "E/inventory.geojson", "stretch": "0 3000",
        **{date: ";".join(f"E/{date}/B{band}.tif" for band in (4, 3, 2)) for date in layers.DATES},
    }  # fmt: skip
    pd.DataFrame([row]).to_csv(tmp_path / "areas.csv", index=False)
    (held,) = areas.read(tmp_path)
    return tmp_path, held


def bilinear(path, box, change):
    """Read a raster at the pixel centres of a grid, from the four around: pyproj and scipy, no warper."""
    with rasterio.open(path) as file:
        values, transform = change(file.read(1)), file.transform
        crs = file.crs.to_wkt()
    y, x = np.mgrid[: box.shape[0], : box.shape[1]]
    east, north = box.transform * (x + 0.5, y + 0.5)
    columns, rows = ~transform * pyproj.Transformer.from_crs(box.crs.proj, crs, always_xy=True).transform(east, north)
    return map_coordinates(values.astype("float64"), [rows - 0.5, columns - 0.5], order=1, cval=np.nan)


@pytest.mark.realdata
def test_hokkaido_is_put_on_its_grid_as_pyproj_and_scipy_do(hokkaido):
    folder, row = hokkaido
    image = layers.image_of(row, folder, 6)
    assert image.odc.crs == "EPSG:32654"
    part = image.isel(y=slice(500, 900), x=slice(700, 1300))
    values, box = part.values, schema.geobox(part)

    def stretched(counts):
        return np.where(counts == 0, np.nan, np.rint(np.clip(counts / 3000, 0, 1) * 255))

    for band, (date, number) in zip(values, [(date, number) for date in ("pre", "post") for number in (4, 3, 2)]):
        expected = bilinear(folder / f"E/{date}/B{number}.tif", box, stretched)
        sure = np.isfinite(expected) & np.isfinite(band)
        assert sure.mean() > 0.5
        np.testing.assert_allclose(band[sure], expected[sure], atol=0.02)
    heights = bilinear(folder / "E/dsm.tif", box, lambda z: np.where(z == -32768, np.nan, z))
    sure = np.isfinite(heights) & np.isfinite(values[6])
    np.testing.assert_allclose(values[6][sure], heights[sure], atol=0.02)


@pytest.mark.realdata
def test_hokkaidos_terrain_is_gdaldems(hokkaido):
    folder, row = hokkaido
    image = layers.image_of(row, folder, 30, derived=True)
    assert schema.bands(image) == models.keras.BANDS
    shade, slope = image.sel(band=["hillshade", "slope"]).values
    assert np.nanmin(shade) >= 1
    assert np.nanmax(shade) <= 255
    dem = layers.image_of(row, folder, 30).sel(band="dem")  # 30 m to 30 m: nearly the heights themselves
    again = gdaldem(dem.values, schema.geobox(dem), "slope")
    sure = np.isfinite(again) & np.isfinite(slope)
    assert np.corrcoef(again[sure], slope[sure])[0, 1] > 0.95
    light = gdaldem(dem.values, schema.geobox(dem), "hillshade", "-az", "315", "-alt", "45")
    sure &= np.isfinite(light)
    assert np.corrcoef(light[sure], shade[sure])[0, 1] > 0.95


@pytest.mark.realdata
def test_every_valid_pixel_of_hokkaido_is_mapped(hokkaido):
    folder, row = hokkaido
    image = layers.image_of(row, folder, 30).compute()
    truth = layers.masks_of(row, row, folder, image)["test"].values
    model = random_network(image, pixel_m=30.0)
    scores = work.mapped(image, model, 224).values[0]
    valid = np.isfinite(image.values).all(axis=0)
    assert 0.5 < valid.mean() < 0.7  # two fifths of the image before are void
    np.testing.assert_array_equal(scores != schema.UNKNOWN, valid)
    np.testing.assert_array_equal(truth != schema.UNKNOWN, valid)
    assert len(np.unique(scores[valid])) > 10

"""Soares et al. 2020: the plan of the 288 runs, its counts, and all of it at the smallest scale."""

import json

import browser
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lsdask import models, mosaic, sampling, scenes, schema, store, synthetic
from lsdask.errors import BadInput
from lsdask.recipes import cost, grid, papers, soares2020
from lsdask.recipes.soares2020 import work
from lsdask.recipes.steps import RECORD
from lsdask.recipes.tables import published


def test_the_full_plan_is_the_papers(tmp_path):
    steps = soares2020.steps(tmp_path)
    runs = grid.runs(steps)
    assert len(runs) == 288
    table = pd.DataFrame([step.spec for step in runs])
    assert table.groupby("dataset").size().tolist() == [72, 72, 72, 72]
    axes = {name: table[name].nunique() for name in ("dataset", "sampling", "size_px", "filters", "batch")}
    assert axes == {"dataset": 4, "sampling": 2, "size_px": 3, "filters": 3, "batch": 4}
    assert sum(step.name.startswith("tiles/") for step in steps) == 6
    with pytest.raises(BadInput, match="scale must be one of full, small, tiny"):
        soares2020.steps(tmp_path, scale="huge")
    with pytest.raises(BadInput, match="split must be one of blocks, random"):
        soares2020.steps(tmp_path, split="leaky")


def test_the_papers_counts():
    image = xr.DataArray(np.broadcast_to(np.uint8(0), (5000, 5000)), dims=("y", "x"))
    assert [len(sampling.even(image, size)) for size in (32, 64, 128)] == [201**2, 99**2, 49**2]
    assert soares2020.plan.SIDE**2 * 0.005**2 == 26.2144
    for filters, count in ((16, 1_941_669), (32, 7_761_221), (64, 31_033_989)):
        model = models.build("soares_unet", bands=5, filters=filters)
        assert sum(part.numel() for part in model.parameters()) == count


def test_iou_from_the_printed_areas_is_table_3s():
    table, areas = published("soares2020"), published("soares2020_areas")
    truth = areas["test_area"].map(
        {1: 0.56, 2: 0.59}
    )  # km2 of landslides: found and missed of the rows that print both
    whole = areas.dropna()
    np.testing.assert_allclose(whole["tp_km2"] + whole["fn_km2"], truth[whole.index], atol=1e-9)
    np.testing.assert_allclose(whole[["tp_km2", "fp_km2", "fn_km2", "tn_km2"]].sum(axis=1), 26.2144, atol=0.011)
    areas["iou"] = areas["tp_km2"] / (truth + areas["fp_km2"])
    wide = areas.pivot(index="size_px", columns="test_area", values="iou").loc[table["size_px"]]
    printed = table[["test_area1_miou", "test_area2_miou"]]
    assert (abs(wide.to_numpy() - printed.to_numpy()) < 0.01).all()
    assert (abs(printed.mean(axis=1) - table["average_miou"]) < 0.0051).all()


def made_up(tmp_path):
    """Results of all 288 runs, drawn at random."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame([{"name": each.name, **each.spec} for each in grid.runs(soares2020.steps(tmp_path))])
    for number in (1, 2):
        for value in ("precision", "recall", "f1", "iou", "tp_km2", "fp_km2", "fn_km2", "tn_km2"):
            frame[f"{value}_{number}"] = draw.random(len(frame))
    frame["iou"] = frame[["iou_1", "iou_2"]].mean(axis=1)
    return frame.assign(valid_loss=draw.random(len(frame)), tiles=frame["size_px"], collapsed=False)


def test_figures_5_and_6_have_the_best_of_twelve_runs_on_their_own_area(tmp_path):
    frame = made_up(tmp_path)
    made = soares2020.tables(frame)
    for number in (1, 2):
        table = made[f"figure{4 + number}"]
        assert len(table) == 24
        for row in table.itertuples():
            mine = (frame["dataset"] == row.dataset) & (frame["sampling"] == row.sampling)
            twelve = frame[mine & (frame["size_px"] == row.size_px)]
            assert len(twelve) == 12
            best = twelve.sort_values(f"f1_{number}").iloc[-1]
            assert (row.f1, row.iou) == (best[f"f1_{number}"], best[f"iou_{number}"])
            assert (row.filters, row.batch) == (best["filters"], best["batch"])
            assert row.f1_chosen == twelve.sort_values("valid_loss").iloc[0][f"f1_{number}"]
    printed = made["figure6"].dropna(subset="f1_paper")
    assert printed[["sampling", "size_px", "f1_paper", "iou_paper"]].values.tolist() == [["Random", 128, 0.58, 0.41]]


def test_figure_7_has_the_areas_of_table_3s_runs(tmp_path):
    frame = made_up(tmp_path)
    made = soares2020.tables(frame)
    assert len(made["figure7"]) == 12
    best = made["table3"].set_index(["sampling", "size_px"])
    for row in made["figure7"].itertuples():
        run = frame[frame["iou"] == best.loc[(row.sampling, row.size_px), "iou"]].iloc[0]
        assert (row.dataset, row.tp_km2) == (run["dataset"], run[f"tp_km2_{row.test_area}"])
        assert np.isnan(row.fp_km2_paper) == (row.sampling == "Regular")
    row = made["figure7"].query("sampling == 'Random' and size_px == 128 and test_area == 2").iloc[0]
    assert row[["tp_km2_paper", "fp_km2_paper", "fn_km2_paper", "tn_km2_paper"]].tolist() == [0.32, 0.2, 0.27, 25.42]


@pytest.mark.parametrize("sampling_of", ["Regular", "Random"])
def test_tiles_reach_into_the_test_areas_on_demand_only(sampling_of, tmp_path):
    land = synthetic.landscape((384, 384), 3)
    (tmp_path / "scene").mkdir()
    store.write(land.scene, tmp_path / "scene" / "mosaic.zarr")
    store.write(land.mask, tmp_path / "scene" / "mask.zarr")
    y0, x0, y1, x1 = window = [128, 128, 256, 256]
    (tmp_path / "areas.json").write_text(json.dumps([window]))
    inputs = {"scene": tmp_path / "scene", "areas": tmp_path}
    spec = {"sampling": sampling_of, "size": 32, "split": "random", "most": None, "candidates": 800, "seed": 0}
    tables = {}
    for leaks in (False, True):
        (tmp_path / str(leaks)).mkdir()
        work.tiles(tmp_path / str(leaks), {**spec, "leaks": leaks}, inputs)
        tables[leaks] = pd.read_parquet(tmp_path / str(leaks) / "tiles.parquet")
    test = np.zeros((384, 384), bool)
    test[y0:y1, x0:x1] = True
    shares = {
        leaks: [test[y : y + 32, x : x + 32].mean() for y, x in table[["y", "x"]].to_numpy()]
        for leaks, table in tables.items()
    }
    assert max(shares[False]) == 0
    assert 0 < max(shares[True]) < 1
    assert sum(share == 0 for share in shares[True]) == len(shares[False])


def check(out, report, runs):
    """What holds of any finished experiment."""
    assert (report.failed, report.waiting) == ({}, ())
    frame = pd.read_parquet(out / "results.parquet")
    assert len(frame) == runs
    areas = json.loads((out / "shared/areas/areas.json").read_text())
    (a, b), side = areas, areas[0][2] - areas[0][0]
    assert abs(a[0] - b[0]) >= side or abs(a[1] - b[1]) >= side
    for sampler in ("regular", "random"):
        for size in frame["size_px"].unique():
            table = pd.read_parquet(out / f"tiles/{sampler}-{size}/tiles.parquet")
            for y0, x0, y1, x1 in areas:
                meets = (table.y < y1) & (table.y + size > y0) & (table.x < x1) & (table.x + size > x0)
                assert not meets.any()
            sampling.check_split(table)
    mask = store.open(out / "shared/scene/mask.zarr")
    grid_of = schema.geobox(mask).resolution
    for number, (y0, x0, y1, x1) in enumerate(areas, 1):
        known = (mask.values[y0:y1, x0:x1] != schema.UNKNOWN).sum() * abs(grid_of.x * grid_of.y) / 1e6
        total = sum(frame[f"{name}_km2_{number}"] for name in ("tp", "fp", "fn", "tn"))
        np.testing.assert_allclose(total, known)
    again = frame["tp_km2_1"] / (frame["tp_km2_1"] + frame["fp_km2_1"] + frame["fn_km2_1"])
    np.testing.assert_allclose(again.fillna(0), frame["iou_1"])
    copied = frame[frame["copies"]].set_index(["sampling", "size_px", "heights"])["tiles"]
    plain = frame[~frame["copies"]].set_index(["sampling", "size_px", "heights"])["tiles"]
    assert (copied == 4 * plain).all()
    return frame


@pytest.mark.slow
def test_all_of_it_at_the_smallest_scale(tmp_path):
    out = tmp_path / "out"
    report = papers.reproduce("soares2020", tmp_path, out, scale="tiny", progress=False)
    frame = check(out, report, 16)
    bands = json.loads((out / str(frame["name"].iloc[0]) / "model" / "model.json").read_text())["bands"]
    assert "dem" not in bands
    heights = frame.loc[frame["heights"], "name"].iloc[0]
    assert "dem" in json.loads((out / heights / "model" / "model.json").read_text())["bands"]
    table3 = pd.read_csv(out / "tables" / "table3.csv")
    assert len(table3) == 4
    assert (table3["iou"] >= table3["iou_chosen"]).all()  # the best on the test areas is never below the chosen one
    table2 = pd.read_csv(out / "tables" / "table2.csv")
    assert table2[table2.dataset == "RapidEye"]["Random_paper"].tolist() == [1740, 2368]
    browser.check(out / "report.html", tmp_path, tables=6, figures=8)
    name = frame["name"].iloc[0]
    (out / name).rename(out / f"{name}.partial")  # killed after its maps were written
    (out / f"{name}.partial" / RECORD).unlink()
    assert papers.reproduce("soares2020", tmp_path, out, scale="tiny", progress=False).check().done == 1
    scores = ["iou_1", "iou_2", "valid_loss"]
    pd.testing.assert_frame_equal(pd.read_parquet(out / "results.parquet")[scores], frame[scores])
    steps = soares2020.steps(tmp_path, scale="tiny")
    written = sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*"))
    plan = cost.plan(steps, out, soares2020.loads).set_index("name").loc[frame["name"]]
    assert sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*")) == written
    assert (plan["state"] == "done").all()
    assert 1 / 5 < plan["hours"].sum() / (frame["minutes"].sum() / 60) < 5
    assert (plan["took"] * 60 > frame["minutes"].to_numpy()).all()  # with maps and all


@pytest.mark.slow
@pytest.mark.realdata
def test_valles_marineris_with_its_heights(data, tmp_path):
    cube = scenes.open(data / "valles-marineris" / "images")
    masks = scenes.open(data / "valles-marineris" / "masks", grid=cube, nodata=schema.UNKNOWN)
    names = ["thermal", "slope", "dem", "grey", "red", "green", "blue"]
    image = mosaic.composite(cube).assign_coords(band=names)
    image = image.sel(band=["blue", "green", "red", "grey", "thermal", "dem"])
    store.write(image, tmp_path / "data" / "mosaic.zarr")
    store.write(mosaic.composite(masks).isel(band=0, drop=True).rename("mask"), tmp_path / "data" / "mask.zarr")
    out = tmp_path / "out"
    steps = soares2020.steps(tmp_path / "data", scale="tiny")
    report = grid.run(steps, out, progress=False)
    papers.write_tables(papers.get("soares2020"), grid.results(steps, out), out)
    frame = check(out, report, 16)
    assert frame[["tp_km2_1", "fn_km2_1"]].sum(axis=1).gt(0).all()

"""Soares et al. 2020: the plan of the 288 runs, its counts, and all of it at the smallest scale."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lsdask import models, mosaic, sampling, scenes, schema, store
from lsdask.errors import BadInput
from lsdask.recipes import cost, grid, papers, soares2020
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
    table = published("soares2020")
    tp, fp, fn = 0.26, 0.29, 0.30  # km2, as section 4 prints them for 128-px random tiles on area 1
    printed = table.loc[table["size_px"] == 128, "test_area1_miou"].item()
    assert abs(tp / (tp + fp + fn) - printed) < 0.01
    means = table[["test_area1_miou", "test_area2_miou"]].mean(axis=1)
    assert (abs(means - table["average_miou"]) < 0.0051).all()


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
    assert (out / "report.html").read_text().count('src="data:image/svg+xml') == 6
    steps = soares2020.steps(tmp_path, scale="tiny")
    written = sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*"))
    plan = cost.plan(steps, out, soares2020.loads).set_index("name").loc[frame["name"]]
    assert sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*")) == written
    assert (plan["state"] == "done").all()
    assert 1 / 3 < plan["hours"].sum() / (frame["minutes"].sum() / 60) < 3
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

"""Garcia et al. 2022: the plan of the 42 runs, its parts, and all of it at the smallest scale."""

import json

import browser
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr

from lsdask import models, sampling, schema, store, synthetic
from lsdask.errors import BadInput, NotFound
from lsdask.recipes import folders, garcia2022, grid, papers
from lsdask.recipes.garcia2022 import work
from lsdask.recipes.steps import RECORD
from lsdask.recipes.tables import published


def test_the_full_plan_is_the_papers(tmp_path):
    steps = garcia2022.steps(tmp_path)
    runs = grid.runs(steps)
    named = [(r.spec["approach"], r.spec["n_clusters"], r.spec["dataset"], r.spec["model"]) for r in runs]
    paper = published("garcia2022").astype(object).where(lambda table: table.notna(), None)
    expected = [(row.approach, row.n_clusters, row.dataset, row.model) for row in paper.itertuples()]
    assert len(runs) == 42
    assert set(named) == set(expected)
    assert sum(step.name.startswith("pretrain/") for step in steps) == 6
    assert {r.spec["encoder"] for r in runs} == {"densenet121"}
    assert {r.spec["copies"] for r in runs} == {30, 50}
    assert {r.spec["frozen"] for r in runs if r.spec["approach"] == "proposed"} == {True}
    assert not any(r.spec["frozen"] for r in runs if r.spec["approach"] == "standard")
    assert not any(r.spec["frozen"] for r in grid.runs(garcia2022.steps(tmp_path, frozen=False)))
    with pytest.raises(BadInput, match="scale must be one of full, small, tiny"):
        garcia2022.steps(tmp_path, scale="huge")


def test_the_papers_scene_has_the_papers_tiles():
    image = xr.DataArray(np.broadcast_to(np.uint8(0), (14210, 14592)), dims=("y", "x"))
    assert len(sampling.grid(image, garcia2022.plan.TILE)) == 202_920


def test_clusters_are_drawn_down_to_the_mean():
    table = pd.DataFrame({"cluster": [0] * 50 + [1] * 8 + [2] * 2, "y": range(60)})
    assert work.levelled(table, None, 0)["cluster"].value_counts().to_dict() == {0: 20, 1: 8, 2: 2}
    assert work.levelled(table, 5, 0)["cluster"].value_counts().to_dict() == {0: 5, 1: 5, 2: 2}


def test_a_map_is_judged_pooled_and_tile_by_tile():
    truth = np.zeros((40, 64), "uint8")
    truth[:8, :8] = 1  # 64 px in tile 0; the other three tiles (two of 8 rows) have none
    truth[39, 63] = schema.UNKNOWN
    scores = np.zeros((1, 40, 64), "uint8")
    scores[0, :8, :4] = 250  # half found
    scores[0, 20, 40:50] = 125  # 10 false alarms in tile 1, just at the threshold
    scores[0, 21, 40:50] = 124
    box = synthetic.scene((40, 64)).odc.geobox
    area = schema.wrap(scores, box, schema.SCORES, name="scores", coords={"class": ["landslide"]}, nodata=255)
    got = work.judged(area, schema.wrap(truth, box, schema.MASK, name="mask", nodata=255))
    assert (got["tp"], got["fp"], got["fn"]) == (32, 10, 32)
    assert got["recall"] == 0.5
    assert got["tile_recall"] == pytest.approx((0.5 + 3) / 4, abs=1e-4)
    assert got["tile_precision"] == pytest.approx((1 + 0 + 1 + 1) / 4, abs=1e-4)
    assert got["identified"] is True


def data_folder(tmp_path):
    """A user's folder: a mosaic, an inventory, void and a test area."""
    land = synthetic.landscape((512, 512), 7)
    store.write(land.scene, tmp_path / "mosaic.zarr")
    land.polygons.to_file(tmp_path / "inventory.geojson")
    left, top = synthetic.ORIGIN
    boxes = {"void": (0, 0, 64, 512), "test": (256, 200, 400, 360)}
    for name, (y0, x0, y1, x1) in boxes.items():
        shape = shapely.box(left + 8 * x0, top - 8 * y1, left + 8 * x1, top - 8 * y0)
        gpd.GeoDataFrame(geometry=[shape], crs=synthetic.CRS).to_file(tmp_path / f"{name}.gpkg")
    return land


def test_a_users_folder_becomes_scene_and_tiles(tmp_path):
    land = data_folder(tmp_path)
    steps = garcia2022.steps(tmp_path, scale="tiny")
    out = tmp_path / "out"
    grid.run(steps, out, only="shared/tiles", progress=False).check()
    image, mask = (store.open(out / "shared/scene" / name) for name in ("mosaic.zarr", "mask.zarr"))
    assert (image.values[:, :64] == 0).all()
    np.testing.assert_array_equal(image.values[:, 64:], land.scene.values[:, 64:])
    known = schema.valid(image).values
    np.testing.assert_array_equal(mask.values != schema.UNKNOWN, known)
    np.testing.assert_array_equal(mask.values[known], (land.mask.values == 1)[known])
    window = json.loads((out / "shared/tiles/test.json").read_text())
    assert window == [256, 200, 400, 360]
    for name in ("tiles", "positive"):
        table = pd.read_parquet(out / f"shared/tiles/{name}.parquet")
        assert len(table)
        meets = (table.y < 400) & (table.y + 32 > 256) & (table.x < 360) & (table.x + 32 > 200)
        assert not meets.any()
        assert (table["valid"] >= 0.5).all()
    assert (table["positive"] > 0).all()
    sampling.check_split(table)


def test_scenes_without_an_inventory(tmp_path):
    store.write(synthetic.scene((64, 64)), tmp_path / "mosaic.zarr")
    with pytest.raises(NotFound, match=r"data must hold mask\.zarr, or polygons named inventory"):
        folders.scene(tmp_path / "out", {"data": str(tmp_path), "synthetic": None, "seed": 0}, {})


@pytest.mark.realdata
def test_the_real_inventory_is_shown_on_synthetic_ground(data, tmp_path):
    scars = gpd.read_file(data / "serra-do-mar" / "relict_landslides_epsg32723.geojson")
    scars.to_file(tmp_path / "inventory.geojson")
    image, mask = folders._scene(tmp_path, {"synthetic": None, "dem": True, "seed": 0})
    assert schema.bands(image) == (*synthetic.scene((8, 8)).band.values, "dem")
    box = schema.geobox(mask).extent.boundingbox
    left, low, right, top = scars.total_bounds
    assert box.left < left < right < box.right
    assert box.bottom < low < top < box.top
    assert image.shape[1:] == mask.shape
    y, x = 300, 300  # a window without computing all of it
    part = mask[y : y + 1200, x : x + 1200].values
    assert set(np.unique(part)) <= {0, 1, 255}
    assert (part == 1).sum() > 100


def test_tiles_of_the_map_see_nothing_of_each_other_unless_it_is_made_whole(tmp_path):
    image = synthetic.scene((64, 96), 1)
    model = models.build("unet", bands=schema.bands(image), mean=[400.0] * 4, std=[200.0] * 4)
    models.save(model, tmp_path)
    runner = models.runner(tmp_path, nodata=schema.nodata(image))
    values, known = image.values, schema.valid(image).values
    alone = np.zeros((64, 96), "float32")
    for y in (0, 32):
        for x in (0, 32, 64):
            alone[y : y + 32, x : x + 32] = runner(values[None, :, y : y + 32, x : x + 32])[0, 0]
    tiled, whole = (work.mapped(image, tmp_path, window=window).values[0] / schema.SCORE_STEPS for window in (32, None))
    np.testing.assert_allclose(tiled[known], alone[known], atol=0.01)
    assert abs(tiled - whole)[known].max() > 0.05


def test_the_papers_numbers_become_the_papers_tables():
    paper = published("garcia2022")
    extra = {"f1": 0.5, "whole_f1": 0.25, "tile_precision": 0.5, "tile_recall": 0.5, "identified": True}
    made = garcia2022.tables(
        paper.iloc[::-1].sort_values("model", key=lambda x: x.map("FPN U-Net Linknet".index)).assign(**extra)
    )
    for number, rows, first, last in (
        (2, 12, [2, "LD30", 0.1144, 0.1270, 0.1367], [12, "LD50", 0.1323, 0.1723, 0.1613]),
        (3, 12, [2, "LD30", 0.7618, 0.7824, 0.7749], [12, "LD50", 0.7692, 0.7877, 0.7970]),
        (4, 2, ["LD30", 0.1337, 0.1405, 0.1212], ["LD50", 0.1264, 0.1583, 0.1240]),
        (5, 2, ["LD30", 0.7845, 0.7952, 0.7774], ["LD50", 0.7750, 0.7925, 0.7892]),
    ):
        table = made[f"table{number}"]
        assert table.columns[-3:].tolist() == ["FPN", "U-Net", "Linknet"]
        assert (len(table), table.iloc[0].tolist(), table.iloc[-1].tolist()) == (rows, first, last)
    summary = made["summary"].set_index("approach").sort_index()
    np.testing.assert_allclose(summary["precision"], summary["precision_paper"])
    assert summary["precision"].round(4).tolist() == [0.1352, 0.1340]
    assert summary["recall_paper"].round(4).tolist() == [0.7831, 0.7856]
    assert summary["identified"].tolist() == ["36 of 36", "6 of 6"]
    assert summary["identified_paper"].tolist() == ["15 of 36", "3 of 6"]
    every = made["all_runs"]
    assert (every["recall"] == every["recall_paper"]).all()


@pytest.mark.slow
def test_all_of_it_at_the_smallest_scale(tmp_path):
    out = tmp_path / "out"
    report = papers.reproduce("garcia2022", tmp_path, out, scale="tiny", progress=False).check()
    assert (report.steps, report.done) == (23, 23)
    frame = pd.read_parquet(out / "results.parquet")
    assert len(frame) == 18
    assert frame.groupby(["approach", "model", "dataset"]).ngroups == 12
    np.testing.assert_array_equal(frame["tiles"], frame["copies"] * frame["tiles"].min() // 30)
    found = pd.read_csv(out / "tables" / "table3.csv")
    assert found[["n_clusters", "dataset"]].values.tolist() == [[2, "LD30"], [4, "LD30"], [2, "LD50"], [4, "LD50"]]
    every = pd.read_csv(out / "tables" / "all_runs.csv")
    assert every["recall_paper"].between(0.75, 0.82).all()
    browser.check(out / "report.html", tmp_path, tables=6, figures=6)
    first = (out / "runs" / "k-02-fpn-ld30" / "model" / "model.safetensors").stat().st_mtime_ns
    again = papers.reproduce("garcia2022", tmp_path, out, scale="tiny", progress=False)
    assert (again.done, again.skipped) == (0, 23)
    assert (out / "runs" / "k-02-fpn-ld30" / "model" / "model.safetensors").stat().st_mtime_ns == first
    killed = out / "runs" / "k-02-fpn-ld30"
    killed.rename(f"{killed}.partial")  # killed after its map was written
    (out / "runs" / "k-02-fpn-ld30.partial" / RECORD).unlink()
    report = papers.reproduce("garcia2022", tmp_path, out, scale="tiny", progress=False).check()
    assert (report.done, report.skipped) == (1, 22)
    scores = ["precision", "recall", "f1", "whole_f1"]
    pd.testing.assert_frame_equal(pd.read_parquet(out / "results.parquet")[scores], frame[scores])

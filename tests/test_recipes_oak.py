"""Oak et al. 2024 on small pictures: every network, every table."""

import json

import browser
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lsdask import streaming
from lsdask.cli import app
from lsdask.errors import BadInput, NotFound
from lsdask.recipes import grid, oak2024, papers


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """The four runs at the smallest scale."""
    out = tmp_path_factory.mktemp("oak")
    return out, papers.reproduce("oak2024", data / "nepal", out, scale="tiny", progress=False).check()


@pytest.mark.realdata
def test_all_four_networks_run_and_become_table_2(done, data):
    out, report = done
    assert (report.steps, report.done) == (5, 5)
    frame = pd.read_parquet(out / "results.parquet")
    assert frame["model"].tolist() == ["UNet", "PSPNet", "FPN", "LinkNet"]
    pixels = frame[["tp", "fp", "fn", "tn"]].sum(axis=1)
    assert (pixels == json.loads((out / "shared/split/run.json").read_text())["result"]["test"] * 64 * 64).all()
    shares = np.round((frame.tp + frame.tn) / pixels, 9)
    np.testing.assert_array_equal(np.round(frame.accuracy, 9), shares)
    assert frame["prevalence"].nunique() == 1
    table = pd.read_csv(out / "tables/table2.csv").set_index("model")
    assert table.loc["LinkNet", "f1_paper"] == 0.85766
    np.testing.assert_allclose(table["f1"], frame["f1"])
    assert r"\toprule" in (out / "tables/figure7.tex").read_text()
    assert "PSPNet" in (out / "tables/notes.md").read_text()


@pytest.mark.realdata
def test_the_report_opens_offline_and_its_tables_sort_in_a_browser(done, tmp_path):
    out, _ = done
    browser.check(out / "report.html", tmp_path, tables=2, figures=6)  # scores, four curves, examples


@pytest.mark.realdata
def test_no_picture_is_in_two_parts(done):
    out, _ = done
    parts = [set((out / f"shared/split/{name}.txt").read_text().split()) for name in ("train", "valid", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 24


@pytest.mark.realdata
def test_the_counts_are_those_of_the_saved_model(done, data):
    out, _ = done
    record = grid.record(out, "runs/fpn")
    names = (out / "shared/split/test.txt").read_text().split()
    files = [[data / "nepal" / kind / name for name in names] for kind in ("images", "masks")]
    stream = streaming.TileStream.from_folder(*files, size=64, batch_size=3, shuffle=False)
    counts = oak2024.judged(out / "runs/fpn/model", stream)
    assert {name: getattr(counts, name) for name in ("tp", "fp", "fn", "tn")} == {
        name: record["result"][name] for name in ("tp", "fp", "fn", "tn")
    }


@pytest.mark.realdata
def test_the_command_prints_the_grid_and_goes_on(done, data):
    out, _ = done
    options = ["reproduce", "oak2024", "--data", str(data / "nepal"), "--out", str(out), "--scale", "tiny"]
    shown = CliRunner().invoke(app, [*options, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "5 steps, 4 of them runs" in shown.output
    again = CliRunner(env={"COLUMNS": "160"}).invoke(app, options)
    assert again.exit_code == 0, again.output
    assert "0 of 5 steps" in again.output
    assert "Table 2." in again.output
    assert "LinkNet" in again.output


def test_the_full_scale_is_the_papers(tmp_path):
    for kind in ("image", "mask"):
        (tmp_path / "landslide" / kind).mkdir(parents=True)
    steps = oak2024.steps(tmp_path)  # as Bijie lies
    runs = grid.runs(steps)
    assert [step.spec["network"] for step in runs] == ["UNet", "PSPNet", "FPN", "LinkNet"]
    same = {(s.spec["encoder"], s.spec["weights"], s.spec["epochs"], s.spec["batch"], s.spec["size"]) for s in runs}
    assert same == {("resnet50", "imagenet", 100, 16, 256)}
    assert len(runs) == 4
    assert oak2024.parts_of(770) == {"test": 80, "valid": 69, "train": 621}


def test_prevalence_follows_from_the_printed_scores():
    from lsdask.recipes.tables import published

    for row in published("oak2024").itertuples():
        share = (1 - row.accuracy) / ((1 - row.recall) + row.recall * (1 / row.precision - 1))
        assert abs(share - oak2024.PREVALENCE[row.model]) < 5e-6


def test_bad_input(tmp_path):
    with pytest.raises(NotFound, match="data must hold the folders images/ and masks/"):
        oak2024.steps(tmp_path)
    (tmp_path / "landslide" / "image").mkdir(parents=True)
    (tmp_path / "landslide" / "mask").mkdir()
    assert len(oak2024.steps(tmp_path)) == 5  # as Bijie lies
    with pytest.raises(BadInput, match="scale must be one of full, small, tiny"):
        oak2024.steps(tmp_path, scale="huge")
    with pytest.raises(BadInput, match="paper must be one of"):
        papers.get("nobody1999")


def test_choices_of_a_recipe_are_reached_from_the_command(tmp_path):
    recipe = papers.get("oak2024")
    assert papers.options_of(recipe, ["weights=none", "positive=128"]) == {"weights": None, "positive": 128}
    (tmp_path / "image").mkdir()
    (tmp_path / "mask").mkdir()
    chosen = recipe.steps(tmp_path, **papers.options_of(recipe, ["weights=none"]))
    assert {step.spec["weights"] for step in grid.runs(chosen)} == {None}
    with pytest.raises(BadInput, match=r"set must be name=value, of weights, positive\. Got set=frozen=no"):
        papers.options_of(recipe, ["frozen=no"])
    assert papers.options_of(papers.get("garcia2022"), ["frozen=no"]) == {"frozen": False}

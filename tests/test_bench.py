"""What the benchmarks say: each way does the same work, ratios follow from rates, and what is kept can be read."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from scipy import ndimage
from typer.testing import CliRunner

from lsdask import bench, cli, schema, store
from lsdask.bench import works
from lsdask.cli.app import console
from lsdask.errors import BadInput, NotFound, Unreadable

SIZE = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bench")
    works.prepare(made, SIZE)
    return made


@pytest.fixture(scope="module")
def measured() -> bench.Benchmark:
    return bench.run(size=SIZE, only=["tiles", "evaluation"])


UNITS = {
    "tiles": (49, 49, 49),
    "training": (1, 1, 2),
    "clusters": (SIZE**2,) * 3,
    "prediction": (128**2, SIZE**2, SIZE**2),
    "evaluation": (SIZE**2, SIZE**2, SIZE**2 / 101),
    "polygons": (SIZE**2,) * 3,
}
"""By limit, lsdask and usual. 49 tiles of 64 px every 32 px: one whole batch of 32, or two with the rest."""


@pytest.mark.filterwarnings("ignore:Got 1 px")
@pytest.mark.parametrize("name", bench.WORKS)
def test_each_way_does_the_work_and_counts_it(name: str, folder: Path) -> None:
    work = bench.WORKS[name](folder)
    assert work.name == name
    assert (work.limit(), work.lsdask(), work.usual()) == UNITS[name]
    assert work.bytes > 0


def test_what_is_predicted_either_way_is_the_same(tmp_path: Path) -> None:
    works.prepare(tmp_path, 4 * works.HALO)
    work = works.scores(tmp_path)
    work.lsdask()
    work.usual()
    inner = np.s_[0, works.HALO : -works.HALO, works.HALO : -works.HALO]  # Dask mirrors edges otherwise
    ours = np.asarray(store.array(tmp_path / "mapped.zarr")[inner])
    usual = np.asarray(zarr.open_array(tmp_path / "overlap.zarr", mode="r")[inner])
    valid = schema.valid(store.open(tmp_path / "scene.zarr")).values
    far = ndimage.distance_transform_cdt(valid, "chessboard")[inner[1:]] > works.HALO  # nobody fills voids for them
    assert far.mean() > 0.1
    assert np.abs(ours[far] - usual[far] * schema.SCORE_STEPS).max() < 0.51


def test_ratios_follow_from_the_rates(measured: bench.Benchmark) -> None:
    table = measured.table.set_index("step")
    assert list(table.index) == ["tiles", "evaluation"]
    for row in measured.rows:
        assert min(row["limit"], row["lsdask"], row["usual"]) > 0
        assert table.loc[row["name"], "of_limit"] == row["lsdask"] / row["limit"]
        assert table.loc[row["name"], "times_usual"] == row["lsdask"] / row["usual"]
    assert min(measured.ceilings.values()) > 0
    assert {"cpu", "cores", "gpu", "lsdask", "torch"} <= set(measured.machine)


def test_what_is_kept_is_read_and_makes_a_history(measured: bench.Benchmark, tmp_path: Path) -> None:
    later = bench.Benchmark(**{**asdict(measured), "when": "2099-01-01T00:00:00+00:00"})
    paths = [later.write(tmp_path / "results"), measured.write(tmp_path / "results")]
    assert len({*paths}) == 2
    assert bench.read(paths[1]) == measured
    history = bench.history(tmp_path / "results")
    assert history["when"].tolist() == [measured.when] * 2 + [later.when] * 2
    assert history["of_limit"].tolist() == measured.table["of_limit"].tolist() * 2
    assert str(tmp_path) not in paths[0].read_text()


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="folder must hold benchmarks that were kept"):
        bench.history(tmp_path)
    with pytest.raises(NotFound, match="path must name a file"):
        bench.read(tmp_path / "none.json")
    for text in ("{", json.dumps({"when": "now"})):
        (tmp_path / "torn.json").write_text(text)
        with pytest.raises(Unreadable, match="path must name a benchmark that was kept"):
            bench.read(tmp_path / "torn.json")


def test_bad_input() -> None:
    with pytest.raises(BadInput, match=r"only must name some of tiles, training.* Got only=sleep"):
        bench.run(only=["tiles", "sleep"])
    with pytest.raises(BadInput, match=r"size must be at least 128\. Got size=100"):
        bench.run(size=100)


def test_the_roofline_holds_what_computes() -> None:
    rows = [
        {"name": name, "unit": "px", "limit": 4e6, "lsdask": 3e6, "usual": 1e6, "limit_is": "", "usual_is": "",
         "flops": flops, "bytes": 8.0}
        for name, flops in (("prediction", 1e4), ("clusters", 336.0), ("tiles", 0.0))
    ]  # fmt: skip
    ceilings = {"GFLOP_s": 100.0, "memory_GB_s": 10.0, "store_GB_s": 0.5}
    figure = bench.figure_roofline(bench.Benchmark("now", {}, 1024, ceilings, rows))
    (axes,) = figure.axes
    roofs = {line.get_label(): line.get_ydata() for line in axes.lines if len(line.get_xdata()) > 1}
    assert np.max(roofs["memory and arithmetic"]) == np.max(roofs["store and arithmetic"]) == 100
    points = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axes.lines if len(line.get_xdata()) == 1
    }
    assert points == {(1250.0, 30.0), (1250.0, 10.0), (42.0, 336 * 3e6 / 1e9), (42.0, 336 * 1e6 / 1e9)}
    assert [text.get_text() for text in axes.texts] == ["prediction", "clusters"]


def test_the_command_prints_keeps_draws_and_remembers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, measured: bench.Benchmark
) -> None:
    asked: list[dict[str, Any]] = []

    def given(**options: Any) -> bench.Benchmark:
        asked.append(options)
        return measured

    monkeypatch.setattr(bench, "run", given)
    monkeypatch.setattr(console, "_width", 200)
    out, plot = tmp_path / "results", tmp_path / "roof.png"
    arguments = ["bench", "--full", "--only", "tiles,evaluation", "--out", str(out), "--plot", str(plot)]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert asked[0]["size"] == 4096
    assert asked[0]["only"] == ["tiles", "evaluation"]
    assert "slices of float32 in memory" in done.output
    assert plot.stat().st_size > 0
    again = CliRunner().invoke(cli.app, ["bench", "--history", "--out", str(out)])
    assert measured.when[:10] in again.output
    assert "evaluation" in again.output

"""The command, step by step on one small scene, and what it says to bad input."""

import json
import re
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401
import shapely
from PIL import Image
from typer.testing import CliRunner

import lsdask as ls
from lsdask import cli
from lsdask.cli.about import draw_coverage
from lsdask.cli.app import STEPS

runner = CliRunner()


def lsdask(*arguments: object, code: int = 0) -> str:
    result = runner.invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return re.sub(r"\s+", " ", result.output)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene in two files, and its landslides."""
    folder = tmp_path_factory.mktemp("cli")
    land = ls.synthetic.landscape((256, 320), seed=3)
    (folder / "scenes").mkdir()
    land.scene[:, :, :200].rio.to_raster(folder / "scenes" / "west.tif")
    land.scene[:, :, 150:].rio.to_raster(folder / "scenes" / "east.tif")
    land.polygons.to_file(folder / "slides.gpkg")
    ls.store.write(land.scene, folder / "whole.zarr")
    return folder


def test_the_steps(folder: Path) -> None:
    out = lsdask("mosaic", folder / "scenes", "--out", folder / "mosaic.zarr", "--bands", "blue,green,red,nir")
    assert "1 of 1 tiles" in out
    assert (ls.store.open(folder / "mosaic.zarr").values == ls.store.open(folder / "whole.zarr").values).all()

    out = lsdask("cluster", folder / "mosaic.zarr", folder / "clusters.zarr", "--k", "2,3", "--samples", 5000,
                 "--centers", folder / "centers.json", "--plots", folder / "plots")  # fmt: skip
    assert "davies_bouldin" in out
    assert list(ls.store.open(folder / "clusters.zarr").k.values) == [2, 3]
    assert {path.name for path in (folder / "plots").iterdir()} == {
        "k.png", "map-2.png", "map-3.png", "spectra-2.png", "spectra-3.png",
    }  # fmt: skip
    again = lsdask("cluster", folder / "mosaic.zarr", folder / "clusters.zarr", "--centers", folder / "centers.json")
    assert "0 of 1 tiles" in again

    out = lsdask(
        "tiles",
        folder / "mosaic.zarr",
        folder / "tiles.parquet",
        "--mask",
        folder / "slides.gpkg",
        "--size",
        64,
        "--block",
        64,
        "--clusters",
        folder / "clusters.zarr",
    )
    assert set(pd.read_parquet(folder / "tiles.parquet").cluster) <= {0, 1, 2}
    assert set(pd.read_parquet(folder / "tiles.parquet").split) >= {"train", "test"}
    assert "train" in out

    lsdask(
        "pretrain", folder / "mosaic.zarr", folder / "tiles.parquet", folder / "clusters.zarr", folder / "encoder",
        "--encoder", "resnet18", "--epochs", 1, "--batch", 4,
    )  # fmt: skip
    lsdask(
        "train", folder / "mosaic.zarr", folder / "tiles.parquet", folder / "slides.gpkg", folder / "model",
        "--epochs", 1, "--batch", 4, "--weights", folder / "encoder", "--freeze",
    )  # fmt: skip
    encoder, whole = (ls.models.load(folder / name).encoder.state_dict() for name in ("encoder", "model"))
    frozen = [name for name in encoder if "running" not in name and "num_batches" not in name]
    assert all((encoder[name] == whole[name]).all() for name in frozen)
    out = lsdask("predict", folder / "mosaic.zarr", folder / "model", folder / "scores.zarr", "--tile", 128)
    assert "6 of 6 tiles" in out
    out = lsdask("predict", folder / "mosaic.zarr", folder / "model", folder / "scores.zarr", "--tile", 128)
    assert "0 of 6 tiles" in out

    out = lsdask("evaluate", folder / "scores.zarr", folder / "slides.gpkg", "--tiles", folder / "tiles.parquet",
                 "--out", folder / "scores.json")  # fmt: skip
    written = json.loads((folder / "scores.json").read_text())
    assert f"{written['f1']:.4f}" in out

    out = lsdask("polygons", folder / "scores.zarr", folder / "found.gpkg", "--threshold", 0.01)
    assert f"Wrote {len(gpd.read_file(folder / 'found.gpkg')):,} landslides" in out

    lsdask("report", folder / "mosaic.zarr", folder / "scores.zarr", folder / "slides.gpkg", folder / "report.html",
           "--tiles", folder / "tiles.parquet", "--model", folder / "model", "--polygons", folder / "found.gpkg",
           "--clusters", folder / "clusters.zarr", "--name", "the Andes")  # fmt: skip
    page = (folder / "report.html").read_text()
    assert "Landslides of the Andes" in page
    assert f"{written['f1']:.4f}" in page

    out = lsdask("info", folder / "mosaic.zarr", "--png", folder / "mosaic.png")
    assert "True colour" in out
    assert "8 x 8 metre" in out
    out = lsdask("info", folder / "scores.zarr", "--png", folder / "scores.png")
    assert "█" * 80 in out
    assert Image.open(folder / "scores.png").size > (300, 300)
    assert "EPSG:32723" in out
    assert "6 of 6" in out
    assert "resnet18" in lsdask("info", folder / "model")


def test_the_coverage_map() -> None:
    share = np.array([[0, 0.01, 0.8, 1], [0, 0.01, 0.8, 1], [1, 1, 1, 1]])
    assert draw_coverage(share) == "·░▓█\n████"


def test_help_explains() -> None:
    for name in ("mosaic", "cluster", "tiles", "pretrain", "train", "predict", "evaluate", "polygons", "info", "demo"):
        out = lsdask(name, "--help")
        assert "Usage" in out
        assert len(out) > 300
    assert ls.__version__ in lsdask("--version")
    places = [lsdask("--help").index(f"│ {name} ") for name in STEPS]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["info", "nowhere.zarr"], "path must name a Zarr group. Got path=nowhere.zarr, where there is none."),
        (["info", "[red].zarr"], "Got path=[red].zarr"),
        (["info", "[/red]:smile:.zarr"], "Got path=[/red]:smile:.zarr"),
        (["info", "{whole}", "--png", "no/a.png"], "no/a.png: No such file or directory."),
        (["report", "{whole}", "{whole}", "{whole}", "no/a.html", "--tiles", "t", "--model", "m"], "out must lie in a"),
        (["mosaic", "nothing/*.tif", "--out", "m.zarr"], "paths must"),
        (["cluster", "{whole}", "c.zarr", "--k", "two"], "k must be whole numbers with commas between. Got k=two."),
        (
            ["cluster", "{whole}", "c.zarr", "--k", "2,300"],
            "k must lie from 1 to 254, as labels are uint8.",
        ),
        (["cluster", "{whole}", "{whole}", "--k", "2"], "target must be new or hold a run to go on with."),
        (["tiles", "{whole}", "t.parquet", "--clusters", "{whole}"], "clusters must be a store that `lsdask cluster`"),
        (["tiles", "{whole}", "t.parquet", "--fractions", "1,2"], "fractions must be 3 numbers with commas between."),
        (["predict", "{whole}", "no-model", "s.zarr"], "must be a model folder"),
        (["evaluate", "{whole}", "no.gpkg"], "mask must name a file."),
        (["demo", "--data", "{folder}", "--out", "{folder}"], "out must be a new or empty folder."),
        (["demo", "--data", "{folder}", "--out", "{folder}/new"], "data must hold the folders images/ and masks/"),
        (["predict", "{whole}", "m", "s", "--scheduler", "tcp://127.0.0.1:1"], "must be"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path,
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    filled = [part.format(whole=folder / "whole.zarr", folder=folder) for part in arguments]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lsdask", *filled])
    with pytest.raises(SystemExit) as left:
        cli.main()
    stderr = capsys.readouterr().err
    assert left.value.code == 2
    assert stderr.startswith("lsdask: ")
    assert said in stderr
    assert stderr.count("\n") == 1


@pytest.mark.filterwarnings("default:.*have been mended")
def test_a_warning_is_one_line_and_names_no_code(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    slides = gpd.read_file(folder / "slides.gpkg")[["geometry"]]
    x, y = slides.geometry[0].centroid.coords[0]
    bow = shapely.Polygon([(x - 40, y - 40), (x + 40, y + 40), (x + 40, y - 40), (x - 40, y + 40)])
    gpd.GeoDataFrame(geometry=[*slides.geometry, bow], crs=slides.crs).to_file(tmp_path / "bow.gpkg")
    places = [str(folder / "whole.zarr"), str(tmp_path / "tiles.parquet"), "--mask", str(tmp_path / "bow.gpkg")]
    monkeypatch.setattr(sys, "argv", ["lsdask", "tiles", *places, "--size", "32", "--block", "64"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    stderr = capsys.readouterr().err
    assert left.value.code == 0
    assert stderr.startswith("lsdask: note: 1 of ")
    assert stderr.count("\n") == 1
    assert ".py" not in stderr


def test_a_stop_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ls.store, "open", stop)
    monkeypatch.setattr(sys, "argv", ["lsdask", "cluster", "a.zarr", "b.zarr"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 130
    assert capsys.readouterr().err == "lsdask: stopped. The same command goes on where it was.\n"


def test_a_fault_of_the_code_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault() -> None:
        raise OSError("of no known kind")

    monkeypatch.setattr(cli, "app", fault)
    with pytest.raises(OSError, match="of no known kind"):
        cli.main()

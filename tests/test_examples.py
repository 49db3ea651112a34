"""What the pages and examples say runs."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

import lsdask as ls

ROOT = Path(__file__).parents[1]


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 16
    monkeypatch.chdir(tmp_path)
    exec(
        compile(
            code.replace("(1024, 1024)", "(384, 384)").replace("128", "64").replace("epochs=5", "epochs=1"),
            "README",
            "exec",
        ),
        {},
    )
    assert (tmp_path / "landslides.gpkg").exists()
    assert ls.store.open("scores.zarr").shape == (1, 384, 384)


def test_the_first_map(tmp_path: Path) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "first_map.py"))
    scores = example["main"](tmp_path, 384, 64, 1)
    assert 0 <= scores["f1"] <= 1
    assert {path.name for path in tmp_path.iterdir()} >= {"mosaic.zarr", "model", "scores.zarr", "landslides.gpkg"}


@pytest.mark.cluster
def test_your_own_function(tmp_path: Path) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "own_function.py"))
    report = example["main"](tmp_path, 1500, 1)
    assert (report.done, report.failed) == (4, ())
    blue, green, red, nir = ls.store.open(tmp_path / "scene.zarr").values.astype("float32")
    index = uniform_filter(((nir - red) / np.maximum(nir + red, 1) + 1) / 2, size=5, mode="mirror")
    scores = ls.schema.decode_scores_block(ls.store.open(tmp_path / "vegetation.zarr").values[0])
    known = ~np.isnan(scores)
    assert (known == (blue > 0) & (green > 0) & (red > 0) & (nir > 0)).all()
    assert np.abs(scores - index)[known].max() <= 0.5 / 250 + 1e-5

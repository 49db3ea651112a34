"""The whole job: small on the synthetic scene, in earnest on the real labelled one."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest

import lsdask as ls
from lsdask.recipes import demo

FILES = {"mosaic.zarr", "mask.zarr", "clusters.zarr", "tiles.parquet", "model", "scores.zarr", "landslides.parquet",
         "metrics.json", "report.html"}  # fmt: skip


def check(out: Path, metrics: dict) -> None:
    """What the demo leaves must agree with itself."""
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads((out / "metrics.json").read_text()) == metrics
    scores, mask = ls.store.open(out / "scores.zarr"), ls.store.open(out / "mask.zarr")
    tiles = pd.read_parquet(out / "tiles.parquet")
    ls.sampling.check_split(tiles)
    inside = ls.evaluate.within(tiles[tiles.split == "test"], scores).values
    known = inside & (mask.values != 255) & (scores.values[0] != 255)
    found = ls.schema.decode_scores_block(scores.values[0]) >= np.float32(metrics["threshold"])
    assert metrics["counts"]["tp"] == int((found & (mask.values == 1) & known).sum())
    assert metrics["counts"]["fp"] == int((found & (mask.values == 0) & known).sum())
    assert len(gpd.read_parquet(out / "landslides.parquet")) == metrics["landslides"]
    assert (out / "report.html").read_text().count("data:image/") >= 4


@pytest.mark.cluster
def test_the_demo_on_a_small_scene(tmp_path: Path) -> None:
    said: list[str] = []
    metrics = demo.run(tmp_path / "out", size=768, epochs=1, workers=1, say=said.append)
    check(tmp_path / "out", metrics)
    assert any("report.html" in line for line in said)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.realdata
def test_the_demo_on_valles_marineris(tmp_path: Path, data: Path) -> None:
    metrics = demo.run(tmp_path / "out", data=data / "valles-marineris", workers=2)
    check(tmp_path / "out", metrics)
    assert metrics["f1"] >= 0.75
    image = ls.store.open(tmp_path / "out" / "mosaic.zarr")
    assert int(ls.schema.valid(image).sum()) == 334 * 128**2

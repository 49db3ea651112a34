"""The benchmarks of training run, at a size that says nothing about speed."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio


def load(name: str) -> Any:
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_store_and_memory_take_the_same_steps(monkeypatch):
    training = load("training")
    monkeypatch.setitem(training.NETWORKS, "soares_unet-16", {"name": "soares_unet", "filters": 2})
    found = training.run(
        size=128, networks=["soares_unet-16"], sides=[32], precisions=["float32", "bfloat16"], device="cpu",
        tiles=12, batch=4, rounds=1,
    )  # fmt: skip
    assert set(found["runs"]) == {"soares_unet-16 32 float32", "soares_unet-16 32 bfloat16"}
    assert found["ratio"] == min(run["ratio"] for run in found["runs"].values()) > 0
    assert found["cpu_ratio"] > 0


def scenes(data: Path) -> None:
    """Write two labelled files in the layout of Valles Marineris, the second to the east."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (data / name).mkdir(parents=True)
    for i in range(2):
        mask = rng.integers(0, 2, (1, 4, 4)).repeat(32, 1).repeat(32, 2).astype("uint8")
        image = np.concatenate([mask * 50 + rng.normal(100, 9, mask.shape) for _ in range(2)]).astype("float32")
        place = rasterio.Affine(10, 0, 440000 + i * 1280, 0, -10, 7400000)
        for folder, array in (("images", image), ("masks", mask)):
            profile = {"driver": "GTiff", "dtype": array.dtype, "count": len(array), "height": 128, "width": 128}
            with rasterio.open(data / folder / f"{i}.tif", "w", crs="EPSG:32723", transform=place, **profile) as file:
                file.write(array)


def test_a_table_of_networks_is_gone_on_with(tmp_path, monkeypatch):
    networks = load("networks")
    monkeypatch.setattr(networks, "TILE", 16)
    monkeypatch.setitem(networks.NETWORKS, "soares_unet-16", {"name": "soares_unet", "filters": 2})
    scenes(tmp_path / "data")
    options = {"networks": ["soares_unet-16"], "epochs": 1, "most": 8, "seed": 0}
    found = networks.run(tmp_path / "data", tmp_path / "out", kinds=["bce"], **options)
    assert list(found["f1"]) == ["soares_unet-16 bce"]
    first = (tmp_path / "out" / "cells.jsonl").read_text()
    found = networks.run(tmp_path / "data", tmp_path / "out", kinds=["bce", "dice"], **options)
    lines = (tmp_path / "out" / "cells.jsonl").read_text()
    assert lines.startswith(first)
    assert [json.loads(line)["loss"] for line in lines.splitlines()] == ["bce", "dice"]
    assert found["best"] == max(found["f1"], key=lambda name: found["f1"][name])
    assert all(0 <= f1 <= 1 for f1 in found["f1"].values())


@pytest.mark.slow
def test_what_cluster_labels_teach_is_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    pretraining = load("pretraining")
    for name, value in (("TILE", 32), ("BATCH", 4), ("K", 2), ("FEW", (4, 6))):
        monkeypatch.setattr(pretraining, name, value)
    scenes(tmp_path / "data")
    (tmp_path / "out").mkdir()
    found = pretraining.measure(
        tmp_path / "data", tmp_path / "out", encoder="resnet18", seeds=2, steps=2, epochs=1
    )  # fmt: skip
    assert set(found["f1_mean_min_max"]) == {f"{mode} {n}" for mode in pretraining.MODES for n in (4, 6)}
    assert all(0 <= least <= mean <= most <= 1 for mean, least, most in found["f1_mean_min_max"].values())

"""What the steps do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lsdask import (
    evaluate,
    kmeans,
    models,
    predict,
    sampling,
    schema,
    store,
    streaming,
    training,
)
from lsdask.augment import Copies, garcia
from lsdask.errors import BadInput, sentence
from lsdask.recipes import folders
from lsdask.recipes.learning import learnt

TILE = 32
"""Side of a tile, in pixels."""

SMOOTH = 1e-5
"""Added to both sides of a tile's ratio, as segmentation_models does."""

Inputs = Mapping[str, Path]


def clusters(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Cluster the valid pixels of the whole mosaic, for every k in one reading, and label them."""
    image = store.open(inputs["scene"] / "mosaic.zarr")
    centers = kmeans.fit(image, spec["clusters"], seed=spec["seed"])
    kmeans.write(image, centers, folder / "labels.zarr", progress=False).check()
    return {"n_samples": int(centers.attrs["n_samples"])}


def tiles(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Cut the mosaic into tiles, clip the test area out, and divide those with landslides by squares of ground."""
    image, mask = folders.opened(inputs["scene"])
    table = sampling.describe(sampling.grid(image, spec["tile"]), mask=mask, valid=image)
    test = folders.polygons(Path(spec["data"]), "test")
    given = None if test is None else folders.window_of(test, image)
    window = given or folders.middling(image, mask, spec["test_side"])[0]
    (folder / "test.json").write_text(json.dumps(window))
    away = table[~folders.meets(table, window)]
    away = sampling.select(away, min_valid=0.5)
    away.to_parquet(folder / "tiles.parquet", index=False)
    positive = away[away["positive"] > 0]
    if spec["positives"] is not None:
        positive = positive.sample(min(spec["positives"], len(positive)), random_state=spec["seed"])
    if len(positive) < 4:
        raise BadInput(
            sentence("data", "have landslides in at least 4 tiles outside the test area", f"{len(positive)}")
        )
    dealt = sampling.split(positive, fractions=(0.8, 0.2, 0.0), seed=spec["seed"])
    dealt.to_parquet(folder / "positive.parquet", index=False)
    return {
        "all": len(table),
        "train": len(away),
        "positive": len(positive),
        **{f"{copies}": copies * len(positive) for copies in (30, 50)},
    }


def pretrain(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Teach an encoder to tell the clusters of tiles, drawn down to the mean count of a cluster."""
    image = store.open(inputs["scene"] / "mosaic.zarr")
    labels = store.open(inputs["clusters"] / "labels.zarr").sel(k=spec["k"])
    table = sampling.describe(pd.read_parquet(inputs["tiles"] / "tiles.parquet"), labels=labels)
    table = levelled(table[table["cluster"] != schema.UNKNOWN], spec["per_cluster"], spec["seed"])
    judge = table.groupby("cluster").sample(frac=0.05, random_state=spec["seed"])
    judge = judge if len(judge) else table.sample(1, random_state=spec["seed"])
    options: dict[str, Any] = {"mask": labels, "batch_size": spec["batch"], "classes": spec["k"], "seed": spec["seed"]}
    learn = streaming.TileStream(image, table.drop(judge.index), **options)
    constants = _scaling(inputs["scene"])
    trained = training.pretrain(
        spec["encoder"], learn, streaming.TileStream(image, judge, shuffle=False, **options), classes=spec["k"],
        folder=folder / "model", epochs=spec["epochs"], resume=True, progress=False, seed=spec["seed"],
        mean=constants["mean"], std=constants["std"], schedule="constant", lr=1e-3, augment=False,
    )  # fmt: skip
    return {"tiles": len(table), "clusters": int(table["cluster"].nunique()), "loss": trained.history[-1]["train"]}


def levelled(table: pd.DataFrame, most: int | None, seed: int) -> pd.DataFrame:
    """Draw every cluster that has more tiles than the mean down to the mean, or to ``most`` if that is less."""
    mean = len(table) // max(table["cluster"].nunique(), 1)
    least = mean if most is None else min(mean, most)
    parts = [part.sample(min(len(part), max(least, 1)), random_state=seed) for _, part in table.groupby("cluster")]
    return pd.concat(parts).sort_index().reset_index(drop=True)


def train(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Train one network on its set of tiles, map the test area, and judge the map."""
    image, mask = folders.opened(inputs["scene"])
    table = pd.read_parquet(inputs["tiles"] / "positive.parquet")
    parts = {name: table[table["split"] == name] for name in ("train", "valid")}
    options: dict[str, Any] = {"mask": mask, "batch_size": spec["batch"], "seed": spec["seed"]}
    learn = Copies(image, parts["train"], garcia(spec["copies"]), **options)
    judge = streaming.TileStream(image, parts["valid"], shuffle=False, **options)
    model = models.build(
        spec["network"], encoder=spec["encoder"], seed=spec["seed"], freeze_encoder=spec["frozen"],
        weights=inputs["encoder"] / "model" if "encoder" in inputs else None, **_scaling(inputs["scene"]),
    )  # fmt: skip
    trained, collapsed = learnt(
        model, learn, judge, folder / "model", epochs=spec["epochs"], patience=spec["patience"], loss="bce_jaccard",
        lr=1e-3, monitor="f1", seed=spec["seed"],
    )  # fmt: skip
    y0, x0, y1, x1 = json.loads((inputs["tiles"] / "test.json").read_text())
    area, truth = (part.isel(y=slice(y0, y1), x=slice(x0, x1)) for part in (image, mask))
    store.write(mapped(area, folder / "model", window=TILE), folder / "scores.zarr", overwrite=True)
    whole = judged(mapped(area, folder / "model", window=None).compute(), truth)
    return {
        **judged(store.open(folder / "scores.zarr"), truth),
        **{f"whole_{name}": whole[name] for name in ("precision", "recall", "f1")},
        "tiles": len(parts["train"]) * spec["copies"],
        "epochs_run": len(trained.history),
        "collapsed": collapsed,
        "minutes": sum(row["seconds"] for row in trained.history) / 60,
    }


def mapped(area: xr.DataArray, model: Path, *, window: int | None) -> xr.DataArray:
    """Score the test area: in windows that see nothing of each other, as the paper says; whole, as its scripts do."""
    return predict.apply(area, model, tile=1024, window=window, halo="auto" if window is None else 0)


def judged(scores: xr.DataArray, truth: xr.DataArray) -> dict[str, Any]:
    """Judge a map of the test area: pixels pooled, tile by tile as the paper may have done, and whole landslides.

    Returns
    -------
    dict
        Scores of landslide pixels; ``tile_precision`` and ``tile_recall``, means over tiles of (hits + s) / (all + s),
        which is 1 for a tile with nothing to find or nothing marked; ``identified``, whether any landslide was half
        found.
    """
    counts = evaluate.count(scores, truth)
    known = truth.values != schema.UNKNOWN
    said, true = scores.values[0] >= schema.encode_scores_block(np.array([0.5]), "uint8")[0], truth.values == 1
    said &= known & (scores.values[0] != schema.UNKNOWN)
    hits, marked, there = (_per_tile(part) for part in (said & true, said, true & known))
    return {
        **{name: float(value) for name, value in evaluate.score(counts).items()},
        **{name: int(getattr(counts, name)) for name in ("tp", "fp", "fn", "tn")},
        "tile_precision": float(((hits + SMOOTH) / (marked + SMOOTH)).mean()),
        "tile_recall": float(((hits + SMOOTH) / (there + SMOOTH)).mean()),
        "identified": bool(counts.tp >= 0.5 * (counts.tp + counts.fn)) if counts.tp + counts.fn else False,
    }


def _per_tile(where: np.ndarray, side: int = TILE) -> np.ndarray:
    """Count the True pixels of each whole or cut tile: (tile,) float64."""
    rows, columns = (np.arange(0, size, side) for size in where.shape)
    return np.add.reduceat(np.add.reduceat(where.astype("float64"), rows, axis=0), columns, axis=1).ravel()


def _scaling(folder: Path) -> dict[str, Any]:
    """Give the bands and their normalisation, as ``models.build`` takes them."""
    held = folders.constants(folder)
    return {name: held[name] for name in ("bands", "mean", "std")}

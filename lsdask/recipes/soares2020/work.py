"""What the steps do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from lsdask import evaluate, models, predict, sampling, schema, store, streaming
from lsdask.augment import SOARES, Copies
from lsdask.errors import BadInput, sentence
from lsdask.recipes import folders
from lsdask.recipes.learning import learnt

DEM = "dem"

Inputs = Mapping[str, Path]


def areas(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Choose the two test areas, or take the user's."""
    image, mask = folders.opened(inputs["scene"])
    given = [folders.polygons(Path(spec["data"]), f"test_{number}") for number in (1, 2)]
    windows = (
        [folders.window_of(one, image) for one in given if one is not None]
        if all(one is not None for one in given)
        else folders.middling(image, mask, spec["side"], count=2)
    )
    (folder / "areas.json").write_text(json.dumps(windows))
    pixel_km2 = abs(schema.geobox(image).resolution.x * schema.geobox(image).resolution.y) / 1e6
    return {f"km2_{i}": (y1 - y0) * (x1 - x0) * pixel_km2 for i, (y0, x0, y1, x1) in enumerate(windows, 1)}


def tiles(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Cut squares, keep those with landslides that lie outside the test areas, and hold 30 % out to validate."""
    image, mask = folders.opened(inputs["scene"])
    size, seed = spec["size"], spec["seed"]
    if spec["sampling"] == "Regular":
        table = sampling.even(image, size)
    else:
        table = sampling.random(image, size, spec["candidates"], seed=seed)
    candidates = len(table)
    for window in json.loads((inputs["areas"] / "areas.json").read_text()):
        away = ~(folders.inside if spec["leaks"] else folders.meets)(table, window)
        table = table[away]
    table = sampling.describe(table.reset_index(drop=True), mask=mask, valid=image)
    table = table[(table["positive"] > 0) & (table["valid"] == 1)]
    if spec["most"] is not None:
        table = table.sample(min(spec["most"], len(table)), random_state=seed)
    if len(table) < 4:
        rule = f"have landslides in at least 4 tiles of {size} px outside the test areas"
        raise BadInput(sentence("data", rule, f"{len(table)} such tiles"))
    table = table.reset_index(drop=True)
    dealt = (
        sampling.split(table, fractions=(0.7, 0.3, 0.0), seed=seed)
        if spec["split"] == "blocks"
        else _dealt(table, seed)
    )
    dealt.to_parquet(folder / "tiles.parquet", index=False)
    train = int((dealt["split"] == "train").sum())
    return {"candidates": candidates, "positive": len(table), "train": train, "augmented": 4 * train}


def _dealt(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Deal tiles at random, as the paper does."""
    held = table.sample(frac=0.3, random_state=seed).index
    return table.assign(split=["valid" if row in held else "train" for row in table.index])


def train(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Train one U-Net, keep the epoch with the least validation loss, and judge it on both areas."""
    image, mask = folders.opened(inputs["scene"])
    bands = [band for band in schema.bands(image) if spec["heights"] or band != DEM]
    seen = image.sel(band=bands)
    table = pd.read_parquet(inputs["tiles"] / "tiles.parquet")
    parts = {name: table[table["split"] == name] for name in ("train", "valid")}
    options: dict[str, Any] = {"mask": mask, "batch_size": spec["batch"], "seed": spec["seed"]}
    if spec["copies"]:
        learn: streaming.Stream = Copies(seen, parts["train"], SOARES, **options)
    else:
        learn = streaming.TileStream(seen, parts["train"], **options)
    facts = folders.constants(inputs["scene"])
    largest = dict(zip(facts["bands"], facts["max"]))
    model = models.build(
        "soares_unet", bands=bands, filters=spec["filters"], mean=[0.0] * len(bands),
        std=[max(largest[band], 1e-6) for band in bands], seed=spec["seed"],
    )  # fmt: skip
    judge = streaming.TileStream(seen, parts["valid"], shuffle=False, **options)
    trained, collapsed = learnt(
        model, learn, judge, folder / "model", epochs=spec["epochs"], patience=spec["patience"], loss="bce", lr=1e-3,
        seed=spec["seed"],
    )  # fmt: skip
    best = min(trained.history, key=lambda row: row["valid"])
    found: dict[str, Any] = {"tiles": len(parts["train"]) * (4 if spec["copies"] else 1), "valid_loss": best["valid"]}
    for number, window in enumerate(json.loads((inputs["areas"] / "areas.json").read_text()), 1):
        found.update(_judged(folder, seen, mask, window, number))
    pair = (found["iou_1"], found["iou_2"])
    minutes = sum(row["seconds"] for row in trained.history) / 60
    return {**found, "iou": sum(pair) / 2, "collapsed": collapsed, "minutes": minutes}


def _judged(folder: Path, image: xr.DataArray, mask: xr.DataArray, window: list[int], number: int) -> dict[str, Any]:
    """Map a test area in one piece and judge it: scores, and areas in km2."""
    y0, x0, y1, x1 = window
    part = {"y": slice(y0, y1), "x": slice(x0, x1)}
    area, truth = image.isel(part), mask.isel(part)
    scores = predict.apply(area, folder / "model", tile=max(y1 - y0, x1 - x0))
    store.write(scores, folder / f"scores_{number}.zarr", overwrite=True)
    counts = evaluate.count(store.open(folder / f"scores_{number}.zarr"), truth)
    pixel_km2 = abs(schema.geobox(image).resolution.x * schema.geobox(image).resolution.y) / 1e6
    scored = evaluate.score(counts)
    return {
        **{f"{name}_{number}": float(scored[name]) for name in ("precision", "recall", "f1", "iou")},
        **{f"{name}_km2_{number}": getattr(counts, name) * pixel_km2 for name in ("tp", "fp", "fn", "tn")},
    }

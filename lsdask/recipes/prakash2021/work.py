"""What the steps do."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lsdask import evaluate, models, mosaic, predict, sampling, schema, store, streaming
from lsdask.augment import Augment
from lsdask.errors import BadInput, sentence
from lsdask.recipes import steps
from lsdask.recipes.folders import box_of
from lsdask.recipes.learning import learnt_in_stages
from lsdask.recipes.prakash2021 import example, layers
from lsdask.sampling.placing import product

NETWORK = "prakash_resunet"

BANDS = (*layers.OPTICAL, "dem")

MIDDLE = 127.5
"""8-bit values v become v / 127.5 - 1. Source: the authors' published notebook."""

DECAY = 2e-4
"""The gradient of an L2 penalty of 1e-4 on a weight, per weight. The paper names the penalty, not its size."""

MIN_VALID = 0.5
"""Share of a tile that must be known. Source: the published code; its comment says 0.75."""

CHANGES = {"turns": False, "rotate": 20.0, "zoom": 1.1, "brightness": 0.1, "contrast": 0.1, "sharpness": 0.5,
           "noise": 0.02}  # fmt: skip
"""How tiles are changed at random. The paper names the kinds of change; how large they are is an assumption."""

SCORES = ("mcc", "f1", "precision", "recall")

Inputs = Mapping[str, Path]


def areas(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Write the seven made-up areas."""
    example.write(folder, tile=spec["tile"], seed=spec["seed"])
    return {"image_sets": len(example.SETS)}


def layer(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Put an image set on the grid of a base resolution, burn its masks, and say which tiles to learn from."""
    data = inputs["areas"] if "areas" in inputs else Path(spec["data"])
    image = layers.image_of(spec["row"], data, spec["resolution_m"], derived=spec["derived"])
    mosaic.write(image, folder / "mosaic.zarr", progress=False).check()
    held = store.open(folder / "mosaic.zarr")
    found: dict[str, Any] = {"height": held.sizes["y"], "width": held.sizes["x"]}
    tiles = lattice(sampling.shape_of(held), spec["tile"])
    found["candidates"] = len(tiles)
    for part, mask in layers.masks_of(spec["row"], spec["first"], data, held).items():
        mosaic.write(mask, folder / f"{part}.zarr", progress=False).check()
        kept = known_tiles(tiles, store.open(folder / f"{part}.zarr"))
        kept.to_parquet(folder / f"{part}.parquet", index=False)
        found[part] = len(kept)
    found["test_box"] = box_of(store.open(folder / "test.zarr") != schema.UNKNOWN) or [0, 0, 0, 0]
    return found


def lattice(shape: tuple[int, int], size: int) -> pd.DataFrame:
    """Lay tiles that overlap by half, their middles half a tile apart and more than half a tile from the border.

    Parameters
    ----------
    shape : (int, int)
        Of the image, in pixels.
    size : int
        Side of a tile, in pixels, even.

    Returns
    -------
    DataFrame with columns y, x, size
        None if the image is too small.

    Source
    ------
    The authors' published notebook: middles ``range(113, H - 113, 112)`` for tiles of 224.

    Examples
    --------
    >>> len(lattice((3893, 2267), 224)) == 33 * 19
    True
    """
    half = size // 2
    y, x = (np.arange(half + 1, side - half - 1, half) - half for side in shape)
    return product(y, x, size)


def known_tiles(tiles: pd.DataFrame, mask: xr.DataArray) -> pd.DataFrame:
    """Keep the tiles of which at least half is known, with their shares of known and of landslide pixels."""
    if tiles.empty:
        return tiles.assign(valid=0.0, positive=0.0)
    known = mask.copy(data=mask.data != schema.UNKNOWN)
    return sampling.select(sampling.describe(tiles, mask=mask, valid=known), min_valid=MIN_VALID)


def train(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Train one network on its areas, one after the other if they are several, and judge it on all its test areas."""
    learn, judge = ([_streams(area, part, spec, inputs) for area in spec["train_areas"]] for part in ("train", "valid"))
    inventories = [_one(streams, spec["seed"]) for streams in learn if streams]
    valid = [stream for streams in judge for stream in streams]
    if not inventories or not valid:
        rule = f"hold tiles of {spec['tile']} px at {spec['resolution_m']} m, half of which is known"
        raise BadInput(sentence(f"train and valid of {spec['train_areas']}", rule, "none in one of them"))
    stages, collapsed = learnt_in_stages(
        network(spec), inventories, _one(valid, spec["seed"]), folder / "model", **settings(spec)
    )
    return {
        **judged(folder, stages[-1].folder, spec, inputs),
        "tiles": sum(len(_table(inputs[name], "train", spec)) for name in spec["sets"]),
        "stages": len(stages),
        "epochs_run": sum(len(stage.history) for stage in stages),
        "minutes": sum(row["seconds"] for stage in stages for row in stage.history) / 60,
        "collapsed": collapsed,
    }


def network(spec: Mapping[str, Any]) -> models.Segmenter:
    """Make the network of a training: images from -1 to 1, hillshade and slope in the place of heights."""
    return models.build(
        NETWORK, bands=BANDS, mean=[MIDDLE] * 6 + [0.0], std=[MIDDLE] * 6 + [1.0], terrain=("hillshade", "slope"),
        pixel_m=float(spec["resolution_m"]), narrow=spec["narrow"], seed=spec["seed"],
    )  # fmt: skip


def settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Say how a network is trained, as arguments of ``training.fit``."""
    return {
        "epochs": spec["epochs"], "patience": spec["patience"], "loss": "prakash", "lr": 1e-4, "schedule": "plateau",
        "weight_decay": DECAY, "augment": Augment.for_bands(BANDS, **CHANGES), "seed": spec["seed"],
    }  # fmt: skip


def published(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Judge the weights that the authors publish on all areas."""
    models.save(models.load_prakash(spec["weights"]), folder / "model")
    return judged(folder, folder / "model", spec, inputs)


def judged(folder: Path, model: Path | None, spec: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Map each test region and judge it: pooled scores of landslide pixels, and counts.

    Regions smaller than a tile are left out, as the paper does.
    """
    found: dict[str, Any] = {}
    for name in spec["tests"]:
        y0, x0, y1, x1 = record(inputs[name])["test_box"]
        if min(y1 - y0, x1 - x0) < spec["tile"]:
            continue
        box = {"y": slice(y0, y1), "x": slice(x0, x1)}
        image, truth = (store.open(inputs[name] / held).isel(box) for held in ("mosaic.zarr", "test.zarr"))
        scores = folder / f"scores_{name[0]}.zarr"
        if not store.exists(scores):
            store.write(mapped(image, model, spec["tile"]), scores)
        counts = evaluate.count(store.open(scores), truth)
        scored = evaluate.score(counts)
        found |= {f"{score}_{name[0]}": float(scored[score]) for score in SCORES}
        found |= {f"{part}_{name[0]}": getattr(counts, part) for part in ("tp", "fp", "fn", "tn")}
    return found


def mapped(image: xr.DataArray, model: Any, tile: int) -> xr.DataArray:
    """Score an image by windows of the size of a tile, half a tile apart, of each of which the middle is kept.

    Parameters
    ----------
    image : DataArray (band, y, x)
    model : path or Segmenter
    tile : int
        Side of a window, in pixels, divisible by 4.

    Returns
    -------
    DataArray (class, y, x) uint8, lazy
        Unknown where the image is void, and nowhere else: it is mirrored at its border.
    """
    step = tile // 2
    return predict.apply(image, model, tile=step * max(1024 // step, 1), window=tile, halo=tile // 4)


def record(step: Path) -> dict[str, Any]:
    """Give what a finished step gave."""
    held: dict[str, Any] = json.loads((step / steps.RECORD).read_text())["result"]
    return held


def _streams(area: str, part: str, spec: Mapping[str, Any], inputs: Inputs) -> list[streaming.Stream]:
    """Give the tiles of a part of an area, a stream an image set that has any."""
    tables = {name: _table(inputs[name], part, spec) for name in spec["sets"] if name[0] == area}
    return [_stream(inputs[name], table, part, spec) for name, table in tables.items() if len(table)]


def _stream(step: Path, table: pd.DataFrame, part: str, spec: Mapping[str, Any]) -> streaming.Stream:
    """Give the tiles of an image set; to learn from in whole batches, as one of a single tile would be its own mean."""
    image, mask = (store.open(step / held) for held in ("mosaic.zarr", f"{part}.zarr"))
    learns = part == "train"
    return streaming.TileStream(
        image, table, mask=mask, batch_size=spec["batch"], seed=spec["seed"], shuffle=learns,
        drop_last=learns and len(table) > spec["batch"],
    )  # fmt: skip


def _table(step: Path, part: str, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Give the tiles of a part, at most as many as the scale allows."""
    table = pd.read_parquet(step / f"{part}.parquet")
    most = spec["most"]
    return table if most is None or len(table) <= most else table.sample(most, random_state=spec["seed"]).sort_index()


def _one(streams: Sequence[streaming.Stream], seed: int) -> streaming.Stream:
    return streams[0] if len(streams) == 1 else streaming.MixedStream(streams, seed=seed)

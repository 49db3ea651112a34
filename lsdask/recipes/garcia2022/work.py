"""What the steps do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from lsdask import (
    evaluate,
    inventory,
    kmeans,
    models,
    mosaic,
    predict,
    sampling,
    scenes,
    schema,
    statistics,
    store,
    streaming,
    synthetic,
    training,
)
from lsdask.errors import BadInput, NotFound, sentence
from lsdask.recipes.copies import Copies, turned

RESOLUTION = 8.0
SMOOTH = 1e-5
"""Added to both sides of a tile's ratio, as segmentation_models does."""

SUFFIXES = (".gpkg", ".geojson", ".json", ".parquet", ".shp", ".fgb")

Inputs = Mapping[str, Path]


def scene(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Write the mosaic, void where polygons say so, its mask, and the constants of its bands."""
    data = Path(spec["data"])
    image, truth = _scene(data, spec["synthetic"], spec["seed"])
    void = _polygons(data, "void")
    if void is not None:
        shown = mosaic.mask_vector(void, image, inside=False)
        image = mosaic.composite(image.expand_dims("time"), mask=shown)
    mosaic.write(image, folder / "mosaic.zarr", progress=False).check()
    held = store.open(folder / "mosaic.zarr")
    known = truth.where(schema.valid(held), schema.UNKNOWN).astype("uint8")
    mosaic.write(schema.wrap(known.data, schema.geobox(held), schema.MASK, name="mask", nodata=schema.UNKNOWN),
                 folder / "mask.zarr", progress=False).check()  # fmt: skip
    stats = statistics.bands(held)
    constants = {"bands": list(schema.bands(held)), **{name: stats[name].values.tolist() for name in ("mean", "std")}}
    (folder / "statistics.json").write_text(json.dumps(constants))
    test = _polygons(data, "test")
    window = None if test is None else _window(test, held)
    (folder / "test.json").write_text(json.dumps(window))
    return {"height": held.sizes["y"], "width": held.sizes["x"], "synthetic": not _has_scenes(data)}


def clusters(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Cluster the valid pixels of the whole mosaic, for every k in one reading, and label them."""
    image = store.open(inputs["scene"] / "mosaic.zarr")
    centers = kmeans.fit(image, spec["clusters"], seed=spec["seed"])
    kmeans.write(image, centers, folder / "labels.zarr", progress=False).check()
    return {"n_samples": int(centers.attrs["n_samples"])}


def tiles(folder: Path, spec: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Cut the mosaic into tiles, clip the test area out, and divide those with landslides by squares of ground."""
    image, mask = _opened(inputs["scene"])
    table = sampling.describe(sampling.grid(image, spec["tile"]), mask=mask, valid=image)
    window = json.loads((inputs["scene"] / "test.json").read_text()) or _middling(image, mask, spec["test_side"])
    (folder / "test.json").write_text(json.dumps(window))
    away = table[~_meets(table, window)]
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
    constants = _constants(inputs["scene"])
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
    image, mask = _opened(inputs["scene"])
    table = pd.read_parquet(inputs["tiles"] / "positive.parquet")
    parts = {name: table[table["split"] == name] for name in ("train", "valid")}
    options: dict[str, Any] = {"mask": mask, "batch_size": spec["batch"], "seed": spec["seed"]}
    learn = Copies(image, parts["train"], turned(spec["copies"]), **options)
    judge = streaming.TileStream(image, parts["valid"], shuffle=False, **options)
    model = models.build(
        spec["network"], encoder=spec["encoder"], seed=spec["seed"], freeze_encoder=spec["frozen"],
        weights=inputs["encoder"] / "model" if "encoder" in inputs else None, **_constants(inputs["scene"]),
    )  # fmt: skip
    trained = training.fit(
        model, learn, judge, epochs=spec["epochs"], patience=spec["patience"], folder=folder / "model", resume=True,
        loss="bce_jaccard", schedule="constant", lr=1e-3, monitor="f1", augment=False, seed=spec["seed"],
        progress=False,
    )  # fmt: skip
    y0, x0, y1, x1 = json.loads((inputs["tiles"] / "test.json").read_text())
    area, truth = (part.isel(y=slice(y0, y1), x=slice(x0, x1)) for part in (image, mask))
    scores = predict.apply(area, folder / "model", tile=1024)
    store.write(scores, folder / "scores.zarr")
    return {
        **judged(store.open(folder / "scores.zarr"), truth),
        "tiles": len(parts["train"]) * spec["copies"],
        "epochs_run": len(trained.history),
        "minutes": sum(row["seconds"] for row in trained.history) / 60,
    }


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


def _per_tile(where: np.ndarray, side: int = 32) -> np.ndarray:
    """Count the True pixels of each whole or cut tile: (tile,) float64."""
    rows, columns = (np.arange(0, size, side) for size in where.shape)
    return np.add.reduceat(np.add.reduceat(where.astype("float64"), rows, axis=0), columns, axis=1).ravel()


# Data


def _scene(data: Path, synthetic_side: int | None, seed: int) -> tuple[xr.DataArray, xr.DataArray]:
    """Open or make the scene and its mask."""
    scars = _polygons(data, "inventory")
    if _has_scenes(data):
        held = data / "mosaic.zarr"
        image = store.open(held) if held.exists() else mosaic.composite(scenes.open(data / "scenes"))
        if scars is None:
            raise NotFound(sentence("data", "hold polygons named inventory", f"data={data}, without them"))
        return image, inventory.rasterize(scars, image)
    if scars is None or synthetic_side is not None:
        side = synthetic_side or 2048
        made = synthetic.landscape((side, side), seed)
        return made.scene, made.mask
    return _shown(scars, seed)


def _shown(scars: gpd.GeoDataFrame, seed: int) -> tuple[xr.DataArray, xr.DataArray]:
    """Make a synthetic Serra do Mar that shows an inventory, with room for its sea in the south-east."""
    left, low, right, top = scars.to_crs(synthetic.CRS).total_bounds
    margin = 250 * RESOLUTION
    origin = float(left - margin) // RESOLUTION * RESOLUTION, float(top + margin) // RESOLUTION * RESOLUTION
    spread = 1.35  # a quarter of the synthetic landscape is sea
    shape = int((top - low + 2 * margin) / RESOLUTION * spread), int((right - left + 2 * margin) / RESOLUTION * spread)
    ground: dict[str, Any] = {"origin": origin, "scars": scars, "resolution": RESOLUTION}
    return synthetic.scene(shape, seed, **ground), synthetic.mask(shape, seed, **ground)


def _has_scenes(data: Path) -> bool:
    return (data / "mosaic.zarr").exists() or (data / "scenes").is_dir()


def _polygons(data: Path, name: str) -> gpd.GeoDataFrame | None:
    """Read the polygons of a name in the folder, in any format; None if there are none."""
    found = sorted(path for path in data.glob(f"{name}.*") if path.suffix in SUFFIXES)
    return inventory.load(found[0]) if found else None


def _window(test: gpd.GeoDataFrame, image: xr.DataArray) -> list[int]:
    """Give the upright box of polygons as y0, x0, y1, x1, cut to the image."""
    where = np.argwhere(mosaic.mask_vector(test, image).values)
    if not len(where):
        raise BadInput(sentence("test", "lie in the scenes", "polygons outside them"))
    (y0, x0), (y1, x1) = where.min(axis=0), where.max(axis=0) + 1
    return [int(y0), int(x0), int(y1), int(x1)]


def _middling(image: xr.DataArray, mask: xr.DataArray, side: int) -> list[int]:
    """Give the square with the middling share of landslides among those that have data and landslides."""
    side = min(side, *(size // 2 for size in mask.shape))
    squares = sampling.describe(sampling.grid(image, side, overlap=0.5), mask=mask, valid=image)
    good = squares[(squares["positive"] > 0) & (squares["valid"] > 0.8)].sort_values("positive", kind="stable")
    if not len(good):
        raise BadInput(sentence("data", "have a square with data and landslides to clip out", f"none of {side} px"))
    y, x = good.iloc[len(good) // 2][["y", "x"]].astype(int)
    return [int(y), int(x), int(y) + side, int(x) + side]


def _meets(table: pd.DataFrame, window: list[int]) -> np.ndarray:
    y0, x0, y1, x1 = window
    y, x, size = (table[name].to_numpy() for name in ("y", "x", "size"))
    return (y < y1) & (y + size > y0) & (x < x1) & (x + size > x0)


def _opened(folder: Path) -> tuple[xr.DataArray, xr.DataArray]:
    return store.open(folder / "mosaic.zarr"), store.open(folder / "mask.zarr")


def _constants(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / "statistics.json").read_text())
    return held

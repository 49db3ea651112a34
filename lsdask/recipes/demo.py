"""The main job, end to end: scenes in; mosaic, clusters, tiles, model, scores, inventory, metrics and report out.

Each stage is one or two calls of the rooms and leaves its result in the folder, so the file reads as the tutorial.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from lsdask import (
    evaluate,
    inventory,
    kmeans,
    models,
    mosaic,
    predict,
    report,
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

CLUSTERS = (4, 8)
TILE, OVERLAP, MIN_VALID = 64, 0.5, 0.5
HELD_OUT, FRACTIONS = "east", (0.6, 0.15, 0.25)
BATCH, EPOCHS, RATE = 32, 8, 2e-3
MOST_TILES = {"train": 1800, "valid": 600}
"""Tiles drawn for training and validation where there are more: what two cores do in three minutes."""
PREDICT_TILE = 1024
THRESHOLD = 0.5  # as in the papers; not chosen on the block that is reported
MIN_AREA_PX = 6
"""Landslides smaller than this many pixels are left out of the inventory."""

Say = Callable[[str], Any]


def run(
    out: str | Path,
    *,
    data: str | Path | None = None,
    workers: int = 2,
    size: int = 2048,
    epochs: int = EPOCHS,
    seed: int = 0,
    say: Say = print,
) -> dict[str, Any]:
    """Run the whole job and write everything it makes.

    Parameters
    ----------
    out : path
        A new or empty folder.
    data : path, optional
        Labelled scenes: GeoTIFFs in ``images/`` and masks (1 landslide, 0 not) of the same names in ``masks/``.
        Default: a synthetic Serra do Mar.
    workers : int
        Processes of the Dask cluster that predicts.
    size : int
        Side of the synthetic scene, in pixels.
    epochs : int
        Epochs of training.
    seed : int
        Of every draw.
    say : callable of str
        Told what happens.

    Returns
    -------
    dict
        What is in ``metrics.json``: precision, recall, f1, iou, mcc, accuracy on the held-out block; the counts;
        seconds per stage.

    Raises
    ------
    BadInput
        If ``out`` holds something.
    NotFound
        If ``data`` has no ``images/`` or ``masks/``.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise BadInput(sentence("out", "be a new or empty folder", f"out={out}", "Remove it, or pass --out"))
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str, what: str) -> Iterator[None]:
        say(f"{name:<11} {what}")
        begun = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - begun, 2)

    with stage("open", f"{data or f'a synthetic Serra do Mar of {size} x {size} px'}"):
        scene, truth = _synthetic(size, seed) if data is None else _labelled(Path(data))
    with stage("mosaic", "paint the scenes on one grid and write them, shard by shard"):
        mosaic.write(scene, out / "mosaic.zarr").check()
        store.write(truth, out / "mask.zarr")
        image, mask = store.open(out / "mosaic.zarr"), store.open(out / "mask.zarr")
    with stage("statistics", "count, mean, deviation and percentiles of each band in one pass"):
        stats = statistics.bands(image)
    with stage("clusters", f"k-means for k = {', '.join(map(str, CLUSTERS))} from one sample, then one labelling pass"):
        centers = kmeans.fit(image, list(CLUSTERS), n_samples=200_000, seed=seed)
        kmeans.write(image, centers, out / "clusters.zarr").check()
    with stage("tiles", f"{TILE}-px tiles; the {HELD_OUT} is held out, and no pixel is in two splits"):
        tiles = _tiles(image, mask, seed)
        tiles.to_parquet(out / "tiles.parquet", index=False)
    with stage(
        "train", f"U-Net on {min((tiles.split == 'train').sum(), MOST_TILES['train']):,} tiles, {epochs} epochs"
    ):
        _train(image, mask, tiles, stats, out / "model", epochs, seed)
    with stage("predict", f"every tile with its halo, on a Dask cluster of {workers} processes"):
        done = _predict(out, workers)
    with stage("evaluate", f"on the held-out block alone, at a threshold of {THRESHOLD}"):
        scores = store.open(out / "scores.zarr")
        held_out = evaluate.within(tiles[tiles.split == "test"], scores)
        counts = evaluate.count(scores, mask, threshold=THRESHOLD, valid=held_out)
    with stage("polygons", "traced tile by tile and joined across their edges"):
        area = abs(schema.geobox(scores).resolution.x * schema.geobox(scores).resolution.y)
        landslides = inventory.vectorize(scores, threshold=THRESHOLD, min_area_m2=MIN_AREA_PX * area)
        inventory.write(landslides, out / "landslides.parquet")
    metrics = {
        **evaluate.score(counts),
        "threshold": THRESHOLD,
        "counts": {name: int(getattr(counts, name)) for name in ("tp", "fp", "fn", "tn")},
        "landslides": len(landslides),
        "tiles": {str(name): int(n) for name, n in tiles.split.value_counts().items()},
        "scene": "synthetic Serra do Mar" if data is None else Path(data).name,
        "split": f"{HELD_OUT} {FRACTIONS[2]:.0%} of the image held out",
        "predict": {"tiles": done.tiles, **{name: round(value, 2) for name, value in done.metrics.items()}},
        "seconds": seconds,
    }
    _write_metrics(out, metrics)
    with stage("report", "one page that needs nothing else"):
        page = report.write(out)
    _write_metrics(out, metrics)
    _tell(metrics, out, page, say)
    return metrics


def _synthetic(size: int, seed: int) -> tuple[xr.DataArray, xr.DataArray]:
    land = synthetic.landscape((size, size), seed)
    return land.scene, land.mask


def _labelled(data: Path) -> tuple[xr.DataArray, xr.DataArray]:
    """Open images and masks on one grid; where no mask file lies, the mask is unknown."""
    for name in ("images", "masks"):
        if not (data / name).is_dir():
            raise NotFound(sentence("data", "hold the folders images/ and masks/", f"data={data}, without {name}/"))
    cube = scenes.open(data / "images")
    masks = scenes.open(data / "masks", grid=cube, nodata=schema.UNKNOWN)
    truth = mosaic.composite(masks).isel(band=0, drop=True).rename("mask")
    return mosaic.composite(cube), truth


def _tiles(image: xr.DataArray, mask: xr.DataArray, seed: int) -> pd.DataFrame:
    tiles = sampling.grid(image, TILE, overlap=OVERLAP)
    tiles = sampling.describe(tiles, mask=mask, valid=schema.valid(image))
    tiles = sampling.select(tiles, min_valid=MIN_VALID)
    return sampling.split(tiles, fractions=FRACTIONS, test=HELD_OUT, seed=seed)


def _train(
    image: xr.DataArray,
    mask: xr.DataArray,
    tiles: pd.DataFrame,
    stats: xr.Dataset,
    folder: Path,
    epochs: int,
    seed: int,
) -> None:
    train, valid = (_stream(image, mask, tiles, split, seed) for split in ("train", "valid"))
    model = models.build(
        "unet", bands=schema.bands(image), encoder="resnet18", mean=stats["mean"].values, std=stats["std"].values
    )
    training.fit(model, train, valid, epochs=epochs, folder=folder, lr=RATE, monitor="f1", seed=seed)


def _stream(
    image: xr.DataArray, mask: xr.DataArray, tiles: pd.DataFrame, split: str, seed: int
) -> streaming.TileStream:
    chosen = tiles[tiles.split == split]
    chosen = chosen.sample(min(len(chosen), MOST_TILES[split]), random_state=seed)
    return streaming.TileStream(image, chosen, mask=mask, batch_size=BATCH, shuffle=split == "train", seed=seed)


def _predict(out: Path, workers: int) -> Any:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        return predict.run(
            out / "mosaic.zarr", out / "scores.zarr", out / "model", tile=PREDICT_TILE, client=client
        ).check()


def _write_metrics(out: Path, metrics: dict[str, Any]) -> None:
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1))


def _tell(metrics: dict[str, Any], out: Path, page: Path, say: Say) -> None:
    names = ("precision", "recall", "f1", "iou", "mcc")
    say("")
    say("held out    " + "  ".join(f"{name} {metrics[name]:.3f}" for name in names))
    say(f"inventory   {metrics['landslides']:,} landslides in {out / 'landslides.parquet'}")
    say(f"report      {page}")
    say(f"seconds     {sum(metrics['seconds'].values()):.0f}")

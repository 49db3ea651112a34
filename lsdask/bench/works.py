"""The steps of the work that are measured, each done three ways: at its limit, by lsdask, and as one would write it.

What one would write uses the same packages without lsdask, as their tutorials do.
"""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from lsdask import (
    evaluate,
    inventory,
    kmeans,
    losses,
    models,
    predict,
    sampling,
    schema,
    statistics,
    store,
    streaming,
    synthetic,
    training,
)

KS = (2, 4, 6, 8, 10, 12)
TILE, OVERLAP, BATCH, HALO = 64, 0.5, 32, 128
SLOW = 256
"""Tiles that are cut one by one: they would take minutes."""


@dataclass(frozen=True)
class Work:
    """One step of the work.

    Attributes
    ----------
    name : str
    unit : str
        What a rate counts a second.
    limit, lsdask, usual : callable
        Each does the work and gives how many units that were.
    limit_is, usual_is : str
        In words.
    flops, bytes : float
        Floating point operations and bytes of stored pixels, a unit; 0 flops where there are next to none.
    """

    name: str
    unit: str
    limit: Callable[[], float]
    lsdask: Callable[[], float]
    usual: Callable[[], float]
    limit_is: str
    usual_is: str
    flops: float = 0.0
    bytes: float = 0.0


def prepare(folder: Path, size: int) -> None:
    """Write what all steps work on: a synthetic scene, its landslides, and scores as a network might give."""
    land = synthetic.landscape((size, size), seed=1)
    layout: dict[str, Any] = {"chunk": min(512, size), "shard": min(2048, size)}
    store.write(land.scene, folder / "scene.zarr", **layout)
    store.write(land.mask, folder / "mask.zarr", **layout)
    scores = schema.wrap(
        _scores(size)[None], schema.geobox(land.scene), schema.SCORES, name="scores", coords={"class": ["landslide"]}
    )
    store.write(scores, folder / "scores.zarr", **layout)


def _scores(size: int) -> np.ndarray:
    """Make scores (y, x) uint8 of which two in a hundred pixels, in blobs, reach 0.5."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((size, size), dtype="float32"), 3)
    level = np.quantile(smooth[::7, ::7], 0.98)
    steps = (smooth - smooth.mean()) / (level - smooth.mean()) * schema.SCORE_STEPS / 2
    return np.clip(steps, 0, schema.SCORE_STEPS).astype("uint8")


def stream(folder: Path) -> Work:
    """Shuffled tiles for a training."""
    image, array = store.open(folder / "scene.zarr"), store.array(folder / "scene.zarr")
    tiles = sampling.grid(image, TILE, overlap=OVERLAP)
    places = np.random.default_rng(0).permutation(tiles[["y", "x"]].to_numpy())
    memory = image.values.astype("float32")

    def ours() -> float:
        return sum(len(batch.image) for batch in streaming.TileStream(image, tiles, batch_size=BATCH))

    return Work(
        "tiles",
        "tiles",
        limit=lambda: _cut(memory, places),
        lsdask=ours,
        usual=lambda: _cut(array, places[:SLOW]),
        limit_is="slices of float32 in memory",
        usual_is="a Zarr window for each tile",
        bytes=image.nbytes / len(tiles),
    )


def _cut(array: Any, places: np.ndarray) -> float:
    for start in range(0, len(places), BATCH):
        np.stack([array[:, y : y + TILE, x : x + TILE] for y, x in places[start : start + BATCH].tolist()])
    return len(places)


def train(folder: Path) -> Work:
    """Steps of a training, 32 tiles of 64 px each, Soares' U-Net with 16 filters."""
    import torch
    from torch.utils.data import DataLoader

    image, mask = store.open(folder / "scene.zarr"), store.open(folder / "mask.zarr")
    tiles = sampling.grid(image, TILE, overlap=OVERLAP)
    steps = max(10, image.sizes["y"] // 100)  # of few, the first weigh much
    tiles = tiles.sample(min(steps * BATCH, len(tiles)), random_state=0).sort_index().reset_index(drop=True)

    def flow() -> streaming.TileStream:
        return streaming.TileStream(image, tiles, mask=mask, batch_size=BATCH, drop_last=True)

    last: Any = {"memory_format": torch.channels_last}
    ready = [(torch.from_numpy(b.image.astype("float32")).contiguous(**last), torch.from_numpy(b.mask)) for b in flow()]

    def ours() -> float:
        options: dict[str, Any] = {"epochs": 1, "augment": False, "schedule": "constant", "precision": "float32"}
        training.fit(_network(image), flow(), device="cpu", progress=False, **options)
        return len(ready)

    def plain(batches: Any) -> float:
        model = _network(image).train()
        optimizer, loss = torch.optim.Adam(model.parameters(), 1e-3), losses.find("bce_dice")
        for tile, truth in batches:
            losses.supervise(loss, model.outputs(tile), truth).backward()
            optimizer.step()
            optimizer.zero_grad()
        return float(len(batches))

    windows = _Windows(folder, tiles[["y", "x"]].to_numpy()[:SLOW])
    return Work(
        "training",
        "steps",
        limit=lambda: plain(ready),
        lsdask=ours,
        usual=lambda: plain(DataLoader(windows, batch_size=BATCH, shuffle=True)),  # type: ignore[arg-type]
        limit_is="the same steps, batches in memory",
        usual_is="a DataLoader, a Zarr window for each tile",
        flops=3 * _flops(_network(image), TILE) * BATCH * TILE**2,
        bytes=BATCH * TILE**2 * len(image) * image.dtype.itemsize,
    )


class _Windows:
    """What a tutorial gives a DataLoader: a tile and its mask by number, read when asked for."""

    def __init__(self, folder: Path, places: np.ndarray) -> None:
        self._image, self._mask = store.array(folder / "scene.zarr"), store.array(folder / "mask.zarr")
        self._places = places.tolist()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        y, x = self._places[number]
        part = np.s_[..., y : y + TILE, x : x + TILE]
        return np.asarray(self._image[part]).astype("float32"), np.asarray(self._mask[part])


def clusters(folder: Path) -> Work:
    """Labels of six numbers of clusters."""
    from sklearn.metrics import pairwise_distances_argmin

    image, array = store.open(folder / "scene.zarr", chunks=2048), store.array(folder / "scene.zarr")
    centers = kmeans.fit(image, KS, n_samples=50_000)
    pixels = float(image.sizes["y"] * image.sizes["x"])

    def read() -> float:
        read_whole(array)
        return pixels

    def ours() -> float:
        kmeans.write(image, centers, _fresh(folder / "labels.zarr"), progress=False).check()
        return pixels

    def usual() -> float:
        for row, k in enumerate(KS):  # as each k has a script of its own
            rows = np.moveaxis(np.asarray(array[...], "float32"), 0, -1).reshape(-1, len(image))
            pairwise_distances_argmin(rows, centers.values[row, :k].astype("float32"))
        return pixels

    return Work(
        "clusters",
        "px",
        limit=read,
        lsdask=ours,
        usual=usual,
        limit_is="reading the mosaic once",
        usual_is="reading and scikit-learn, once for each k",
        flops=2.0 * len(image) * sum(KS),
        bytes=len(image) * image.dtype.itemsize,
    )


def scores(folder: Path) -> Work:
    """Scores of Soares' U-Net with 16 filters, float32, with the halo that it needs."""
    import torch

    image = store.open(folder / "scene.zarr")
    side = min(1024, image.sizes["y"] // 2)
    model = _network(image).eval()
    models.save(model, folder / "model", tile=side, halo=HALO)
    whole = side + 2 * HALO
    block = torch.rand(1, len(image), whole, whole).contiguous(memory_format=torch.channels_last)
    pixels = float(image.sizes["y"] * image.sizes["x"])

    def forward(values: Any) -> Any:
        with torch.inference_mode():
            return model(values)

    def limit() -> float:
        forward(block)
        return float(side**2)

    def ours() -> float:
        target = _fresh(folder / "mapped.zarr")
        options: dict[str, Any] = {"precision": "float32", "device": "cpu"}
        predict.run(folder / "scene.zarr", target, folder / "model", progress=False, **options).check()
        return pixels

    def usual() -> float:
        lazy = store.open(folder / "scene.zarr").data.rechunk((-1, side, side))
        grown = [tuple(length + 2 * HALO for length in lengths) for lengths in lazy.chunks[1:]]
        mapped = lazy.map_overlap(
            lambda values: torch.sigmoid(forward(torch.from_numpy(values.astype("float32"))[None]))[0].numpy(),
            depth={0: 0, 1: HALO, 2: HALO}, boundary="reflect", dtype="float32", chunks=((1,), *grown),
            meta=np.empty((0, 0, 0), "float32"),
        )  # fmt: skip
        mapped.to_zarr(str(_fresh(folder / "overlap.zarr")), compute=False).compute(scheduler="synchronous")
        return pixels

    return Work(
        "prediction",
        "px",
        limit=limit,
        lsdask=ours,
        usual=usual,
        limit_is="the bare network on the same blocks",
        usual_is="dask.array.map_overlap",
        flops=_flops(model, 256) * (whole / side) ** 2,
        bytes=len(image) * image.dtype.itemsize,
    )


def evaluation(folder: Path) -> Work:
    """Counts at 101 thresholds."""
    from sklearn.metrics import precision_recall_fscore_support

    mapped, truth = store.open(folder / "scores.zarr", chunks=2048), store.open(folder / "mask.zarr", chunks=2048)
    pixels = float(truth.size)

    def limit() -> float:
        values, mask = (read_whole(store.array(folder / f"{name}.zarr")) for name in ("scores", "mask"))
        np.bincount(((mask.astype("uint16") << 8) | values[0]).ravel(), minlength=512)
        return pixels

    def ours() -> float:
        evaluate.sweep(mapped, truth)
        return pixels

    def usual() -> float:
        values, mask = mapped.values[0].ravel(), truth.values.ravel()
        known = (values != schema.UNKNOWN) & (mask != schema.UNKNOWN)
        precision_recall_fscore_support(mask[known], values[known] >= schema.SCORE_STEPS // 2, average="binary")
        return pixels / 101  # of the 101 passes, one

    return Work(
        "evaluation",
        "px",
        limit=limit,
        lsdask=ours,
        usual=usual,
        limit_is="reading, and one numpy histogram",
        usual_is="scikit-learn at one threshold, 101 times its time",
        bytes=2.0,
    )


def polygons(folder: Path) -> Work:
    """Polygons with attributes, of scores."""
    import geopandas as gpd
    from rasterio import features

    mapped = store.open(folder / "scores.zarr", chunks=2048)
    grid = schema.geobox(mapped)
    pixels = float(mapped.size)

    def limit() -> float:
        read_whole(store.array(folder / "scores.zarr"))
        return pixels

    def ours() -> float:
        inventory.vectorize(mapped)
        return pixels

    def usual() -> float:
        found = mapped.values[0] >= schema.SCORE_STEPS // 2
        shapes = features.shapes(found.astype("uint8"), mask=found, transform=grid.transform)
        collected = [{"type": "Feature", "properties": {}, "geometry": shape} for shape, _ in shapes]
        gpd.GeoDataFrame.from_features(collected, crs=str(grid.crs)).area.sum()
        return pixels

    return Work(
        "polygons",
        "px",
        limit=limit,
        lsdask=ours,
        usual=usual,
        limit_is="reading the scores once",
        usual_is="rasterio.features.shapes, without joins or attributes",
        bytes=1.0,
    )


WORKS: dict[str, Callable[[Path], Work]] = {
    "tiles": stream,
    "training": train,
    "clusters": clusters,
    "prediction": scores,
    "evaluation": evaluation,
    "polygons": polygons,
}
"""The steps by name, in the order of the work."""


def _network(image: xr.DataArray) -> models.Segmenter:
    return models.build("soares_unet", bands=schema.bands(image), filters=16, seed=0, **_constants(image))


def _constants(image: xr.DataArray) -> dict[str, Any]:
    stats = statistics.bands(image)
    return {"mean": stats["mean"].values, "std": stats["std"].values}


def _flops(model: Any, side: int) -> float:
    """Count the operations of a forward pass, a pixel."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, len(model.mean), side, side))
    return counter.get_total_flops() / side**2


def read_whole(array: Any) -> np.ndarray:
    """Read a stored array into memory, a shard at a time and as many at once as there are cores."""
    out, side = np.empty(array.shape, array.dtype), (array.shards or array.chunks)[-2]

    def read(top: int) -> None:
        out[..., top : top + side, :] = array[..., top : top + side, :]

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(read, range(0, array.shape[-2], side)))
    return out


def _fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return path

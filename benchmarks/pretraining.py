"""What cluster labels teach: a U-Net with few labelled tiles, from scratch or on an encoder pre-trained on clusters.

The encoder learns to tell the k-means cluster of the train tiles, which needs no labels; then networks learn from 10,
40 and 160 labelled tiles, with as many steps each, from scratch, with the pre-trained encoder, and with it frozen. The
table is of F1 on the held-out east at a threshold of 0.5, the mean over seeds and the least and greatest; each seed has
its own pre-training, tiles and weights. Prints one JSON line.

Source: Garcia et al. (2022), arXiv:2208.02693, whose question this is; the scenes are others.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from networks import f1_of, open_labelled

import lsdask as ls

FEW = (10, 40, 160)
TILE, BATCH, K = 64, 16, 8
MODES = ("scratch", "pretrained", "frozen")


def cut(image: Any, mask: Any, labels: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give overlapping tiles to learn from, and tiles that cover the held-out east once."""
    valid = ls.schema.valid(image)
    tiles = ls.sampling.grid(image, TILE, overlap=0.5)
    tiles = ls.sampling.select(ls.sampling.describe(tiles, mask=mask, valid=valid, labels=labels), min_valid=0.5)
    tiles = ls.sampling.split(tiles, fractions=(0.6, 0.15, 0.25), test="east", seed=0)
    once = tiles[(tiles.split == "test") & (tiles.y % TILE == 0) & (tiles.x % TILE == 0)]
    return tiles, once


def learn(
    mode: str, n: int, seed: int, *, image: Any, mask: Any, tiles: pd.DataFrame, stats: Any, encoder: Path, steps: int
) -> Any:
    """Train a U-Net on ``n`` tiles, as many with landslides as without where there are enough."""
    train = tiles[tiles.split == "train"]
    chosen = ls.sampling.balance(train, by="positive", seed=seed).sample(n, random_state=seed)
    stream = ls.streaming.TileStream(
        image, chosen, mask=mask, batch_size=min(BATCH, n), shuffle=True, drop_last=True, seed=seed
    )
    model = ls.models.build(
        "unet",
        bands=ls.schema.bands(image),
        encoder=ls.models.read_spec(encoder).encoder,
        weights=None if mode == "scratch" else encoder,
        freeze_encoder=mode == "frozen",
        mean=stats["mean"].values,
        std=stats["std"].values,
        seed=seed,
    )
    epochs = max(round(steps / len(stream)), 1)
    return ls.training.fit(model, stream, epochs=epochs, lr=1e-3, seed=seed, progress=False).model


def measure(data: Path, folder: Path, *, encoder: str, seeds: int, steps: int, epochs: int) -> dict[str, Any]:
    """Run the whole table."""
    image, mask = open_labelled(data, folder)
    stats = ls.statistics.bands(image)
    centers = ls.kmeans.fit(image, K, n_samples=200_000, standardise=True)
    ls.kmeans.write(image, centers, folder / "clusters.zarr", progress=False).check()
    labels = ls.store.open(folder / "clusters.zarr").isel(k=0, drop=True)
    tiles, test = cut(image, mask, labels)
    rows = []
    for seed in range(seeds):
        pretrained = folder / f"encoder-{seed}"
        train, valid = (
            ls.streaming.TileStream(
                image, tiles[tiles.split == split], mask=labels, batch_size=64, shuffle=True, seed=seed, classes=K
            )
            for split in ("train", "valid")
        )
        ls.training.pretrain(
            encoder, train, valid, classes=K, folder=pretrained, epochs=epochs, seed=seed, progress=False,
            mean=stats["mean"].values, std=stats["std"].values,
        )  # fmt: skip
        for n in FEW:
            for mode in MODES:
                model = learn(
                    mode, n, seed, image=image, mask=mask, tiles=tiles, stats=stats, encoder=pretrained, steps=steps
                )
                rows.append({"tiles": n, "mode": mode, "seed": seed, "f1": f1_of(model, image, mask, test)})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    scores = pd.DataFrame(rows)
    table = {
        f"{mode} {n}": [round(float(of(part)), 3) for of in (np.mean, np.min, np.max)]
        for (n, mode), part in scores.groupby(["tiles", "mode"], sort=False)["f1"]
    }
    return {"f1_mean_min_max": table, "tiles": {str(k): int(v) for k, v in tiles.split.value_counts().items()}}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LSDASK_DATA", ".")) / "valles-marineris")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150, help="optimiser steps of each training")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of each pre-training")
    options = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            options.data,
            Path(folder),
            encoder=options.encoder,
            seeds=options.seeds,
            steps=options.steps,
            epochs=options.epochs,
        )
    given = {"encoder": options.encoder, "steps": options.steps, "epochs": options.epochs, "seeds": options.seeds}
    print(json.dumps({"benchmark": "pretraining", **given, **found, "seconds": round(time.perf_counter() - begun)}))


if __name__ == "__main__":
    main()

"""Network x loss on Valles Marineris: F1 on the held-out east, each cell trained alike.

A cell is one network, one loss, one seed, a few epochs on 64-px tiles of the west. Its line is added to
``OUT/cells.jsonl`` as it ends, and cells that are there are not run again, so that the table can be stopped and gone
on with. The epoch is chosen by tiles of the west too; the east is seen by no tile of either. The threshold is 0.5, and
every known pixel is counted once. Prints one JSON line.

Source: the networks and losses of the four papers; the scenes are others.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd

import lsdask as ls

TILE, BATCH = 64, 32
NETWORKS: dict[str, dict[str, Any]] = {
    "linknet-resnet18": {"name": "linknet", "encoder": "resnet18"},
    "unet-resnet18": {"name": "unet", "encoder": "resnet18"},
    "fpn-resnet18": {"name": "fpn", "encoder": "resnet18"},
    "pspnet-resnet18": {"name": "pspnet", "encoder": "resnet18"},
    "deeplabv3plus-resnet18": {"name": "deeplabv3plus", "encoder": "resnet18"},
    "soares_unet-16": {"name": "soares_unet", "filters": 16},
}
LOSSES = ("bce_dice", "bce", "prakash", "focal", "jaccard", "tversky", "bce_jaccard", "dice", "focal_tversky")


def open_labelled(data: Path, folder: Path) -> tuple[Any, Any]:
    """Put images and masks on one grid, in stores; those that are there are opened."""
    if not (folder / "mask.zarr").exists():
        cube = ls.scenes.open(data / "images")
        masks = ls.scenes.open(data / "masks", grid=cube, nodata=ls.schema.UNKNOWN)
        truth = ls.mosaic.composite(masks).isel(band=0, drop=True).rename("mask")
        ls.mosaic.write(ls.mosaic.composite(cube), folder / "image.zarr", progress=False).check()
        ls.mosaic.write(truth, folder / "mask.zarr", progress=False).check()
    return ls.store.open(folder / "image.zarr"), ls.store.open(folder / "mask.zarr")


def cut(image: Any, mask: Any, most: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Give tiles to learn from (at most so many), to choose the epoch by, and those that cover the east once."""
    tiles = ls.sampling.grid(image, TILE, overlap=0.5)
    tiles = ls.sampling.describe(tiles, mask=mask, valid=ls.schema.valid(image))
    tiles = ls.sampling.select(tiles, min_valid=0.5)
    tiles = ls.sampling.split(tiles, fractions=(0.6, 0.15, 0.25), test="east", seed=0)
    once = tiles[(tiles.y % TILE == 0) & (tiles.x % TILE == 0)]
    train = tiles[tiles.split == "train"]
    train = train.sample(min(most, len(train)), random_state=0)
    return train, once[once.split == "valid"], once[once.split == "test"]


def f1_of(model: Any, image: Any, mask: Any, tiles: pd.DataFrame) -> float:
    """Score a model on tiles, each known pixel once."""
    scorer = ls.models.runner(model, nodata=ls.schema.nodata(image))
    tp = fp = fn = 0
    for batch in ls.streaming.TileStream(image, tiles, mask=mask, batch_size=BATCH, shuffle=False):
        found, truth = scorer(batch.image)[:, -1] >= 0.5, batch.mask == 1
        known = batch.mask != ls.schema.UNKNOWN
        tp += int((found & truth).sum())
        fp += int((found & ~truth & known).sum())
        fn += int((~found & truth).sum())
    return 2 * tp / max(2 * tp + fp + fn, 1)


def cell(network: str, loss: str, *, image: Any, mask: Any, tiles: Any, stats: Any, epochs: int, seed: int) -> Any:
    """Train one network with one loss; give its line of the table."""
    begun = time.perf_counter()
    train, valid, test = tiles
    model = ls.models.build(
        **NETWORKS[network],
        bands=ls.schema.bands(image),
        mean=stats["mean"].values,
        std=stats["std"].values,
        seed=seed,
    )
    flow = ls.streaming.TileStream(image, train, mask=mask, batch_size=BATCH, seed=seed)
    judge = ls.streaming.TileStream(image, valid, mask=mask, batch_size=BATCH, shuffle=False)
    done = ls.training.fit(
        model, flow, judge, epochs=epochs, loss=loss, lr=2e-3, monitor="f1", seed=seed, progress=False
    )
    return {
        "f1": round(f1_of(done.model, image, mask, test), 4),
        "valid_f1": round(max(row["f1"] for row in done.history), 4),
        "best_epoch": done.model.spec.record["best_epoch"],
        "seconds": round(time.perf_counter() - begun),
    }


def done_cells(path: Path) -> list[dict[str, Any]]:
    """Read the cells that have ended."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(data: Path, out: Path, *, networks: list[str], kinds: list[str], epochs: int, most: int, seed: int) -> Any:
    """Run the cells that are missing, losses in the outer loop, and give the table."""
    out.mkdir(parents=True, exist_ok=True)
    image, mask = open_labelled(data, out)
    tiles, stats = cut(image, mask, most), ls.statistics.bands(image)
    what = {"epochs": epochs, "most": most, "seed": seed}
    have = {(line["network"], line["loss"]) for line in done_cells(out / "cells.jsonl") if what.items() <= line.items()}
    for loss in kinds:
        for network in networks:
            if (network, loss) in have:
                continue
            found = cell(
                network, loss, image=image, mask=mask, tiles=tiles, stats=stats, epochs=epochs, seed=seed
            )  # fmt: skip
            with (out / "cells.jsonl").open("a") as file:
                file.write(json.dumps({"network": network, "loss": loss, **what, **found}) + "\n")
    lines = [line for line in done_cells(out / "cells.jsonl") if what.items() <= line.items()]
    table = {f"{line['network']} {line['loss']}": line["f1"] for line in lines}
    best = max(table, key=lambda name: table[name])
    return {"benchmark": "networks", **what, "tiles": [len(part) for part in tiles], "best": best, "f1": table}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LSDASK_DATA", ".")) / "valles-marineris")
    parser.add_argument("--out", type=Path, default=Path("networks-out"))
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--losses", nargs="*", default=list(LOSSES), choices=list(LOSSES))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--most", type=int, default=1800, help="tiles to learn from, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = run(
        options.data, options.out, networks=options.networks, kinds=options.losses, epochs=options.epochs,
        most=options.most, seed=options.seed,
    )  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()

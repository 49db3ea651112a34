"""From a scene to an inventory of landslides, each step one or two calls.

    python examples/first_map.py --out first-map --size 1024 --epochs 5

Replace the first step by ``ls.scenes.open("scenes/*.tif")`` and ``ls.inventory.rasterize("landslides.gpkg", image)`` to
use your own.
"""

import argparse
from pathlib import Path

import lsdask as ls


def main(out: Path, size: int, tile: int, epochs: int) -> dict[str, float]:
    """Make the map and give its scores on the held-out east."""
    land = ls.synthetic.landscape((size, size), seed=1)
    ls.store.write(land.scene, out / "mosaic.zarr", shard=1024)
    image = ls.store.open(out / "mosaic.zarr")
    stats = ls.statistics.bands(image)

    tiles = ls.sampling.grid(image, tile, overlap=0.5)
    tiles = ls.sampling.describe(tiles, mask=land.mask, valid=ls.schema.valid(image))
    tiles = ls.sampling.split(ls.sampling.select(tiles, min_valid=0.5), test="east")
    train = ls.streaming.TileStream(image, tiles[tiles.split == "train"], mask=land.mask, batch_size=16)
    valid = ls.streaming.TileStream(image, tiles[tiles.split == "valid"], mask=land.mask, shuffle=False)

    model = ls.models.build("unet", bands=ls.schema.bands(image), mean=stats["mean"].values, std=stats["std"].values)
    ls.training.fit(model, train, valid, epochs=epochs, lr=2e-3, monitor="f1", folder=out / "model")

    ls.predict.run(out / "mosaic.zarr", out / "scores.zarr", out / "model").check()
    scores = ls.store.open(out / "scores.zarr")
    held_out = ls.evaluate.within(tiles[tiles.split == "test"], scores)
    ls.inventory.write(ls.inventory.vectorize(scores, min_area_m2=400), out / "landslides.gpkg")
    return ls.evaluate.score(ls.evaluate.count(scores, land.mask, valid=held_out))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("first-map"))
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--tile", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(main(options.out, options.size, options.tile, options.epochs))

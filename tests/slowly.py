"""A run whose tiles take their time, for tests that kill who computes them: cheap to import, as workers start often."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from images import random_mosaic

from lsdask import store, tasks, tiling

SHAPE, TILE, HALO = (2, 256, 250), 32, 3
TILES = 64


@dataclass(frozen=True)
class Sum:
    """Sums three by three pixels of a block, slowly, and writes down that it began."""

    reader: store.Reader
    target: str
    log: str
    seconds: float

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        with open(self.log, "a") as lines:
            lines.write(f"{os.getpid()} {tile.place}\n")
        time.sleep(self.seconds)
        block = tiling.extend_block(self.reader.read(*tile.read), tile)
        store.put(self.target, sum_block(block)[(slice(None), *tile.keep)], *tile.write, name="mosaic")
        return {"pixels": float(tile.block[0] * tile.block[1])}


def sum_block(block: np.ndarray) -> np.ndarray:
    """Sum three by three pixels; what wraps round lies in the halo."""
    around = [np.roll(block, (dy, dx), axis=(-2, -1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return np.sum(around, axis=0, dtype=block.dtype)


@dataclass(frozen=True)
class Place:
    """A folder with a mosaic, a target and a log."""

    folder: Path
    script = Path(__file__)

    @property
    def source(self) -> Path:
        return self.folder / "image.zarr"

    @property
    def target(self) -> Path:
        return self.folder / "out.zarr"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def prepare(self) -> None:
        store.write(random_mosaic(SHAPE, void=0.1), self.source, chunk=16, shard=64)

    def run(self, *, seconds: float = 0.2, **options: Any) -> tasks.Report:
        image = store.open(self.source)
        kernel = Sum(store.reader(image), str(self.target), str(self.log), seconds)
        options = {"progress": False, **options}
        return tasks.run(kernel, target=self.target, template=image, tile=TILE, halo=HALO, chunk=16, **options)

    def begun(self) -> int:
        """How many tiles have been begun."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def wait(self, tiles: int, seconds: float = 600.0) -> None:
        """Wait until so many tiles have been begun."""
        until = time.monotonic() + seconds
        while self.begun() < tiles:
            assert time.monotonic() < until, f"{self.begun()} of {tiles} tiles begun"
            time.sleep(0.02)

    def check(self) -> None:
        """All is there, right, and as it was written."""
        padded = np.pad(random_mosaic(SHAPE, void=0.1).values, ((0, 0), (1, 1), (1, 1)), mode="reflect")
        np.testing.assert_array_equal(store.open(self.target).values, sum_block(padded)[:, 1:-1, 1:-1])
        checked = tasks.verify(self.target, progress=False).check()
        assert (checked.sound, checked.unchecked) == (TILES, 0)


if __name__ == "__main__":
    from distributed import Client

    with Client(sys.argv[2]) as client:
        Place(Path(sys.argv[1])).run(client=client)

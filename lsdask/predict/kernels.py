"""One task of a run: a tile's block is read, scored and written."""

import time
from dataclasses import dataclass

from lsdask import store, tiling
from lsdask.predict.scoring import NAME, Scorer


@dataclass(frozen=True)
class Kernel:
    """Reads a tile's block, scores it and writes the tile: one task of ``run``."""

    reader: store.Reader
    target: str
    scorer: Scorer

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        begun = time.perf_counter()
        data = self.reader.read(*tile.read)
        read = time.perf_counter()
        scores = self.scorer.tile(data, tile)
        computed = time.perf_counter()
        store.put(self.target, scores, *tile.write, name=NAME)
        return {
            "pixels": float(scores[0].size),
            "read_s": read - begun,
            "compute_s": computed - read,
            "write_s": time.perf_counter() - computed,
        }

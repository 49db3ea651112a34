"""One task of a run: a tile's block is read, scored and written."""

import time
from dataclasses import dataclass

from lsdask import store, tiling
from lsdask.predict.memory import give_back
from lsdask.predict.scoring import NAME, Scorer
from lsdask.predict.sharing import SharedReader


@dataclass(frozen=True)
class Kernel:
    """Reads a tile's block, scores it and writes the tile: one task of ``run``.

    Attributes
    ----------
    reader : SharedReader or store.Reader
        Of the image.
    target : str
        The store of scores.
    scorer : Scorer
    where : store.Reader or None
        Of the mask that says where scores are wanted; where none is, the image is not read.
    """

    reader: SharedReader | store.Reader
    target: str
    scorer: Scorer
    where: store.Reader | None = None

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        begun = time.perf_counter()
        where = None if self.where is None else self.where.read(*tile.write)
        wanted = where is None or bool(where.any())
        data = self.reader.read(*tile.read) if wanted else None
        give_back()
        read = time.perf_counter()
        size = tuple(side.stop - side.start for side in tile.write)
        scores = self.scorer.unknown(size) if data is None else self.scorer.tile(data, tile, where)
        give_back()
        computed = time.perf_counter()
        store.put(self.target, scores, *tile.write, name=NAME)
        return {
            "pixels": float(scores[0].size),
            "bytes": 0.0 if data is None else float(data.nbytes),
            "read_s": read - begun,
            "compute_s": computed - read,
            "write_s": time.perf_counter() - computed,
        }

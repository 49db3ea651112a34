"""A prediction by a small network that takes its time, for tests that kill who computes it."""

import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from images import random_mosaic
from slowly import HALO, SHAPE, TILE, TILES, Place
from torch import nn

from lsdask import models, predict, store, tasks

MEAN, STD = 500.0, 290.0


class Slow(nn.Module):
    """Three convolutions, which see three pixels far, that write down on workers that they began, and then wait."""

    def __init__(self, log: str, seconds: float) -> None:
        super().__init__()
        self.log, self.seconds = log, seconds
        sides = [(SHAPE[0], 8), (8, 8), (8, 1)]
        self.layers = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in sides)
        draw = torch.Generator().manual_seed(0)
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.3, generator=draw)

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        # A client, and a worker before its first tile, try the network out: on a worker, on a block of another size.
        if multiprocessing.parent_process() is not None and blocks.shape[-1] == TILE + 2 * HALO:
            with open(self.log, "a") as lines:
                lines.write(f"{os.getpid()}\n" * len(blocks))
            time.sleep(self.seconds)
        return self.layers[2](torch.relu(self.layers[1](torch.relu(self.layers[0](blocks)))))


@dataclass(frozen=True)
class Prediction(Place):
    """A folder with a mosaic, the scores of a network, and a log."""

    script = Path(__file__)

    def run(self, *, seconds: float = 0.2, **options: Any) -> tasks.Report:
        model = models.wrap(Slow(str(self.log), seconds), bands=["b0", "b1"], mean=[MEAN] * 2, std=[STD] * 2)
        fixed = {"tile": TILE, "halo": HALO, "batch": 1, "precision": "float32", "dtype": "float32", "device": "cpu"}
        return predict.run(self.source, self.target, model, **{"progress": False, **fixed, **options})

    def check(self) -> None:
        """All is there and sound: to the bit what an undisturbed run writes, and near the whole image in one pass."""
        calm = Prediction(self.folder / "calm")
        calm.folder.mkdir()
        calm.prepare()
        calm.run(seconds=0.0).check()
        scores = store.open(self.target).values
        np.testing.assert_array_equal(scores, store.open(calm.target).values)
        image = random_mosaic(SHAPE, void=0.1).values.astype("float32")
        known = (image != 0).all(axis=0)
        padded = np.pad(image, ((0, 0), (HALO, HALO), (HALO, HALO)), mode="reflect")
        void = (padded == 0).any(axis=0)
        with torch.no_grad():
            whole = Slow("", 0.0)(torch.from_numpy(np.where(void, 0, (padded - MEAN) / STD).astype("float32"))[None])
        expected = torch.sigmoid(whole)[0, :, HALO:-HALO, HALO:-HALO].numpy()
        np.testing.assert_allclose(scores, np.where(known, expected, np.nan), atol=1e-6)
        checked = predict.verify(self.target, progress=False).check()
        assert (checked.sound, checked.unchecked) == (TILES, 0)


if __name__ == "__main__":
    from distributed import Client

    with Client(sys.argv[2]) as client:
        Prediction(Path(sys.argv[1])).run(client=client)

"""Tables of 10^5 to 10^7 tiles: surveyed, split, checked and read, in memory that does not grow with them.

Prints one JSON line a number of tiles. Each step runs in a process of its own, which tells its seconds and its peak
memory above imports and compiled kernels. The mask and the validity are made where they are read, so that memory is
the step's own. ``--whole`` does the same with the table in memory.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from lsdask import sampling

SIZE, OVERLAP, CHUNK = 32, 0.5, 1024
STEP = round(SIZE * (1 - OVERLAP))


def mask_block(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Make a window of the mask: a landslide of 40 x 12 px in every square of 200 px, and unknown bands."""
    mask = ((rows % 200 < 40)[:, None] & (columns % 200 < 12)).astype("uint8")
    mask[rows % 3000 < 100] = 255
    return mask


def valid_block(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Make a window of validity: void beyond a slanting edge."""
    return rows[:, None] + columns < 1.9 * max(rows[-1], columns[-1]) + CHUNK


def lazily(block: Callable[[np.ndarray, np.ndarray], np.ndarray], side: int, dtype: str) -> xr.DataArray:
    """Make a layer (y, x) of a function of its rows and columns."""

    def load(block_info: Any = None) -> np.ndarray:
        (y0, y1), (x0, x1) = block_info[None]["array-location"]
        return block(np.arange(y0, y1), np.arange(x0, x1))

    sides = da.core.normalize_chunks(CHUNK, (side, side), dtype=dtype)
    return xr.DataArray(da.map_blocks(load, chunks=sides, dtype=dtype, meta=np.empty((0, 0), dtype)), dims=("y", "x"))


def layers(side: int) -> dict[str, xr.DataArray]:
    """Make the layers of an image."""
    return {"mask": lazily(mask_block, side, "uint8"), "valid": lazily(valid_block, side, "bool")}


def survey(folder: str, side: int) -> int:
    """Count a grid, band by band, and write the tiles of which half is valid."""
    given = layers(side)
    parts = sampling.survey(given["mask"], SIZE, overlap=OVERLAP, **given)
    return sampling.write((sampling.select(part, min_valid=0.5) for part in parts), Path(folder) / "tiles.parquet")


def split(folder: str, side: int) -> int:
    """Split the file, with a buffer."""
    path = Path(folder) / "tiles.parquet"
    return sampling.split_file(path, path, buffer=8, test="east", fractions=(0.6, 0.15, 0.25))


def check(folder: str, side: int) -> int:
    """Check that no pixel is seen by two splits."""
    path = Path(folder) / "tiles.parquet"
    sampling.check_split(path, buffer=8)
    return sum(map(len, sampling.parts(path, ["split"])))


def read(folder: str, side: int) -> int:
    """Read what a stream of the training tiles needs."""
    return len(sampling.read(Path(folder) / "tiles.parquet", split="train", columns=("y", "x", "size")))


def whole(folder: str, side: int) -> int:
    """Do it all with the table in memory."""
    given = layers(side)
    tiles = sampling.describe(sampling.grid(given["mask"], SIZE, overlap=OVERLAP), **given)
    tiles = sampling.select(tiles, min_valid=0.5)
    return len(sampling.split(tiles, buffer=8, test="east", fractions=(0.6, 0.15, 0.25)))


def peak_mb() -> float:
    """Give this process's peak memory so far, MB. Linux keeps a forked process's ru_maxrss through its exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measured(step: Callable[[str, int], int], folder: str, side: int) -> dict[str, float]:
    """Run a step; the kernels are loaded and the libraries warm before."""
    with dask.config.set(scheduler="threads", num_workers=2), TemporaryDirectory() as small:
        for each in (survey, split, check, read):
            each(small, 2 * CHUNK)
        before, start = peak_mb(), time.perf_counter()
        n = step(folder, side)
        seconds = time.perf_counter() - start
    return {"tiles": n, "seconds": round(seconds, 2), "peak_mb": round(peak_mb() - before, 1)}


def main() -> None:
    """Measure, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--whole", action="store_true", help="also with the table in memory")
    args = parser.parse_args()

    for n in args.tiles:
        side = round(n**0.5) * STEP + STEP
        line: dict[str, Any] = {"benchmark": "sampling", "tiles": n, "image": side}
        with TemporaryDirectory() as folder:
            for step in (survey, split, check, read, *([whole] if args.whole else [])):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    line[step.__name__] = pool.apply(measured, (step, folder, side))
            line["file_mb"] = round((Path(folder) / "tiles.parquet").stat().st_size / 1e6, 1)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

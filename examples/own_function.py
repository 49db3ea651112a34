"""Run any function of numpy blocks over a store, on a Dask cluster, as a run that can be killed and goes on.

    python examples/own_function.py --out vegetation --size 4096 --workers 2

The function sees blocks (n, band, y, x) as stored and gives scores (n, class, y, x) between 0 and 1; it may look
``halo`` pixels beyond its tile. Here: a vegetation index, smoothed over 5 x 5 pixels. Stop the script
and call it again.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

import lsdask as ls

RADIUS = 2


def smooth_vegetation(blocks: np.ndarray) -> np.ndarray:
    """Give (NDVI + 1) / 2, averaged over a square.

    Parameters
    ----------
    blocks : (n, 4, y, x) array
        Blue, green, red, near infrared; 0 where void.

    Returns
    -------
    (n, 1, y, x) float32 array, from 0 to 1
    """
    red, nir = blocks[:, 2].astype("float32"), blocks[:, 3].astype("float32")
    index = (nir - red) / np.maximum(nir + red, 1)
    side = 2 * RADIUS + 1
    return uniform_filter((index + 1) / 2, size=(1, side, side))[:, None]


def main(out: Path, size: int, workers: int) -> ls.tasks.Report:
    """Write the scene if it is not there, then its index; give the run's report."""
    from distributed import Client

    if not ls.store.exists(out / "scene.zarr"):
        ls.mosaic.write(ls.synthetic.scene((size, size), seed=1), out / "scene.zarr")
    with Client(n_workers=workers, threads_per_worker=1, dashboard_address=None) as client:
        return ls.predict.run(
            out / "scene.zarr",
            out / "vegetation.zarr",
            smooth_vegetation,
            classes=["vegetation"],
            tile=1024,
            halo=RADIUS,
            client=client,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("vegetation"))
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(main(options.out, options.size, options.workers))

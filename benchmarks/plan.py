"""B2: how long a run takes to its first tile, and its memory, by the number of its tiles.

``predict.plan`` and ``predict.run`` on stores of 10^4, 10^5 and 2^20 tiles, against the graph of
``dask.array.map_overlap`` on as many chunks (10^4, and a quarter of it for its growth). The model does nothing, so
that what is measured is the engine. Each runs in a process of its own, which ends itself a while after its first tile:
memory is looked at there and then. Prints one JSON line.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

TILE = 64
SIZES = (10_000, 100_000, 2**20)


def held() -> float:
    """Give the memory of this process alone now, in megabytes: without the code it shares with others."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


class Watch:
    """A model that does nothing, and tells when it was first asked and how often since."""

    reach = 0

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        self._asked, self._found = 0, {"imports_MB": round(held())}
        self.start()

    def __call__(self, blocks: np.ndarray) -> np.ndarray:
        with self._lock:
            self._asked += blocks.size > 0  # Dask asks for the type with an empty one
            if self._asked == 1 and blocks.size:
                self.say(**self.spent("first_tile"), first_MB=round(held()))
                threading.Timer(self._seconds, self.end).start()
        return np.zeros((len(blocks), 1, *blocks.shape[2:]), "float32")

    def start(self) -> None:
        self._begun, self._cpu = time.perf_counter(), time.process_time()

    def spent(self, what: str) -> dict[str, float]:
        """Give the seconds since the start, and those of the processor, which other processes change less."""
        wall, cpu = time.perf_counter() - self._begun, time.process_time() - self._cpu
        return {f"{what}_s": round(wall, 2), f"{what}_cpu_s": round(cpu, 2)}

    def say(self, **found: Any) -> None:
        self._found |= found

    def end(self) -> None:
        """Print what was found and end the process, whatever else is running in it."""
        speed = round(self._asked / self._seconds)
        print(json.dumps({**self._found, "later_MB": round(held()), "tiles_s": speed}), flush=True)
        os._exit(0)


def run_lsdask(folder: Path, tiles: int, seconds: float) -> None:
    """Plan and run ``predict`` on a store without a stored pixel, whose zeros are data."""
    import dask.array as da
    from affine import Affine
    from odc.geo.geobox import GeoBox

    import lsdask as ls

    side = math.isqrt(tiles) * TILE
    grid = GeoBox((side, side), Affine(10, 0, 0, 0, -10, 0), "EPSG:32723")
    empty = da.zeros((1, side, side), chunks=-1, dtype="uint8")
    image = ls.schema.wrap(empty, grid, ls.schema.MOSAIC, name="mosaic", coords={"band": ["b0"]})
    source, target = folder / "image.zarr", folder / "scores.zarr"
    ls.store.create(source, image, chunk=TILE, shard=TILE)
    run, plan = ls.predict.run, ls.predict.plan  # imported before the clock starts
    watch = Watch(seconds)
    said = plan(source, target, watch, tile=TILE, halo=0)
    watch.say(tasks=said.tasks, **watch.spent("plan"))
    watch.start()
    run(source, target, watch, tile=TILE, halo=0, progress=False)
    watch.end()


def run_map_overlap(folder: Path, tiles: int, seconds: float) -> None:
    """Run ``map_overlap`` on as many chunks, to Zarr."""
    import dask
    import dask.array as da

    side = math.isqrt(tiles) * TILE
    watch = Watch(seconds)
    image = da.zeros((1, side, side), chunks=(1, TILE, TILE), dtype="uint8")
    lazy = image.map_overlap(lambda block: watch(block[None])[0], depth=(0, 2, 2), boundary="reflect", dtype="float32")
    watch.say(tasks=len(dict(lazy.__dask_graph__())))
    stored = da.to_zarr(lazy, str(folder / "scores.zarr"), compute=False)
    dask.compute(stored, scheduler="threads")
    watch.end()


RUNS = {"lsdask": run_lsdask, "map_overlap": run_map_overlap}


def measure(name: str, tiles: int, seconds: float, limit: float) -> dict[str, Any]:
    """Run one contender in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [sys.executable, __file__, "--child", name, folder, str(tiles), str(seconds)]
        try:
            done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return {"first_tile_s": f"none within {limit:.0f}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--rival-sizes", type=int, nargs="*", default=(2_500, 10_000))
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to go on after the first tile")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a contender is given up")
    options = parser.parse_args()
    result: dict[str, Any] = {"benchmark": "B2 plan", "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    for tiles in options.sizes:
        result[f"lsdask_{tiles}"] = measure("lsdask", tiles, options.seconds, options.limit)
    for tiles in options.rival_sizes:
        result[f"map_overlap_{tiles}"] = measure("map_overlap", tiles, options.seconds, options.limit)
    print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        RUNS[sys.argv[2]](Path(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    else:
        main()

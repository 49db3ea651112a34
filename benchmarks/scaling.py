"""How many tasks a second the engine starts, by the number of workers, and where its scheduler saturates.

A kernel that sleeps stands for a tile, so that many workers can be simulated on few cores: ``--sleep 0`` shows the
most that the engine can do, and a tile of s seconds keeps W workers busy while W / s is well below that. Threads of
this process, then Dask workers: processes (real ones) and threads of one process (simulated ones). Prints one JSON
line: tasks per second, and the share of the workers' time that was spent in tiles.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

    from lsdask import tiling

SIDE = 16


@dataclass(frozen=True)
class Sleep:
    """A tile that takes its time and does nothing."""

    seconds: float

    def __call__(self, tile: "tiling.Tile") -> dict[str, float]:
        time.sleep(self.seconds)
        return {"pixels": float(SIDE * SIDE)}


def run(tiles: int, seconds: float, *, client: "Client | None", workers: int) -> dict[str, float]:
    """Run tiles that sleep."""
    import dask.array as da
    from affine import Affine
    from odc.geo.geobox import GeoBox

    import lsdask as ls

    columns = 64
    shape = (-(-tiles // columns) * SIDE, columns * SIDE)
    grid = GeoBox(shape, Affine(10, 0, 0, 0, -10, 0), "EPSG:32723")
    empty = da.zeros((1, *shape), chunks=-1, dtype="uint8")
    image = ls.schema.wrap(empty, grid, ls.schema.MOSAIC, name="out", coords={"band": ["b0"]})
    with tempfile.TemporaryDirectory() as folder:
        report = ls.tasks.run(
            Sleep(seconds),
            target=Path(folder) / "out.zarr",
            template=image,
            tile=SIDE,
            client=client,
            workers=workers,
            progress=False,
        ).check()
    speed = report.done / report.seconds
    busy = {"busy": round(speed * seconds / workers, 3)} if seconds else {}
    return {"tasks_s": round(speed, 1), **busy}


def measure(workers: int, seconds: float, tiles: int, *, where: str) -> dict[str, float]:
    """Run on threads of this process, on Dask worker processes, or on Dask threads of one worker process."""
    if where == "threads":
        return run(tiles, seconds, client=None, workers=workers)
    from distributed import Client, LocalCluster

    processes, threads = (workers, 1) if where == "processes" else (1, workers)
    with (
        LocalCluster(n_workers=processes, threads_per_worker=threads, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        run(4 * workers, 0.0, client=client, workers=workers)  # imports
        return run(tiles, seconds, client=client, workers=workers)


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=int, nargs="*", default=(1, 2), help="Dask worker processes")
    parser.add_argument("--simulated", type=int, nargs="*", default=(4, 16, 64), help="Dask threads of one process")
    parser.add_argument("--sleep", type=float, nargs="*", default=(0.0, 0.1), help="seconds that a tile takes")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each should take")
    options = parser.parse_args()
    result: dict[str, Any] = {"benchmark": "scaling", "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    for seconds in options.sleep:
        for where, counts in (
            ("threads", (*options.real, *options.simulated)),
            ("processes", options.real),
            ("dask_threads", options.simulated),
        ):
            for workers in counts:
                expected = min(workers / seconds if seconds else 500.0, 500.0)
                tiles = max(int(expected * options.seconds), 4 * workers)
                result[f"{where}_{workers}_sleep_{seconds:g}"] = measure(workers, seconds, tiles, where=where)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

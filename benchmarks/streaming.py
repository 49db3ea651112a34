"""B4: 64-px tiles, 50 % overlap, shuffled, from a store on disk, against what a user would write instead.

Prints one JSON line: tiles/s of the stream and of each rival, the ratios, how often a chunk is decoded, and the
memory each needs. Each runs in a process of its own, one after the other; those that are slow draw ``--limit``
tiles. Times themselves mean little elsewhere; the ratios and counts do. torchgeo, whose packages would change those
here, is measured with ``--torchgeo PYTHON``, an interpreter that has it.

``--quality`` prints instead, for several buffers, how well the stream shuffles beside a full shuffle; that reads no
pixels.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import rasterio
import xarray as xr
import xbatcher
from rasterio.windows import Window
from zarr.codecs import BloscCodec

from lsdask import sampling, schema, store, streaming, synthetic

TILE, OVERLAP, BATCH = 64, 0.5, 32
GDAL_CACHE = 128
"""MiB of decoded blocks that GDAL may keep: a quarter of the scene, as in the stream's buffer."""


def prepare(folder: Path, size: int, chunk: int) -> None:
    """Write a synthetic scene (4 bands uint16) as a store and as a GeoTIFF with blocks of the same size."""
    scene = synthetic.scene((size, size), seed=1)
    store.write(scene, folder / "scene.zarr", chunk=chunk, shard=min(4096, size))
    image = store.open(folder / "scene.zarr", chunks=2048)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": len(image), "height": size, "width": size}
    layout = {"tiled": True, "blockxsize": chunk, "blockysize": chunk, "interleave": "pixel"}
    place = {"crs": str(schema.geobox(image).crs), "transform": schema.geobox(image).transform}
    codec = {"compress": "deflate", "predictor": 2, "zlevel": 1, "num_threads": 2}
    with rasterio.open(folder / "scene.tif", "w", **profile, **layout, **place, **codec) as file:
        for y in range(0, size, chunk):
            file.write(image[:, y : y + chunk].values, window=Window(0, y, size, min(chunk, size - y)))


def drawn(image: xr.DataArray, limit: int | None) -> list[tuple[int, int]]:
    """Give top-left pixels of tiles in a random order, all or so many."""
    tiles = sampling.grid(image, TILE, overlap=OVERLAP)[["y", "x"]].to_numpy()
    return [tuple(place) for place in np.random.default_rng(0).permutation(tiles)[:limit].tolist()]


def batched(places: list[tuple[int, int]], cut: Callable[[int, int], np.ndarray]) -> int:
    """Make batches of tiles one by one; give how many tiles."""
    for i in range(0, len(places), BATCH):
        np.stack([cut(y, x) for y, x in places[i : i + BATCH]])
    return len(places)


def stream(folder: Path, limit: int, buffer: int) -> dict[str, Any]:
    """One epoch of TileStream, from planning to the last batch."""
    image = store.open(folder / "scene.zarr")
    tiles = sampling.grid(image, TILE, overlap=OVERLAP)
    flow = streaming.TileStream(image, tiles, batch_size=BATCH, buffer=buffer)
    count = sum(len(batch.image) for batch in flow)
    facts = flow.explain()
    return {"tiles": count, "planned_decodes_per_chunk": facts["decodes_per_chunk"], "planned_bytes": facts["bytes"]}


def zarr_windows(folder: Path, limit: int, buffer: int) -> dict[str, Any]:
    """A zarr-python window for each tile."""
    array = store.array(folder / "scene.zarr")
    places = drawn(store.open(folder / "scene.zarr"), limit)
    return {"tiles": batched(places, lambda y, x: np.asarray(array[:, y : y + TILE, x : x + TILE]))}


def rasterio_windows(folder: Path, limit: int, buffer: int) -> dict[str, Any]:
    """A rasterio window for each tile, with a block cache that does not hold the scene."""
    places = drawn(store.open(folder / "scene.zarr"), limit)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE), rasterio.open(folder / "scene.tif") as file:
        return {"tiles": batched(places, lambda y, x: file.read(window=Window(x, y, TILE, TILE)))}


def xbatcher_dask(folder: Path, limit: int, buffer: int) -> dict[str, Any]:
    """Drawing from xbatcher, over the store's chunks."""
    image = xr.open_zarr(folder / "scene.zarr", mask_and_scale=False)["scene"]
    return _xbatcher(image, limit)


def xbatcher_ram(folder: Path, limit: int, buffer: int) -> dict[str, Any]:
    """Drawing from xbatcher, over an image in memory."""
    return _xbatcher(store.open(folder / "scene.zarr").load(), 20 * limit)


def _xbatcher(image: xr.DataArray, limit: int) -> dict[str, Any]:
    sides = {"y": TILE, "x": TILE}
    overlap = {dim: int(side * OVERLAP) for dim, side in sides.items()}
    generator = xbatcher.BatchGenerator(image, input_dims=sides, input_overlap=overlap)
    drawn = np.random.default_rng(0).permutation(len(generator))[:limit].tolist()
    start = time.perf_counter()
    for i in range(0, len(drawn), BATCH):
        np.stack([generator[j].values for j in drawn[i : i + BATCH]])
    return {"tiles": len(drawn), "seconds": time.perf_counter() - start}


def ram(folder: Path, limit: int, buffer: int) -> dict[str, Any]:
    """The limit: shuffled slices of an array in memory, as stored."""
    return _ram(store.open(folder / "scene.zarr"), "uint16")


def ram_float32(folder: Path, limit: int, buffer: int) -> dict[str, Any]:
    """The same of float32."""
    return _ram(store.open(folder / "scene.zarr"), "float32")


def _ram(image: xr.DataArray, dtype: str) -> dict[str, Any]:
    array, places = image.values.astype(dtype), drawn(image, None)
    start = time.perf_counter()
    batched(places, lambda y, x: array[:, y : y + TILE, x : x + TILE])
    return {"tiles": len(places), "seconds": time.perf_counter() - start}


TORCHGEO = """
import json, sys, time
import torch
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import RandomGeoSampler

class Scene(RasterDataset):
    filename_glob = "scene.tif"

folder, tile, batch, limit = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(1)
peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
before = peak()
scene = Scene(folder)
loader = DataLoader(scene, batch_size=batch, sampler=RandomGeoSampler(scene, size=tile, length=limit),
                    collate_fn=stack_samples)
start = time.perf_counter()
tiles = sum(len(sample["image"]) for sample in loader)
seconds = time.perf_counter() - start
print(json.dumps({"tiles_per_second": round(tiles / seconds, 1), "memory_mib": round(peak() - before)}))
"""


def torchgeo(folder: Path, limit: int, python: str) -> dict[str, Any]:
    """torchgeo's random sampler over the GeoTIFF, in an interpreter that has it, with the same block cache."""
    command = [python, "-c", TORCHGEO, str(folder), str(TILE), str(BATCH), str(limit)]
    settings = {**os.environ, "GDAL_CACHEMAX": str(GDAL_CACHE)}
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def mixing(order: np.ndarray, cells: np.ndarray, columns: int) -> dict[str, float]:
    """Say how well an order mixes.

    Parameters
    ----------
    order : (tile,) int array
        Tiles in the order they come.
    cells : (tile,) int array
        The neighbourhood of each tile, numbered row by row.
    columns : int
        Neighbourhoods in a row.

    Returns
    -------
    dict
        ``autocorrelation`` of the neighbourhoods' rows and columns from one tile to the next (the larger), 0 at best;
        ``distinct``, the neighbourhoods in a batch, on average.
    """
    places = np.stack(np.divmod(cells[order], columns))
    near = max(abs(np.corrcoef(axis[:-1], axis[1:])[0, 1]) for axis in places)
    batches = cells[order][: len(order) // BATCH * BATCH].reshape(-1, BATCH)
    distinct = np.mean([len(np.unique(batch)) for batch in batches])
    return {"autocorrelation": round(float(near), 4), "distinct": round(float(distinct), 2)}


def quality(size: int, chunk: int, buffers: tuple[int, ...] = (16, 32, 64, 128, 256, 512)) -> dict[str, Any]:
    """Compare the stream's order with a full shuffle's, for buffers in MiB; neighbourhoods are chunks.

    Returns
    -------
    dict
        ``full`` and ``buffers``: what ``mixing`` gives, and decodes a chunk.
    """
    image = xr.DataArray(da.zeros((4, size, size), chunks=(4, chunk, chunk), dtype="uint16"), dims=("band", "y", "x"))
    tiles = sampling.grid(image, TILE, overlap=OVERLAP)
    columns = -(-size // chunk)
    cells = (tiles["y"] // chunk * columns + tiles["x"] // chunk).to_numpy()
    full = mixing(np.random.default_rng(0).permutation(len(tiles)), cells, columns)
    rows = {}
    for buffer in buffers:
        flow = streaming.TileStream(image, tiles, batch_size=BATCH, buffer=buffer * streaming.MIB)
        decodes = round(flow.explain()["decodes_per_chunk"], 3)
        rows[buffer] = {**mixing(flow.plan().order, cells, columns), "decodes_per_chunk": decodes}
    return {"benchmark": "B4 shuffle quality", "size": size, "chunk": chunk, "full": full, "buffers": rows}


WORK = (stream, ram, ram_float32, xbatcher_dask, xbatcher_ram, zarr_windows, rasterio_windows)


def resident(peak: bool) -> float:
    """Give this process's memory in MiB, now or at its peak since the last call for now (Linux)."""
    if not peak:
        Path("/proc/self/clear_refs").write_text("5")
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def measure(name: str, folder: Path, limit: int, buffer: int, answers: Any) -> None:
    """Run one of WORK in this process, counting decoded chunks and the memory it adds to what imports need."""
    decoded = [0]
    decode = BloscCodec._decode_sync

    def counting(self: BloscCodec, *args: Any) -> Any:
        decoded[0] += 1
        return decode(self, *args)

    BloscCodec._decode_sync = counting  # type: ignore[method-assign, assignment]
    before, start = resident(peak=False), time.perf_counter()
    try:
        with dask.config.set(scheduler="threads"):
            facts = next(work for work in WORK if work.__name__ == name)(folder, limit, buffer)
    finally:
        BloscCodec._decode_sync = decode  # type: ignore[method-assign]
    took = facts.pop("seconds", time.perf_counter() - start)
    memory = resident(peak=True) - before
    rate = round(facts.pop("tiles") / took, 1)
    answers.put({"tiles_per_second": rate, "memory_mib": round(memory), "decoded": decoded[0], **facts})


def alone(name: str, folder: Path, limit: int, buffer: int, processes: bool) -> dict[str, Any]:
    """Run one of WORK in a new process, or in this one for a test."""
    context = multiprocessing.get_context("spawn")
    answers: Any = context.SimpleQueue()
    if not processes:
        measure(name, folder, limit, buffer, answers)
        return dict(answers.get())
    process = context.Process(target=measure, args=(name, folder, limit, buffer, answers))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{name} ended with {process.exitcode}")
    return dict(answers.get())


def run(
    size: int,
    chunk: int = 512,
    limit: int = 512,
    buffer: int = 256,
    processes: bool = True,
    torchgeo_python: str | None = None,
) -> dict[str, Any]:
    """Measure.

    Returns
    -------
    dict
        ``tiles_per_second`` is B4's number (target >= 15 000 on two cores), ``decodes_per_chunk`` its count
        (target <= 1.1); ``times_faster`` are ratios to the rivals, and ``of_ram`` to slices out of memory.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, size, chunk)
        runs = {work.__name__: alone(work.__name__, folder, limit, buffer * streaming.MIB, processes) for work in WORK}
        if torchgeo_python is not None:
            runs["torchgeo"] = torchgeo(folder, limit, torchgeo_python)
    mine, chunks = runs["stream"], runs["ram"]["decoded"]  # which reads each chunk that is stored once
    rates = {key: value["tiles_per_second"] for key, value in runs.items()}
    return {
        "benchmark": "B4 streaming",
        "size": size,
        "chunk": chunk,
        "tiles_per_second": rates["stream"],
        "decodes_per_chunk": round(mine["decoded"] / chunks, 3),
        "memory_mib": mine["memory_mib"],
        "buffer_mib": buffer,
        "of_ram": round(rates["stream"] / rates["ram"], 3),
        "of_ram_float32": round(rates["stream"] / rates["ram_float32"], 3),
        "times_faster": {
            key: round(rates["stream"] / rates[key], 1)
            for key in ("xbatcher_dask", "xbatcher_ram", "zarr_windows", "rasterio_windows", "torchgeo")
            if key in rates
        },
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "runs": runs,
    }


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8192, help="side of the image, pixels")
    parser.add_argument("--chunk", type=int, default=512, help="side of a chunk, pixels")
    parser.add_argument("--limit", type=int, default=512, help="tiles that slow rivals draw")
    parser.add_argument("--buffer", type=int, default=256, help="the stream's shuffle buffer, MiB")
    parser.add_argument("--torchgeo", metavar="PYTHON", help="an interpreter that has torchgeo, to measure that too")
    parser.add_argument("--quality", action="store_true", help="how well the stream shuffles, instead")
    args = parser.parse_args()
    if args.quality:
        print(json.dumps(quality(args.size, args.chunk)))
        return
    if args.torchgeo is None:
        print("torchgeo is left out: pass --torchgeo PYTHON", file=sys.stderr)
    print(json.dumps(run(args.size, args.chunk, args.limit, args.buffer, torchgeo_python=args.torchgeo)))


if __name__ == "__main__":
    main()

"""B1 and B1r: ``predict.run`` against the bare network and against what a user would write today.

One process measures everything on one store, so only ratios count. Prints one JSON line.

* limit: the raw forward pass of the same model, precision and block shape on resident tensors;
* rivals: ``dask.array.map_overlap`` in float32, and a rasterio loop of 256-px windows without overlap.

B1 is ``--size 8192``; B1r is ``--size 4096 --rivals``. Peak memory of each is that of a process of its own.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

TILE, HALO, CHUNK = 2048, 64, 512


def prepare(folder: Path, size: int, tile: int) -> None:
    """Write the image, as a store and as a GeoTIFF, and the model."""
    import rioxarray  # noqa: F401

    import lsdask as ls

    image = ls.synthetic.scene((size, size), seed=1, chunks=min(size, 1024))
    ls.store.write(image, folder / "image.zarr", chunk=min(CHUNK, tile), shard=max(tile, min(CHUNK, tile)))
    ls.store.open(folder / "image.zarr").rio.to_raster(folder / "image.tif", tiled=True, compress="deflate")
    model = ls.models.build("unet", bands=ls.schema.bands(image), encoder="resnet18", mean=[400.0] * 4, std=[150.0] * 4)
    ls.models.save(model, folder / "model", tile=tile, halo=HALO)


def raw_forward(folder: Path, tile: int, precision: str, repeats: int = 3) -> float:
    """The network alone, channels_last: pixels of blocks a second, resident in memory, best of ``repeats``."""
    import torch

    import lsdask as ls

    side = tile + 2 * HALO
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = ls.models.load(folder / "model").to(device, memory_format=torch.channels_last)
    image = (torch.rand(1, 4, side, side, device=device) * 1000).contiguous(memory_format=torch.channels_last)
    seconds = []
    with (
        torch.inference_mode(),
        torch.autocast(device, dtype=getattr(torch, precision), enabled=precision != "float32"),
    ):
        for _ in range(repeats + 1):
            begun = time.perf_counter()
            model(image)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
    return side**2 / min(seconds[1:])


def run_lsdask(folder: Path, size: int, tile: int, precision: str) -> None:
    """What is measured."""
    import lsdask as ls

    target = folder / f"scores-{precision}-{time.time_ns()}.zarr"
    model = folder / "model"
    ls.predict.run(
        folder / "image.zarr", target, model, tile=tile, halo=HALO, precision=precision, progress=False
    ).check()


def run_map_overlap(folder: Path, size: int, tile: int, precision: str) -> None:
    """What a user writes with xarray, Dask and torch: float32, one thread of Dask, all cores in torch."""
    import dask
    import torch

    import lsdask as ls

    model = ls.models.load(folder / "model").eval()

    def forward(block: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.sigmoid(model(torch.from_numpy(block.astype("float32"))[None]))[0].numpy()

    image = ls.store.open(folder / "image.zarr").data
    image = image.rechunk((-1, tile, tile))
    scores = image.map_overlap(
        forward, depth={0: 0, 1: HALO, 2: HALO}, boundary="reflect", dtype="float32",
        chunks=((1,), *image.chunks[1:]), meta=np.empty((0, 0, 0), "float32"),
    )  # fmt: skip
    with dask.config.set(scheduler="synchronous"):
        scores.to_zarr(str(folder / f"overlap-{time.time_ns()}.zarr"))


def run_rasterio(folder: Path, size: int, tile: int, precision: str) -> None:
    """What many scripts do: 256-px windows without overlap, one at a time, float32."""
    import rasterio
    import torch
    from rasterio.windows import Window

    import lsdask as ls

    model = ls.models.load(folder / "model").eval()
    with rasterio.open(folder / "image.tif") as source:
        profile = {**source.profile, "count": 1, "dtype": "float32", "nodata": None}
        with rasterio.open(folder / f"loop-{time.time_ns()}.tif", "w", **profile) as target, torch.inference_mode():
            for top in range(0, size, 256):
                for left in range(0, size, 256):
                    window = Window(left, top, min(256, size - left), min(256, size - top))
                    block = torch.from_numpy(source.read(window=window).astype("float32"))[None]
                    target.write(torch.sigmoid(model(block))[0].numpy(), window=window)


RUNS: dict[str, Callable[[Path, int, int, str], None]] = {
    "lsdask": run_lsdask,
    "map_overlap": run_map_overlap,
    "rasterio_256": run_rasterio,
}


def child(name: str, folder: str, size: int, tile: int, precision: str) -> None:
    """Run one contender and print its seconds and peak memory."""
    import lsdask.models
    import lsdask.predict  # noqa: F401

    begun = time.perf_counter()
    RUNS[name](Path(folder), size, tile, precision)
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "peak": peak()}))


def peak() -> int:
    """Give this process's peak memory so far, bytes. Linux keeps a forked process's ru_maxrss through its exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def measure(name: str, folder: Path, size: int, tile: int, precision: str) -> dict[str, float]:
    """Run one contender in a process of its own."""
    arguments = [sys.executable, __file__, "--child", name, str(folder), str(size), str(tile), precision]
    printed = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    found = json.loads(printed.splitlines()[-1])
    return {"Mpx_s": round(size**2 / found["seconds"] / 1e6, 3), "peak_GB": round(found["peak"] / 1e9, 2)}


def machine() -> str:
    """The device and its cores, in words."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()} CPU, {os.cpu_count()} cores"


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--tile", type=int, default=TILE)
    parser.add_argument("--precision", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--rivals", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, options.size, options.tile)
        result: dict = {"benchmark": "B1 predict", "machine": machine(), "size": options.size, "tile": options.tile}
        for precision in options.precision:
            raw = raw_forward(folder, options.tile, precision)
            ours = measure("lsdask", folder, options.size, options.tile, precision)
            ours["of_raw_forward"] = round(ours["Mpx_s"] / (raw / 1e6), 3)
            result[precision] = {"raw_Mpx_s": round(raw / 1e6, 3), "lsdask": ours}
        if options.rivals:
            for name in ("map_overlap", "rasterio_256"):
                result[name] = measure(name, folder, options.size, options.tile, "float32")
            for precision in options.precision:
                ours = result[precision]["lsdask"]
                ours["times_map_overlap"] = round(ours["Mpx_s"] / result["map_overlap"]["Mpx_s"], 2)
                ours["memory_of_map_overlap"] = round(ours["peak_GB"] / result["map_overlap"]["peak_GB"], 2)
        print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
    else:
        main()

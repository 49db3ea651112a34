"""B1 and B1r: ``predict.run`` against the bare network and against what a user would write today.

One process measures everything on one store, so only ratios count. Prints one JSON line.

* limit: the raw forward pass of the same model, precision and block shape on resident tensors;
* rivals: ``dask.array.map_overlap`` in float32, and a rasterio loop of 256-px windows without overlap; with
  ``--rival-python PYTHON``, an interpreter that has them, torchgeo's GridGeoSampler and geo-inference, whose packages
  would change those here.

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
    import zarr

    import lsdask as ls

    model = ls.models.load(folder / "model").eval()

    def forward(block: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.sigmoid(model(torch.from_numpy(block.astype("float32"))[None]))[0].numpy()

    image = ls.store.open(folder / "image.zarr").data
    image = image.rechunk((-1, tile, tile))
    haloed = [tuple(side + 2 * HALO for side in sides) for sides in image.chunks[1:]]  # trimmed afterwards
    scores = image.map_overlap(
        forward, depth={0: 0, 1: HALO, 2: HALO}, boundary="reflect", dtype="float32",
        chunks=((1,), *haloed), meta=np.empty((0, 0, 0), "float32"),
    )  # fmt: skip
    if scores.shape[1:] != image.shape[1:]:
        raise SystemExit(f"map_overlap gives {scores.shape} of {image.shape}")
    target = folder / f"overlap-{time.time_ns()}.zarr"
    with dask.config.set(scheduler="synchronous"):
        scores.to_zarr(str(target))
    check_written(zarr.open_array(target, mode="r")[0], size)


def check_written(scores: np.ndarray, size: int) -> None:
    """Stop unless scores cover the image: a rival that leaves some out has not done the work."""
    if scores.shape != (size, size) or not (scores > 0).all():
        raise SystemExit(
            f"scores of shape {scores.shape}, {(scores > 0).mean():.0%} of them written, of {size} squared"
        )


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


TORCHGEO = """
import json, sys, time
from pathlib import Path
import numpy as np, rasterio, torch
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import GridGeoSampler

class Scene(RasterDataset):
    filename_glob = "image.tif"

folder, size, halo = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
begun = time.perf_counter()
model = torch.jit.load(folder / "model.pt")
side = min(512, size)
scene = Scene(folder)
loader = DataLoader(scene, batch_size=4, sampler=GridGeoSampler(scene, size=side, stride=max(side - 2 * halo, 1)),
                    collate_fn=stack_samples)
with rasterio.open(folder / "image.tif") as source:
    profile = {**source.profile, "count": 1, "dtype": "float32", "nodata": None}
    place = ~source.transform
scores = np.zeros((size, size), "float32")
with torch.inference_mode():
    for batch in loader:
        found = torch.sigmoid(model(batch["image"]))[:, 0].numpy()
        for one, at in zip(found, batch["transform"]):
            x, y = (round(value) for value in place * (float(at[2]), float(at[5])))
            top, left = max(y, 0), max(x, 0)
            part = one[top - y:size - y, left - x:size - x]
            scores[top:top + part.shape[0], left:left + part.shape[1]] = part
with rasterio.open(folder / "torchgeo.tif", "w", **profile) as target:
    target.write(scores, 1)
"""
"""Its sampler leaves putting the patches together to the user; here each overwrites those before."""

GEO_INFERENCE = """
import json, sys, time
from pathlib import Path
import numpy as np, rasterio
from geo_inference.geo_inference import GeoInference

folder, size, halo = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
begun = time.perf_counter()
infer = GeoInference(model=str(folder / "model.pt"), work_dir=str(folder), device="cpu", num_classes=1)
name = infer(inference_input=str(folder / "image.tif"), patch_size=min(1024, size // 2))
"""
"""At its default patches of 1024 px."""

TOLD = """
seconds = time.perf_counter() - begun
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
print(json.dumps({"seconds": seconds, "peak": peak}))
"""

ELSEWHERE = {"torchgeo": TORCHGEO, "geo_inference": GEO_INFERENCE}


def trace(folder: Path) -> None:
    """Write the network as an interpreter without lsdask can load it; it takes raw units of any dtype."""
    import torch

    import lsdask as ls

    class Raw(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.model(image.float())

    model = Raw(ls.models.load(folder / "model")).eval()
    with torch.inference_mode():
        torch.jit.trace(model, torch.rand(1, 4, 256, 256) * 1000).save(folder / "model.pt")


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
    return figures([sys.executable, __file__, "--child", name, str(folder), str(size), str(tile), precision], size)


def measure_elsewhere(name: str, folder: Path, size: int, python: str) -> dict[str, float]:
    """Run one contender in another interpreter, on all cores in float32, and look at what it wrote."""
    import rasterio

    found = figures([python, "-c", ELSEWHERE[name] + TOLD, str(folder), str(size), str(HALO)], size)
    written = folder / "torchgeo.tif" if name == "torchgeo" else next(folder.glob("image_mask_*.tif"))
    with rasterio.open(written) as scores:
        if name == "torchgeo":
            check_written(scores.read(1), size)
        elif scores.shape != (size, size):
            raise SystemExit(f"geo-inference gives {scores.shape} of {size} squared")
    return found


def figures(command: list[str], size: int) -> dict[str, float]:
    """Run what prints its seconds and its peak memory last."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or "Error occured" in done.stderr:  # geo-inference goes on after a failed patch
        raise SystemExit(done.stderr or f"{command[0]} ended with {done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
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
    parser.add_argument("--rival-python", metavar="PYTHON", help="an interpreter that has torchgeo and geo-inference")
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
        if options.rival_python:
            trace(folder)
            for name in ELSEWHERE:
                result[name] = measure_elsewhere(name, folder, options.size, options.rival_python)
                for precision in options.precision:
                    ours = result[precision]["lsdask"]
                    ours[f"times_{name}"] = round(ours["Mpx_s"] / result[name]["Mpx_s"], 2)
        print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
    else:
        main()

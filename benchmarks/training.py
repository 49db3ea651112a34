"""B7: the training step from a store on disk, against the same step from tensors in memory.

One scene (4 bands uint16), one epoch of shuffled tiles. ``store`` is ``training.fit`` on a ``TileStream``: reading,
cutting, checks, augmentation, step, scores. ``memory`` is a plain torch loop over the same batches, ready on the
device as float32 with NaN: augmentation and step alone. They take turns, ``--rounds`` each, and the ratio is of the
medians of their rates. On a busy machine rates mean little; ``cpu_ratio`` is of processor seconds, of all threads of
the process, in ``memory`` over ``store``. On CUDA it also tells the share of time in which the device was busy in
``store``. Prints one JSON line.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

import lsdask as ls
from lsdask.streaming.loading import put
from lsdask.training.learning import Settings, make_optimizer

NETWORKS: dict[str, dict[str, Any]] = {
    "unet-resnet18": {"name": "unet", "encoder": "resnet18"},
    "soares_unet-16": {"name": "soares_unet", "filters": 16},
}
LR = 1e-3


def prepare(folder: Path, size: int) -> None:
    """Write a synthetic scene and its mask."""
    land = ls.synthetic.landscape((size, size), seed=1)
    ls.store.write(land.scene, folder / "image.zarr", chunk=min(512, size))
    ls.store.write(land.mask, folder / "mask.zarr", chunk=min(512, size))


def build(network: str, bands: Any) -> Any:
    """Make a network with constants that suit the scene."""
    return ls.models.build(**NETWORKS[network], bands=bands, mean=[1000] * len(bands), std=[500] * len(bands), seed=0)


class Timed(ls.streaming.TileStream):
    """A stream that notes the processor time at which its last epoch began."""

    begun = 0.0

    def batches(self, *place: Any, **workers: Any) -> Any:
        self.begun = time.process_time()
        return super().batches(*place, **workers)


def from_store(model: Any, stream: Any, precision: str, device: str) -> dict[str, float]:
    """Train an epoch by ``fit``; give its seconds, and how busy the device was."""
    options = {"epochs": 1, "lr": LR, "schedule": "constant", "progress": False}
    cuda = [torch.profiler.ProfilerActivity.CUDA] if device == "cuda" else []
    with torch.profiler.profile(activities=cuda) if cuda else nullcontext() as profile:
        done = ls.training.fit(model, stream, precision=precision, device=device, **options)
    found = {"seconds": done.history[0]["seconds"], "cpu": time.process_time() - stream.begun}
    if profile is None:
        return found
    busy = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
    return {**found, "busy": busy / done.history[0]["seconds"]}


def from_memory(model: Any, batches: list[Any], precision: str, device: str) -> dict[str, float]:
    """Train on the same batches, ready on the device."""
    settings = Settings(
        epochs=1, loss="bce_dice", lr=LR, optimizer="adam", weight_decay=0, schedule="constant", monitor="loss",
        patience=None, augment=ls.augment.Augment(), accumulate=1, clip=None, precision=precision, seed=0,
    )  # fmt: skip
    model = model.to(device).train()
    optimizer, loss = make_optimizer(model, settings), ls.losses.find(settings.loss)
    generator, augment = torch.Generator(device).manual_seed(0), ls.augment.Augment()
    reduced = precision != "float32"
    begun, cpu = time.perf_counter(), time.process_time()
    for image, mask in batches:
        image, mask = augment(image, mask, generator=generator, mean=model.mean, std=model.std)
        with torch.autocast(device, getattr(torch, precision), enabled=reduced):
            outputs = model.outputs(image.contiguous(memory_format=torch.channels_last))
        ls.losses.supervise(loss, outputs, mask).backward()
        optimizer.step()
        optimizer.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    return {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}


def compare(
    folder: Path, network: str, tile: int, precision: str, *, tiles: int, batch: int, rounds: int, device: str
) -> Any:
    """Let store and memory take turns; give steps a second of each, and their ratio."""
    image, mask = ls.store.open(folder / "image.zarr"), ls.store.open(folder / "mask.zarr")
    table = ls.sampling.grid(image, tile, overlap=0.5)
    table = table.sample(min(tiles, len(table)), random_state=0).sort_values(["y", "x"]).reset_index(drop=True)
    bands = ls.schema.bands(image)

    def stream() -> Any:
        return Timed(image, table, mask=mask, batch_size=batch, drop_last=True)

    nodata, place = ls.schema.nodata(image), torch.device(device)
    ready = [put(each, nodata, place) for each in stream()]
    model = build(network, bands)
    from_memory(model, ready[:2], precision, device)  # what the first steps cost is no step's cost
    store, memory = [], []
    for _ in range(rounds):
        store.append(from_store(build(network, bands), stream(), precision, device))
        memory.append(from_memory(build(network, bands), ready, precision, device))

    def middle(found: list[dict[str, float]], name: str) -> float:
        return statistics.median(each[name] for each in found)

    rates = {name: len(ready) / middle(found, "seconds") for name, found in (("store", store), ("memory", memory))}
    told = {f"{name}_steps_s": round(rate, 3) for name, rate in rates.items()}
    shares = {"busy": round(middle(store, "busy"), 3)} if "busy" in store[0] else {}
    ratios = {"ratio": rates["store"] / rates["memory"], "cpu_ratio": middle(memory, "cpu") / middle(store, "cpu")}
    return {**told, **shares, **{name: round(value, 3) for name, value in ratios.items()}}


def machine(device: str) -> str:
    """The device and its cores, in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def run(*, size: int, networks: list[str], sides: list[int], precisions: list[str], device: str, **options: Any) -> Any:
    """Measure every combination."""
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), size)
        found = {
            f"{network} {side} {precision}": compare(Path(name), network, side, precision, device=device, **options)
            for network in networks
            for side in sides
            for precision in precisions
        }
    least = {name: min(each[name] for each in found.values()) for name in ("ratio", "cpu_ratio")}
    return {"benchmark": "B7 training", "machine": machine(device), **least, **options, "runs": found}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048, help="side of the scene, pixels")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--sides", nargs="*", type=int, default=[64, 128], help="of tiles, pixels")
    parser.add_argument("--precisions", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--tiles", type=int, default=640, help="tiles an epoch")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    given = parser.parse_args()
    found = run(
        size=given.size, networks=given.networks, sides=given.sides, precisions=given.precisions, device=given.device,
        tiles=given.tiles, batch=given.batch, rounds=given.rounds,
    )  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()

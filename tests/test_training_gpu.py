"""What learning does on a CUDA device: the same numbers as on the processor, and copies that wait for nothing."""

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images import random_mosaic

from lsdask import augment, losses, models, sampling, streaming, training
from lsdask.models.relief import terrain_block
from lsdask.streaming.loading import on_device

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

BANDS = ("red", "nir")
MEAN, STD = torch.tensor([100.0, 120.0]).view(2, 1, 1), torch.tensor([30.0, 40.0]).view(2, 1, 1)


def stream(**options: Any) -> streaming.TileStream:
    """Give tiles of an image whose bright half of each 8 px is landslide, in batches of 7."""
    image = random_mosaic((2, 128, 128), void=0.05).assign_coords(band=list(BANDS))
    truth = ((np.indices((128, 128)) // 4).sum(axis=0) % 2).astype("uint8")
    image.values[1][truth == 1] //= 2
    mask = image.isel(band=0, drop=True).copy(data=truth)
    mask.attrs = {}
    return streaming.TileStream(image, sampling.grid(image, 32, overlap=0.5), mask=mask, batch_size=7, **options)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    image = torch.randn(6, 2, 32, 32, generator=draw) * STD + MEAN
    mask = torch.randint(0, 2, (6, 32, 32), generator=draw).to(torch.uint8)
    mask[torch.rand(mask.shape, generator=draw) < 0.1] = 255
    image[:, 0][mask == 255] = torch.nan
    return image, mask


def on_both(function: Any, *values: torch.Tensor) -> None:
    """Hold what a function gives on the device against what it gives on the processor."""
    here, there = (function(*(value.to(device) for value in values)) for device in ("cpu", "cuda"))
    for mine, theirs in zip(here, there, strict=True):
        assert theirs.is_cuda
        torch.testing.assert_close(theirs.cpu(), mine, rtol=1e-4, atol=1e-3, equal_nan=True)


def test_changes_of_tiles_are_those_of_the_processor():
    image, mask = batch()
    angle, scale, shear = torch.linspace(-1, 1, 6), torch.linspace(0.8, 1.2, 6), torch.linspace(-0.3, 0.3, 6)
    moved, labels = augment.affine_block(*(value.cuda() for value in (image, mask, angle, scale, shear)))
    same, known = augment.affine_block(image, mask, angle, scale, shear)
    # A pixel half-way between two may fall to either.
    assert (labels.cpu() == known).float().mean() > 0.995
    assert (torch.isnan(moved.cpu()) == torch.isnan(same)).float().mean() > 0.995
    both = ~torch.isnan(moved.cpu()) & ~torch.isnan(same)
    torch.testing.assert_close(moved.cpu()[both], same[both], rtol=1e-3, atol=0.05)
    on_both(lambda tiles: [augment.symmetry_block(tiles, torch.arange(6, device=tiles.device))], image)
    amount = torch.linspace(-0.5, 0.5, 12).view(6, 2, 1, 1)
    on_both(lambda tiles, each, mean, std: [augment.gamma_block(tiles, each, mean, std)], image, amount, MEAN, STD)
    on_both(lambda tiles, each: [augment.sharpness_block(tiles, each)], image, amount)
    changed, unknown = augment.Augment(rotate=20, shear=10, noise=0.1, gamma=0.2, drop=0.1)(
        image.cuda(), mask.cuda(), generator=torch.Generator("cuda").manual_seed(0), mean=MEAN.cuda(), std=STD.cuda()
    )
    assert changed.is_cuda
    assert unknown.is_cuda
    assert not torch.isnan(changed).all()


@pytest.mark.parametrize("name", losses.NAMES)
def test_losses_and_counts_are_those_of_the_processor(name):
    image, mask = batch(1)
    logits = (image[:, :1].nan_to_num(100.0) - 100) / 30
    on_both(lambda score, truth: [losses.find(name)(score, truth)], logits, mask)
    on_both(lambda score, truth: list(training.tally_block(score, truth, 0.5)), logits, mask)


def test_terrain_is_that_of_the_processor():
    heights = torch.from_numpy(np.random.default_rng(0).normal(1000, 30, (2, 32, 32)).astype("float32"))
    names = ("elevation", "slope", "hillshade", "eastness", "northness")
    on_both(lambda each: [terrain_block(each / 1000, each, names, 10.0)], heights)


def test_the_next_batch_is_copied_from_pinned_memory_while_the_model_works():
    coming = on_device(stream().batches(0), stream().nodata, torch.device("cuda"))
    next(coming)
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        torch.cuda._sleep(int(4e9))  # about 2 s of work in the model's stream
        begun = time.perf_counter()
        next(coming)
        took = time.perf_counter() - begun
        assert not torch.cuda.current_stream().query(), "the model had ended: nothing was shown"
        torch.cuda.synchronize()
    assert took < 1
    copies = [event.name for event in profile.events() if "HtoD" in event.name]
    assert copies
    assert all("Pinned" in name for name in copies)


def build() -> models.Segmenter:
    return models.build("unet", bands=BANDS, decoder_channels=[32, 16, 16, 8, 8], mean=[100.0] * 2, std=[40.0] * 2)


def fit(**more: Any) -> training.Trained:
    arguments = {"epochs": 3, "device": "cuda", "precision": "float32", "augment": False, "progress": False}
    return training.fit(build(), stream(), stream(shuffle=False), **{**arguments, **more})


def test_it_learns_as_on_the_processor_and_its_folder_is_used_without_a_device(tmp_path):
    there, here = fit(folder=tmp_path / "m"), fit(device="cpu")
    for mine, theirs in zip(here.history, there.history, strict=True):
        assert theirs["train"] == pytest.approx(mine["train"], rel=0.1)
    assert there.history[-1]["train"] < there.history[0]["train"]
    assert {value.device.type for value in there.model.state_dict().values()} == {"cpu"}
    image = batch()[0]
    torch.testing.assert_close(models.load(tmp_path / "m")(image), there.model(image))


@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float16"])
def test_it_learns_in_a_reduced_precision(precision, tmp_path):
    done = fit(precision=precision, augment=True, folder=tmp_path / "m")
    assert done.history[-1]["train"] < done.history[0]["train"]
    if precision == "auto":
        assert done.model.spec.record["precision"] in ("bfloat16", "float16", "float32")
    else:
        assert done.model.spec.record["precision"] == precision


class Power(Exception):
    """What cuts a run off."""


class Cut(streaming.TileStream):
    """A stream that ends the run in its second epoch."""

    def batches(self, epoch: int, begin: int = 0, **workers: Any) -> Any:
        for number, each in enumerate(super().batches(epoch, begin, **workers), start=begin):
            if (epoch, number) == (1, 2):
                raise Power
            yield each


def test_a_run_that_was_cut_off_goes_on_with_the_draws_of_its_device(tmp_path):
    more = {"save_seconds": 0.0, "augment": True}
    alone = fit(**more)
    cut = stream()
    cut.__class__ = Cut
    with pytest.raises(Power):
        training.fit(build(), cut, stream(shuffle=False), epochs=3, device="cuda", precision="float32", progress=False,
                     folder=tmp_path / "m", **more)  # fmt: skip
    held = torch.load(tmp_path / "m" / "last.ckpt", weights_only=True)
    assert (held["run"]["epoch"], held["run"]["batch"]) == (1, 2)
    assert len(held["ranks"][0]["random"]) == 2
    again = fit(folder=tmp_path / "m", resume=True, **more)
    for mine, theirs in zip(again.history, alone.history, strict=True):
        assert mine["train"] == pytest.approx(theirs["train"], rel=0.02)


def test_the_benchmark_tells_how_busy_the_device_was():
    path = Path(__file__).parents[1] / "benchmarks" / "training.py"
    spec = importlib.util.spec_from_file_location("training_benchmark", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.run(size=256, networks=["unet-resnet18"], sides=[64], precisions=["float32"], device="cuda",
                          tiles=32, batch=8, rounds=1)  # fmt: skip
    (run,) = json.loads(json.dumps(found))["runs"].values()
    assert 0 < run["busy"] <= 1.05
    assert found["machine"] == torch.cuda.get_device_name()

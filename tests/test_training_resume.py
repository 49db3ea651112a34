"""Runs that are cut off and gone on with: the same history and weights, bit for bit, as those left alone."""

import csv
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from images import mosaic

from lsdask import losses, models, sampling, store, streaming, training
from lsdask.augment import Augment
from lsdask.errors import BadInput, OtherPlan, Unreadable
from lsdask.training import checkpoints

BANDS = ("red", "nir")
SIDE, CHUNK = 96, 32


class Dropping(torch.nn.Module):
    """Convolutions with batch normalisation and dropout: what has a state, or draws."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(2, 6, 3, padding=1), torch.nn.Conv2d(6, 1, 1)
        self.norm, self.drop = torch.nn.BatchNorm2d(6), torch.nn.Dropout2d(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))


def network(seed: int = 0) -> models.Segmenter:
    spec = models.Spec("dropping", "", BANDS, 1, mean=(100.0, 120.0), std=(12.0, 50.0))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return models.Segmenter(Dropping(), spec, stride=1)


def scene(folder: Path, seed: int = 0) -> None:
    """Write a scene of bright squares and its mask, in small chunks."""
    rng = np.random.default_rng(seed)
    image = rng.integers(80, 120, (2, SIDE, SIDE)).astype("uint16")
    mask = np.zeros((SIDE, SIDE), "uint8")
    for y, x in rng.integers(0, SIDE - 12, (20, 2)):
        mask[y : y + 12, x : x + 12] = 1
    image[1][mask == 1] += 80
    whole = mosaic(image, nodata=0, bands=BANDS)
    store.write(whole, folder / f"image-{seed}.zarr", chunk=CHUNK)
    truth = whole.isel(band=0, drop=True).copy(data=mask).rename("mask")
    truth.attrs = {}
    store.write(truth, folder / f"mask-{seed}.zarr", chunk=CHUNK)


def stream(folder: Path, seed: int = 0, **options: Any) -> streaming.TileStream:
    image, mask = (store.open(folder / f"{name}-{seed}.zarr") for name in ("image", "mask"))
    tiles = sampling.grid(image, 16, overlap=0.5)
    return streaming.TileStream(image, tiles, mask=mask, **{"batch_size": 12, "seed": 3, **options})


def mixed(folder: Path) -> streaming.MixedStream:
    return streaming.MixedStream([stream(folder, 0), stream(folder, 1, batch_size=20)], weights=[1, 0.5], seed=5)


class Cut(streaming.Stream):
    """A stream that ends the run when it has given so many batches in all."""

    def __init__(self, inner: Any, after: int, how: Any) -> None:
        super().__init__()
        self.inner, self.left, self.how = inner, [after], how
        self.bands, self.nodata = inner.bands, inner.nodata

    def __len__(self) -> int:
        return len(self.inner)

    def batches(self, epoch: int, begin: int = 0, **workers: Any) -> Iterator[Any]:
        for batch in self.inner.batches(epoch, begin, **workers):
            if self.left[0] == 0:
                self.how()
            self.left[0] -= 1
            yield batch

    def where(self, batch: int, epoch: int | None = None) -> str:
        return self.inner.where(batch, epoch)

    def part(self, rank: int, world: int, *, drop_last: bool = False) -> Any:
        other = Cut(self.inner.part(rank, world, drop_last=drop_last), 0, self.how)
        other.left = self.left
        return other

    @property
    def identity(self) -> dict[str, Any]:
        return self.inner.identity


class Power(Exception):
    """What cuts a run off."""


def off() -> None:
    raise Power


def loud(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A loss whose gradients overflow float16 until they are scaled less."""
    return 1e9 * losses.bce(logits, mask)


SOURCES = {"one": stream, "mixed": mixed}


def train(folder: Path, out: Path, source: str = "one", cut: tuple[int, Any] | None = None, **more: Any) -> Any:
    """Train on the scene; ``cut`` says after how many batches the run ends, and how."""
    flow: Any = SOURCES[source](folder)
    if cut is not None:
        flow = Cut(flow, *cut)
    arguments = {"epochs": 3, "lr": 0.02, "device": "cpu", "precision": "float32", "save_seconds": 0, "seed": 2}
    augment = Augment(rotate=20, noise=0.1)
    valid = stream(folder, shuffle=False, batch_size=40)
    return training.fit(
        network(), flow, valid, folder=out, augment=augment, progress=False, **{**arguments, **more}
    )  # fmt: skip


def facts(done: training.Trained) -> list[dict[str, Any]]:
    """A history without what a clock says."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in done.history]


def assert_same(one: training.Trained, other: training.Trained) -> None:
    assert facts(one) == facts(other)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    scene(folder, 0)
    scene(folder, 1)
    return folder


@pytest.mark.slow
def test_a_run_killed_in_mid_epoch_goes_on_to_the_same_history_and_weights(scenes, tmp_path):
    code = (
        f"import os, signal, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_training_resume as t;"
        f"from pathlib import Path; kill = lambda: os.kill(os.getpid(), signal.SIGKILL);"
        f"t.train(Path({str(scenes)!r}), Path({str(tmp_path / 'killed')!r}), cut=(17, kill))"
    )
    died = subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert died.returncode == -signal.SIGKILL
    held = torch.load(tmp_path / "killed" / "last.ckpt", weights_only=True)["run"]
    assert (held["epoch"], held["batch"]) == (1, 6)  # of 11 batches an epoch
    assert_same(train(scenes, tmp_path / "killed", resume=True), train(scenes, tmp_path / "alone"))
    assert models.digest(tmp_path / "killed") == models.digest(tmp_path / "alone")


@pytest.mark.parametrize(
    ("after", "more"),
    [
        (3, {"schedule": "cosine", "optimizer": "adamw", "weight_decay": 1e-3}),
        (11, {"schedule": "plateau"}),
        (12, {"schedule": "constant", "optimizer": "sgd"}),
        (21, {"accumulate": 3, "clip": 0.5}),
        (15, {"precision": "bfloat16"}),
        (15, {"precision": "float16", "loss": loud}),
        (25, {"source": "mixed"}),
        (14, {"save_seconds": 1e9}),
        (28, {"patience": 1, "monitor": "f1"}),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "-".join(map(str, value)),
)
def test_a_run_cut_off_anywhere_goes_on(after, more, scenes, tmp_path):
    alone = train(scenes, tmp_path / "alone", **more)
    with pytest.raises(Power):
        train(scenes, tmp_path / "cut", cut=(after, off), **more)
    assert_same(train(scenes, tmp_path / "cut", resume=True, **more), alone)


def test_a_stream_that_cannot_begin_in_mid_epoch_is_read_up_to_there(tmp_path):
    class Plain:
        bands, nodata, left = BANDS, 0, -1

        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.batches = [
                (rng.integers(1, 200, (4, 2, 16, 16)).astype("uint16"), rng.integers(0, 2, (4, 16, 16)).astype("uint8"))
                for _ in range(5)
            ]

        def __len__(self) -> int:
            return len(self.batches)

        def __iter__(self) -> Iterator[Any]:
            for batch in self.batches:
                if self.left == 0:
                    raise Power
                self.left -= 1
                yield batch

    def run(flow: Any, **more: Any) -> Any:
        return training.fit(network(), flow, epochs=2, device="cpu", precision="float32", save_seconds=0, **more)

    cut = Plain()
    cut.left = 9
    with pytest.raises(Power):
        run(cut, folder=tmp_path / "cut")
    assert_same(run(Plain(), folder=tmp_path / "cut", resume=True), run(Plain(), folder=tmp_path / "alone"))


def test_a_run_that_is_done_is_not_run_again_and_one_that_is_not_there_begins(scenes, tmp_path):
    done = train(scenes, tmp_path / "m", resume=True)
    again = train(scenes, tmp_path / "m", resume=True, cut=(1, off))  # dies if it takes a batch but the one it looks at
    assert_same(again, done)
    assert [row["seconds"] for row in again.history] == [row["seconds"] for row in done.history]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lr": 0.5}, r"last.ckpt holds another run \(lr: 0.02 -> 0.5\). Pass the same arguments to go on, or"),
        ({"epochs": 9, "schedule": "cosine"}, r"\(epochs: 3 -> 9, schedule: one_cycle -> cosine\)"),
        ({"source": "mixed"}, r"train.batch_size: 12 -> nothing"),
    ],
)
def test_another_run_is_refused_and_what_differs_is_named(change, told, scenes, tmp_path):
    with pytest.raises(Power):
        train(scenes, tmp_path, cut=(4, off))
    with pytest.raises(OtherPlan, match=told):
        train(scenes, tmp_path, resume=True, **change)


def test_other_pixels_and_other_first_weights_are_another_run(scenes, tmp_path, monkeypatch):
    with pytest.raises(Power):
        train(scenes, tmp_path, cut=(4, off))
    monkeypatch.setitem(SOURCES, "one", lambda folder: stream(folder, 1))
    with pytest.raises(OtherPlan, match=r"another run \(train.first batch: \w+ -> \w+\)"):
        train(scenes, tmp_path, resume=True)
    monkeypatch.setitem(SOURCES, "one", stream)
    monkeypatch.setitem(globals(), "network", partial(network, 1))
    with pytest.raises(OtherPlan, match=r"model\.first weights"):
        train(scenes, tmp_path, resume=True)


def test_a_frozen_encoder_is_another_run(scenes, tmp_path):
    def go(frozen: bool, **more: Any) -> Any:
        made = models.build("linknet", bands=BANDS, freeze_encoder=frozen)
        flow = stream(scenes, drop_last=True)
        return training.fit(made, flow, epochs=1, folder=tmp_path, device="cpu", precision="float32", **more)

    go(False)
    with pytest.raises(OtherPlan, match=r"\(model\.frozen: False -> True\)"):
        go(True, resume=True)


def chunk_of(path: Path) -> Path:
    """A stored object in the middle of an image."""
    return sorted(path.glob("**/c/*/*/*"))[-1]


def test_a_store_that_loses_a_chunk_ends_the_run_and_is_gone_on_with_when_it_is_back(scenes, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    shutil.copytree(scenes, folder)
    alone = train(folder, tmp_path / "alone")
    lost = chunk_of(folder / "image-0.zarr")
    whole = lost.read_bytes()
    losing = Cut(stream(folder), 14, lambda: lose())

    def lose() -> None:
        losing.left[0] = -1  # and gives further batches, of those that are held already
        lost.write_bytes(whole[: len(whole) // 2])

    monkeypatch.setitem(SOURCES, "losing", lambda _: losing)
    with pytest.raises(Unreadable, match=r"image-0.zarr.*chunk \(\d+, \d+\)"):
        train(folder, tmp_path / "lost", "losing")
    held = torch.load(tmp_path / "lost" / "last.ckpt", weights_only=True)["run"]
    assert held["epoch"] in (1, 2)
    lost.write_bytes(whole)
    assert_same(train(folder, tmp_path / "lost", resume=True), alone)


class Mischief:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (str(Mischief.done),)

    done = Path("nowhere")


def test_reading_a_checkpoint_runs_no_code_and_a_damaged_one_is_named(scenes, tmp_path):
    Mischief.done = tmp_path / "mischief"
    (tmp_path / "m").mkdir()
    for data in (pickle.dumps(Mischief()), b"PK nothing", b""):
        (tmp_path / "m" / "last.ckpt").write_bytes(data)
        with pytest.raises(Unreadable, match=r"last.ckpt must be a checkpoint as lsdask wrote it. .* Remove it\.$"):
            train(scenes, tmp_path / "m", resume=True)
    torch.save({"run": Mischief()}, tmp_path / "m" / "last.ckpt")
    with pytest.raises(Unreadable, match=r"last\.ckpt must be a checkpoint as lsdask wrote it"):
        train(scenes, tmp_path / "m", resume=True)
    assert not Mischief.done.exists()


def test_a_checkpoint_that_cannot_be_written_whole_leaves_the_one_before(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    checkpoints.write(tmp_path, {"batch": 1})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unreadable, match="No space left"):
        checkpoints.write(tmp_path, {"batch": 2})
    assert checkpoints.read(tmp_path) == {"batch": 1}


def test_a_folder_that_cannot_be_written_is_said(scenes, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unreadable, match="folder must be writable"):
        train(scenes, tmp_path / "file" / "model")


def test_the_history_lies_in_the_folder(scenes, tmp_path):
    done = train(scenes, tmp_path)
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in row.items()} for row in rows] == list(done.history)
    assert {path.name for path in tmp_path.iterdir()} == {
        "history.csv", "last.ckpt", "model.json", "model.safetensors",
    }  # fmt: skip


def test_resume_needs_a_folder(scenes):
    with pytest.raises(BadInput, match="resume must be False without a folder"):
        training.fit(network(), stream(scenes), epochs=1, resume=True)


def test_later_inventories_are_learnt_after_the_first(scenes, tmp_path):
    def run(out: Path, **more: Any) -> Any:
        flows = [stream(scenes, 0), stream(scenes, 1, batch_size=20)]
        valid = stream(scenes, 1, shuffle=False)
        options: Any = {"epochs": 2, "lr": 0.02, "device": "cpu", "precision": "float32", "progress": False}
        return training.progressive(network(), flows, valid, folder=out, **options, **more)

    stages = run(tmp_path)
    assert [stage.folder.name for stage in stages] == ["stage-1", "stage-2"]
    told = [json.loads((stage.folder / "model.json").read_text())["record"] for stage in stages]
    assert [record["train_tiles"] for record in told] == [121, 242]
    begun = torch.load(tmp_path / "stage-2" / "last.ckpt", weights_only=True)["plan"]["model.first weights"]
    assert begun == models.digest(tmp_path / "stage-1")
    again = run(tmp_path, resume=True)
    assert [stage.history for stage in again] == [stage.history for stage in stages]  # seconds too: nothing ran
    assert models.digest(tmp_path / "stage-2") == models.digest(again[1].model)


def test_progressive_training_needs_an_inventory(tmp_path):
    with pytest.raises(BadInput, match="inventories must be one stream or more"):
        training.progressive(network(), [], folder=tmp_path, epochs=1)


def test_unlike_inventories_are_refused(scenes, tmp_path):
    other = xr.concat([store.open(scenes / "image-1.zarr")] * 2, "band")[:2].assign_coords(band=["nir", "red"])
    flows = [stream(scenes, 0), streaming.TileStream(other, sampling.grid(other, 16))]
    with pytest.raises(BadInput, match="streams must have the same bands"):
        training.progressive(network(), flows, folder=tmp_path, epochs=1)

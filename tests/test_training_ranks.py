"""Two processes that learn as one: real ranks on the CPU (gloo)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training_resume import BANDS, Cut, Power, network, off, scene, stream

from lsdask import models, streaming, training
from lsdask.errors import BadInput

OPTIONS: Any = {"epochs": 2, "device": "cpu", "precision": "float32", "progress": False, "save_seconds": 0}


class Halves(streaming.Stream):
    """Batches of 8 tiles; each of two ranks gets every second tile of them."""

    bands, nodata = BANDS, 0
    rank, world = 0, 1

    def __init__(self, seed: int, batches: int = 4) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.all = [
            (rng.integers(80, 120, (8, 2, 16, 16)).astype("uint16"), rng.integers(0, 2, (8, 16, 16)).astype("uint8"))
            for _ in range(batches)
        ]

    def __len__(self) -> int:
        return len(self.all)

    def batches(self, epoch: int, begin: int = 0, **workers: Any) -> Iterator[Any]:
        for image, mask in self.all[begin:]:
            yield image[self.rank :: self.world], mask[self.rank :: self.world]

    def part(self, rank: int, world: int, *, drop_last: bool = False) -> Any:
        other = copy(self)
        other.rank, other.world = rank, world
        return other

    def where(self, batch: int, epoch: int | None = None) -> str:
        return f"batch {batch}"

    @property
    def identity(self) -> dict[str, Any]:
        return {}


class Plain(torch.nn.Module):
    """Nothing that sees a batch as a whole, and nothing drawn: two half batches are one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(2, 6, 3, padding=1), torch.nn.Conv2d(6, 1, 1)
        self.idle = torch.nn.Conv2d(2, 2, 1)  # as in encoders that a decoder cuts off

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


def plain() -> models.Segmenter:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.Segmenter(Plain(), models.Spec("plain", "", BANDS, 1, (100.0, 100.0), (12.0, 12.0)), stride=1)


def learn_plain(devices: int, **more: Any) -> training.Trained:
    options = {**OPTIONS, "augment": False, "loss": "bce", "optimizer": "sgd", "accumulate": 2}
    return training.fit(plain(), Halves(0), Halves(1), devices=devices, **{**options, **more})


def learn(folder: Path, out: Path, cut: int | None = None, **more: Any) -> training.Trained:
    flow: Any = stream(folder)
    if cut is not None:
        flow = Cut(flow, cut + 1, off)
    valid = stream(folder, 1, shuffle=False, batch_size=50)  # not as many batches on both ranks
    return training.fit(network(), flow, valid, devices=2, folder=out, **{**OPTIONS, **more})


def said(done: training.Trained) -> dict[str, Any]:
    weights = {name: value.flatten().tolist() for name, value in done.model.state_dict().items()}
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in done.history]
    return {"weights": weights, "history": rows}


def main(folder: Path) -> None:
    """What each rank runs: this file is started again for the second."""
    torch.set_num_threads(1)
    found = {"plain": said(learn_plain(2))}
    rank = torch.distributed.get_rank()
    if rank:
        models.save = None  # type: ignore[assignment]  # the second must not write
    found["alone"] = said(learn(folder, folder / "alone"))
    try:
        learn(folder, folder / "cut", cut=7)
    except Power:
        torch.distributed.barrier()  # until the first has written
        found["cut"] = torch.load(folder / "cut" / "last.ckpt", weights_only=True)["run"]["batch"]
    found["resumed"] = said(learn(folder, folder / "cut", resume=True))
    try:
        training.fit(plain(), stream(folder, batch_size=100), devices=2, **OPTIONS)
    except BadInput as why:
        found["few"] = str(why)
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    scene(folder, 0)
    scene(folder, 1)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    subprocess.run([sys.executable, __file__, str(folder)], env=env, check=True, timeout=1800)
    return folder, [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_all_ranks_end_alike_and_the_first_writes(ranks):
    folder, (first, second) = ranks
    assert first == second  # weights, batch statistics and history, of all runs, cut off and gone on with
    model = models.folder.read_weights(folder / "alone" / "model.safetensors")
    assert {name: value.flatten().tolist() for name, value in model.items()} == first["alone"]["weights"]
    record = json.loads((folder / "alone" / "model.json").read_text())["record"]
    assert (record["train_tiles"], record["valid_tiles"], record["devices"]) == (120, 121, 2)


@pytest.mark.slow
def test_two_half_batches_are_one_batch(ranks):
    _, (found, _) = ranks
    alone = said(learn_plain(1))
    for mine, theirs in zip(found["plain"]["history"], alone["history"]):
        assert mine == pytest.approx(theirs, rel=1e-5)
    for name, value in alone["weights"].items():
        np.testing.assert_allclose(found["plain"]["weights"][name], value, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_ranks_cut_off_in_mid_epoch_go_on_together(ranks):
    _, (found, _) = ranks
    assert found["cut"] == 2  # of the second epoch's 5
    assert found["resumed"] == found["alone"]


@pytest.mark.slow
def test_shares_without_a_batch_are_refused(ranks):
    _, (found, _) = ranks
    assert found["few"].startswith("train must give each device a batch. Got 2 batches for 2 devices.")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"devices": 0}, "devices must be a whole number, at least 1"),
        ({"devices": 2, "device": "cuda"}, "device"),
    ],
)
def test_bad_devices_are_named(arguments, told):
    with pytest.raises(BadInput, match=told):
        training.fit(plain(), Halves(0), **{**OPTIONS, **arguments})


def test_a_stream_that_cannot_be_shared_is_refused():
    class Whole:
        bands, nodata = BANDS, 0

        def __len__(self) -> int:
            return 1

    with pytest.raises(BadInput, match=r"train must be a stream of lsdask.streaming, to be shared by 2 devices"):
        training.fit(plain(), Whole(), devices=2, **OPTIONS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

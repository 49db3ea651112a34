"""How many windows go through a model at once, and that it is settled once for a run."""

import time
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from images import random_mosaic

from lsdask import ledger, models, predict, store
from lsdask.errors import BadInput, OtherPlan
from lsdask.predict import batching, planning, probing


class Narrow:
    """A model whose memory holds three windows."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, blocks: np.ndarray) -> np.ndarray:
        self.sizes.append(len(blocks))
        if len(blocks) > 3:
            raise MemoryError("full")
        return blocks[:, :1] / np.float32(1000)


def test_batches_are_halved_until_they_fit() -> None:
    image = random_mosaic((1, 64, 64), void=0)
    model = Narrow()
    scores = predict.apply(image, model, tile=64, halo=0, window=16, dtype="float32")
    np.testing.assert_array_equal(scores.values[0], image.values[0] / np.float32(1000))
    assert model.sizes[:4] == [16, 8, 4, 2]
    assert set(model.sizes[3:]) == {2}
    with pytest.raises(MemoryError):
        batching.Batched(lambda blocks: np.empty(10**18, "uint8"), 4)(np.zeros((1, 1, 4, 4)))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"),
    ],
)
def test_what_torch_says_where_memory_is_full(error: Exception) -> None:
    class Full(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if len(image) > 2:
                raise error
            return image[:, :1]

    run = models.runner(models.wrap(Full(), bands=1), nodata=0, precision="float32", device="cpu")
    blocks = np.arange(1, 81, dtype="uint16").reshape(5, 1, 4, 4)
    with pytest.raises(MemoryError):
        run(blocks)
    found = batching.Batched(run, 5)(blocks)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-blocks.astype("float64"))), atol=1e-6)


@given(limit=st.integers(1, 64), fits=st.integers(0, 64), times=st.lists(st.floats(0.1, 10), min_size=7, max_size=7))
@example(limit=2, fits=2, times=[1.0, 2 / 1.03, 1.0, 1.0, 1.0, 1.0, 1.0])  # three percent are not worth it
def test_a_trial_ends_where_windows_get_no_faster(limit: int, fits: int, times: list[float]) -> None:
    asked = []

    def seconds(windows: int) -> float:
        asked.append(windows)
        if windows > fits:
            raise MemoryError("full")
        return times[windows.bit_length() - 1]

    batch = batching.found(seconds, limit)
    each = {2**i: times[i] / 2**i if 2**i <= min(fits, limit) else inf for i in range(7)}
    assert batch == 1 or batch <= min(limit, fits)
    assert all(each[n] * 1.05 <= each[n // 2] for n in (2, 4, 8, 16, 32, 64) if n <= batch)
    assert 2 * batch > min(limit, fits) or each[2 * batch] * 1.05 > each[batch]
    assert asked == [2**i for i in range(len(asked))]  # none twice, none beyond the first that is no better
    assert asked[-1] <= 2 * batch


def test_a_trial_runs_windows_as_they_are() -> None:
    shapes = []

    def run(blocks: np.ndarray) -> np.ndarray:
        shapes.append(blocks.shape)
        time.sleep(0.03 if len(blocks) <= 4 else 0.01 * len(blocks))
        return blocks

    assert batching.tried(run, np.zeros((2, 8, 6), "uint16"), 100) == 4
    assert shapes == [(n, 2, 8, 6) for n in (1, 2, 4, 8) for _ in range(2)]


@pytest.fixture
def network() -> models.Segmenter:
    torch.manual_seed(1)
    return models.build("soares_unet", bands=["b0"], mean=[500.0], std=[290.0], filters=4).eval()


OPTIONS: dict[str, Any] = {"tile": 64, "window": 32, "halo": 8, "precision": "float32", "dtype": "float32"}


def test_a_batch_is_settled_once_for_a_run(
    tmp_path: Path, network: models.Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, sizes, asked = random_mosaic((1, 128, 64), void=0), [], []
    call = models.Runner.__call__

    def seen(self: models.Runner, blocks: np.ndarray) -> np.ndarray:
        sizes.append(len(blocks))
        return call(self, blocks)

    def tried(run: Any, window: np.ndarray, limit: int) -> int:
        asked.append((window.shape, limit))
        return 5

    monkeypatch.setattr(models.Runner, "__call__", seen)
    monkeypatch.setattr(probing, "tried", tried)
    monkeypatch.setattr(probing, "is_tried", lambda described: described.plan["batch"] is None)
    predict.run(image, tmp_path / "s.zarr", network, progress=False, **OPTIONS).check()
    assert asked == [((1, 32, 32), 16)]
    assert set(sizes[-8:]) == {5, 1}
    assert ledger.plan_of(tmp_path / "s.zarr")["batch"] == 5
    predict.run(image, tmp_path / "s.zarr", network, progress=False, **OPTIONS).check()
    assert len(asked) == 1
    scores = store.open(tmp_path / "s.zarr").values
    lazy = predict.apply(image, network, batch=5, **OPTIONS).values
    np.testing.assert_array_equal(scores, lazy)
    with pytest.raises(OtherPlan, match="batch: 5 -> 4"):
        predict.run(image, tmp_path / "s.zarr", network, batch=4, progress=False, **OPTIONS)


def test_a_processor_needs_no_trial(tmp_path: Path, network: models.Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "tried", None)
    image = random_mosaic((1, 64, 64), void=0)
    predict.run(image, tmp_path / "s.zarr", network, device="cpu", progress=False, **OPTIONS).check()
    assert ledger.plan_of(tmp_path / "s.zarr")["batch"] == 512
    assert [batching.ruled((side, side)) for side in (1024, 725, 724, 512)] == [1, 1, 1, 2]


def test_batches_change_a_network_by_rounding_only(network: models.Segmenter) -> None:
    image = random_mosaic((1, 128, 128))
    one, some = (predict.apply(image, network, batch=batch, **OPTIONS).values for batch in (1, 6))
    np.testing.assert_allclose(one, some, atol=2e-5)


def test_what_a_plan_takes_to_go_through_at_once() -> None:
    image = random_mosaic((1, 64, 64))
    laid = predict.job(image, "nowhere.zarr", lambda blocks: blocks, tile=64, window=32, halo=8).scorer.lattice
    assert batching.most(laid, (64, 64)) == 16
    assert planning.windows(laid, (64, 64), 3) == (3, 32, 32)
    assert planning.windows(laid, (64, 64), 40) == (16, 32, 32)
    assert planning.windows(laid, (64, 64), None) == (16, 32, 32)


@pytest.mark.parametrize("shape", [(2, 3), (7, 5), (9, 12)])
def test_a_block_is_cut_or_repeated(shape: tuple[int, int]) -> None:
    block = np.arange(2 * 7 * 5).reshape(2, 7, 5)
    found = probing.sized_block(block, shape)
    assert found.shape == (2, *shape)
    np.testing.assert_array_equal(found, np.tile(block, (1, 2, 3))[:, : shape[0], : shape[1]])


@pytest.mark.parametrize("batch", [0, -1, True, 2.5])
def test_a_batch_is_a_number_of_windows(batch: Any) -> None:
    with pytest.raises(BadInput, match="batch must be a whole number of windows"):
        predict.apply(random_mosaic((1, 20, 20)), lambda blocks: blocks, halo=0, batch=batch)


@pytest.mark.gpu
def test_a_gpu_finds_its_batch(tmp_path: Path, network: models.Segmenter) -> None:
    image = random_mosaic((1, 256, 256), void=0)
    options = {**OPTIONS, "tile": 256, "device": "cuda", "progress": False}
    predict.run(image, tmp_path / "s.zarr", network, **options).check()
    batch = ledger.plan_of(tmp_path / "s.zarr")["batch"]
    assert 1 < batch <= 256  # windows this small leave a GPU idle one by one
    again = predict.apply(image, network, batch=batch, **{**OPTIONS, "tile": 256, "device": "cuda"}).values
    np.testing.assert_array_equal(store.open(tmp_path / "s.zarr").values, again)

"""Networks run compiled only where that leaves their scores as they are, which is settled once for a run."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images import random_mosaic

from lsdask import ledger, models, predict, store
from lsdask.errors import OtherPlan
from lsdask.models import compiling, running

OPTIONS: dict[str, Any] = {"tile": 64, "window": 32, "halo": 8, "precision": "float32", "dtype": "float32"}


@pytest.fixture
def network() -> models.Segmenter:
    torch.manual_seed(1)
    return models.build("soares_unet", bands=["b0"], mean=[500.0], std=[290.0], filters=4).eval()


def make_compiled(monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor]) -> list[int]:
    """Stand in for the compiler; give what it was called with, how many blocks each."""
    sizes: list[int] = []

    def compiled(model: torch.nn.Module, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
        def call(image: torch.Tensor) -> torch.Tensor:
            sizes.append(len(image))
            return change(model(image))

        return call

    monkeypatch.setattr(running, "compiled", compiled)
    return sizes


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_network_scores_the_same(tmp_path: Path, network: models.Segmenter) -> None:
    image = random_mosaic((1, 100, 64))
    plain = predict.apply(image, network, **OPTIONS).values
    predict.run(image, tmp_path / "s.zarr", network, compile=True, batch=5, progress=False, **OPTIONS).check()
    assert ledger.plan_of(tmp_path / "s.zarr")["compile"] == [True]
    compiled = store.open(tmp_path / "s.zarr").values
    np.testing.assert_allclose(compiled, plain, atol=1e-5)
    assert (compiled != plain)[~np.isnan(plain)].any()  # other code has computed them


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_gpu_has_its_graphs(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, mode: mode)
    mode = compiling.compiled(torch.nn.Identity(), torch.device(device))
    assert mode == ("reduce-overhead" if device == "cuda" else "default")


def test_what_is_compiled_is_used_if_scores_stay(
    tmp_path: Path, network: models.Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = make_compiled(monkeypatch, lambda logits: logits + 1e-4)
    monkeypatch.setattr("lsdask.predict.running.look", lambda *_: None)  # it would look at blocks of its own
    image = random_mosaic((1, 64, 64), void=0)
    predict.run(image, tmp_path / "s.zarr", network, compile=True, batch=3, progress=False, **OPTIONS).check()
    assert sizes == [3, 3, 3, 3, 3, 3, 3, 1]  # a look at blocks of the run's shape, twice, then its 16 windows
    assert ledger.plan_of(tmp_path / "s.zarr")["compile"] == [True]
    plain = predict.apply(image, network, batch=3, **OPTIONS).values
    scores = store.open(tmp_path / "s.zarr").values
    assert 0 < np.abs(scores - plain).max() < 1e-4
    predict.run(image, tmp_path / "s.zarr", network, compile=True, batch=3, progress=False, **OPTIONS).check()
    assert len(sizes) == 8  # not looked at again
    with pytest.raises(OtherPlan, match="compile"):
        predict.run(image, tmp_path / "s.zarr", network, batch=3, progress=False, **OPTIONS)


def fail(logits: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no C++ compiler\nand a long trace")


def drift(logits: torch.Tensor) -> torch.Tensor:
    return logits + 0.1


def lose(logits: torch.Tensor) -> torch.Tensor:
    return logits * np.nan


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (fail, r"RuntimeError: no C\+\+ compiler\. Pass compile=False"),
        (drift, r"scores change by up to 0\.02\d* in float32"),
        (lose, "scores change by up to 1 in float32"),
    ],
)
def test_what_cannot_be_compiled_runs_as_it_is(
    tmp_path: Path, network: models.Segmenter, monkeypatch: pytest.MonkeyPatch, change: Any, why: str
) -> None:
    sizes = make_compiled(monkeypatch, change)
    image = random_mosaic((1, 64, 64), void=0)
    with pytest.warns(UserWarning, match=why) as told:
        predict.run(image, tmp_path / "s.zarr", network, compile=True, progress=False, **OPTIONS).check()
    assert told[0].filename == __file__
    assert len(sizes) <= 2
    assert ledger.plan_of(tmp_path / "s.zarr")["compile"] == [False]
    plain = predict.apply(image, network, **OPTIONS).values
    np.testing.assert_array_equal(store.open(tmp_path / "s.zarr").values, plain)


def test_full_memory_is_no_objection_to_compiling(network: models.Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(logits: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    make_compiled(monkeypatch, full)
    run = models.runner(network, nodata=0, device="cpu", precision="float32", compile=True)
    with pytest.raises(MemoryError):
        run(np.ones((2, 1, 32, 32), "uint16"))


def test_what_is_settled_travels(network: models.Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = make_compiled(monkeypatch, lambda logits: logits)
    run = models.runner(network, nodata=0, device="cpu", precision="float32", compile=True)
    run(np.ones((2, 1, 32, 32), "uint16"))
    again = pickle.loads(pickle.dumps(run))
    assert again.compiled is True
    again(np.ones((2, 1, 32, 32), "uint16"))
    assert sizes == [2, 2, 2, 2]


@pytest.mark.cluster
@pytest.mark.slow
def test_what_a_worker_finds_is_said_here(tmp_path: Path, network: models.Segmenter) -> None:
    from distributed import Client

    image = random_mosaic((1, 64, 64), void=0)
    store.write(image, tmp_path / "image.zarr", chunk=32, shard=64)
    with Client(n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        client.run(_without_compiler)
        with pytest.warns(UserWarning, match="does not run compiled"):
            predict.run(
                tmp_path / "image.zarr", tmp_path / "s.zarr", network, compile=True, client=client, progress=False,
                **OPTIONS,
            ).check()  # fmt: skip
    assert ledger.plan_of(tmp_path / "s.zarr")["compile"] == [False]


def _without_compiler() -> None:
    def compiled(model: Any, device: Any) -> Any:
        def call(image: Any) -> Any:
            raise RuntimeError("no compiler")

        return call

    from lsdask.models import running

    running.compiled = compiled

"""Scores do not depend on how the image was cut; runs survive; models and images must fit."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from images import random_mosaic

from lsdask import models, predict, schema, store
from lsdask.errors import BadInput, NotFound, OtherPlan


@dataclass(frozen=True)
class Box:
    """A weighted sum over a square of this radius, exact in integers; what wraps round is within the radius."""

    radius: int

    def __call__(self, blocks: np.ndarray) -> np.ndarray:
        whole = blocks.astype("int64").sum(axis=1)
        reach = range(-self.radius, self.radius + 1)
        total = sum(
            (3 + dy + 2 * dx + 10 * self.radius) * np.roll(whole, (dy, dx), axis=(1, 2)) for dy in reach for dx in reach
        )
        return ((total % 1001) / 1000).astype("float32")[:, None]


def in_one_pass(image: xr.DataArray, model: Box, halo: int, *, dtype: str, fill: float = 0.0) -> np.ndarray:
    """The whole image, padded by NumPy, through the model at once."""
    valid = schema.valid(image).values
    data = np.where(schema.known_block(image.values, schema.nodata(image)), image.values, fill).astype(image.dtype)
    padded = np.pad(data, ((0, 0), (halo, halo), (halo, halo)), mode="reflect")
    height, width = data.shape[1:]
    scores = model(padded[None])[0, :, halo : halo + height, halo : halo + width]
    if dtype == "float32":
        return np.where(valid, scores, np.float32("nan"))
    return np.where(valid, np.rint(scores * 250), 255).astype("uint8")


@settings(max_examples=20)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 45), st.integers(1, 45)),
    step=st.integers(5, 25),
    many=st.integers(1, 3),
    radius=st.integers(0, 3),
    more=st.integers(0, 40),
    chunks=st.integers(4, 50),
    source_chunk=st.integers(3, 20),
    batch=st.integers(1, 5),
    dtype=st.sampled_from(["uint8", "float32"]),
    image_dtype=st.sampled_from(["uint16", "float32"]),
    void=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 5),
)
def test_run_is_apply_is_the_whole_image(
    shape: tuple[int, int, int],
    step: int,
    many: int,
    radius: int,
    more: int,
    chunks: int,
    source_chunk: int,
    batch: int,
    dtype: str,
    image_dtype: str,
    void: float,
    seed: int,
) -> None:
    image = random_mosaic(shape, seed=seed, dtype=image_dtype, void=void, chunks=chunks)
    model, halo = Box(radius), radius + more
    expected = in_one_pass(image, model, halo, dtype=dtype)
    window = step + 2 * halo
    options = {"tile": many * step, "halo": halo, "window": None if many == 1 else window, "dtype": dtype}
    lazy = predict.apply(image, model, **options)
    assert lazy.dtype == dtype
    assert lazy.dims == schema.SCORES
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous").values, expected)
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/image.zarr", f"{folder}/scores.zarr"
        store.write(image, source, chunk=source_chunk, shard=2 * source_chunk)
        report = predict.run(source, target, model, workers=2, progress=False, batch=batch, **options)
        assert report.failed == ()
        scores = store.open(target)
        np.testing.assert_array_equal(scores.values, expected)
        assert schema.geobox(scores) == schema.geobox(image)


def small_unet(bands: int) -> models.Segmenter:
    """A U-Net that looks further than most images here are wide."""
    import torch

    torch.manual_seed(1)
    names = [f"b{i}" for i in range(bands)]
    return models.build("soares_unet", bands=names, mean=[500.0] * bands, std=[290.0] * bands, filters=4).eval()


@settings(max_examples=8)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 140), st.integers(1, 140)),
    many=st.integers(1, 6),
    chunks=st.integers(10, 150),
    source_chunk=st.integers(20, 90),
    image_dtype=st.sampled_from(["uint8", "int16", "uint16", "float32"]),
    void=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_a_small_unet_scores_as_in_one_pass(
    shape: tuple[int, int, int], many: int, chunks: int, source_chunk: int, image_dtype: str, void: float
) -> None:
    """With the halo of its reach, whatever the tile: to 5e-5, as blocks of other shapes are summed in another order."""
    image = random_mosaic(shape, dtype=image_dtype, void=void, chunks=chunks)
    model = small_unet(shape[0])
    halo = -(-(models.reach(model) or 0) // 16) * 16
    expected = in_one_pass_of(model, image, halo)
    options = {"tile": 16 * many, "precision": "float32", "dtype": "float32"}
    lazy = predict.apply(image, model, **options).compute(scheduler="synchronous").values
    with tempfile.TemporaryDirectory() as folder:
        store.write(image, f"{folder}/image.zarr", chunk=source_chunk, shard=source_chunk)
        predict.run(f"{folder}/image.zarr", f"{folder}/scores.zarr", model, progress=False, **options).check()
        ran = store.open(f"{folder}/scores.zarr").values
    np.testing.assert_array_equal(ran, lazy)
    np.testing.assert_allclose(ran, expected, atol=5e-5)


def in_one_pass_of(model: models.Segmenter, image: xr.DataArray, halo: int) -> np.ndarray:
    """The whole image, padded by NumPy, through the plain network at once."""
    import torch

    data = image.values.astype("float32")
    data[~schema.known_block(image.values, schema.nodata(image))] = np.nan
    height, width = data.shape[1:]
    more = [(-(size + 2 * halo)) % 16 for size in (height, width)]
    padded = np.pad(data, ((0, 0), (halo, halo), (halo, halo)), mode="reflect")
    padded = np.pad(padded, ((0, 0), (0, more[0]), (0, more[1])), mode="edge")
    with torch.inference_mode():
        scores = torch.sigmoid(model(torch.from_numpy(padded[None])))[0].numpy()
    return np.where(schema.valid(image).values, scores[:, halo : halo + height, halo : halo + width], np.nan)


def test_what_stands_in_void_pixels_reaches_no_other_way(tmp_path: Path) -> None:
    image = random_mosaic((2, 30, 30), void=0.3)
    lazy = predict.apply(image, Box(2), tile=16, halo=2, fill=7)
    np.testing.assert_array_equal(lazy.values, in_one_pass(image, Box(2), 2, dtype="uint8", fill=7))


def test_the_edge_can_repeat(tmp_path: Path) -> None:
    image = random_mosaic((1, 20, 20), void=0)
    padded = np.pad(image.values, ((0, 0), (3, 3), (3, 3)), mode="edge")
    expected = Box(3)(padded[None])[0, :, 3:-3, 3:-3]
    lazy = predict.apply(image, Box(3), tile=7, halo=3, edge="nearest", dtype="float32")
    np.testing.assert_array_equal(lazy.values, expected)


def two_classes(blocks: np.ndarray) -> np.ndarray:
    first = (blocks[:, 0] / 1000).astype("float32")
    return np.stack([first, 1 - first], axis=1)


def test_several_classes_have_names(tmp_path: Path) -> None:
    image = random_mosaic((1, 20, 20), void=0)
    store.write(image, tmp_path / "image.zarr")
    predict.run(
        tmp_path / "image.zarr", tmp_path / "scores.zarr", two_classes, halo=0, classes=["scar", "fern"], progress=False
    )
    scores = store.open(tmp_path / "scores.zarr")
    assert list(scores["class"].values) == ["scar", "fern"]
    assert abs(scores.values.astype(int).sum(axis=0) - 250).max() <= 1
    with pytest.raises(
        BadInput, match=r"model must give scores .* for the classes \('landslide',\). Got \(1, 2, .*Pass"
    ):
        predict.apply(image, two_classes, halo=0).compute()


def test_plain_xarray_reads_probabilities(tmp_path: Path) -> None:
    import rioxarray  # noqa: F401

    image = random_mosaic((1, 20, 20), void=0.3)
    predict.run(image, tmp_path / "scores.zarr", Box(0), halo=0, progress=False)
    plain = xr.open_zarr(tmp_path / "scores.zarr")["scores"]
    np.testing.assert_allclose(plain.values, schema.decode_scores_block(store.open(tmp_path / "scores.zarr").values))
    assert plain.rio.crs.to_epsg() == 32723


def test_a_small_image_is_not_padded_to_a_whole_tile() -> None:
    seen: list[tuple[int, ...]] = []

    def model(blocks: np.ndarray) -> np.ndarray:
        seen.append(blocks.shape)
        return np.zeros((1, 1, *blocks.shape[2:]), "float32")

    folder = tempfile.mkdtemp()
    predict.run(random_mosaic((1, 100, 70)), f"{folder}/s.zarr", model, halo=64, progress=False)
    shutil.rmtree(folder)
    assert seen == [(1, 1, 256, 256)]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    model = small_unet(2)
    models.save(model, tmp_path / "model", tile=64, halo=32)
    return tmp_path / "model"


def test_a_network_scores_the_same_in_run_and_apply(tmp_path: Path, network: Path) -> None:
    image = random_mosaic((2, 100, 130))
    store.write(image, tmp_path / "image.zarr", chunk=32, shard=64)
    options = {"tile": 64, "halo": 32, "precision": "float32"}
    predict.run(tmp_path / "image.zarr", tmp_path / "scores.zarr", network, progress=False, **options)
    lazy = predict.apply(image, models.load(network), **options)
    scores = store.open(tmp_path / "scores.zarr")
    np.testing.assert_array_equal(scores.values, lazy.compute(scheduler="synchronous").values)
    assert ((scores[0].values == 255) == ~schema.valid(image).values).all()
    known = scores[0].values[scores[0].values != 255]
    assert known.std() > 0


def test_a_torch_module_of_ones_own(tmp_path: Path) -> None:
    import torch

    image = random_mosaic((2, 40, 50))
    module = torch.nn.Conv2d(2, 1, 3, padding=1)
    predict.run(
        image, tmp_path / "s.zarr", module, tile=64, halo=1, dtype="float32", precision="float32", progress=False
    )
    raw = torch.from_numpy(image.values.astype("float32"))
    padded = torch.nn.functional.pad(raw[None], (1, 1, 1, 1), mode="reflect")
    with torch.inference_mode():
        expected = torch.sigmoid(torch.nn.functional.conv2d(padded, module.weight, module.bias))[0].numpy()
    scores = store.open(tmp_path / "s.zarr").values
    known = ~np.isnan(scores)
    assert (known == schema.valid(image).values).all()
    np.testing.assert_allclose(scores[known], expected[known], atol=1e-5)
    with pytest.raises(BadInput, match="model must be a network that lsdask can build again"):
        models.save(models.wrap(module, bands=2), tmp_path / "model")


def test_a_model_of_other_bands_is_refused(tmp_path: Path, network: Path) -> None:
    image = random_mosaic((2, 50, 50)).assign_coords(band=["nir", "red"])
    with pytest.raises(BadInput, match=r"\('b0', 'b1'\).*\('nir', 'red'\)"):
        predict.run(image, tmp_path / "scores.zarr", network)
    assert not (tmp_path / "scores.zarr").exists()
    with pytest.raises(BadInput, match=r"\('b0', 'b1'\)"):
        predict.apply(image, network)


def test_bad_input(tmp_path: Path, network: Path) -> None:
    image = random_mosaic((2, 50, 50))
    with pytest.raises(BadInput, match="dtype must be 'uint8' or 'float32'"):
        predict.apply(image, Box(0), dtype="float64")
    with pytest.raises(BadInput, match="model must be a model folder"):
        predict.apply(image, 3)
    with pytest.raises(BadInput, match="image must have dims"):
        predict.apply(image[0], Box(0))
    with pytest.raises(NotFound):
        predict.run(tmp_path / "nothing.zarr", tmp_path / "s.zarr", Box(0))
    with pytest.raises(NotFound):
        predict.run(image, tmp_path / "s.zarr", tmp_path / "no-model")
    (network / "model.safetensors").write_bytes(b"torn")
    with pytest.raises((BadInput, OSError), match=r"model\.safetensors"):
        predict.run(image, tmp_path / "s.zarr", network, progress=False)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-100], lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]]
)
def test_weights_that_were_cut_or_altered_are_refused_before_a_target_is_made(
    tmp_path: Path, network: Path, spoil: Callable[[bytes], bytes]
) -> None:
    image = random_mosaic((2, 100, 100))
    options = {"tile": 64, "halo": 128, "precision": "float32", "progress": False}
    predict.run(image, tmp_path / "whole.zarr", network, **options).check()
    weights = network / "model.safetensors"
    weights.write_bytes(spoil(weights.read_bytes()))
    says = r"model\.safetensors must be the weights that model\.json describes.*Copy both files again"
    with pytest.raises(BadInput, match=says):
        predict.run(image, tmp_path / "s.zarr", network, **options)
    assert not (tmp_path / "s.zarr").exists()
    with pytest.raises(BadInput, match=says):
        predict.run(image, tmp_path / "whole.zarr", network, **options)
    with pytest.raises(BadInput, match=says):
        predict.plan(image, tmp_path / "s.zarr", network, **{k: v for k, v in options.items() if k != "progress"})


def test_another_halo_is_another_run(tmp_path: Path) -> None:
    image = random_mosaic((1, 100, 100))
    predict.run(image, tmp_path / "s.zarr", Box(1), tile=64, halo=8, progress=False)
    with pytest.raises(OtherPlan, match=r"s\.zarr holds another run \(halo: 8 -> 9\)"):
        predict.run(image, tmp_path / "s.zarr", Box(1), tile=64, halo=9, progress=False)
    with pytest.raises(OtherPlan, match="source: "):
        predict.run(image + 1, tmp_path / "s.zarr", Box(1), tile=64, halo=8, progress=False)


def test_a_torn_input_chunk_fails_its_tiles_only(tmp_path: Path) -> None:
    image = random_mosaic((1, 200, 200), void=0)
    store.write(image, tmp_path / "image.zarr", chunk=32, shard=64)
    shard = tmp_path / "image.zarr" / "mosaic" / "c" / "0" / "1" / "1"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    options = {"tile": 64, "halo": 0, "retries": 0, "progress": False}
    report = predict.run(tmp_path / "image.zarr", tmp_path / "s.zarr", Box(0), **options)
    assert [failure.place for failure in report.failed] == [(1, 1)]
    assert "rows 64 to 128, columns 64 to 128" in report.failed[0].why
    assert report.done == 15
    shard.write_bytes(whole)
    report = predict.run(tmp_path / "image.zarr", tmp_path / "s.zarr", Box(0), **options)
    assert (report.done, report.skipped) == (1, 15)
    np.testing.assert_array_equal(store.open(tmp_path / "s.zarr").values, in_one_pass(image, Box(0), 0, dtype="uint8"))


@pytest.fixture(params=["threads", pytest.param("cluster", marks=[pytest.mark.cluster, pytest.mark.slow])])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """None, or a client of two worker processes."""
    if request.param == "threads":
        yield None
        return
    from distributed import Client

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find ``Box``
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        yield client


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_full_disk_fails_tiles_and_loses_none(tmp_path: Path, client: Any) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    image = random_mosaic((1, 640, 640), void=0)
    store.write(image, tmp_path / "image.zarr", chunk=64, shard=64)
    options = {"tile": 64, "halo": 0, "retries": 0, "progress": False, "dtype": "float32", "client": client}
    try:
        report = predict.run(tmp_path / "image.zarr", disk / "s.zarr", Box(0), **options)
        assert 0 < report.done < 100
        assert report.done + len(report.failed) == 100
        assert all("No space left" in failure.why for failure in report.failed)
        assert f"{len(report.failed)} not done (tile {report.failed[0].place}: " in str(report)
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        mended = predict.run(tmp_path / "image.zarr", disk / "s.zarr", Box(0), **options).check()
        assert mended.skipped <= report.done
        assert mended.skipped + mended.done == 100
        expected = in_one_pass(image, Box(0), 0, dtype="float32")
        np.testing.assert_array_equal(store.open(disk / "s.zarr").values, expected)
        assert (predict.verify(disk / "s.zarr", progress=False).check()).sound == 100
    finally:
        subprocess.run(["umount", disk], check=True)

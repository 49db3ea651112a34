"""Models: normalisation and padding are theirs, folders say what is wrong with them, runners agree with the module."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lsdask import models
from lsdask.errors import BadInput, NotFound, Unreadable
from lsdask.models.folding import fold
from lsdask.models.prakash import Block
from lsdask.models.precision import Check, compare
from lsdask.models.segmenter import normalise_block, pad_to_stride_block
from lsdask.schema import floats_block, known_block

BANDS = ("blue", "green", "red", "nir")
MEAN, STD = (300.0, 250.0, 200.0, 400.0), (100.0, 80.0, 60.0, 120.0)


def image(n: int = 1, side: int = 64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, side, side, generator=generator) * 100 + 300


@pytest.fixture(scope="module")
def model() -> models.Segmenter:
    """A small U-Net whose batch normalisation has seen data, in evaluation mode."""
    made = models.build("unet", bands=BANDS, encoder="resnet18", mean=MEAN, std=STD)
    with torch.no_grad():
        for seed in range(3):
            made(image(2, seed=seed))
    return made.eval()


@pytest.fixture
def folder(model: models.Segmenter, tmp_path: Path) -> Path:
    return models.save(model, tmp_path / "model", tile=64, halo=16, threshold=0.4, record={"seconds": 1.5})


def scores(model: models.Segmenter, blocks: np.ndarray, nodata: float | None) -> np.ndarray:
    """What a runner must give: the module itself on floats with NaN, in float32."""
    values = blocks.astype("float32")
    values[~known_block(blocks, nodata)] = np.nan
    with torch.no_grad():
        return torch.sigmoid(model(torch.from_numpy(values))).numpy()


def blocks(n: int = 2, side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, (n, 4, side, side)).astype("uint16")


@pytest.mark.parametrize("name", ["unet", "fpn", "linknet", "pspnet", "deeplabv3plus"])
@pytest.mark.parametrize("size", [(64, 64), (37, 71)])
def test_every_network_takes_any_size_and_gives_one_logit_a_pixel(name, size):
    made = models.build(name, bands=5, classes=3, encoder="resnet18").eval()
    with torch.no_grad():
        assert made(torch.zeros(1, 5, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("name", ["unet", "fpn", "linknet", "soares_unet", "prakash_resunet"])
def test_no_network_normalises_over_its_whole_input(name):
    made = models.build(name, bands=8)
    assert not any(isinstance(each, torch.nn.GroupNorm | torch.nn.InstanceNorm2d) for each in made.modules())


def test_the_network_is_the_library_s_own(model):
    peer = smp.Unet("resnet18", encoder_weights=None, in_channels=4, classes=1).eval()
    peer.load_state_dict(model.net.state_dict())
    scaled = (image() - torch.tensor(MEAN).view(4, 1, 1)) / torch.tensor(STD).view(4, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(model(image()), peer(scaled))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_void_is_the_mean_of_its_band_and_nothing_else_changes(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(300, 100, (2, 4, 5, 6)).astype("float32")
    void = rng.random(values.shape) < 0.3
    mean, std = (np.array(each, "float32").reshape(4, 1, 1) for each in (MEAN, STD))
    expected = np.where(void, 0, (values - mean) / std)
    got = normalise_block(*map(torch.from_numpy, (np.where(void, np.float32("nan"), values), mean, std)))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6, atol=1e-6)


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 8, 32]))
def test_padding_reaches_the_stride_and_keeps_the_image_at_the_origin(y, x, stride):
    before = torch.arange(y * x, dtype=torch.float32).view(1, 1, y, x)
    after = pad_to_stride_block(before, stride)
    assert all(side % stride == 0 and side - old < stride for side, old in zip(after.shape[2:], (y, x)))
    assert torch.equal(after[..., :y, :x], before)
    if after.shape[2] - y < y and after.shape[3] - x < x:
        widths = ((0, after.shape[2] - y), (0, after.shape[3] - x))
        np.testing.assert_array_equal(after[0, 0].numpy(), np.pad(before[0, 0].numpy(), widths, mode="reflect"))


def test_building_is_seeded_and_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = (models.build("unet", bands=4, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["net.encoder.conv1.weight"], other["net.encoder.conv1.weight"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "unett"}, "name must be one of unet"),
        ({"encoder": "resnet81"}, "encoder must be an encoder.*Close to it: .*resnet18"),
        ({"encoder": "tu-nothing_at_all"}, "must be given an encoder, weights and options that fit"),
        ({"bands": 0}, "bands must be a list of names or a positive count"),
        ({"bands": ["red", "red"]}, "each once"),
        ({"classes": 0}, "classes must be a whole number, at least 1"),
        ({"mean": [0.0]}, "mean must hold one number for each of 4 bands"),
        ({"std": [1.0, 1.0, 0.0, 1.0]}, "std must hold positive numbers. Got 0.0 for band 'red'"),
        ({"std": [1.0, 1.0, float("nan"), 1.0]}, "'red'"),
        ({"weights": "nonesuch"}, "weights 'nonesuch'|Wrong pretrained weights `nonesuch`"),
        ({"depth_of_sea": 3}, "options must be of .*decoder_channels.* Got depth_of_sea"),
        ({"decoder_channels": [8]}, "must be given an encoder, weights and options that fit"),
    ],
)
def test_bad_arguments_are_named(arguments, told):
    with pytest.raises(BadInput, match=told):
        models.build(**{"name": "unet", "bands": BANDS, **arguments})


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch):
    def offline(*_: object, **__: object) -> None:
        raise FileNotFoundError("no network")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", offline)
    with pytest.raises(NotFound, match=r"imagenet weights of resnet18 are downloaded.*Pass weights=None"):
        models.build("unet", bands=4, weights="imagenet")


def test_an_encoder_moves_from_a_folder_to_another_decoder(folder, model):
    made = models.build("linknet", bands=BANDS, weights=folder, seed=9)
    for name, value in model.net.encoder.state_dict().items():
        assert torch.equal(made.net.encoder.state_dict()[name], value), name
    with pytest.raises(BadInput, match=r"'nir'.*'infrared'|'infrared'.*'nir'"):
        models.build("linknet", bands=[*BANDS[:3], "infrared"], weights=folder)
    with pytest.raises(BadInput, match=r"encoder 'resnet34'.*'resnet18'"):
        models.build("unet", bands=BANDS, encoder="resnet34", weights=folder)


def test_an_encoder_file_of_three_bands_is_spread_over_more(tmp_path):
    three = models.build("unet", bands=3, seed=4).net.encoder.state_dict()
    save_file(three, tmp_path / "encoder.safetensors")
    made = models.build("fpn", bands=6, weights=tmp_path / "encoder.safetensors").net.encoder.state_dict()
    grey = torch.rand(1, 1, 9, 9)
    answers = [torch.conv2d(grey.expand(-1, 3 * n, -1, -1), e["conv1.weight"]) for n, e in ((1, three), (2, made))]
    torch.testing.assert_close(*answers)
    assert torch.equal(made["layer1.0.conv1.weight"], three["layer1.0.conv1.weight"])
    del three["layer1.0.conv1.weight"]
    save_file(three, tmp_path / "less.safetensors")
    with pytest.raises(BadInput, match=r"layer1\.0\.conv1\.weight of shape"):
        models.build("fpn", bands=3, weights=tmp_path / "less.safetensors")


def test_a_folder_gives_back_the_model(folder, model):
    again = models.load(folder)
    assert (again.spec.tile, again.spec.halo, again.spec.threshold) == (64, 16, 0.4)
    assert again.spec.record == {"seconds": 1.5}
    assert (again.spec.bands, again.spec.mean, again.spec.std) == (BANDS, MEAN, STD)
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(image()), model(image()))
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    assert models.read_spec(folder) == again.spec
    assert models.digest(folder) == json.loads((folder / "model.json").read_text())["digest"]


def test_a_record_that_json_cannot_hold_is_written_as_null(model, tmp_path):
    record = {"loss": [np.float32(0.5), float("nan")], "epochs": np.int64(2), "folder": tmp_path}
    models.save(model, tmp_path / "m", record=record)
    assert models.read_spec(tmp_path / "m").record == {"loss": [0.5, None], "epochs": 2, "folder": str(tmp_path)}


def change(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    text = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in text.items() if value != "gone"}))


@pytest.mark.parametrize(
    ("spoil", "error", "told"),
    [
        (lambda f: (f / "model.json").unlink(), NotFound, "holding model.json"),
        (lambda f: (f / "model.safetensors").unlink(), NotFound, "holding model.safetensors"),
        (lambda f: (f / "model.json").write_text("{"), Unreadable, "model.json must be JSON"),
        (lambda f: (f / "model.json").write_text("[]"), BadInput, "model.json must be of format"),
        (lambda f: change(f, format=99), BadInput, "format 99"),
        (lambda f: change(f, bands="gone"), BadInput, "no bands"),
        (lambda f: change(f, bands=None), BadInput, "model.json must describe a model"),
        (lambda f: change(f, std=[1.0]), BadInput, "one number for each of 4 bands"),
        (lambda f: change(f, name="unett"), BadInput, "name must be one of"),
        (lambda f: (f / "model.safetensors").write_bytes(b"rubbish"), Unreadable, "model.safetensors must be a whole"),
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
            Unreadable,
            "model.safetensors must be a whole",
        ),
    ],
)
def test_a_spoilt_folder_is_named(folder, spoil, error, told):
    spoil(folder)
    with pytest.raises(error, match=told):
        models.load(folder)


def test_weights_of_another_model_are_noticed(folder, model):
    tensors = load_file(folder / "model.safetensors")
    tensors["mean"] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(BadInput, match=r"be the weights that model\.json describes"):
        models.load(folder)
    models.save(model, folder)
    change(folder, encoder="resnet34")
    with pytest.raises(BadInput, match=r"hold the described model's tensors, net\.encoder\.layer1\.2"):
        models.load(folder)


@pytest.mark.parametrize("change", ["narrow", "lacking", "further"])
def test_tensors_that_are_not_the_model_s_are_named(change):
    net = torch.nn.Conv2d(2, 3, 1)
    tensors = {name: value.clone() for name, value in net.state_dict().items()}
    if change == "narrow":
        tensors["weight"] = tensors["weight"][:, :1]
    elif change == "lacking":
        del tensors["weight"]
    else:
        tensors["other"] = torch.zeros(1)
    wanted = r"other of shape none\. Got shape \(1,\)" if change == "further" else r"weight of shape \(3, 2, 1, 1\)"
    with pytest.raises(BadInput, match=rf"hold the described model's tensors, {wanted}"):
        models.folder.fill(net, tensors, Path("model.safetensors"))


def test_a_folder_that_is_none_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"model\.safetensors"):
        models.load(tmp_path / "nothing")
    with pytest.raises(NotFound, match=r"model\.json"):
        models.runner(tmp_path / "nothing", nodata=None)
    with pytest.raises(BadInput, match="a Linear"):
        models.save(torch.nn.Linear(1, 1), tmp_path)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreadable, match="folder must be writable"):
        models.save(models.build("unet", bands=1), tmp_path / "file")


def test_an_output_of_another_size_is_an_error_and_not_cropped():
    made = models.build("pspnet", bands=4, encoder_depth=4).eval()
    with pytest.raises(BadInput, match=r"give an output of its input's size. Got \(32, 32\)"):
        made(image())


def test_bands_must_be_the_model_s_in_its_order(model):
    models.check_bands(model.spec, BANDS)
    with pytest.raises(BadInput, match=r"'blue', 'green', 'red', 'nir'.*'nir', 'red'.*image.sel\(band="):
        models.check_bands(model.spec, BANDS[::-1])
    with pytest.raises(BadInput, match="'swir'"):
        models.check_bands(model.spec, [*BANDS[:3], "swir"])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64", ">u2"])
def test_a_runner_scores_blocks_as_stored(model, dtype):
    stored = blocks().astype(dtype)
    stored.setflags(write=False)
    run = models.runner(model, nodata=0, device="cpu", precision="float32")
    got = run(stored)
    assert got.dtype == np.float32
    assert got.shape == (2, 1, 64, 64)
    np.testing.assert_allclose(got, scores(model, stored, 0), atol=2e-4)
    np.testing.assert_array_equal(run(stored), got)


@given(st.sampled_from(["uint16", "int64", "float32"]), st.integers(-5, 5), st.integers(0, 99))
def test_void_becomes_nan_and_values_stay(dtype, nodata, seed):
    values = np.random.default_rng(seed).integers(0 if dtype == "uint16" else -5, 6, (1, 2, 5, 5)).astype(dtype)
    nodata = abs(nodata)
    got = floats_block(values, nodata)
    np.testing.assert_array_equal(np.isnan(got), values == nodata)
    np.testing.assert_array_equal(got[values != nodata], values[values != nodata])


def test_a_large_integer_beside_nodata_is_not_void():
    values = np.array([2**30, 2**30 + 1], "int32")
    np.testing.assert_array_equal(np.isnan(floats_block(values, 2**30)), [True, False])


def test_several_classes_are_probabilities_that_sum_to_one():
    made = models.build("fpn", bands=4, classes=3).eval()
    got = models.runner(made, nodata=None, device="cpu", precision="float32")(blocks(1))
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-5)


def test_a_runner_is_pickled_by_path_and_shared_by_threads(folder, model):
    run = models.runner(folder, nodata=0, device="cpu", precision="float32")
    run(blocks())
    sent = pickle.dumps(run)
    assert len(sent) < 5000
    again = pickle.loads(sent)
    many = [blocks(seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(again, many))
    for got, each in zip(shared, many):
        np.testing.assert_array_equal(got, run(each))
    held = pickle.loads(pickle.dumps(models.runner(model, nodata=0, device="cpu", precision="float32")))
    np.testing.assert_array_equal(held(many[0]), shared[0])


def test_the_user_s_module_is_left_as_it_is(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    models.runner(model, nodata=0, device="cpu", precision="float32")(blocks())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert any(parameter.requires_grad for parameter in model.parameters())


def test_a_precision_is_settled_once_and_travels(model, monkeypatch):
    monkeypatch.setattr("lsdask.models.running.candidates", lambda _: ("bfloat16",))
    run = models.runner(model, nodata=0, device="cpu")
    assert run.settle(np.zeros((1, 4, 64, 64), "uint16")) == "float32"
    assert run.precision == "auto"
    settled = run.settle(blocks())
    assert run.precision == settled
    assert [check.precision for check in run.checks] == ["bfloat16"]
    assert run.checks[0].passed == (settled == "bfloat16")
    assert pickle.loads(pickle.dumps(run)).precision == settled


def test_bfloat16_stays_near_float32(model):
    exact, reduced = (
        models.runner(model, nodata=0, device="cpu", precision=precision)(blocks())
        for precision in ("float32", "bfloat16")
    )
    assert np.abs(exact - reduced).mean() < 0.02
    assert np.abs(exact - reduced).max() > 0


def test_scores_that_overflow_in_a_reduced_precision_are_computed_again(model, monkeypatch):
    run = models.runner(model, nodata=0, device="cpu", precision="bfloat16")
    honest = run._scores
    monkeypatch.setattr(
        run, "_scores", lambda image, each: honest(image, "float32") / (0 if each == "bfloat16" else 1) * 1
    )
    exact = models.runner(model, nodata=0, device="cpu", precision="float32")(blocks())
    np.testing.assert_array_equal(run(blocks()), exact)


def test_precisions_are_compared_by_their_scores():
    exact = torch.tensor([0.5, 0.5])
    assert compare(lambda each: exact + (each == "bfloat16") * 0.004, "bfloat16").passed
    assert not compare(lambda each: exact + (each == "bfloat16") * torch.tensor([0.0, 0.3]), "bfloat16").passed
    assert not compare(lambda each: exact / (each == "float32"), "bfloat16").passed
    assert not Check("bfloat16", 0.05, 0.02).passed


def test_folding_keeps_the_scores_and_drops_the_normalisations(model):
    folded = fold(model, image())
    assert not any(isinstance(each, torch.nn.BatchNorm2d) for each in folded.modules())
    assert any(isinstance(each, torch.nn.BatchNorm2d) for each in model.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(image(seed=3)), model(image(seed=3)), rtol=1e-3, atol=1e-3)


class Branched(torch.nn.Module):
    """A convolution whose result is used beside its normalisation too, which must not be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(4, 4, 1), torch.nn.BatchNorm2d(4)
        torch.nn.init.constant_(self.norm.bias, 3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.conv(x)
        return found + self.norm(found)


def test_a_fold_that_would_change_the_output_is_not_made():
    branched = Branched().eval()
    assert fold(branched, image()) is branched


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"precision": "half"}, "precision must be one of auto"),
        ({"device": "cuda:99"}, "device must be a device of this machine"),
        ({"device": "abacus"}, "device must be a device of this machine"),
        ({"model": 3}, "model must be a model folder"),
    ],
)
def test_bad_arguments_of_a_runner_are_named(model, arguments, told):
    with pytest.raises(BadInput, match=told):
        models.runner(**{"model": model, "nodata": 0, **arguments})


def test_bad_blocks_are_named(model):
    run = models.runner(model, nodata=None, device="cpu", precision="float32")
    with pytest.raises(BadInput, match=r"with the model's 4 bands.*Got shape \(1, 3, 8, 8\)"):
        run(np.zeros((1, 3, 8, 8), "uint8"))
    with pytest.raises(BadInput, match="finite values"):
        run(np.full((1, 4, 32, 32), np.inf, "float32"))


@pytest.mark.parametrize(
    ("filters", "bands", "count"),
    [(16, 5, 1_941_669), (16, 6, 1_941_813), (32, 5, 7_761_221), (32, 6, 7_761_509), (64, 5, 31_033_989)],
)
def test_the_unet_of_soares_has_the_paper_s_parameters(filters, bands, count):
    made = models.build("soares_unet", bands=bands, filters=filters)
    assert sum(each.numel() for each in made.parameters()) == count
    assert made.stride == 16


def test_the_resunet_of_prakash_has_the_paper_s_parameters_and_layers():
    made = models.build("prakash_resunet", bands=8)
    trained = sum(each.numel() for each in made.parameters())
    running = sum(value.numel() for name, value in made.net.named_buffers() if "running" in name)
    assert (trained, trained + running) == (20_753_365, 20_775_893)
    layers = [type(each) for each in made.net.modules()]
    convolutions = [each for each in made.net.modules() if isinstance(each, torch.nn.Conv2d)]
    assert (len(convolutions), layers.count(torch.nn.BatchNorm2d)) == (100, 95)
    assert sum(isinstance(each, Block) for each in made.net.modules()) == 40


def test_the_resunet_of_prakash_gives_five_outputs_in_training_and_one_after():
    made = models.build("prakash_resunet", bands=6, stems=[2, 2, 2])
    sizes = {}
    for name in ("pool", "down.0", "down.1", "down.2", "down.3", "up.0", "up.1", "up.2", "up.3", "up.4"):
        made.net.get_submodule(name).register_forward_hook(
            lambda _, __, result, name=name: sizes.update({name: tuple(result.shape[1:])})
        )
    outputs = made.outputs(torch.zeros(2, 6, 64, 64))
    assert [tuple(each.shape) for each in outputs] == [(2, 1, 64, 64)] * 5
    assert list(sizes.values()) == [
        (64, 16, 16), (64, 16, 16), (128, 8, 8), (256, 4, 4), (256, 2, 2),
        (256, 4, 4), (128, 8, 8), (64, 16, 16), (64, 32, 32), (64, 64, 64),
    ]  # fmt: skip
    with torch.no_grad():
        assert len(made.eval().outputs(torch.zeros(1, 6, 50, 64))) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "prakash_resunet"}, r"three counts .* that make the 4 bands. Got stems=\(3, 3, 2\)"),
        ({"name": "prakash_resunet", "stems": [2, 2]}, "stems must be three counts"),
        ({"name": "prakash_resunet", "filters": 3}, r"options must be of narrow, stems\. Got filters"),
        ({"name": "soares_unet", "filters": 0}, "filters must be a whole number, at least 1. Got filters=0"),
        ({"name": "soares_unet", "filters": 1.5}, "filters must be a whole number"),
        ({"name": "soares_unet", "seed": -1}, r"seed must be at least 0 and below 2\*\*63. Got seed=-1"),
        ({"name": "soares_unet", "depth": 3}, "options must be of filters. Got depth"),
        ({"name": "soares_unet", "weights": "imagenet"}, "soares_unet has no encoder"),
    ],
)
def test_bad_arguments_of_the_papers_networks_are_named(arguments, told):
    with pytest.raises(BadInput, match=told):
        models.build(**{"bands": 4, **arguments})


class Wide(torch.nn.Module):
    """A reach that is known: 3 px by the kernel, and 2 cells of 4 px by the coarse branch."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = torch.nn.Conv2d(2, 1, 7, padding=3)
        self.pool, self.coarse = torch.nn.MaxPool2d(4), torch.nn.Conv2d(2, 1, 5, padding=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fine(x) + torch.nn.functional.interpolate(self.coarse(self.pool(x)), scale_factor=4)


class Late(torch.nn.Module):
    """A reach that only some pixels of a cell have: 7 x 7 px after cells of 4 px, 6 px from 3 px before a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.fine = torch.nn.MaxPool2d(4), torch.nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fine(torch.nn.functional.interpolate(self.pool(x), scale_factor=4))


class Aside(torch.nn.Module):
    """Cells of 4 px that begin in the middle of those of the stride: 3 px from a cell's first pixel to its last."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.last = torch.nn.MaxPool2d(4), torch.nn.Conv2d(2, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = self.pool(torch.nn.functional.pad(x, (2, 2, 2, 2)))
        return self.last(torch.nn.functional.interpolate(cells, scale_factor=4)[..., 2:-2, 2:-2])


class Second(torch.nn.Module):
    """Uses a channel that a copy of one channel does not have, without an error: the mean of none is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.both = torch.nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.both(x)[:, 1:].mean(1, keepdim=True)


class Oblong(torch.nn.Module):
    """A layer that needs all its channels, and looks further down than across."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.last = torch.nn.Conv2d(2, 6, (9, 3), padding=(4, 1)), torch.nn.Conv2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.wide(x).unflatten(1, (2, 3)).sum(1))


@pytest.mark.parametrize(("net", "far"), [(Wide, 11), (Late, 6), (Aside, 3), (Second, 1), (Oblong, 4)])
def test_reach_is_measured(net, far):
    spec = models.Spec("other", "", ("a", "b"), 1, (0.0, 0.0), (1.0, 1.0))
    assert models.reach(models.Segmenter(net(), spec, stride=4)) == far


@pytest.mark.parametrize("name", ["pspnet", "deeplabv3plus", "classifier"])
def test_a_network_that_pools_its_whole_input_has_no_reach(name):
    assert models.reach(models.build(name, bands=2)) is None


def test_a_folder_knows_its_reach_and_an_older_one_is_measured(folder, model, monkeypatch):
    far = models.reach(model)
    assert 200 < far < 400
    assert json.loads((folder / "model.json").read_text())["reach"] == far
    change(folder, reach="gone")
    assert models.reach(folder) == far
    change(folder, reach=7)
    monkeypatch.setattr("lsdask.models.folder.measure", lambda _: pytest.fail("measured again"))
    assert models.reach(folder) == 7
    change(folder, reach=None)
    assert models.reach(folder) is None


@pytest.mark.parametrize("name", ["soares_unet", "fpn", "linknet"])
def test_pixels_beyond_the_reach_do_not_change_a_score(name):
    options = {"filters": 4} if name == "soares_unet" else {}
    made = models.build(name, bands=2, seed=3, **options).eval()
    far = models.reach(made)
    side = 2 * (far // 32 + 2) * 32
    strip = torch.randn(1, 2, 32, side, generator=torch.Generator().manual_seed(0))
    for place in range(side // 2, side // 2 + 32, 5):
        other = strip.clone()
        other[..., : place - far] = 9.0
        other[..., place + far + 1 :] = -9.0
        with torch.no_grad():
            one, same = made(strip)[..., place], made(other)[..., place]
        torch.testing.assert_close(one, same, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(one, made(strip.flip(-1))[..., place], rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_a_runner_on_cuda_agrees_with_the_processor(model):
    stored = blocks()
    exact = models.runner(model, nodata=0, device="cuda", precision="float32")(stored)
    np.testing.assert_allclose(exact, scores(model, stored, 0), atol=1e-2)
    reduced = models.runner(model, nodata=0, device="cuda")(stored)
    assert np.abs(reduced - exact).max() < 0.1

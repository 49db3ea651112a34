"""``lsdask train``: flags, a file of them, going on, and what is wrong with either."""

import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import lsdask as ls
from lsdask import cli
from lsdask.cli.training import augment_of, pooled
from lsdask.errors import BadInput

runner = CliRunner()


def lsdask(*arguments: object, code: int = 0) -> str:
    result = runner.invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return re.sub(r"\s+", " ", result.output)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene, its mask and its tiles."""
    folder = tmp_path_factory.mktemp("train")
    land = ls.synthetic.landscape((256, 256), seed=3)
    ls.store.write(land.scene, folder / "image.zarr")
    ls.store.write(land.mask, folder / "mask.zarr")
    lsdask("tiles", folder / "image.zarr", folder / "tiles.parquet", "--mask", folder / "mask.zarr", "--size", 32,
           "--block", 64, "--min-valid", 0)  # fmt: skip
    return folder


def places(folder: Path) -> list[Path]:
    return [folder / name for name in ("image.zarr", "tiles.parquet", "mask.zarr")]


SMALL = ("--network", "linknet", "--epochs", 2, "--batch", 8, "--precision", "float32", "--device", "cpu")


def test_a_run_leaves_a_model_its_history_its_curves_and_its_options(folder, tmp_path):
    out = tmp_path / "model"
    said = lsdask("train", *places(folder), out, *SMALL, "--augment", "rotate=20,flips=no", "--optimizer", "adamw",
                  "--schedule", "cosine", "--monitor", "f1", "--patience", 5, "--weight-decay", 1e-4)  # fmt: skip
    assert said.startswith("Wrote")
    assert {path.name for path in out.iterdir()} == {
        "history.csv", "last.ckpt", "losses.png", "model.json", "model.safetensors", "scores.png", "train.toml",
    }  # fmt: skip
    history = pd.read_csv(out / "history.csv")
    assert list(history.columns[:3]) == ["epoch", "train", "valid"]
    assert len(history) == 2
    assert min(Image.open(out / name).size[0] for name in ("losses.png", "scores.png")) > 600
    written = tomllib.loads((out / "train.toml").read_text())
    assert (written["network"], written["augment"], written["lr"], written["patience"]) == (
        "linknet", "rotate=20,flips=no", 0.001, 5,
    )  # fmt: skip
    record = ls.models.read_spec(out).record
    assert (record["optimizer"], record["schedule"], record["monitor"]) == ("adamw", "cosine", "f1")


def test_the_written_options_are_a_config_and_flags_win(folder, tmp_path):
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    lsdask("train", *places(folder), first, *SMALL, "--epochs", 1)
    lsdask("train", "--config", first / "train.toml", *places(folder), again)
    assert ls.models.digest(again) == ls.models.digest(first)
    lsdask("train", "--config", first / "train.toml", *places(folder), other, "--seed", 7, "--no-freeze")
    assert ls.models.digest(other) != ls.models.digest(first)
    assert tomllib.loads((other / "train.toml").read_text())["seed"] == 7


def test_a_config_may_hold_the_places_too(folder, tmp_path):
    image, tiles, mask = places(folder)
    (tmp_path / "run.toml").write_text(
        f'mosaic = "{image}"\ntiles = "{tiles}"\nmask = "{mask}"\nout = "{tmp_path / "m"}"\nnetwork = "linknet"\n'
        'epochs = 1\nbatch = 8\nweight-decay = 1e-4\naugment = "no"\n'
    )
    lsdask("train", "--config", tmp_path / "run.toml")
    written = tomllib.loads((tmp_path / "m" / "train.toml").read_text())
    assert (written["weight_decay"], written["augment"], written["epochs"]) == (1e-4, "no", 1)


def test_a_run_is_gone_on_with_and_a_model_is_learnt_further(folder, tmp_path):
    out = tmp_path / "model"
    lsdask("train", *places(folder), out, *SMALL)
    before = (out / "history.csv").read_text()
    lsdask("train", *places(folder), out, *SMALL, "--resume")
    assert (out / "history.csv").read_text() == before  # its seconds too: nothing was run again
    lsdask("train", *places(folder), tmp_path / "finer", *SMALL, "--model", out, "--freeze", "--lr", 1e-4)
    one, other = (ls.models.load(place) for place in (out, tmp_path / "finer"))
    assert one.spec.encoder == other.spec.encoder == "resnet18"
    for name, value in one.encoder.state_dict().items():
        assert (value == other.encoder.state_dict()[name]).all(), name
    assert ls.models.digest(out) != ls.models.digest(tmp_path / "finer")


@pytest.fixture(scope="module")
def scenes(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two mosaics that overlap, their masks, and the table of both."""
    places = tmp_path_factory.mktemp("scenes")
    whole, truth = ls.store.open(folder / "image.zarr"), ls.store.open(folder / "mask.zarr")
    for name, columns in (("west", slice(0, 160)), ("east", slice(96, 256))):
        ls.store.write(whole[:, :, columns], places / f"{name}.zarr")
        ls.store.write(truth[:, columns], places / f"{name}-mask.zarr")
    west, east, west_mask, east_mask = (places / f"{name}.zarr" for name in ("west", "east", "west-mask", "east-mask"))
    lsdask("tiles", west, places / "t.parquet", "--also", east, "--mask", west_mask, "--mask", east_mask,
           "--size", 32, "--block", 64, "--min-valid", 0, "--test", "none")  # fmt: skip
    return [west, east, west_mask, east_mask, places / "t.parquet"]


def test_a_table_of_several_scenes_trains_with_all_of_them(scenes, tmp_path):
    west, east, west_mask, east_mask, table = scenes
    out = tmp_path / "model"
    lsdask("train", west, table, west_mask, out, *SMALL, "--also", east, "--also-mask", east_mask)
    tiles, spec = pd.read_parquet(table), ls.models.read_spec(out)
    for split in ("train", "valid"):
        assert spec.record[f"{split}_tiles"] == (tiles["split"] == split).sum()
    assert set(tiles[tiles["split"] == "train"]["scene"]) == {str(west), str(east)}
    pixels = np.concatenate([ls.store.open(path).values.reshape(4, -1) for path in (west, east)], axis=1)
    pixels = pixels[:, (pixels != 0).all(axis=0)]
    np.testing.assert_allclose(spec.mean, pixels.mean(axis=1))
    np.testing.assert_allclose(spec.std, pixels.std(axis=1))
    again = tmp_path / "again"
    lsdask("train", "--config", out / "train.toml", west, table, west_mask, again)
    assert ls.models.digest(again) == ls.models.digest(out)


def test_scenes_that_are_not_the_table_s_and_networks_of_tiles_are_one_line(scenes, folder, tmp_path):
    west, east, west_mask, east_mask, table = scenes
    out = tmp_path / "model"
    for places, more, said in (
        ((west, table, west_mask), (), r"mosaic must be of the table's scenes, .*east\.zarr, .*Got .*west\.zarr\."),
        ((west, table, west_mask), ("--also", east), r"mask must be one for each of the 2 mosaics\. Got 1\."),
        (
            (west, folder / "tiles.parquet", west_mask),
            ("--also", east, "--also-mask", east_mask),
            r"tiles must name the scenes .*Got a table of one mosaic\. Make it with `lsdask tiles --also`",
        ),
        (
            (west, table, west_mask),
            ("--also", east, "--also-mask", east_mask, "--network", "classifier"),
            "a score a pixel",
        ),
    ):
        with pytest.raises(BadInput, match=said):
            lsdask("train", *places, out, *SMALL, *more)
    tiles = pd.read_parquet(table)
    tiles[tiles["split"] != "valid"].to_parquet(tmp_path / "t.parquet")
    with pytest.raises(BadInput, match=r"tiles must hold tiles of the split 'valid'\. Got none"):
        lsdask("train", west, tmp_path / "t.parquet", west_mask, out, "--also", east, "--also-mask", east_mask)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3\nlr = 0.1\nhalo=2\n", "config must hold accumulate, also, also_mask, augment"),
        ("epochs = \n", "config must be a TOML file"),
        (None, "config must name a file"),
    ],
)
def test_a_config_that_is_wrong_is_one_line(text, said, folder, tmp_path, monkeypatch, capsys):
    if text is not None:
        (tmp_path / "run.toml").write_text(text)
    arguments = ["train", *map(str, places(folder)), str(tmp_path / "m"), "--config", str(tmp_path / "run.toml")]
    assert_one_line(arguments, said, monkeypatch, capsys)
    assert not (tmp_path / "m").exists()


def test_another_run_and_other_bands_are_one_line(folder, tmp_path, monkeypatch, capsys):
    lsdask("train", *places(folder), tmp_path / "m", *SMALL, "--epochs", 1)
    arguments = [str(part) for part in ("train", *places(folder), tmp_path / "m", *SMALL, "--resume")]
    assert_one_line([*arguments, "--lr", "0.5"], "epochs: 1 -> 2, lr: 0.001 -> 0.5", monkeypatch, capsys)
    ls.models.save(ls.models.build("linknet", bands=["red", "dem"]), tmp_path / "two")
    arguments = [str(part) for part in ("train", *places(folder), tmp_path / "n", "--model", tmp_path / "two")]
    assert_one_line(arguments, "train must have the model's bands in its order, ('red', 'dem')", monkeypatch, capsys)


def test_a_run_that_is_refused_leaves_the_folder_as_it_was(folder, tmp_path, monkeypatch, capsys):
    lsdask("train", *places(folder), tmp_path / "m", *SMALL, "--epochs", 1)
    held = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    for out in ("m", "new"):
        arguments = [str(part) for part in ("train", *places(folder), tmp_path / out, *SMALL)]
        assert_one_line([*arguments, "--loss", "mse"], "loss must be one of bce", monkeypatch, capsys)
        assert_one_line([*arguments, "--seed", str(10**30)], "seed must be at least 0 and below 2", monkeypatch, capsys)
    arguments = [str(part) for part in ("train", *places(folder), tmp_path / "m", *SMALL, "--resume")]
    assert_one_line(arguments, "holds another run (epochs: 1 -> 2)", monkeypatch, capsys)
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == held
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    arguments = [str(part) for part in ("train", *places(folder), tmp_path / "file", *SMALL)]
    assert_one_line(arguments, "out must name a folder. Got out=", monkeypatch, capsys)


def test_a_run_that_began_and_fails_keeps_its_options(folder, tmp_path, monkeypatch):
    def begun(*_: object, folder: Path, **__: object) -> None:
        (folder / "last.ckpt").touch()
        raise BadInput("the training loss must be finite.")

    monkeypatch.setattr(ls.training, "fit", begun)
    with pytest.raises(BadInput, match="be finite"):
        lsdask("train", *places(folder), tmp_path / "m", *SMALL, "--lr", 9)
    assert tomllib.loads((tmp_path / "m" / "train.toml").read_text())["lr"] == 9


def test_void_scenes_have_no_part_in_the_normalisation():
    image = ls.synthetic.landscape((32, 32), seed=1).scene
    void = image.copy(data=np.zeros_like(image.values))
    mean, std = pooled([ls.statistics.bands(each) for each in (void, image)])
    alone = pooled([ls.statistics.bands(image)])
    np.testing.assert_allclose([mean, std], alone)
    assert ls.schema.nodata(image) == 0
    with pytest.raises(BadInput, match=r"mosaic must have pixels with data in all bands\. Got none"):
        pooled([ls.statistics.bands(void)])


def assert_one_line(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["lsdask", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    told = capsys.readouterr().err
    assert left.value.code == 2
    assert told.startswith("lsdask: ")
    assert said in told
    assert told.count("\n") == 1


def test_augmentation_is_read():
    assert augment_of("yes", ["dem"]) is True
    assert augment_of("no", ["dem"]) is False
    assert augment_of("rotate=20, flips=no", ["red", "dem"]) == ls.augment.Augment(
        rotate=20.0, flips=False, groups=((0,),)
    )
    for text in ("rotate", "rotate=far", "spin=3", "flips=maybe", ""):
        with pytest.raises(BadInput, match=r"augment must be yes, no, or name=value .*flips.*rotate"):
            augment_of(text, ["red"])
    with pytest.raises(BadInput, match="rotate must be from 0 to 180"):
        augment_of("rotate=500", ["red"])

"""Training: learns, keeps the best, writes a folder, says what is wrong, and leaves nothing else behind."""

import json
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from images import random_mosaic
from rich.console import Console
from sklearn.metrics import f1_score

from lsdask import losses, models, sampling, streaming, training
from lsdask.errors import BadInput, Unreadable
from lsdask.training import streams, tally_block
from lsdask.training.tally import Sums

BANDS = ("red", "nir")
QUIET = {"progress": False, "precision": "float32", "device": "cpu"}


class Fake:
    """A stream of square landslides, brighter in the second band; 0 is void."""

    bands: tuple[str, ...] = BANDS
    nodata: float | None = 0

    def __init__(self, seed: int, batches: int = 3, n: int = 8, side: int = 32) -> None:
        rng = np.random.default_rng(seed)
        self.batches = [self.batch(rng, n, side) for _ in range(batches)]
        self.epochs = 0

    @staticmethod
    def batch(rng: np.random.Generator, n: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        image = rng.integers(80, 120, (n, 2, side, side)).astype("uint16")
        mask = np.zeros((n, side, side), "uint8")
        for tile, (y, x) in enumerate(rng.integers(0, side // 2, (n, 2))):
            mask[tile, y : y + side // 2, x : x + side // 2] = 1
        image[:, 1][mask == 1] += 100
        image[:, :, 0], mask[:, 0] = 0, 255
        return image, mask

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.epochs += 1  # when the first batch is asked for: this is a generator, as a stream's is
        yield from self.batches

    def __len__(self) -> int:
        return len(self.batches)


class Small(torch.nn.Module):
    """Two convolutions: enough for square landslides, and quick."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(2, 8, 3, padding=1), torch.nn.Conv2d(8, 1, 1)
        self.drop = torch.nn.Dropout2d(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(torch.relu(self.first(x))))


def small(seed: int = 0) -> models.Segmenter:
    spec = models.Spec("small", "", BANDS, 1, mean=(100.0, 120.0), std=(12.0, 50.0))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return models.Segmenter(Small(), spec, stride=1)


def fit(model: models.Segmenter, train: Any, valid: Any = None, **more: Any) -> training.Trained:
    return training.fit(model, train, valid, **{"epochs": 2, "lr": 0.02, **QUIET, **more})


def test_a_network_learns_and_its_folder_is_what_was_learnt(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    model = models.build(
        "unet", bands=BANDS, encoder="resnet18", decoder_channels=[64, 32, 16, 16, 16], mean=(100, 120), std=(12, 50)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = fit(model, Fake(0), Fake(1, batches=1), epochs=4, lr=2e-3, folder="out/model", seed=3)
    assert done.history[-1]["f1"] > 0.8
    assert done.history[-1]["valid"] < done.history[0]["valid"]
    assert [row["epoch"] for row in done.history] == [0, 1, 2, 3]
    assert done.folder == Path("out/model")
    again = models.load("out/model")
    assert not done.model.training
    probe = torch.from_numpy(Fake(2).batches[0][0].astype("float32"))
    with torch.no_grad():
        assert torch.equal(again(probe), done.model(probe))
    record = again.spec.record
    assert record["history"] == [dict(row) for row in done.history]
    assert (record["seed"], record["train_tiles"], record["valid_tiles"]) == (3, 24, 8)
    assert record["seconds"] > 0
    assert again.spec.tile == 32
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "litter"
    assert capfd.readouterr() == ("", "")


def test_the_best_epoch_is_kept_by_loss_or_f1(tmp_path, monkeypatch):
    told = iter([0.9, 0.2, 0.6] * 2)
    monkeypatch.setattr("lsdask.training.tally.Sums.loss", property(lambda self: next(told)))
    monkeypatch.setattr("lsdask.training.tally.Sums.scores", property(lambda self: {"f1": 0.5}))
    states = []
    honest = models.save

    def save(model: models.Segmenter, folder: Path, **more: Any) -> Path:
        states.append(model.net.first.weight.detach().clone())
        return honest(model, folder, **more)

    monkeypatch.setattr("lsdask.models.save", save)
    done = fit(small(), Fake(0), epochs=3, folder=tmp_path)
    assert done.model.spec.record["best_epoch"] == 1
    assert len(states) == 3  # epochs 0 and 1 as they came, and 1 again at the end
    assert torch.equal(states[1], states[2])
    assert torch.equal(done.model.net.first.weight, states[1])
    assert fit(small(), Fake(0), epochs=3, monitor="f1").model.spec.record["best_epoch"] == 0


@pytest.mark.parametrize(
    ("monitor", "judged", "epochs_at_first"),
    [
        ("loss", [1.0] * 6, 4),  # the first is the best, and three are not better
        ("f1", [0.5] * 6, 4),
        ("f1", [0.5, 0.49999, 0.49998, 0.49997, 0.4, 0.4], 4),  # ever so little worse is worse
        ("f1", [0.5, 0.5, 0.5, 0.50001, 0.5, 0.5], 6),  # and ever so little better is better
        ("loss", [1.0, 1.0, 1.0, 0.99999, 1.0, 1.0], 6),
    ],
)
def test_plateau_lowers_the_rate_after_three_epochs_that_are_not_better(monitor, judged, epochs_at_first, monkeypatch):
    told = iter(judged)
    monkeypatch.setattr(
        "lsdask.training.tally.Sums.loss", property(lambda self: next(told) if monitor == "loss" else 1.0)
    )
    monkeypatch.setattr(
        "lsdask.training.tally.Sums.scores", property(lambda self: {"f1": next(told) if monitor == "f1" else 0.0})
    )
    done = fit(small(), Fake(0, batches=1), epochs=6, schedule="plateau", lr=0.02, monitor=monitor)
    assert [row["rate"] for row in done.history] == pytest.approx(
        [0.02] * epochs_at_first + [0.002] * (6 - epochs_at_first)
    )


@pytest.mark.parametrize("batches", [1, 3])
def test_an_epoch_tells_the_rate_of_its_last_step(batches):
    def last(schedule: str, epochs: int) -> float:
        return fit(small(), Fake(0, batches=batches), epochs=epochs, schedule=schedule, lr=0.02).history[-1]["rate"]

    assert last("one_cycle", 3) == pytest.approx(0.02 / 25 / 1e4)  # where the cycle ends
    steps = 3 * batches
    assert last("cosine", 3) == pytest.approx(0.01 * (1 + np.cos(np.pi * (steps - 1) / steps)))
    assert last("constant", 1) == 0.02


def test_a_run_of_one_step_learns():
    model = linear()
    before = model.net.last.weight.detach().clone()
    done = fit(model, Fake(0, batches=1), epochs=1, optimizer="sgd", lr=0.1, augment=False)
    assert done.history[0]["rate"] == 0.1
    assert (model.net.last.weight.detach() - before).abs().max() > 1e-3


def test_a_step_is_clipped():
    def moved(**more: Any) -> float:
        model = linear()
        before = model.net.last.weight.detach().clone()
        fit(model, Fake(0, batches=1), epochs=1, optimizer="sgd", schedule="constant", lr=1.0, augment=False, **more)
        return float((model.net.last.weight.detach() - before).norm())

    assert moved(clip=1e-3) <= 1e-3 * 1.001 < moved()


def test_a_stream_goes_on_from_epoch_to_epoch_and_from_training_to_training():
    class Seen(streaming.TileStream):
        def batches(self, epoch: int, begin: int = 0, **workers: Any) -> Any:
            asked.append((epoch, begin))
            return super().batches(epoch, begin, **workers)

    asked: list[tuple[int, int]] = []
    image = random_mosaic((2, 32, 32), void=0).assign_coords(band=list(BANDS))
    mask = image.isel(band=0, drop=True).copy(data=np.ones((32, 32), "uint8"))
    train = Seen(image, sampling.grid(image, 16), mask=mask, batch_size=2)
    fit(small(), train, epochs=2)
    assert asked == [(0, 0), (1, 0)]
    fit(small(), train, epochs=2)
    assert asked[2:] == [(2, 0), (3, 0)]


def test_patience_stops_after_epochs_that_are_not_better(monkeypatch):
    told = iter([0.9, 0.5, 0.6, 0.7, 0.1])
    monkeypatch.setattr("lsdask.training.tally.Sums.loss", property(lambda self: next(told)))
    done = fit(small(), Fake(0), epochs=5, patience=2)
    assert len(done.history) == 4
    assert done.model.spec.record["best_epoch"] == 1


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "plateau"])
def test_the_same_seed_gives_the_same_history_and_the_global_random_state_is_left(schedule):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    runs = [fit(small(), Fake(0), Fake(1), schedule=schedule, seed=seed) for seed in (5, 5, 6)]
    assert torch.equal(torch.get_rng_state(), state)
    losses_of = [[(row["train"], row["valid"], row["f1"]) for row in run.history] for run in runs]
    assert losses_of[0] == losses_of[1]
    assert losses_of[0] != losses_of[2]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_options_are_taken(optimizer):
    done = fit(small(), Fake(0), optimizer=optimizer, accumulate=2, clip=1.0, loss=losses.focal, weight_decay=1e-4)
    assert done.model.spec.record["loss"] == "focal"
    assert done.model.spec.record["optimizer"] == optimizer
    assert done.history[0]["valid"] is None


def test_each_stream_is_iterated_once_an_epoch():
    train, valid = Fake(0), Fake(1)
    fit(small(), train, valid, epochs=3)
    assert (train.epochs, valid.epochs) == (3, 3)


class Told(streaming.TileStream):
    """A stream that calls a function with its epoch when the first batch of one is made."""

    def __init__(self, tell: Any, **options: Any) -> None:
        image = random_mosaic((2, 32, 32), void=0).assign_coords(band=list(BANDS))
        mask = image.isel(band=0, drop=True).copy(data=np.ones((32, 32), "uint8"))
        super().__init__(image, sampling.grid(image, 16), mask=mask, batch_size=2, **options)
        self.tell = tell

    def batches(self, epoch: int, begin: int = 0, **workers: Any) -> Any:
        self.tell(epoch)
        yield from super().batches(epoch, begin, **workers)


@pytest.mark.parametrize("ends", ["last", "patience", "fails"])
def test_the_next_epoch_is_read_while_tiles_are_judged_and_no_thread_outlives_the_run(ends, monkeypatch):
    made = [threading.Event() for _ in range(4)]
    waited: list[bool] = []

    def judge(epoch: int) -> None:
        waited.append(made[epoch + 1].wait(20 if epoch < 2 else 0))
        if ends == "fails":
            raise Unreadable("the judging tiles are gone")

    monkeypatch.setattr("lsdask.training.tally.Sums.loss", property(lambda self: 1.0))
    before = threading.active_count()
    train, valid = Told(lambda epoch: made[epoch].set()), Told(judge)
    if ends == "fails":
        with pytest.raises(Unreadable, match="judging tiles are gone"):
            fit(small(), train, valid, epochs=3)
        assert waited == [True]
    else:
        done = fit(small(), train, valid, epochs=3, patience=1 if ends == "patience" else None)
        assert waited == ([True, True, False] if ends == "last" else [True, True])
        assert len(done.history) == train.epoch == len(waited)
    assert threading.active_count() == before


def test_a_stream_that_also_judges_is_read_by_one_at_a_time():
    class Alone(Told):
        reading = False

        def batches(self, epoch: int, begin: int = 0, **workers: Any) -> Any:
            assert not self.reading
            self.reading = True
            try:
                yield from super().batches(epoch, begin, **workers)
            finally:
                self.reading = False

    both = Alone(lambda epoch: None)
    assert len(fit(small(), both, both, epochs=3).history) == 3


def test_a_loaded_model_goes_on_learning(tmp_path):
    model = models.load(models.save(models.build("unet", bands=BANDS, decoder_channels=[16, 8, 8, 8, 8]), tmp_path))
    before = model.net.encoder.bn1.running_mean.clone()
    done = fit(model, Fake(0, batches=1), epochs=1)
    assert not torch.equal(done.model.net.encoder.bn1.running_mean, before)


def test_unknown_pixels_do_not_change_training():
    one, other = Fake(0), Fake(0)
    for image, mask in other.batches:
        image[:, :, 0] = 0
        mask[:, 0] = 255
    kept = [fit(small(), stream, augment=False).history[-1]["train"] for stream in (one, other)]
    assert kept[0] == kept[1]


def test_deep_supervision_trains_all_heads():
    class Heads(Small):
        def __init__(self) -> None:
            super().__init__()
            self.other = torch.nn.Conv2d(8, 1, 1)

        def forward(self, x: torch.Tensor) -> Any:
            found = torch.relu(self.first(x))
            return [self.last(found), self.other(found)] if self.training else self.last(found)

    model = small()
    model.net = Heads()
    before = model.net.other.weight.detach().clone()
    done = fit(model, Fake(0))
    assert not torch.equal(done.model.net.other.weight, before)


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(tmp_path):
    stream = Fake(0)
    stream.batches = [(image.astype("float32"), mask) for image, mask in stream.batches]
    stream.batches[1][0][3, 1, 5, 5] = -3.4e38
    stream.batches[1][0][3, 0, 5, 5] = np.inf
    with pytest.raises(BadInput, match=r"be finite. Got nan in epoch 0, batch 1, with values from -3\.4e\+38 to inf"):
        fit(small(), stream, folder=tmp_path / "m", augment=False)


@pytest.mark.parametrize("monitor", ["loss", "f1"])
def test_a_validation_loss_that_is_not_finite_stops_too(monitor):
    valid = Fake(1, batches=2)
    valid.batches = [(image.astype("float32"), mask) for image, mask in valid.batches]
    valid.batches[1][0][3, 0, 5, 5] = np.inf
    with pytest.raises(BadInput, match=r"the validation loss must be finite. Got nan in epoch 0, batch 1, .* to inf"):
        fit(small(), Fake(0), valid, monitor=monitor)


@pytest.mark.parametrize("judging", ["train", "valid"])
def test_an_epoch_of_which_nothing_is_known_judges_nothing(judging):
    blind = Fake(1, batches=2)
    for _, mask in blind.batches:
        mask[:] = 255
    streams_of = {"train": (blind,), "valid": (Fake(0), blind)}[judging]
    with pytest.raises(BadInput, match=rf"{judging}'s masks must know a pixel, .* Got nothing but 255"):
        fit(small(), *streams_of)


def test_a_batch_too_small_for_batch_norms_is_said_to_be_one():
    image = random_mosaic((2, 32, 96), dtype="float32", void=0)
    mask = image.isel(band=0, drop=True).copy(data=np.zeros((32, 96), "uint8"))
    train = streaming.TileStream(image, sampling.grid(image, 32), mask=mask, batch_size=2)
    model = models.build("unet", bands=list(image["band"].values), encoder="resnet18")
    with pytest.raises(BadInput, match=r"a batch must hold 2 tiles or more, .* Got 1 of 32 x 32 px\. Pass drop_last"):
        fit(model, train)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_stream_that_can_tell_its_tiles_has_them_named(mixed):
    image = random_mosaic((2, 64, 64), dtype="float32", void=0).assign_coords(band=list(BANDS))
    image[:, 32:, 32:] = np.inf
    mask = image.isel(band=0, drop=True).copy(data=np.ones((64, 64), "uint8"))
    good = image.where(np.isfinite(image), 5.0)
    bad = streaming.TileStream(image, sampling.grid(image, 16), mask=mask, batch_size=2, shuffle=False)
    other = streaming.TileStream(good, sampling.grid(good, 16), mask=mask, batch_size=2, shuffle=False)
    train = streaming.MixedStream([other, bad], seed=1) if mixed else bad
    first = next(i for i, batch in enumerate(train.batches(0)) if not np.isfinite(batch.image).all())
    with pytest.raises(BadInput, match=f"be finite. Got nan in epoch 0, batch {first} ") as told:
        fit(small(), train, augment=False, accumulate=3)
    rows = "tiles 10 (y=32, x=32), 11 (y=32, x=48)"
    named = f"({rows}{' of stream 1' if mixed else ''}), with values from inf to inf"
    assert named in str(told.value)
    with pytest.raises(BadInput, match=r"validation loss .* batch \d+ \(") as told:
        fit(small(), other, train)
    assert named in str(told.value)


def test_a_collapsed_model_is_said_to_be_one(tmp_path):
    model = small()
    torch.nn.init.zeros_(model.net.last.weight)
    model.net.last.weight.requires_grad_(False)
    with pytest.warns(UserWarning, match="has collapsed: its scores differ by"):
        fit(model, Fake(0), Fake(1), folder=tmp_path)
    assert "collapsed" in json.loads((tmp_path / "model.json").read_text())["record"]["warnings"][0]


@pytest.mark.parametrize("classes", [1, 3])
def test_counts_are_sklearn_s(classes):
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(2, classes, 16, 16)).astype("float32"))
    mask = rng.integers(0, max(classes, 2), (2, 16, 16)).astype("uint8")
    mask[rng.random(mask.shape) < 0.2] = 255
    sums = Sums()
    for tile in range(2):
        sums.add(torch.tensor(1.0), logits[tile : tile + 1], torch.from_numpy(mask[tile : tile + 1]), 0.5)
    said = (logits[:, 0] >= 0).int().numpy() if classes == 1 else logits.argmax(1).numpy()
    known = mask != 255
    labels = [1] if classes == 1 else [1, 2]
    assert sums.scores["f1"] == pytest.approx(f1_score(mask[known], said[known], labels=labels, average="macro"))
    counts, low, high = tally_block(logits, torch.full((2, 16, 16), 255, dtype=torch.uint8), 0.5)
    assert not counts.any()
    assert low > high


def test_a_score_at_the_threshold_is_a_landslide_and_unknown_pixels_have_no_part_in_the_spread():
    logits = torch.tensor([0.0, 9.0, -9.0, 1.0]).view(1, 1, 2, 2)
    mask = torch.tensor([1, 255, 255, 0], dtype=torch.uint8).view(1, 2, 2)
    counts, low, high = tally_block(logits, mask, 0.5)
    assert counts.flatten().tolist() == [1, 1, 0]
    assert (low.item(), high.item()) == pytest.approx((0.5, 1 / (1 + np.exp(-1))))


def test_an_epoch_s_loss_is_the_mean_over_tiles_not_batches():
    sums = Sums()
    for tiles, loss in ((3, 1.0), (1, 5.0)):
        sums.add(torch.tensor(loss), torch.zeros(tiles, 1, 2, 2), torch.zeros(tiles, 2, 2, dtype=torch.uint8), 0.5)
    assert sums.loss == pytest.approx(2.0)


@pytest.mark.parametrize("part", [0, 1])
def test_a_batch_is_told_by_its_pixels_and_by_its_mask(part):
    batch = [np.ones((2, 3, 4, 4), "uint16"), np.zeros((2, 4, 4), "uint8")]
    other = [array.copy() for array in batch]
    other[part][1, -1, 3] = 7
    assert streams.fingerprint(batch) == streams.fingerprint([array.copy() for array in batch])
    assert streams.fingerprint(batch) != streams.fingerprint(other)
    assert streams.fingerprint([batch[0], None]) != streams.fingerprint(batch)


@pytest.mark.parametrize("classes", [1, 4])
def test_scores_are_torchmetrics_on_known_pixels(classes):
    draw = torch.Generator().manual_seed(1)
    sums, most = Sums(), max(classes, 2)
    logits = torch.randn((3, 5, classes, 9, 7), generator=draw)
    mask = torch.randint(0, most, (3, 5, 9, 7), generator=draw, dtype=torch.uint8)
    mask[torch.rand(mask.shape, generator=draw) < 0.3] = 255
    for scores, truth in zip(logits, mask):
        sums.add(torch.tensor(0.5), scores, truth, 0.5)
    if classes == 1:
        flat = torch.sigmoid(logits).movedim(2, 0)[0], mask.long()
        kind = {"task": "binary"}
    else:
        flat = logits.argmax(2), mask.long()
        kind = {"task": "multiclass", "num_classes": classes, "average": "none"}
    for name, metric in {
        "precision": torchmetrics.Precision,
        "recall": torchmetrics.Recall,
        "f1": torchmetrics.F1Score,
        "iou": torchmetrics.JaccardIndex,
    }.items():
        known = metric(**kind, ignore_index=255)(*flat)
        wanted = known if classes == 1 else known[1:].mean()
        assert sums.scores[name] == pytest.approx(float(wanted), rel=1e-6), name


def test_an_epoch_tells_its_scores():
    done = fit(small(), Fake(0), Fake(1))
    assert set(done.history[0]) == {
        "epoch", "train", "valid", "precision", "recall", "f1", "iou", "rate", "seconds",
    }  # fmt: skip
    row = done.history[-1]
    assert row["f1"] == pytest.approx(2 / (1 / row["precision"] + 1 / row["recall"]))
    assert row["iou"] == pytest.approx(row["f1"] / (2 - row["f1"]))


class Whole(torch.nn.Module):
    """One convolution: nothing drawn, nothing that sees a batch as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x)


def linear() -> models.Segmenter:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.Segmenter(Whole(), models.Spec("whole", "", BANDS, 1, (100.0, 120.0), (12.0, 50.0)), stride=1)


def test_accumulated_batches_are_one_batch_also_where_the_last_are_fewer():
    halves, wholes = Fake(0, batches=5, n=4), Fake(0, batches=0)
    for image, mask in halves.batches:
        image[:, :, 0], mask[:, 0] = 100, 0  # all pixels known, so that batches weigh alike
    pairs = [halves.batches[i : i + 2] for i in (0, 2, 4)]
    wholes.batches = [tuple(np.concatenate(parts) for parts in zip(*pair)) for pair in pairs]
    options: Any = {"loss": "bce", "optimizer": "sgd", "augment": False, "schedule": "cosine"}
    one, other = fit(linear(), halves, accumulate=2, **options), fit(linear(), wholes, **options)
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(value, other.model.state_dict()[name], atol=1e-6, rtol=1e-5)
    assert [row["rate"] for row in one.history] == [row["rate"] for row in other.history]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_network_in_a_reduced_precision_sees_values_as_they_are(precision, monkeypatch):
    seen = []
    honest = models.Segmenter.outputs

    def outputs(self: models.Segmenter, image: torch.Tensor) -> Any:
        seen.append(image)
        return honest(self, image)

    monkeypatch.setattr(models.Segmenter, "outputs", outputs)
    train, model, computed = Fake(0), small(), set()
    model.net.first.register_forward_hook(lambda layer, given, found: computed.add(found.dtype))
    done = fit(model, train, precision=precision, augment=False, epochs=1)
    assert computed == {getattr(torch, precision)}
    assert done.model.spec.record["precision"] == precision
    for image, (stored, _) in zip(seen, train.batches, strict=True):
        wanted = np.where(stored == 0, np.nan, stored.astype("float32"))
        np.testing.assert_array_equal(image.numpy(), wanted)
    assert np.isfinite(done.history[0]["train"])


def test_tiles_that_the_stride_does_not_divide_are_extended_and_cut_back():
    model = models.build("soares_unet", bands=BANDS, filters=2, mean=(100, 120), std=(12, 50))
    done = fit(model, Fake(0, side=24), epochs=1)  # its stride is 16
    assert done.model.spec.tile == 24
    assert np.isfinite(done.history[0]["train"])


def test_tensorboard_has_the_history_or_is_said_to_be_missing(tmp_path, monkeypatch):
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard: install lsdask[tensorboard]"
    )
    done = fit(small(), Fake(0), folder=tmp_path, tensorboard=True)
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name, key in (("loss/train", "train"), ("f1", "f1")):
        told = [(each.step, each.value) for each in events.Scalars(name)]
        np.testing.assert_allclose(told, [(row["epoch"], row[key]) for row in done.history], rtol=1e-6)
    assert "loss/valid" not in events.Tags()["scalars"]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BadInput, match=r"tensorboard must be False where that package is missing.*lsdask.tensorboard."):
        fit(small(), Fake(0), folder=tmp_path, tensorboard=True)
    with pytest.raises(BadInput, match="tensorboard must be False without a folder"):
        fit(small(), Fake(0), tensorboard=True)


class Clusters(Fake):
    """Tiles of which each is of one cluster, but for a strip: cluster 2 is bright in the first band."""

    @staticmethod
    def batch(rng: np.random.Generator, n: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        image = rng.integers(80, 120, (n, 2, side, side)).astype("uint16")
        cluster = rng.integers(0, 3, n).astype("uint8")
        image[:, 0] += (cluster * 40).astype("uint16")[:, None, None]
        labels = np.broadcast_to(cluster[:, None, None], (n, side, side)).copy()
        labels[:, :8], labels[:, 8:10] = 0, 255
        return image, labels


def test_a_model_that_cannot_be_saved_is_refused_before_it_is_trained(tmp_path):
    wrapped, train = models.wrap(Small(), bands=BANDS), Fake(0)
    with pytest.raises(BadInput, match="a network that lsdask can build again"):
        fit(wrapped, train, folder=tmp_path)
    assert train.epochs == 0
    assert len(fit(wrapped, train).history) == 2


def test_an_encoder_learns_clusters_and_goes_into_a_frozen_decoder(tmp_path):
    done = training.pretrain(
        "resnet18",
        Clusters(0),
        Clusters(1),
        classes=3,
        folder=tmp_path,
        epochs=4,
        mean=(140, 100),
        std=(35, 12),
        **QUIET,
    )
    assert done.history[-1]["f1"] > 0.9
    model = models.build("unet", bands=BANDS, weights=tmp_path, freeze_encoder=True, decoder_channels=[16, 8, 8, 8, 8])
    learnt = {name: value.clone() for name, value in done.model.net.encoder.state_dict().items()}
    for name, value in model.net.encoder.state_dict().items():
        assert torch.equal(value, learnt[name]), name
    decoder = model.net.decoder.state_dict()["blocks.0.conv1.0.weight"].clone()
    trained = fit(model, Fake(0), Fake(1), epochs=1).model
    for name, value in trained.net.encoder.state_dict().items():
        assert torch.equal(value, learnt[name]), name
    assert not torch.equal(trained.net.decoder.state_dict()["blocks.0.conv1.0.weight"], decoder)
    model.freeze_encoder(False)
    trained = fit(model, Fake(0, batches=1), epochs=1).model
    assert not torch.equal(trained.net.encoder.state_dict()["conv1.weight"], learnt["conv1.weight"])
    assert isinstance(models.load(tmp_path), type(done.model))
    with pytest.raises(BadInput, match="classes must be at least 2"):
        training.pretrain("resnet18", Clusters(0), classes=1, folder=tmp_path, epochs=1)
    with pytest.raises(BadInput, match="where a network has no encoder"):
        models.build("soares_unet", bands=2, filters=2, freeze_encoder=True)


def test_a_tile_s_class_is_its_most_frequent_known_label():
    labels = np.array([[[2, 2], [1, 255]], [[3, 3], [1, 1]], [[255, 255], [255, 255]], [[255, 255], [255, 0]]], "uint8")
    np.testing.assert_array_equal(training.majority_block(labels)[:, 0, 0], [2, 1, 255, 0])


class Other(Fake):
    bands = ("nir", "red")


class Maskless(Fake):
    @staticmethod
    def batch(rng: np.random.Generator, n: int, side: int) -> Any:
        return Fake.batch(rng, n, side)[0], None


class Classy(Fake):
    @staticmethod
    def batch(rng: np.random.Generator, n: int, side: int) -> Any:
        image, mask = Fake.batch(rng, n, side)
        return image, np.where(mask == 1, 7, mask).astype("uint8")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {"train": Other(0)},
            r"train must have the model's bands in its order, \('red', 'nir'\). Got bands \('nir', 'red'\)",
        ),
        ({"valid": Other(0)}, "valid must have the model's bands"),
        ({"train": Fake(0, batches=0)}, "train must give at least one batch"),
        ({"valid": Fake(0, batches=0)}, "valid must give at least one batch"),
        ({"train": Maskless(0)}, "train must give masks"),
        ({"valid": Maskless(0)}, "valid must give masks"),
        ({"train": Classy(0)}, r"train's masks must hold 0 to 1, or 255 where unknown. Got \[0, 7, 255\]"),
        ({"epochs": 0}, "epochs must be"),
        ({"patience": 0}, "patience must be"),
        ({"accumulate": 0}, "accumulate must be"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"clip": -1.0}, "clip must be above 0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"seed": -1}, "seed must be a whole number, at least 0"),
        ({"augment": "no"}, "augment must be True, False or an Augment. Got augment='no'"),
        ({"loss": "mse"}, "loss must be one of"),
        ({"optimizer": "lion"}, "optimizer must be one of adam"),
        ({"schedule": "warm"}, "schedule must be one of"),
        ({"monitor": "iou"}, "monitor must be one of"),
        ({"precision": "half"}, "precision must be one of"),
        ({"device": "cuda:99"}, "device must be a device"),
        ({"model": torch.nn.Linear(1, 1)}, "model must be made by"),
    ],
)
def test_bad_arguments_are_named(arguments, told):
    with pytest.raises(BadInput, match=told):
        fit(**{"model": small(), "train": Fake(0), **arguments})


def test_a_reduced_precision_is_taken_where_the_loss_agrees(monkeypatch):
    monkeypatch.setattr("lsdask.training.settling.candidates", lambda _: ("bfloat16",))
    done = fit(small(), Fake(0), precision="auto", epochs=1)
    assert done.model.spec.record["precision"] == "bfloat16"
    monkeypatch.setattr("lsdask.training.settling.LOSS_DIFFERENCE", -1.0)
    done = fit(small(), Fake(0), precision="auto", epochs=1)
    assert done.model.spec.record["precision"] == "float32"


@pytest.mark.parametrize(("terminal", "progress"), [(True, True), (True, False), (False, True)])
def test_a_bar_is_shown_on_a_terminal_when_asked_for(terminal, progress, monkeypatch, capfd):
    monkeypatch.setattr("lsdask.telling.console", lambda **more: Console(force_terminal=terminal, **more))
    fit(small(), Fake(0), Fake(1), progress=progress, epochs=1)
    assert ("epoch 0 of 1" in capfd.readouterr().err) == (terminal and progress)
    assert progress or capfd.readouterr() == ("", "")


def test_a_densenet_pre_trained_as_a_classifier_goes_into_any_decoder(tmp_path):
    bands = ["blue", "green", "red", "nir"]
    taught = models.build("classifier", bands=bands, classes=6, encoder="densenet121", seed=1)
    models.save(taught, tmp_path / "encoder")
    for name in ("unet", "fpn", "linknet"):
        net = models.build(name, bands=bands, encoder="densenet121", weights=tmp_path / "encoder", freeze_encoder=True)
        for key, value in taught.encoder.state_dict().items():
            assert torch.equal(net.encoder.state_dict()[key], value), (name, key)
        assert not any(parameter.requires_grad for parameter in net.encoder.parameters())

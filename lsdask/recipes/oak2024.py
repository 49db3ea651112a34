"""Oak et al. 2024: U-Net, LinkNet, PSPNet and FPN on ResNet50, on pictures of landslides around Bijie.

Departures, all for the better or for want of a word in the paper, are in ``NOTES``, which the report prints.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lsdask import evaluate, models, statistics, streaming
from lsdask.errors import BadInput, NotFound, sentence
from lsdask.recipes import grid
from lsdask.recipes import tables as published
from lsdask.recipes.cost import Load
from lsdask.recipes.learning import learnt
from lsdask.recipes.steps import Step
from lsdask.report import charts, experiments
from lsdask.streaming import folders

PAPER = "oak2024"

TITLE = "Four networks on pictures of landslides (Oak et al. 2024)"

NETWORKS = {"UNet": "unet", "PSPNet": "pspnet", "FPN": "fpn", "LinkNet": "linknet"}
"""As the paper's table 2 calls them, in its order."""

PREVALENCE = {"UNet": 0.08651, "PSPNet": 0.09893, "FPN": 0.08653, "LinkNet": 0.08654}
"""Shares of landslide pixels that follow from the paper's scores: (1 - A) / ((1 - R) + R (1 / P - 1))."""

ABOUT = {
    "table2": "Pixels of all test pictures pooled; time in minutes on this machine and on the paper's.",
    "figure7": "Pixels of all test pictures. The paper's share of landslide pixels follows from its scores.",
}
"""What each table shows."""

TEST_SHARE, VALID_SHARE = 80 / 770, 0.1

SCALES: dict[str, dict[str, Any]] = {
    "full": {"size": 256, "encoder": "resnet50", "weights": "imagenet", "epochs": 100, "batch": 16},
    "small": {"size": 128, "encoder": "resnet18", "weights": None, "epochs": 60, "batch": 4},
    "tiny": {"size": 64, "encoder": "resnet18", "weights": None, "epochs": 1, "batch": 4},
}

NOTES = (
    "The paper chooses no epoch and judges on the 80 pictures it validates on. Here a tenth of the others chooses the "
    "epoch, and the 80 (the same share of fewer pictures) are seen once, at the end.",
    "The paper's PSPNet cannot have run on 256 x 256 pictures as its table says: segmentation_models takes sides that "
    "48 divides. Its share of landslide pixels, which follows from its scores, is 9.89 % where the others' is 8.65 %; "
    "a crop to 240 x 240 would explain it. The PSPNet here pools to 1, 2, 3 and 6 cells of any size.",
    "ResNet50 is torchvision's, not the pre-activation one of segmentation_models; counts of weights differ.",
    "Split, seed and time are this machine's; the paper names neither its split nor its seed.",
)


def steps(
    data: str | Path, *, scale: str = "full", weights: str | None = "default", positive: int = 1, seed: int = 0
) -> list[Step]:
    """Plan the four runs and what they share.

    Parameters
    ----------
    data : path
        A folder with ``image/`` and ``mask/`` (or ``images/`` and ``masks/``), or Bijie's, where they lie in
        ``landslide/``. Files of the same names.
    scale : {"full", "small", "tiny"}
        As the paper; smaller pictures, a lighter encoder and 60 epochs; one epoch, to see that all runs.
    weights : str, optional
        What the encoders begin with: "imagenet", which is downloaded, a folder or file, None for random weights.
    positive : int
        From which value on a mask's pixel is landslide.
    seed : int
        Of split, weights and order.

    Raises
    ------
    NotFound
        If there are no such folders.
    BadInput
        If the scale is unknown.
    """
    if scale not in SCALES:
        raise BadInput(sentence("scale", f"be one of {', '.join(SCALES)}", f"scale={scale!r}"))
    images, masks = _folders(Path(data))
    size = SCALES[scale]
    chosen = size["weights"] if weights == "default" else weights
    shared = {"images": str(images), "masks": str(masks), "size": size["size"], "positive": positive}
    runs = [
        Step(
            f"runs/{name.lower()}",
            train,
            {**shared, "network": name, "seed": seed, **{**size, "weights": chosen}},
            {"split": "shared/split"},
        )
        for name in NETWORKS
    ]
    return [Step("shared/split", split, {**shared, "seed": seed}), *runs]


def loads(steps: Sequence[Step], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Load]:
    """Say what steps train."""
    spec = steps[0].spec
    parts = parts_of(len(folders.pairs(spec["images"], spec["masks"])[0]))
    return {step.name: _load(step.spec, parts) for step in steps if "network" in step.spec}


def _load(spec: Mapping[str, Any], parts: Mapping[str, int]) -> Load:
    network = {"name": NETWORKS[spec["network"]], "bands": 3, "encoder": spec["encoder"]}
    return Load(network, "bce", spec["size"], spec["batch"], parts["train"], parts["valid"], spec["epochs"])


def parts_of(pictures: int) -> dict[str, int]:
    """Say how many pictures test, validate and train.

    Examples
    --------
    >>> parts_of(770)
    {'test': 80, 'valid': 69, 'train': 621}
    """
    tests = max(1, round(TEST_SHARE * pictures))
    valid = max(1, round(VALID_SHARE * (pictures - tests)))
    return {"test": tests, "valid": valid, "train": pictures - tests - valid}


def split(folder: Path, spec: dict[str, Any], inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Deal pictures to training, validation and test, and measure the bands of those to train on."""
    files, _ = folders.pairs(spec["images"], spec["masks"])
    order = np.random.default_rng(spec["seed"]).permutation(len(files))
    sizes = parts_of(len(files))
    if sizes["train"] < 1:
        raise BadInput(sentence("data", "hold at least 3 pictures", f"{len(files)} in {spec['images']}"))
    names = np.array([file.name for file in files])
    cuts = np.cumsum(list(sizes.values()))[:-1]
    parts = dict(zip(sizes, np.split(order, cuts)))
    for name, rows in parts.items():
        (folder / f"{name}.txt").write_text("\n".join(names[np.sort(rows)]) + "\n")
    train = [files[row] for row in np.sort(parts["train"])]
    stats = statistics.bands(folders.stack(train, size=spec["size"]))
    constants = {
        "bands": stats["band"].values.tolist(),
        **{name: stats[name].values.tolist() for name in ("mean", "std")},
    }
    (folder / "statistics.json").write_text(json.dumps(constants))
    return {name: len(rows) for name, rows in parts.items()}


def train(folder: Path, spec: dict[str, Any], inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Train one network, keep the epoch that is best on the validation pictures, and judge it on the test pictures."""
    constants = json.loads((inputs["split"] / "statistics.json").read_text())
    parts = {name: _files(spec, inputs["split"] / f"{name}.txt") for name in ("train", "valid", "test")}
    options = {"size": spec["size"], "positive": spec["positive"], "batch_size": spec["batch"], "seed": spec["seed"]}
    learn, judge = (
        streaming.TileStream.from_folder(*parts[name], shuffle=name == "train", **options)
        for name in ("train", "valid")
    )
    model = models.build(
        NETWORKS[spec["network"]], encoder=spec["encoder"], weights=spec["weights"], seed=spec["seed"], **constants
    )
    trained, _ = learnt(
        model, learn, judge, folder / "model", epochs=spec["epochs"], loss="bce", lr=1e-3, seed=spec["seed"]
    )
    counts = judged(folder / "model", streaming.TileStream.from_folder(*parts["test"], shuffle=False, **options))
    confusion = {name: int(getattr(counts, name)) for name in ("tp", "fp", "fn", "tn")}
    return {
        "model": spec["network"],
        **{name: float(value) for name, value in evaluate.score(counts).items()},
        **confusion,
        "prevalence": (confusion["tp"] + confusion["fn"]) / max(sum(confusion.values()), 1),
        "parameters": sum(each.numel() for each in model.parameters()),
        "time_min": sum(row["seconds"] for row in trained.history) / 60,
    }


def judged(model: str | Path, pictures: streaming.TileStream, *, threshold: float = 0.5) -> evaluate.Counts:
    """Count, over all known pixels of a stream's pictures, what a model gets right and wrong.

    Parameters
    ----------
    model : path
        A model folder.
    pictures : TileStream
        With masks. Each picture is scored alone.
    threshold : float
        Score from which a pixel is a landslide.
    """
    runner = models.runner(model, nodata=pictures.nodata)
    total = evaluate.Counts()
    for image, mask in pictures:
        (tn, fp), (fn, tp) = evaluate.tally_block(
            runner(image)[:, 0], np.asarray(mask), thresholds=np.array([threshold])
        ).tolist()
        total += evaluate.Counts(tp, fp, fn, tn)
    return total


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Lay results out as the paper does.

    Parameters
    ----------
    frame : DataFrame
        What ``grid.results`` gives.

    Returns
    -------
    dict of DataFrame
        ``table2``: the scores, the paper's beside them. ``figure7``: the confusion matrices, and the share of
        landslide pixels; the paper's follows from its scores.
    """
    scores = ["accuracy", "precision", "recall", "f1", "time_min"]
    confusion = frame[["model", "tp", "fp", "fn", "tn", "prevalence", "parameters"]]
    return {
        "table2": published.beside(frame, published.published(PAPER), on=["model"], values=scores),
        "figure7": confusion.assign(prevalence_paper=[PREVALENCE[name] for name in confusion["model"]]),
    }


def lead(frame: pd.DataFrame) -> str:
    """Say what was found."""
    best = frame.sort_values("f1", ascending=False).iloc[0]
    return (
        f"{len(frame)} of 4 networks trained. {best['model']} has the best F1 on pictures not seen: {best['f1']:.3f}."
    )


def cards(out: Path, frame: pd.DataFrame) -> dict[str, list[tuple[str, Figure, str]]]:
    """Draw the report's figures: scores beside the paper's, learning curves, and test pictures with what was found."""
    paper = published.published(PAPER).set_index("model").add_suffix("_paper")
    joined = frame.join(paper, on="model")
    beside = experiments.figure_beside(joined, "model", ["precision", "recall", "f1"])
    curves = [
        (model, charts.figure_history(_history(folder)), "Loss by epoch.") for model, folder in _models(out, frame)
    ]
    caption = "Dots are this run's, rings the paper's, on other pictures."
    shown = "Blue: found. Magenta: missed. Yellow: false alarm."
    return {
        "Scores": [("Scores on the test pictures", beside, caption)],
        "Learning": curves,
        "Examples": [("Test pictures", _examples(out, frame), shown)],
    }


def _models(out: Path, frame: pd.DataFrame) -> list[tuple[str, Path]]:
    """Give the name and the model folder of each run."""
    return [(str(model), out / str(name) / "model") for model, name in zip(frame["model"], frame["name"])]


def _history(model: Path) -> pd.DataFrame:
    return pd.DataFrame(json.loads((model / "model.json").read_text())["record"]["history"])


def _examples(out: Path, frame: pd.DataFrame, most: int = 4) -> Figure:
    """Show the test pictures with most landslide."""
    spec = grid.record(out, frame["name"].iloc[0])["spec"]
    files = _files(spec, out / "shared" / "split" / "test.txt")
    size = {"size": spec["size"], "positive": spec["positive"], "batch_size": 1, "shuffle": False}
    stream = streaming.TileStream.from_folder(*files, **size)
    images, masks = (np.concatenate([np.asarray(batch[part]) for batch in stream]) for part in (0, 1))
    chosen = np.argsort((masks == 1).sum(axis=(1, 2)), kind="stable")[::-1][:most]
    pictures = np.moveaxis(images[chosen].astype("float32"), 1, -1)[..., :3] / max(float(images.max()), 1.0)
    scores = {}
    for model, folder in _models(out, frame):
        scores[model] = models.runner(folder, nodata=stream.nodata)(images[chosen])[:, 0]
    return experiments.figure_examples(pictures, masks[chosen], scores)


def _folders(data: Path) -> tuple[Path, Path]:
    """Find the folders of images and of masks."""
    for root in (data, data / "landslide"):
        for images, masks in (("images", "masks"), ("image", "mask")):
            if (root / images).is_dir() and (root / masks).is_dir():
                return root / images, root / masks
    rule = "hold the folders images/ and masks/, or image/ and mask/, or Bijie's landslide/"
    raise NotFound(sentence("data", rule, f"data={data}"))


def _files(spec: Mapping[str, Any], names: Path) -> tuple[list[Path], list[Path]]:
    """Give the images that a list names, and their masks."""
    wanted = set(names.read_text().split("\n"))
    files, truths = folders.pairs(spec["images"], spec["masks"])
    both = [(file, truth) for file, truth in zip(files, truths or []) if file.name in wanted]
    return [file for file, _ in both], [truth for _, truth in both]

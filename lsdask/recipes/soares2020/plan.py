"""The steps: a scene, its tiles for each sampling and size, and the runs."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

from lsdask.errors import BadInput, sentence
from lsdask.recipes import folders
from lsdask.recipes.cost import Load
from lsdask.recipes.soares2020 import work
from lsdask.recipes.steps import Step
from lsdask.recipes.tables import published

TITLE = "Sampling, tile size and heights for a small U-Net (Soares et al. 2020)"

DATASETS = {"RapidEye": (False, False), "RapidEye+DEM": (True, False), "RapidEye+Augmentation": (False, True),
            "RapidEye+DEM+Augmentation": (True, True)}  # fmt: skip
"""From the paper's names to: with heights, with mirrored and turned copies."""

SAMPLINGS = ("Regular", "Random")

SIDE = 1024
"""Of a test area, in pixels: 26.2144 km2 at 5 m."""

BANDS = 6
"""Of the paper's images, with heights."""

Setting = tuple[int, int, int]
"""Side of a tile, filters of the first level, tiles a batch."""

SCALES: dict[str, dict[str, Any]] = {
    "full": {
        "settings": list(product((32, 64, 128), (16, 32, 64), (16, 32, 64, 128))),
        "candidates": 5000, "epochs": 200, "patience": 20, "side": SIDE, "synthetic": 2048, "tiles": None,
    },
    "small": {
        "settings": list(product((32, 64, 128), (2, 4, 8), (4, 8, 16, 32))),
        "candidates": 500, "epochs": 6, "patience": 3, "side": 256, "synthetic": 1024, "tiles": 60,
    },
    "tiny": {
        "settings": [(32, 2, 8), (64, 4, 16)],
        "candidates": 400, "epochs": 1, "patience": 1, "side": 128, "synthetic": 1024, "tiles": 40,
    },
}  # fmt: skip

NOTES = (
    "Tiles that meet a test area are left out. The published grids cover the whole image, so that training tiles reach "
    "up to a tile's side into the test areas (leaks=True).",
    "Validation is 30 % of the tiles, dealt by squares of ground before any are copied; tiles overlap by a fifth, so a "
    "split at random (split='random') shows the network pixels that it is judged by. The published scripts validate "
    "augmented sets on copies of the training tiles.",
    "Each tile is mirrored and turned alone. The published transforms act on the whole array of tiles as if it were "
    "one image, which leaves one flip and duplicates.",
    "Bands are divided by their maxima over the scene, on the test areas too; the published scripts divide each array "
    "by its own.",
    "Table 3 of the paper shows, of 36 runs a row, the one that is best on the test areas themselves; here it stands "
    "beside the run that the validation tiles choose.",
    "Tiles lie on whole pixels and none has the empty row and column of the published ones.",
)


def steps(
    data: str | Path, *, scale: str = "full", split: str = "blocks", leaks: bool = False, seed: int = 0
) -> list[Step]:
    """Plan the runs and what they share.

    Parameters
    ----------
    data : path
        A folder with ``mosaic.zarr`` (or GeoTIFFs in ``scenes/``), heights as its band ``dem`` or in ``dem.tif``, and
        ``mask.zarr`` or polygons named ``inventory``. Optional: polygons ``void``, and ``test_1`` and ``test_2`` (the
        upright box around each); by default two squares with about the middling share of landslides. Without
        scenes, a synthetic Serra do Mar.
    scale : {"full", "small", "tiny"}
        As the paper; all 288 runs with narrow networks and few tiles; 16 runs of one epoch.
    split : {"blocks", "random"}
        How tiles are divided in training and validation; "random" as the paper.
    leaks : bool
        Keep tiles that reach into the test areas, as the published grids do.
    seed : int

    Raises
    ------
    BadInput
        If scale or split are unknown.
    """
    for name, value, known in (("scale", scale, tuple(SCALES)), ("split", split, ("blocks", "random"))):
        if value not in known:
            raise BadInput(sentence(name, f"be one of {', '.join(known)}", f"{name}={value!r}"))
    size = SCALES[scale]
    ground = {"data": str(data), "dem": True, "synthetic": size["synthetic"], "seed": seed}
    areas = {"data": str(data), "side": size["side"], "seed": seed}
    shared = [
        Step("shared/scene", folders.scene, ground),
        Step("shared/areas", work.areas, areas, {"scene": "shared/scene"}),
    ]
    sides = sorted({side for side, _, _ in size["settings"]})
    cut = [
        Step(
            f"tiles/{sampling.lower()}-{side}",
            work.tiles,
            {"sampling": sampling, "size": side, "split": split, "seed": seed, "most": size["tiles"],
             "candidates": size["candidates"], "leaks": leaks},
            {"scene": "shared/scene", "areas": "shared/areas"},
        )
        for sampling in SAMPLINGS
        for side in sides
    ]  # fmt: skip
    learn = {name: size[name] for name in ("epochs", "patience")} | {"seed": seed}
    runs = [
        Step(
            f"runs/{dataset.lower()}-{sampling.lower()}-{side}-f{filters}-b{batch}",
            work.train,
            {"dataset": dataset, "heights": heights, "copies": copies, "sampling": sampling, "size_px": side,
             "filters": filters, "batch": batch, **learn},
            {"scene": "shared/scene", "areas": "shared/areas", "tiles": f"tiles/{sampling.lower()}-{side}"},
        )
        for dataset, (heights, copies) in DATASETS.items()
        for sampling in SAMPLINGS
        for side, filters, batch in size["settings"]
    ]  # fmt: skip
    return [*shared, *cut, *runs]


def loads(steps: Sequence[Step], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Load]:
    """Say what steps train; as long as no tiles are cut, of the paper's numbers of them."""
    cut = {step.name: _cut(step.spec, found.get(step.name)) for step in steps if step.name.startswith("tiles/")}
    return {step.name: _load(step.spec, *cut[step.needs["tiles"]]) for step in steps if "tiles" in step.needs}


def _cut(spec: Mapping[str, Any], known: Mapping[str, Any] | None) -> tuple[int, int]:
    """Give the tiles to learn from and to judge by."""
    if known is not None:
        return known["train"], known["positive"] - known["train"]
    printed = published("soares2020_samples").set_index("size_px")[f"{spec['sampling'].lower()}_sampling"]
    positive = spec["most"] or int(printed[spec["size"]].iloc[0])  # of the set whose tiles are not copied
    return positive - ceil(0.3 * positive), ceil(0.3 * positive)


def _load(spec: Mapping[str, Any], train: int, judged: int) -> Load:
    # a band less makes no difference in time, so one network is timed for both
    network = {"name": "soares_unet", "bands": BANDS, "filters": spec["filters"]}
    copies = 4 if spec["copies"] else 1
    return Load(network, "bce", spec["size_px"], spec["batch"], copies * train, judged, spec["epochs"])

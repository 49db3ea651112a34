"""The steps: a scene, its clusters and its tiles; an encoder for each k; 42 runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lsdask.errors import BadInput, sentence
from lsdask.models.architectures import CLASSIFIER
from lsdask.recipes import folders
from lsdask.recipes.cost import Load
from lsdask.recipes.garcia2022 import work
from lsdask.recipes.garcia2022.work import TILE
from lsdask.recipes.steps import Step

TITLE = "Relict landslides from encoders that know clusters (Garcia et al. 2022)"

NETWORKS = {"FPN": "fpn", "U-Net": "unet", "Linknet": "linknet"}
"""As the paper's tables call them, in their order."""

CLUSTERS = (2, 4, 6, 8, 10, 12)

COPIES = {"LD30": 30, "LD50": 50}
"""How often each positive tile comes, each time turned or mirrored otherwise."""

TEST_SIDE = 1471
"""Of the area clipped out for the test, in pixels."""

BANDS, TILES, POSITIVES = 4, 202_920, 365
"""Of the paper's scene: its bands, its tiles, and those with landslides."""

SCALES: dict[str, dict[str, Any]] = {
    "full": {
        "clusters": CLUSTERS, "encoder": "densenet121", "positives": None, "per_cluster": None,
        "pretrain_epochs": 50, "epochs": 300, "patience": 10, "batch": 32, "test_side": TEST_SIDE,
    },
    "small": {
        "clusters": CLUSTERS, "encoder": "resnet18", "positives": 60, "per_cluster": 200,
        "pretrain_epochs": 4, "epochs": 2, "patience": 2, "batch": 32, "test_side": 512,
    },
    "tiny": {
        "clusters": (2, 4), "encoder": "resnet18", "positives": 6, "per_cluster": 16,
        "pretrain_epochs": 1, "epochs": 1, "patience": 1, "batch": 32, "test_side": 256,
    },
}  # fmt: skip

NOTES = (
    "Void (sea, towns, the outside of scenes) is no cluster and no landslide here; the paper clusters it too, and its "
    "published scripts level only that cluster. Here every cluster above the mean is drawn down to the mean.",
    "Bands are normalised by the training scene's means and deviations, also on the test area; the published scripts "
    "scale the test area by its own range.",
    "Tiles for validation are whole squares of ground, chosen before tiles are copied. The published scripts draw them "
    "from the copies, so that copies of one tile are on both sides.",
    "The network's mask is turned by its nearest pixel; the published scripts turn it bilinearly, and lose its edges.",
    "One sigmoid output, and precision and recall of landslide pixels pooled over the test area. The published scripts "
    "average over classes and batches of tiles. Means over tiles, where one without landslide counts as found, are "
    "given beside (tile_recall).",
    "The test area is mapped in tiles of 32 pixels, as the paper says. The published scripts score tiles, but map the "
    "area whole; networks that know tiles of 32 pixels only may then find nothing (whole_f1). That may be why most "
    "maps of the paper show no landslide though all its recalls are above 0.75.",
    "Encoders that have learnt clusters are frozen, as in the published scripts; frozen=False trains them too.",
)


def steps(data: str | Path, *, scale: str = "full", frozen: bool = True, seed: int = 0) -> list[Step]:
    """Plan the runs and what they share.

    Parameters
    ----------
    data : path
        A folder with the landslides in ``inventory`` (any format that GeoPandas reads), and scenes: ``mosaic.zarr``,
        or GeoTIFFs in ``scenes/``, of which the first is on top. Optional: polygons ``void`` (sea, towns), and
        ``test``, the area clipped out (its upright box); by default a square with about the middling share of
        landslides. Without scenes, a synthetic Serra do Mar shows the inventory; without an inventory too, its own.
    scale : {"full", "small", "tiny"}
        As the paper; all runs with a light encoder, few tiles and epochs; two k and one epoch.
    frozen : bool
        Leave encoders that have learnt clusters as they are.
    seed : int
        Of every draw.

    Raises
    ------
    BadInput
        If the scale is unknown.
    """
    if scale not in SCALES:
        raise BadInput(sentence("scale", f"be one of {', '.join(SCALES)}", f"scale={scale!r}"))
    size = SCALES[scale]
    clusters = list(size["clusters"])
    made = {"data": str(data), "synthetic": 768 if scale == "tiny" else None, "seed": seed}
    shared = [
        Step("shared/scene", folders.scene, made),
        Step("shared/clusters", work.clusters, {"clusters": clusters, "seed": seed}, {"scene": "shared/scene"}),
        Step(
            "shared/tiles",
            work.tiles,
            {
                "data": str(data),
                "tile": TILE,
                "test_side": size["test_side"],
                "positives": size["positives"],
                "seed": seed,
            },
            {"scene": "shared/scene"},
        ),
    ]
    needs = {"scene": "shared/scene", "tiles": "shared/tiles"}
    train = {name: size[name] for name in ("encoder", "batch")} | {"seed": seed}
    learnt = [
        Step(
            f"pretrain/k-{k:02d}",
            work.pretrain,
            {"k": k, "per_cluster": size["per_cluster"], "epochs": size["pretrain_epochs"], **train},
            {**needs, "clusters": "shared/clusters"},
        )
        for k in clusters
    ]
    settings = {"epochs": size["epochs"], "patience": size["patience"], **train}
    runs = [
        Step(
            f"runs/{'standard' if k is None else f'k-{k:02d}'}-{name.lower()}-{dataset.lower()}",
            work.train,
            {
                "approach": "standard" if k is None else "proposed",
                "n_clusters": k,
                "dataset": dataset,
                "model": name,
                "network": network,
                "copies": copies,
                "frozen": frozen and k is not None,
                **settings,
            },
            needs if k is None else {**needs, "encoder": f"pretrain/k-{k:02d}"},
        )
        for k in (None, *clusters)
        for dataset, copies in COPIES.items()
        for name, network in NETWORKS.items()
    ]
    return [*shared, *learnt, *runs]


def loads(steps: Sequence[Step], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Load]:
    """Say what steps train; as long as no tiles are cut, of the paper's numbers of them."""
    most = next((step.spec["positives"] for step in steps if step.name == "shared/tiles"), None)
    known = found.get("shared/tiles", {"train": TILES, "positive": most or POSITIVES})
    return {step.name: _load(step.spec, known) for step in steps if not step.name.startswith("shared/")}


def _load(spec: Mapping[str, Any], cut: Mapping[str, Any]) -> Load:
    if "k" in spec:
        most = cut["train"] if spec["per_cluster"] is None else min(cut["train"], spec["k"] * spec["per_cluster"])
        # the time does not depend on k, so one network is timed for all
        network = {"name": CLASSIFIER, "bands": BANDS, "classes": max(CLUSTERS), "encoder": spec["encoder"]}
        return Load(network, "bce", TILE, spec["batch"], round(0.95 * most), round(0.05 * most), spec["epochs"])
    network = {"name": spec["network"], "bands": BANDS, "encoder": spec["encoder"], "freeze_encoder": spec["frozen"]}
    train = round(0.8 * cut["positive"])
    return Load(
        network, "bce_jaccard", TILE, spec["batch"], train * spec["copies"], cut["positive"] - train, spec["epochs"]
    )

"""The steps: the layers of each image set at each base resolution, and 17 trainings with their maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lsdask.errors import BadInput, NotFound, sentence
from lsdask.recipes.cost import Load
from lsdask.recipes.prakash2021 import areas, example, work
from lsdask.recipes.prakash2021.areas import TRAINED, UNSEEN, Row, name_of, of
from lsdask.recipes.steps import Step
from lsdask.recipes.tables import published

TITLE = "One network for landslides of many places (Prakash et al. 2021)"

TILE = 224
"""Side of a tile, in pixels; a window keeps its middle half of it."""

RESOLUTIONS = (6, 10, 30)
"""Base resolutions, in metres a pixel."""

SCALES: dict[str, dict[str, Any]] = {
    "full": {"tile": TILE, "narrow": 1, "batch": 8, "epochs": 200, "patience": 10, "most": None},
    "small": {"tile": 32, "narrow": 2, "batch": 8, "epochs": 25, "patience": 10, "most": 96},
    "tiny": {"tile": 32, "narrow": 8, "batch": 4, "epochs": 1, "patience": 1, "most": 6},
}

EXTENT_KM2 = {"A": 990, "B": 490, "C": 365, "D": 700}
"""Of the paper's areas."""

SHARES = {"train": 0.6, "valid": 0.1}
"""Of an area, for what a training will cost while nothing is known; the paper does not give them."""

NOTES = (
    "The paper's images and regions are not published; numbers beside each other are of other ground.",
    "Batch size, most epochs, sizes of the random changes, rates of dropout and the weight of the L2 penalty are not "
    "in the paper: here 8, 200, flips and turns by up to 20 degrees with some light and noise, 0.5 and 0.2, 1e-4. The "
    "constants of the focal Tversky loss are those of the paper it cites: 0.7 and 4/3.",
    "Training is judged by the loss of the last output on the validation piece; the paper adds those of four heads.",
    "Combined trainings begin with area A and go on with A and B, and so on to all; stages share one validation set of "
    "all their areas. Trainings without one area are done in the same way, with the same image sets, so that a "
    "difference is that area's.",
    "Hillshade and slope are derived of heights at the base resolution, after tiles were turned, in training and in "
    "prediction alike. The published code predicts with terrain derived at 30 m and resampled, which is smoother than "
    "what the network learnt from; weights=FILE does so too, as those weights expect it.",
    "Images are resampled bilinearly, as the published code does though it asks for bicubic; here with the filter that "
    "keeps fine detail from becoming noise where pixels grow, and by their places on the ground, not by their shapes.",
    "Void is the middle of each band's range to the network, not -1, and unknown on the map; the borders of an image "
    "are mapped too, mirrored, where the published code leaves 57 to 169 pixels of zeros.",
    "A test region is mapped by itself: no pixel of another region is seen. Regions narrower than a tile are left out "
    "of that resolution, as the paper leaves out C and D at 30 m.",
    "In the paper: 'M_A_10 (MCC 0.560)' on B must be M_B_6. Its abstract says 0.69 in unseen regions, its text at most "
    "0.65 (F) for a combined training, so it can only be G. 'M^ABC_6' is said to have a resolution of 10 m. 7 837 "
    "landslides on 700 km2 are 11 a km2, not 326. All areas are said to be weakest at 30 m, but C and D have no such "
    "run. Figures are cited one off, and the figure of the network has fewer ReLUs than the text.",
)  # fmt: skip


def steps(data: str | Path, *, scale: str = "full", weights: str | None = None, seed: int = 0) -> list[Step]:
    """Plan the trainings and what they share.

    Parameters
    ----------
    data : path
        A folder with the table ``areas.csv``, which names the images, heights, landslides and regions of areas A to
        G: see ``prakash2021.areas.read``. Runs that need an area which is not in it are left out. Without the table,
        seven areas of synthetic ground, whose table can be looked at in ``shared/areas``.
    scale : {"full", "small", "tiny"}
        As the paper; all runs with a narrower network, smaller tiles, few of them; and for one epoch.
    weights : str, optional
        The authors' published weights (``M_ALL_006.hdf5``), to map and judge all areas at 6 m instead of training.
    seed : int

    Raises
    ------
    BadInput, NotFound
        If scale or table are not as they must be, a file is missing, or the table has no area for any run.
    """
    if scale not in SCALES:
        raise BadInput(sentence("scale", f"be one of {', '.join(SCALES)}", f"scale={scale!r}"))
    if weights is not None and not Path(weights).is_file():
        raise NotFound(sentence("weights", "name a file", f"weights={weights}, where there is none"))
    size = SCALES[scale] | ({} if weights is None else {"tile": TILE})
    given = (Path(data) / areas.FILE).exists()
    rows = areas.read(Path(data)) if given else example.READ
    size |= {"synthetic": not given}
    runs = [_published(weights, rows, size)] if weights else _trainings(rows, size, seed)
    if not runs:
        rule = "hold areas enough for a training, such as A and E"
        raise BadInput(sentence(areas.FILE, rule, ", ".join(map(name_of, rows))))
    made = [] if given else [Step("shared/areas", work.areas, {"tile": size["tile"], "seed": seed})]
    needed = sorted({name for run in runs for name in run.needs.values()})
    ready = {row_step.name: row_step for row_step in _layers(rows, data if given else None, size["tile"])}
    return [*made, *(ready[name] for name in needed), *runs]


def _layers(rows: Sequence[Row], data: str | Path | None, tile: int) -> list[Step]:
    """Plan the layers of all image sets, at all resolutions, and for the published weights."""
    source = {} if data is None else {"data": str(data)}
    return [
        Step(
            layer_of(row, resolution, derived),
            work.layer,
            {**source, "row": row, "first": of(rows, row["area"])[0], "resolution_m": resolution, "tile": tile,
             "derived": derived},
            {} if source else {"areas": "shared/areas"},
        )
        for row in rows
        for resolution, derived in (*((each, False) for each in RESOLUTIONS), (RESOLUTIONS[0], True))
    ]  # fmt: skip


def layer_of(row: Row, resolution: int, derived: bool = False) -> str:
    """Name the step that makes the layers of an image set."""
    return f"layers/{name_of(row)}-{resolution}{'-derived' if derived else ''}"


def _trainings(rows: Sequence[Row], size: Mapping[str, Any], seed: int) -> list[Step]:
    """Plan the trainings whose areas are all there."""
    have = {row["area"] for row in rows}
    plan = published("prakash2021_runs").to_dict("records")
    named = [{str(name): value for name, value in run.items()} for run in plan]
    return [_run(work.train, run, rows, {**size, "seed": seed}) for run in named if have.issuperset(run["train_areas"])]


def _published(weights: str, rows: Sequence[Row], size: Mapping[str, Any]) -> Step:
    """Plan the maps of the published weights."""
    run = {"model": "M_ALL_6", "family": "published", "train_areas": "", "resolution_m": RESOLUTIONS[0]}
    kept = {name: size[name] for name in ("tile", "synthetic")}
    return _run(work.published, run, rows, {**kept, "weights": str(Path(weights).absolute())})


def _run(function: Any, run: Mapping[str, Any], rows: Sequence[Row], settings: Mapping[str, Any]) -> Step:
    """Plan a run: what it learns from, and what it is judged on."""
    alone = run["family"] == "conventional"
    sets = [row for area in run["train_areas"] for row in (of(rows, area)[:1] if alone else of(rows, area))]
    judged = (*run["train_areas"], *UNSEEN) if alone else (*TRAINED, *UNSEEN)
    tests = [of(rows, area)[0] for area in judged if of(rows, area)]
    derived = run["family"] == "published"
    needs = {name_of(row): layer_of(row, run["resolution_m"], derived) for row in (*sets, *tests)}
    names = {"sets": [name_of(row) for row in sets], "tests": [name_of(row) for row in tests]}
    return Step(f"runs/{run['model']}", function, {**run, **names, **settings}, needs)


def loads(steps: Sequence[Step], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Load]:
    """Say what steps train; as long as no tiles are cut, of as many as the paper's areas may hold."""
    cut = {step.name: _cut(step.spec, found.get(step.name)) for step in steps if step.work is work.layer}
    return {step.name: _load(step, cut) for step in steps if step.work is work.train}


def _cut(spec: Mapping[str, Any], known: Mapping[str, Any] | None) -> dict[str, int]:
    """Give how many tiles of an image set are to learn from, and to judge by."""
    if known is not None:
        return {part: known.get(part, 0) for part in SHARES}
    of_a_tile = (spec["tile"] // 2 * spec["resolution_m"]) ** 2 / 1e6
    km2 = EXTENT_KM2.get(spec["row"]["area"], 0)
    return {part: round(share * km2 / of_a_tile) for part, share in SHARES.items()}


def _load(step: Step, cut: Mapping[str, Mapping[str, int]]) -> Load:
    """Add up the tiles of all stages of a training: those of its first area, of its first two, and so on."""
    spec = step.spec
    learn, judge = (
        [_held([cut[step.needs[name]][part] for name in spec["sets"] if name[0] == area], spec["most"])
         for area in spec["train_areas"]]
        for part in SHARES
    )  # fmt: skip
    stages = [sum(learn[:n]) for n in range(1, len(learn) + 1)]
    network = {"name": work.NETWORK, "bands": 8, "narrow": spec["narrow"]}
    return Load(network, "prakash", spec["tile"], spec["batch"], sum(stages), len(stages) * sum(judge), spec["epochs"])


def _held(counts: Sequence[int], most: int | None) -> int:
    return sum(count if most is None else min(count, most) for count in counts)

"""Areas of the classes of a map with intervals, from a reference sample: not the mapped areas, which are biased."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from lsdask.errors import BadInput, sentence
from lsdask.evaluate.counts import Counts


@dataclass(frozen=True)
class Estimate:
    """What a stratified sample says of a map.

    Attributes
    ----------
    classes : DataFrame, one row a class
        ``area_m2``, ``mapped_m2``; and weighted by area ``precision`` (user's accuracy) and ``recall`` (producer's).
        Each but the mapped area has its interval beside it, ``..._low`` and ``..._high``; NaN where a class was not
        mapped or is not there.
    accuracy : (float, float, float)
        Overall: value, low, high.
    """

    classes: pd.DataFrame
    accuracy: tuple[float, float, float]


def areas(sample: pd.DataFrame, *, mapped: Mapping[Any, int], pixel_m2: float = 1.0, level: float = 0.95) -> Estimate:
    """Estimate the area of each class of a map, and its accuracy, from pixels that were looked at.

    The classes of the map are the strata; in each, some pixels drawn at random were looked at.

    Parameters
    ----------
    sample : DataFrame, one row a mapped class, one column a true class, the same names
        Counts of the pixels looked at.
    mapped : mapping of int
        Pixels of each class in the whole map.
    pixel_m2 : float
        Area of a pixel.
    level : float
        Coverage of the intervals.

    Returns
    -------
    Estimate

    Raises
    ------
    BadInput
        If rows, columns and ``mapped`` name other classes, a stratum that holds pixels has fewer than two in the
        sample, or level is no coverage.

    Source
    ------
    Olofsson et al. 2014, Remote Sensing of Environment 148:42-57, equations 1-11.
    """
    names = list(sample.index)
    if set(names) != set(sample.columns) or set(names) != set(mapped):
        rule = "have one row and one column for each class of mapped"
        raise BadInput(sentence("sample", rule, f"rows {names}, columns {list(sample.columns)}, mapped {list(mapped)}"))
    if not 0 < level < 1:
        raise BadInput(sentence("level", "be between 0 and 1", f"level={level}"))
    whole, matrix = np.array([mapped[name] for name in names], "float64"), sample[names].to_numpy("float64")
    looked = matrix.sum(axis=1)
    if whole.min() < 0 or not whole.sum() or (looked[whole > 0] < 2).any():
        rule = "hold two or more pixels of each class that is mapped"
        raise BadInput(sentence("sample", rule, f"{looked.astype(int).tolist()}", "Look at more pixels"))
    weight, reach = whole / whole.sum(), NormalDist().inv_cdf((1 + level) / 2)
    share = np.divide(matrix, looked[:, None], out=np.zeros_like(matrix), where=looked[:, None] > 0)
    spread = share * (1 - share) / np.maximum(looked - 1, 1)[:, None]
    area = weight @ share
    right, right_spread = np.diag(share), np.diag(spread)
    recall = np.divide(weight * right, area, out=np.full(len(names), np.nan), where=area > 0)
    columns = {
        "area_m2": (area, np.sqrt(weight**2 @ spread), whole.sum() * pixel_m2),
        "precision": (np.where(weight > 0, right, np.nan), np.sqrt(right_spread), 1.0),
        "recall": (recall, _recall_error(weight, spread, area, recall), 1.0),
    }
    table = {"mapped_m2": whole * pixel_m2}
    for name, (value, error, unit) in columns.items():
        most = np.inf if name == "area_m2" else 1.0
        table[name] = value * unit
        table[f"{name}_low"] = np.maximum(value - reach * error, 0) * unit
        table[f"{name}_high"] = np.minimum(value + reach * error, most) * unit
    accuracy, error = float(weight @ right), float(np.sqrt(weight**2 @ right_spread))
    interval = max(accuracy - reach * error, 0.0), min(accuracy + reach * error, 1.0)
    return Estimate(pd.DataFrame(table, index=sample.index), (accuracy, *interval))


def _recall_error(weight: np.ndarray, spread: np.ndarray, area: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Give the standard error of each producer's accuracy: equation 7."""
    known = np.nan_to_num(recall)
    own = weight**2 * (1 - known) ** 2 * np.diag(spread)
    others = known**2 * (weight**2 @ (spread * (1 - np.eye(len(area)))))
    return np.sqrt(np.divide(own + others, area**2, out=np.full(len(area), np.nan), where=area > 0))


def area(sample: Counts, *, mapped: int, total: int, pixel_m2: float = 1.0, level: float = 0.95) -> dict[str, float]:
    """Estimate the area of landslides from a map and a reference sample: :func:`areas` of two classes.

    Parameters
    ----------
    sample : Counts
        The pixels looked at: ``tp`` and ``fp`` in the stratum mapped as landslide, ``fn`` and ``tn`` in the other.
        They must be a random sample of each stratum; a whole held-out block is none, so give it :func:`bootstrap`.
    mapped, total : int
        Pixels of the whole map that are mapped as landslide, and all its known pixels.
    pixel_m2 : float
        Area of a pixel.
    level : float
        Coverage of the interval.

    Returns
    -------
    dict of float
        ``area_m2``, ``mapped_m2``; and, weighted by area, ``precision`` (user's accuracy), ``recall`` (producer's
        accuracy), ``accuracy`` (overall). Each but the mapped area has ``..._low`` and ``..._high``.

    Raises
    ------
    BadInput
        If a stratum that holds pixels has fewer than two in the sample, or mapped is not in 0..total.

    Examples
    --------
    >>> round(area(Counts(tp=90, fp=10, fn=5, tn=95), mapped=1000, total=10000)["area_m2"])
    1350
    """
    if not 0 <= mapped <= total or total < 1:
        raise BadInput(sentence("mapped", "be from 0 to total", f"mapped={mapped}, total={total}"))
    names = ["landslide", "other"]
    looked = pd.DataFrame([[sample.tp, sample.fp], [sample.fn, sample.tn]], index=names, columns=names)
    found = areas(looked, mapped=dict(zip(names, (mapped, total - mapped))), pixel_m2=pixel_m2, level=level)
    accuracy = dict(zip(("accuracy", "accuracy_low", "accuracy_high"), found.accuracy))
    return {**{str(name): values["landslide"] for name, values in found.classes.to_dict().items()}, **accuracy}

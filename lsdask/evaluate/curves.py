"""What follows from a sweep of thresholds: the best one, and the areas under its curves."""

import numpy as np
import pandas as pd

from lsdask.errors import BadInput, sentence


def best(table: pd.DataFrame, *, by: str = "f1") -> float:
    """Choose the threshold with the greatest score: on a validation region, never on the one that is reported.

    Parameters
    ----------
    table : DataFrame
        From :func:`sweep`, of the validation region (``valid=within(...)``).
    by : str
        A column: f1, iou, mcc, precision, recall or accuracy.

    Returns
    -------
    float
        The lowest threshold of those with the greatest score.

    Raises
    ------
    BadInput
        If there is no such column, or the region holds no landslide, so that no threshold is better than another.
    """
    if by not in table or by == "threshold":
        raise BadInput(sentence("by", f"be a score of the sweep, {list(table.columns[5:])}", f"by={by!r}"))
    if not (table["tp"] + table["fn"] > 0).all():
        raise BadInput(sentence("table", "be of a region with landslides", "none", "Choose a larger validation region"))
    return float(table["threshold"].iloc[int(np.argmax(table[by].to_numpy()))])


def average_precision(table: pd.DataFrame) -> float:
    """Give the area under the precision-recall curve, as the sum of precision over steps of recall.

    Parameters
    ----------
    table : DataFrame
        From :func:`sweep`. Of uint8 scores, ``thresholds=251`` makes it exact; it is scikit-learn's
        ``average_precision_score``. Fewer thresholds take their steps for the curve's.

    Returns
    -------
    float
        NaN if there is no landslide.

    Source
    ------
    AP = sum (R_n - R_(n-1)) P_n over falling thresholds: Manning, Raghavan and Schuetze 2008, Introduction to
    Information Retrieval, section 8.4.
    """
    falling = table.iloc[::-1]
    if not (table["tp"] + table["fn"]).iloc[0]:
        return float("nan")
    steps = np.diff(falling["recall"].to_numpy(), prepend=0.0)
    return float((steps * falling["precision"].to_numpy()).sum())


def roc_auc(table: pd.DataFrame) -> float:
    """Give the area under the ROC curve: the chance that a landslide pixel scores above one that is none.

    Parameters
    ----------
    table : DataFrame
        From :func:`sweep`; as exact as for :func:`average_precision`.

    Returns
    -------
    float
        NaN if there are no landslides, or nothing else.

    Source
    ------
    Fawcett 2006, Pattern Recognition Letters 27:861-874, algorithm 2.
    """
    positives, negatives = (table["tp"] + table["fn"]).iloc[0], (table["fp"] + table["tn"]).iloc[0]
    if not positives or not negatives:
        return float("nan")
    found = np.concatenate([[0.0], table["tp"].to_numpy()[::-1] / positives, [1.0]])
    alarms = np.concatenate([[0.0], table["fp"].to_numpy()[::-1] / negatives, [1.0]])
    return float(np.trapezoid(found, alarms))


def reliability(table: pd.DataFrame, *, bins: int = 10) -> pd.DataFrame:
    """Say how often pixels of each score are landslides: as often as the score, if it is a probability.

    Parameters
    ----------
    table : DataFrame
        From :func:`sweep` with thresholds from 0; of uint8 scores, ``thresholds=251`` makes it exact. Fewer take a
        pixel's score for the threshold below it.
    bins : int
        Classes of score, as wide as each other.

    Returns
    -------
    DataFrame, one row a class
        Columns from, to, pixels (int64), score (mean) and observed (share of landslides); NaN where there are none.

    Raises
    ------
    BadInput
        If bins is not a positive whole number, or the thresholds do not begin at 0.

    Source
    ------
    Reliability diagram: Murphy and Winkler 1977, Applied Statistics 26:41-47.
    """
    if not isinstance(bins, int) or bins < 1:
        raise BadInput(sentence("bins", "be a positive whole number", f"bins={bins!r}"))
    steps = table["threshold"].to_numpy()
    if steps[0] != 0:
        raise BadInput(sentence("table", "be a sweep from threshold 0", f"one from {steps[0]:g}"))
    true, false = (-np.diff(table[name].to_numpy(), append=0) for name in ("tp", "fp"))
    edges = np.arange(bins + 1) / bins
    which = np.minimum(np.searchsorted(edges, steps, side="right") - 1, bins - 1)
    pixels = np.bincount(which, true + false, bins).astype("int64")
    some = pixels > 0
    means = {
        name: np.divide(np.bincount(which, part, bins), pixels, out=np.full(bins, np.nan), where=some)
        for name, part in (("score", steps * (true + false)), ("observed", true))
    }
    return pd.DataFrame({"from": edges[:-1], "to": edges[1:], "pixels": pixels, **means})

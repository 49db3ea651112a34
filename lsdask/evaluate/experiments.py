"""Whole experiments: many score maps against one mask, read once for all."""

from collections.abc import Mapping
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.evaluate.counts import finish, scored, tally
from lsdask.evaluate.curves import average_precision, best, roc_auc
from lsdask.evaluate.inputs import rising


def compare(
    scores: Mapping[str, xr.DataArray],
    mask: xr.DataArray,
    *,
    threshold: float | Mapping[str, float] = 0.5,
    choose: xr.DataArray | None = None,
    by: str = "f1",
    valid: xr.DataArray | None = None,
    class_: Any = None,
) -> pd.DataFrame:
    """Count and score the maps of a whole experiment against one mask, which is read once for all.

    Parameters
    ----------
    scores : mapping of DataArray
        Each as in :func:`count`, by name.
    mask, valid, class_
        As in :func:`count`.
    threshold : float or mapping of float
        One for all, or each map's own by name; not looked at where ``choose`` is given.
    choose : DataArray (y, x) bool, optional
        A validation region, which should not touch ``valid``: each map is scored at the threshold that is best there,
        by the score named ``by``, in the same pass.
    by : str
        As in :func:`best`.

    Returns
    -------
    DataFrame, one row a map, named by its index
        Columns threshold, tp, fp, fn, tn, those of :func:`score`, average_precision and roc_auc; the last two of
        the 251 steps of uint8 scores.

    Raises
    ------
    BadInput
        As :func:`count`; if a map lacks a threshold; or if a region to choose in holds no landslide.
    """
    own = threshold if isinstance(threshold, Mapping) else dict.fromkeys(scores, threshold)
    if choose is None and (lacking := [name for name in scores if name not in own]):
        raise BadInput(sentence("threshold", "be given for every map", f"none for {lacking}"))
    steps = rising(schema.SCORE_STEPS + 1)
    edges = {name: steps if choose is not None else np.union1d(steps, rising([own[name]])) for name in scores}
    counted = {name: tally(image, mask, edges[name], valid, class_) for name, image in scores.items()}
    tried = (
        {} if choose is None else {name: tally(image, mask, steps, choose, class_) for name, image in scores.items()}
    )
    counted, tried = dask.compute(counted, tried)
    if choose is not None:
        own = {name: best(scored(steps, finish(part)), by=by) for name, part in tried.items()}
    rows = [_row(scored(edges[name], finish(part)), own[name]) for name, part in counted.items()]
    return pd.DataFrame(rows, index=pd.Index(scores, name="scores"))


def _row(sweep: pd.DataFrame, threshold: float) -> dict[Any, Any]:
    """Give the row of a sweep at a threshold, and the areas under its curves."""
    at = sweep[sweep["threshold"] == threshold].to_dict("records")[0]
    return {**at, "average_precision": average_precision(sweep), "roc_auc": roc_auc(sweep)}

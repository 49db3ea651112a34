"""Which tiles to keep, and how often."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.sampling.tables import check, draws

Balance = Literal["smallest", "mean", "oversample"]
"""How groups of tiles are made to weigh alike."""

By = Literal["positive", "cluster"]
"""What makes a group."""


def select(
    tiles: pd.DataFrame,
    *,
    min_valid: float | None = None,
    min_positive: float | None = None,
    max_positive: float | None = None,
    min_false_alarm: float | None = None,
) -> pd.DataFrame:
    """Keep the described tiles within limits.

    Parameters
    ----------
    tiles : DataFrame
        A tile index with the columns that the limits are on.
    min_valid : float, optional
        Least share of valid pixels.
    min_positive, max_positive : float, optional
        Least and greatest share of positive pixels; a tile where none is known passes neither.
        ``min_positive=0`` keeps tiles of known pixels, and any tile with a landslide pixel has more than 0.
    min_false_alarm : float, optional
        Least share of false alarms.

    Returns
    -------
    DataFrame
        Its rows, numbered anew; perhaps none.
    """
    least = {"valid": min_valid, "positive": min_positive, "false_alarm": min_false_alarm}
    limits = [(column, limit, np.greater_equal) for column, limit in least.items()]
    keep = np.ones(len(tiles), dtype=bool)
    for column, limit, holds in (*limits, ("positive", max_positive, np.less_equal)):
        if limit is not None:
            check(tiles, column)
            keep &= holds(tiles[column].to_numpy(), limit)
    return tiles[keep].reset_index(drop=True)


def balance(
    tiles: pd.DataFrame,
    *,
    by: By = "positive",
    shares: Sequence[float] = (0.0,),
    how: Balance = "smallest",
    seed: int = 0,
) -> pd.DataFrame:
    """Draw fewer of the commoner tiles, or more of the rarer, so that groups weigh alike.

    Parameters
    ----------
    tiles : DataFrame
        A described tile index.
    by : {"positive", "cluster"}
        Groups by the share of positive pixels, or a group a cluster. Tiles where this is unknown are left out.
    shares : sequence of float
        Where the groups by ``positive`` end, rising: ``(0,)`` makes two, without and with a landslide pixel;
        ``(0, 0.1)`` a third, of those with more than a tenth.
    how : {"smallest", "mean", "oversample"}
        Groups above the size of the smallest, or above the mean size (rounded down), are drawn down to it; or
        groups below the size of the largest repeat their tiles up to it, each as often as any other to within one.
    seed : int

    Returns
    -------
    DataFrame
        Rows in their order, numbered anew.

    Raises
    ------
    BadInput
        If the column is missing, or fewer than two groups are there.
    """
    if how not in get_args(Balance):
        raise BadInput(sentence("how", f"be one of {', '.join(get_args(Balance))}", f"how={how!r}"))
    groups = _groups(tiles, by, shares)
    known, group = tiles[groups >= 0], groups[groups >= 0]
    sizes = np.unique(group, return_counts=True)[1]
    place = draws(seed, 1).permutation(len(known))
    rank = pd.Series(place).groupby(group).rank(method="first").to_numpy().astype("int64")
    if how == "oversample":
        size = pd.Series(place).groupby(group).transform("size").to_numpy()
        times, rest = np.divmod(sizes.max(), size)
        rows = np.repeat(np.arange(len(known)), times + (rank <= rest))  # by place: a user's index may repeat
        return known.iloc[rows].reset_index(drop=True)
    most = sizes.min() if how == "smallest" else int(sizes.mean())
    return known[rank <= most].reset_index(drop=True)


def weigh(tiles: pd.DataFrame, *, by: By = "positive", shares: Sequence[float] = (0.0,)) -> pd.DataFrame:
    """Give each tile a weight, so that groups weigh alike: what ``draw`` takes.

    Parameters
    ----------
    tiles : DataFrame
        A described tile index.
    by, shares
        As in ``balance``.

    Returns
    -------
    DataFrame
        The tiles with the column ``weight`` (float64): 0 where ``by`` is unknown, 1 on average elsewhere.

    Raises
    ------
    BadInput
        If the column is missing, or fewer than two groups are there.
    """
    groups = _groups(tiles, by, shares)
    known = groups >= 0
    _, group, sizes = np.unique(groups[known], return_inverse=True, return_counts=True)
    weight = np.zeros(len(tiles))
    weight[known] = known.sum() / (len(sizes) * sizes[group])
    return tiles.assign(weight=weight)


def draw(tiles: pd.DataFrame, n: int, *, by: str = "weight", replace: bool = True, seed: int = 0) -> pd.DataFrame:
    """Draw tiles at random, each as likely as its weight says.

    Parameters
    ----------
    tiles : DataFrame
        A tile index.
    n : int
        How many.
    by : str
        The column of the weights, 0 or more; NaN counts as 0. ``weigh`` makes ``weight``; ``false_alarm`` or
        ``missed`` draw tiles where a score map is wrong.
    replace : bool
        A tile may come several times; an epoch of the stream then has it as often.
    seed : int

    Returns
    -------
    DataFrame
        Rows in their order, numbered anew.

    Raises
    ------
    BadInput
        If the column is missing, a weight is negative or infinite, or fewer tiles can be drawn than are asked for.
    """
    check(tiles, by)
    weight = np.nan_to_num(tiles[by].to_numpy(dtype="float64"), nan=0.0, posinf=-1)
    if weight.min() < 0:
        raise BadInput(sentence(by, "be finite and at least 0", f"{tiles[by].iloc[int(weight.argmin())]}"))
    most = int((weight > 0).sum())
    if n < 1 or most < (1 if replace else n):
        raise BadInput(sentence("n", f"be from 1 to the {most} tiles of weight above 0", f"n={n}", "Draw fewer"))
    return tiles.iloc[_drawn(weight, n, replace, seed)].reset_index(drop=True)


def _drawn(weight: np.ndarray, n: int, replace: bool, seed: int) -> np.ndarray:
    """Draw rows by their weights, rising."""
    return np.sort(draws(seed, 4).choice(len(weight), n, replace, weight / weight.sum()))


def hard_negatives(tiles: pd.DataFrame, *, ratio: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Keep the tiles with landslides, and of those without the ones that a score map takes for landslides.

    Parameters
    ----------
    tiles : DataFrame
        A tile index with the columns ``positive`` and ``false_alarm``.
    ratio : float
        Negative tiles for each positive one; all that have false alarms where there are fewer. They are drawn
        without replacement, the more likely the more false alarms they have.
    seed : int

    Returns
    -------
    DataFrame
        Rows in their order, numbered anew.

    Raises
    ------
    BadInput
        If a column is missing, or there are no tiles with landslides or none with false alarms only.
    """
    check(tiles, "positive", "false_alarm")
    positive = (tiles["positive"] > 0).to_numpy()
    hard = (tiles["positive"] == 0).to_numpy() & (tiles["false_alarm"] > 0).to_numpy()
    if not positive.any() or not hard.any():
        rule = "hold tiles with landslides, and tiles without that have false alarms"
        raise BadInput(sentence("tiles", rule, f"{positive.sum()} and {hard.sum()}"))
    n = min(round(ratio * int(positive.sum())), int(hard.sum()))
    drawn = _drawn(np.where(hard, tiles["false_alarm"], 0.0), n, False, seed)
    return tiles.iloc[np.union1d(np.flatnonzero(positive), drawn)].reset_index(drop=True)


def _groups(tiles: pd.DataFrame, by: By, shares: Sequence[float]) -> np.ndarray:
    """Give each tile the number of its group, -1 where it is unknown; (tile,) int64."""
    check(tiles, by)
    if by == "cluster":
        group = tiles[by].to_numpy(dtype="int64")
        group = np.where(group == schema.UNKNOWN, -1, group)
    else:
        share = tiles[by].to_numpy()
        group = np.where(np.isnan(share), -1, np.searchsorted(np.asarray(shares, dtype="float64"), share))
    found = np.unique(group[group >= 0])
    if len(found) < 2:
        do = "Pass tiles with landslides and tiles without" if by == "positive" else ""
        raise BadInput(sentence("tiles", f"hold two or more groups by {by!r}", f"{len(found)}", do))
    return group

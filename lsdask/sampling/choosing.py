"""Which tiles to keep, and how often."""

from typing import Literal, get_args

import numpy as np
import pandas as pd

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.sampling.tables import check

Balance = Literal["smallest", "mean", "oversample"]
"""How groups of tiles are made to weigh alike."""


def select(
    tiles: pd.DataFrame,
    *,
    min_valid: float | None = None,
    min_positive: float | None = None,
    max_positive: float | None = None,
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

    Returns
    -------
    DataFrame
        Its rows, numbered anew; perhaps none.
    """
    keep = np.ones(len(tiles), dtype=bool)
    limits = (("valid", min_valid, np.greater_equal), ("positive", min_positive, np.greater_equal))
    for column, limit, holds in (*limits, ("positive", max_positive, np.less_equal)):
        if limit is not None:
            check(tiles, column)
            keep &= holds(tiles[column].to_numpy(), limit)
    return tiles[keep].reset_index(drop=True)


def balance(
    tiles: pd.DataFrame,
    *,
    by: Literal["positive", "cluster"] = "positive",
    how: Balance = "smallest",
    seed: int = 0,
) -> pd.DataFrame:
    """Draw fewer of the commoner tiles, or more of the rarer, so that groups weigh alike.

    Parameters
    ----------
    tiles : DataFrame
        A described tile index.
    by : {"positive", "cluster"}
        Two groups, with and without a landslide pixel, or a group a cluster. Tiles where this is unknown are
        left out.
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
    check(tiles, by)
    if how not in get_args(Balance):
        raise BadInput(sentence("how", f"be one of {', '.join(get_args(Balance))}", f"how={how!r}"))
    known = tiles[tiles[by].notna()] if by == "positive" else tiles[tiles[by] != schema.UNKNOWN]
    group = (known[by] > 0).to_numpy() if by == "positive" else known[by].to_numpy()
    sizes = np.unique(group, return_counts=True)[1]
    if len(sizes) < 2:
        raise BadInput(sentence("tiles", f"hold two or more groups by {by!r}", f"{len(sizes)}"))
    place = np.random.default_rng([seed, 1]).permutation(len(known))
    rank = pd.Series(place).groupby(group).rank(method="first").to_numpy().astype("int64")
    if how == "oversample":
        size = pd.Series(place).groupby(group).transform("size").to_numpy()
        times, rest = np.divmod(sizes.max(), size)
        return known.loc[known.index.repeat(times + (rank <= rest))].reset_index(drop=True)
    most = sizes.min() if how == "smallest" else int(sizes.mean())
    return known[rank <= most].reset_index(drop=True)

"""One composite a season: a cube of many dates becomes a cube of few."""

from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from lsdask import graphs, schema
from lsdask.errors import BadInput, sentence
from lsdask.mosaic.composites import composite

Months = Mapping[str, tuple[int, int]]

PERIODS: dict[str, Months] = {
    "season": {"DJF": (12, 2), "MAM": (3, 5), "JJA": (6, 8), "SON": (9, 11)},
    "month": {name: (i, i) for i, name in enumerate(pd.date_range("2001", periods=12, freq="MS").strftime("%b"), 1)},
    "year": {"year": (1, 12)},
}
"""First and last month of named periods; DJF and the like say no hemisphere."""


def seasons(cube: xr.DataArray, *, of: str | Months = "season", **options: Any) -> xr.DataArray:
    """Make a composite of each season of each year.

    Parameters
    ----------
    cube : DataArray (time, band, y, x)
        With dates, in order of time.
    of : {"season", "month", "year"} or mapping
        The seasons: DJF, MAM, JJA, SON; or months; or years; or a mapping from names to (first month, last month),
        both taken, such as ``{"dry": (5, 9)}``. A season may run over the new year; dates of no season are left out.
    **options
        For ``composite``: ``method``, ``mask``, ``by``, ``feather``; arrays on (time, y, x) are divided as the cube is.

    Returns
    -------
    DataArray (time, band, y, x), dtype as stored, lazy if ``cube`` is
        In order of time, one step for each season of a year that has a date. ``time`` is its first day, ``season``
        its name and the year in which it ends, such as "DJF 2019".

    Raises
    ------
    BadInput
        If ``cube`` has no dates, or none in a season, or seasons share a month or have none; and as ``composite``.

    Examples
    --------
    >>> seasons(cube, of={"dry": (5, 9)}, method="median", mask=clear)  # doctest: +SKIP
    """
    schema.check(cube, schema.CUBE, "cube")
    if "time" not in cube.coords:
        raise BadInput(sentence("cube", "have dates in its 'time' coordinate", "none", "Open it with times="))
    if isinstance(of, str) and of not in PERIODS:
        raise BadInput(sentence("of", f"be one of {', '.join(PERIODS)}, or a mapping", f"of={of!r}"))
    steps = divide(pd.DatetimeIndex(cube["time"].values), PERIODS[of] if isinstance(of, str) else of)
    if not steps:
        raise BadInput(sentence("cube", "have a date in a season", f"none in {of}"))
    images = []
    for dates in steps.values():
        parts = {name: _part(value, dates) for name, value in options.items()}
        images.append(composite(graphs.at_times(cube, dates), **parts))
    starts, names = zip(*steps)
    times = {"time": pd.DatetimeIndex(starts), "season": ("time", list(names))}
    return _in_order(images).assign_coords(times).rename(cube.name)


def _part(option: Any, dates: np.ndarray) -> Any:
    timed = isinstance(option, xr.DataArray) and "time" in option.dims
    return graphs.at_times(option, dates) if timed else option


def _in_order(images: list[xr.DataArray]) -> xr.DataArray:
    """Make one cube of images (band, y, x), lazy if they are."""
    arrays = [image.data for image in images]
    data = graphs.stack(arrays) if isinstance(arrays[0], da.Array) else np.stack(arrays)
    return xr.DataArray(data, images[0].coords, ("time", *images[0].dims), attrs=images[0].attrs)


def divide(days: pd.DatetimeIndex, months: Months) -> dict[tuple[pd.Timestamp, str], np.ndarray]:
    """Sort dates into seasons.

    Parameters
    ----------
    days : DatetimeIndex
    months : mapping
        From names to (first month, last month).

    Returns
    -------
    dict
        From (first day, name and year of the end) to the numbers of its dates, in order of time.

    Examples
    --------
    >>> divide(pd.DatetimeIndex(["2018-12-24", "2019-02-01"]), {"DJF": (12, 2)})
    {(Timestamp('2018-12-01 00:00:00'), 'DJF 2019'): array([0, 1])}
    """
    season, since = _calendar(months)
    found: dict[tuple[pd.Timestamp, str], list[int]] = {}
    for number, day in enumerate(days):
        name = season.get(day.month)
        if name is not None:
            start = pd.Timestamp(day.year, day.month, 1) - pd.DateOffset(months=since[day.month])
            first, last = months[name]
            end = start + pd.DateOffset(months=(last - first) % 12)
            label = f"{end.year}" if name == "year" else f"{name} {end.year}"
            found.setdefault((start, label), []).append(number)
    return {key: np.array(found[key]) for key in sorted(found)}


def _calendar(months: Months) -> tuple[dict[int, str], dict[int, int]]:
    """Give the season of each month, and how many months it is from that season's first."""
    season: dict[int, str] = {}
    since: dict[int, int] = {}
    for name, (first, last) in months.items():
        if not {first, last} <= set(range(1, 13)):
            raise BadInput(sentence("of", "give first and last months from 1 to 12", f"{name}: {(first, last)}"))
        for step in range((last - first) % 12 + 1):
            month = (first - 1 + step) % 12 + 1
            if month in season:
                raise BadInput(
                    sentence("of", "give each month to one season", f"month {month} in {season[month]} and {name}")
                )
            season[month], since[month] = name, step
    return season, since

"""Before and after an event: two composites of a cube on one grid."""

import datetime
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from lsdask import graphs, schema
from lsdask.errors import BadInput, sentence
from lsdask.mosaic.composites import METHODS, composite
from lsdask.mosaic.stacking import stack

Date = str | datetime.date | np.datetime64 | pd.Timestamp
Range = int | tuple[Date, Date] | None
Method = Literal["nearest", "first", "last", "mean", "median", "max", "min", "medoid"]


def pair(
    cube: xr.DataArray,
    event_date: Date,
    *,
    mask: xr.DataArray | None = None,
    method: Method = "median",
    before: Range = None,
    after: Range = None,
) -> xr.DataArray:
    """Make a composite of the dates before an event and one of those after it.

    The day of the event belongs to neither: a scene of that day may show either.

    Parameters
    ----------
    cube : DataArray (time, band, y, x)
        With dates, in order of time.
    event_date : date
        What pandas.Timestamp reads; its day counts.
    mask : DataArray (time, y, x) or (y, x) bool, optional
        ``True`` where a pixel is valid.
    method : str
        As for ``composite``, or "nearest": the valid date nearest to the event, the last before it and the first
        after.
    before, after : int or (first day, last day), optional
        Which dates to take: those less than so many days and one from the event's day, or those of a range of days
        on that side. Default: all.

    Returns
    -------
    DataArray (band, y, x), dtype as stored, lazy if ``cube`` is
        The bands of ``cube`` as ``pre_*``, then as ``post_*``. Each half may be void by itself.

    Raises
    ------
    BadInput
        If ``cube`` has no dates, or none on one side, or a range reaches to the other side.

    Examples
    --------
    >>> pair(cube, "2018-09-06", mask=clear, before=120, after=60)  # doctest: +SKIP
    """
    schema.check(cube, schema.CUBE, "cube")
    if "time" not in cube.coords:
        raise BadInput(sentence("cube", "have dates in its 'time' coordinate", "none", "Open it with times="))
    if method not in ("nearest", *METHODS) or method == "best":
        known = ", ".join(("nearest", *(name for name in METHODS if name != "best")))
        raise BadInput(sentence("method", f"be one of {known}", f"method={method!r}"))
    event = pd.Timestamp(event_date)
    event = (event if event.tz is None else event.tz_convert("UTC").tz_localize(None)).normalize()
    days = pd.DatetimeIndex(cube["time"].values).normalize()
    sides = {
        "before": _within(days, *_range("before", before, event)),
        "after": _within(days, *_range("after", after, event)),
    }
    for name, taken in sides.items():
        if not taken.any():
            raise BadInput(_no_date(name, event, days))
    methods = {"before": "last", "after": "first"} if method == "nearest" else dict.fromkeys(sides, method)
    images = [_side(cube, mask, taken, methods[name]) for name, taken in sides.items()]
    return pair_of(*images)


def pair_of(pre: xr.DataArray, post: xr.DataArray) -> xr.DataArray:
    """Put an image of before and one of after into one, with bands ``pre_*`` and ``post_*``.

    Parameters
    ----------
    pre, post : DataArray (band, y, x)
        On one grid.

    Returns
    -------
    DataArray (band, y, x), lazy if either is
        As ``stack`` makes it.

    Raises
    ------
    BadInput
        If they are no mosaics on one grid, or are integers that differ in nodata.
    """
    schema.check(pre, schema.MOSAIC, "pre")
    schema.check(post, schema.MOSAIC, "post")
    schema.on_grid(post, pre, "post", "pre")
    names = [f"{side}_{band}" for side, image in (("pre", pre), ("post", post)) for band in schema.bands(image)]
    return stack([pre, post], names=names)


def _side(cube: xr.DataArray, mask: xr.DataArray | None, taken: np.ndarray, method: str) -> xr.DataArray:
    times = np.flatnonzero(taken)
    shown = graphs.at_times(mask, times) if mask is not None and "time" in mask.dims else mask
    return composite(graphs.at_times(cube, times), method=method, mask=shown)  # type: ignore[arg-type]


def _range(name: str, given: Range, event: pd.Timestamp) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Give the first and last day of a side, both taken."""
    day, past = pd.Timedelta(days=1), name == "before"
    if given is None or isinstance(given, int | np.integer):
        if given is not None and given < 1:
            raise BadInput(sentence(name, "be at least 1 day", f"{name}={given}"))
        far = None if given is None else int(given) * day
        if past:
            return (pd.Timestamp.min if far is None else event - far), event - day
        return event + day, (pd.Timestamp.max if far is None else event + far)
    first, last = (pd.Timestamp(one).normalize() for one in given)
    if first > last or (last >= event if past else first <= event):
        rule = f"be a first and a last day {name} {event:%Y-%m-%d}"
        raise BadInput(sentence(name, rule, f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"))
    return first, last


def _within(days: pd.DatetimeIndex, first: pd.Timestamp, last: pd.Timestamp) -> np.ndarray:
    return np.asarray((days >= first) & (days <= last))


def _no_date(side: str, event: pd.Timestamp, days: pd.DatetimeIndex) -> str:
    there = ", ".join(f"{day:%Y-%m-%d}" for day in days.unique()[:20])
    more = "" if len(days.unique()) <= 20 else f" and {len(days.unique()) - 20} more"
    rule = f"have a date in the range {side} {event:%Y-%m-%d}, whose own day counts on neither side"
    return sentence("cube", rule, f"{there}{more}", f"Open more scenes, or widen {side}=")

"""Items: their order, their groups, and which asset of an item is which band."""

import os
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import rasterio

from lsdask import schema, sensors
from lsdask.errors import BadInput, Unreadable, sentence
from lsdask.scenes import headers

if TYPE_CHECKING:
    import pystac

Group = Literal["time", "solar_day", "id"]
GROUPS: tuple[str, ...] = ("time", "solar_day", "id")

TILES = ("grid:code", "s2:mgrs_tile")
"""What tells the place of an acquisition, in the items that say it."""

VERSIONS = ("s2:processing_baseline", "processing:version", "updated", "created")
"""What tells a later version of an acquisition from an earlier one, the first that both have."""


@dataclass(frozen=True)
class Source:
    """The place of one band of one item.

    Attributes
    ----------
    key : str
        The asset's.
    number : int
        The band of the asset's file, from 1.
    named : bool
        Whether the asset was named, and not one of its bands.
    """

    key: str
    number: int
    named: bool = False


def in_order(items: "Iterable[pystac.Item]") -> "list[pystac.Item]":
    """Sort items by time and id, each collection, id and time once."""
    once = {(item.collection_id, item.id, item.datetime): item for item in items}
    return sorted(once.values(), key=lambda item: (time(item), item.id))


def time(item: "pystac.Item") -> pd.Timestamp:
    """Give an item's time, or the start of its span, as UTC without a zone."""
    when = item.datetime or item.common_metadata.start_datetime
    if when is None:
        raise BadInput(sentence(f"item {item.id}", "have a datetime or a start_datetime", "neither"))
    stamp = pd.Timestamp(when)
    return stamp if stamp.tz is None else stamp.tz_convert("UTC").tz_localize(None)


# Groups


def groups(
    items: "Iterable[pystac.Item]", groupby: "Group | Callable[[pystac.Item], Hashable]" = "solar_day"
) -> "list[list[pystac.Item]]":
    """List the items of each time step that ``load`` would make of them.

    Parameters
    ----------
    items : iterable of pystac.Item
        In any order.
    groupby : {"time", "solar_day", "id"} or callable
        Items of one time, local day, id or value make one step.

    Returns
    -------
    list of list of pystac.Item
        Steps in order of their first item; items by time and id.

    Raises
    ------
    BadInput
        If there are no items, or ``groupby`` is none of these.
    """
    found = in_order(items)
    if not found:
        do = "Widen the search: its area, dates or cloud cover"
        raise BadInput(sentence("items", "hold at least one item", "none", do))
    if not callable(groupby) and groupby not in GROUPS:
        raise BadInput(sentence("groupby", f"be a callable or one of {', '.join(GROUPS)}", f"groupby={groupby!r}"))
    of = groupby if callable(groupby) else _GROUPERS[groupby]
    steps: dict[Hashable, list[pystac.Item]] = {}
    for item in found:
        steps.setdefault(of(item), []).append(item)
    return list(steps.values())


def _solar_day(item: "pystac.Item") -> Hashable:
    """Give the local day: 15 degrees of longitude are an hour."""
    if not item.bbox:
        raise BadInput(sentence(f"item {item.id}", "have a bbox, to tell its local day", "none", "Pass groupby='id'"))
    west, east = item.bbox[0], item.bbox[len(item.bbox) // 2]
    middle = (west + east + (360 if west > east else 0)) / 2
    return (time(item) + timedelta(hours=((middle + 180) % 360 - 180) / 15)).date()


_GROUPERS: "Mapping[str, Callable[[pystac.Item], Hashable]]" = {
    "time": time,
    "solar_day": _solar_day,
    "id": lambda item: item.id,
}


def latest(items: "Iterable[pystac.Item]") -> "list[pystac.Item]":
    """Keep of each acquisition the version processed last.

    Catalogues that process an archive again hold an acquisition twice, under two ids. Items are versions of one
    acquisition if collection, platform, time to the millisecond, and place are the same. Parts of one day's pass over
    one place differ in time, and are all kept.

    Parameters
    ----------
    items : iterable of pystac.Item

    Returns
    -------
    list of pystac.Item
        In order of time and id.
    """
    kept: dict[Hashable, pystac.Item] = {}
    for item in sorted(in_order(items), key=_version):
        kept[_acquisition(item)] = item
    return in_order(kept.values())


def _acquisition(item: "pystac.Item") -> Hashable:
    place = next((item.properties[field] for field in TILES if item.properties.get(field)), None)
    place = place or tuple(round(side, 3) for side in item.bbox or ())
    return item.collection_id, item.properties.get("platform"), time(item).floor("ms"), place


def _version(item: "pystac.Item") -> tuple[Any, ...]:
    """Give what sorts versions: numbers in a text count as numbers, so that 5.10 is after 5.9."""
    said = [str(item.properties.get(field) or "") for field in VERSIONS] + [item.id]
    return tuple(tuple(int(part) if part.isdigit() else -1 for part in re.split(r"\D+", text)) for text in said)


# Bands


def sources(item: "pystac.Item", bands: Sequence[str], sensor: sensors.Sensor | None) -> tuple[Source | None, ...]:
    """Find the bands of an item: by asset key, through the sensor's table, or by common name; None where it has none.

    Parameters
    ----------
    item : pystac.Item
    bands : sequence of str
        A number after a point picks a band of an asset that holds several: ``"visual.2"``.
    sensor : Sensor or None
    """
    return tuple(_source(item, band, sensor) for band in bands)


def _source(item: "pystac.Item", band: str, sensor: sensors.Sensor | None) -> Source | None:
    for key in (band, *_keys(sensor, band)):
        if key in item.assets:
            return Source(key, 1, named=True)
        asset, point, number = key.rpartition(".")
        if point and number.isdigit() and asset in item.assets:
            return Source(asset, int(number))
    found = [
        (len(told), Source(key, place))
        for key, asset in item.assets.items()
        for told in [about(asset)]
        for place, said in enumerate(told, 1)
        if band in (said.get("eo:common_name"), said.get("common_name"))
    ]
    return min(found, key=lambda one: one[0])[1] if found else None


def _keys(sensor: sensors.Sensor | None, band: str) -> tuple[str, ...]:
    """Give the asset keys of a band in the table of a sensor: its quality band is none of its bands."""
    if sensor is None:
        return ()
    if band in sensor.quality:
        return sensor.quality
    return next((part.keys for part in sensor.bands if band == part.name or band in part.keys), ())


def is_quality(source: Source, sensor: sensors.Sensor | None) -> bool:
    """Say whether a band is the one that says how good a pixel is: it is no reflectance."""
    return sensor is not None and not {source.key, f"{source.key}.{source.number}"}.isdisjoint(sensor.quality)


def check_found(items: "Sequence[pystac.Item]", bands: Sequence[str], found: Sequence[Sequence[Source | None]]) -> None:
    """Raise BadInput if no item has a band."""
    for place, band in enumerate(bands):
        if all(row[place] is None for row in found):
            rule = f"name assets of the items: {', '.join(sorted({key for item in items for key in item.assets}))}"
            raise BadInput(sentence("bands", rule, repr(band), "Pass some of these, or common names such as 'red'"))


def check_single(items: "Sequence[pystac.Item]", found: Sequence[Sequence[Source | None]]) -> None:
    """Raise BadInput if the name of an asset stands for several bands."""
    for item, row in zip(items, found):
        for source in row:
            if source is not None and source.named and len(told := about(item.assets[source.key])) > 1:
                names = ", ".join(f"'{source.key}.{number}'" for number in range(1, len(told) + 1))
                got = f"{source.key!r}, {len(told)} bands of {item.id}"
                raise BadInput(sentence("bands", "name one band each", got, f"Pass {names}"))


def about(asset: "pystac.Asset") -> list[dict[str, Any]]:
    """Give what an asset says of its bands, in whichever of three STAC fields says most."""
    fields = [asset.extra_fields.get(field) or [] for field in ("bands", "eo:bands", "raster:bands")]
    return max(fields, key=len)


def said(asset: "pystac.Asset", number: int, field: str) -> Any:
    """Give what an asset says of a field of a band (from 1): by the band, else by the asset; None if nothing."""
    for name in (f"raster:{field}", field):
        for bands in ("bands", "raster:bands"):
            told = asset.extra_fields.get(bands) or []
            if number <= len(told) and told[number - 1].get(name) is not None:
                return told[number - 1][name]
        if asset.extra_fields.get(name) is not None:
            return asset.extra_fields[name]
    return None


def href(asset: "pystac.Asset") -> str:
    """Give where an asset lies. A local path is that, even in an item that was read from a URL."""
    return asset.href if os.path.isabs(asset.href) else asset.get_absolute_href() or asset.href


# What the pixels are


def stored(
    items: "Sequence[pystac.Item]",
    found: Sequence[Sequence[Source | None]],
    *,
    dtype: Any = None,
    nodata: float | None = None,
    sensor: sensors.Sensor | None = None,
) -> tuple[np.dtype, float | None]:
    """Give the dtype that holds all bands, and the first nodata declared.

    What is given is not asked for. Else the items say it, else the sensor's table; a file is opened only for a band of
    which none of these does.
    """
    kinds, voids = [], []
    for place in range(len(found[0])):
        having = _having(items, found, place)
        table = None if any(is_quality(source, sensor) for _, source in having) else sensor
        kind, void = _of_band(having, dtype, nodata, table)
        kinds.append(kind)
        voids.append(void)
    return np.result_type(*kinds), next((void for void in voids if void is not None), None)


def _having(
    items: "Sequence[pystac.Item]", found: Sequence[Sequence[Source | None]], place: int
) -> "list[tuple[pystac.Asset, Source]]":
    """List where a band is, over the items that have it."""
    rows = ((item, row[place]) for item, row in zip(items, found))
    return [(item.assets[source.key], source) for item, source in rows if source is not None]


def _of_band(
    having: "Sequence[tuple[pystac.Asset, Source]]", dtype: Any, nodata: float | None, sensor: sensors.Sensor | None
) -> tuple[np.dtype, float | None]:
    """Give the dtype and nodata of one band."""
    kind, void = _kind(having, dtype, sensor), _void(having, nodata, sensor)
    if kind is not None and (void is not None or kind.kind == "f"):
        return kind, void
    in_file = _of_file(href(having[0][0]), having[0][1].number, needed=kind is None)
    return in_file[0] if kind is None else kind, in_file[1] if void is None else void


def _kind(having: "Sequence[tuple[pystac.Asset, Source]]", dtype: Any, sensor: sensors.Sensor | None) -> Any:
    """Give the dtype that is given, or that items say, promoted, or that the sensor's table says, or None."""
    told = {dtype} if dtype is not None else {said(asset, source.number, "data_type") for asset, source in having}
    told = (told - {None}) or ({sensor.dtype} - {None} if sensor is not None else set())
    return np.result_type(*map(np.dtype, told)) if told else None


def _void(
    having: "Sequence[tuple[pystac.Asset, Source]]", nodata: float | None, sensor: sensors.Sensor | None
) -> float | None:
    """Give the nodata that is given, or that the first item says, or that the sensor's table says, or None."""
    if nodata is not None:
        return nodata
    told = (said(asset, source.number, "nodata") for asset, source in having)
    first = next((void for void in told if void is not None), None)
    if first is not None:
        return float(first)
    return None if sensor is None else sensor.fill


def _of_file(path: str, number: int, *, needed: bool) -> tuple[np.dtype, float | None]:
    """Give the dtype and nodata of a file. One that cannot be read declares nothing, unless it must say the dtype."""
    try:
        with headers.opened(path, rasterio.open) as file:
            if number > file.count:
                raise BadInput(sentence(path, f"have a band {number}, as asked", f"{file.count}"))
            return np.dtype(file.dtypes[number - 1]), file.nodatavals[number - 1]
    except Unreadable as error:
        if needed:
            do = "Pass dtype= and nodata="
            got = str(error.__cause__ or error)
            raise Unreadable(sentence(path, "be a raster, as its item does not say its dtype", got, do)) from error
        return np.dtype("V0"), None


def fill(dtype: np.dtype, nodata: float | None) -> float | int:
    """Give what stands for void in a cube: NaN in floats, else nodata, else 0 or the lowest signed integer."""
    if dtype.kind == "f":
        return float("nan")
    if nodata is None:
        return 0 if dtype.kind == "u" else int(np.iinfo(dtype).min)
    schema.check_nodata(nodata, dtype)
    return int(nodata)

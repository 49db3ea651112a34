"""STAC items become one lazy cube on one grid. Reached as ``scenes.load``.

odc-stac reads the items: where each asset lies, by ``proj:code``, ``proj:epsg``, ``proj:wkt2`` or ``proj:projjson``, of
the item or of the asset. The pixels are read as those of files are, by ``painting``: a chunk opens only the files that
touch it, and a value does not depend on how the cube is cut into chunks. (odc-stac's own reader moves pixels by up to
an eighth on a grid of another CRS: 0.01 to 7 % of them were another than the nearest, by the size of the chunks.)
``engine="stackstac"`` gives both to stackstac.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
import pystac
import shapely
import shapely.geometry
import xarray as xr
from affine import Affine
from odc.geo.crs import CRS, CRSError
from odc.geo.geobox import GeoBox

from lsdask import schema, sensors
from lsdask.errors import BadInput, sentence
from lsdask.scenes import calibration, painting, placing
from lsdask.scenes import items as lists
from lsdask.scenes.chunks import lazy
from lsdask.scenes.items import Group, Source
from lsdask.scenes.painting import Layer, Target
from lsdask.scenes.placing import Outline

if TYPE_CHECKING:
    from odc.stac import ParsedItem

ENGINES: tuple[str, ...] = ("odc", "stackstac")
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
PLACE = ("proj:shape", "proj:transform")
SYSTEM = ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson")
DEGREES = CRS("EPSG:4326")

Place = tuple[Outline, bool] | None
"""Where a band of an item lies, and whether that is said of its pixels, or only of the item."""


@dataclass(frozen=True)
class Request:
    """What an engine is asked for, the same of each.

    Attributes
    ----------
    items : tuple of pystac.Item
        In order of step, time and id.
    steps : tuple of int
        The time step of each item.
    sources : tuple of tuple of Source or None
        For each item, where each band is.
    target : Target
    nodata : float or None
        What stands for void in files of which neither they nor their items declare it.
    chunks : int
    """

    items: tuple[pystac.Item, ...]
    steps: tuple[int, ...]
    sources: tuple[tuple[Source | None, ...], ...]
    target: Target
    nodata: float | None
    chunks: int


def load(
    items: Iterable[pystac.Item],
    *,
    bands: Sequence[str],
    grid: GeoBox | xr.DataArray | None = None,
    crs: Any = None,
    resolution: float | None = None,
    sensor: str | None = None,
    engine: str = "odc",
    resampling: str = "nearest",
    groupby: Group | Callable[[pystac.Item], Hashable] = "time",
    nodata: float | None = None,
    dtype: Any = None,
    chunks: int = 512,
    name: str = "cube",
) -> xr.DataArray:
    """Load STAC items as one lazy cube on one grid.

    Parameters
    ----------
    items : iterable of pystac.Item
        In any order; each collection and id is loaded once.
    bands : sequence of str
        Asset keys, names of the sensor's bands, or common names such as ``"red"``; ``"visual.2"`` is the second band
        of the asset ``visual``. Each item is asked by itself, so that items of several catalogues may be mixed.
    grid : GeoBox or DataArray, optional
        The grid to load on, or an image to be like. It may cross the antimeridian, or hold a pole.
    crs, resolution : optional
        Instead of ``grid``: a CRS and the side of a pixel in its units; the grid then holds all items, its edges at
        whole multiples of the side. Without any of the three: the CRS of most items, on the pixels of the finest.
    sensor : str, optional
        A name of ``sensors``: bands are then looked for by the keys of its table, and what items do not say of dtype,
        fill, scale and offset is the table's.
    engine : {"odc", "stackstac"}
        What reads the items: odc-stac, or stackstac, which has not followed STAC since 2024.
    resampling : str
        How pixels are put on the grid, as rasterio names it. With ``"nearest"`` every value is one of the file's own
        pixels, never an overview's, and the engines agree (but where a pixel's centre falls midway between two of
        the file's, neither of which is the nearest). With the others odc reads the coarsest overview whose pixels are
        no larger than the grid's.
    groupby : {"time", "solar_day", "id"} or callable
        Items of one time, local day, id or value make one time step; the first by time and id is on top.
    nodata : float, optional
        What stands for void in the cube, and in files that declare nothing. Default: as the items, the sensor or the
        files say, else 0 (the lowest value for signed integers).
    dtype : dtype, optional
        Default: as stored, by the items, the sensor or the files; bands of several dtypes are promoted as numpy does.
    chunks : int
        Side of a chunk, in pixels. All bands are in one chunk.
    name : str
        The name of the DataArray.

    Returns
    -------
    DataArray (time, band, y, x), lazy
        ``time`` is that of the first item of a step. An item that lacks a band is void in it. Where items or sensor
        say them, coordinates ``scale`` and ``offset`` (time, band) hold what ``reflectance`` and ``harmonize`` need.

    Raises
    ------
    BadInput
        If there are no items, no item has a band, the grid is not said and cannot be found, or the engine cannot
        read such items. While computing: if a file holds values that its item's dtype cannot.
    Unreadable
        While computing: if a file cannot be read, or lies elsewhere than its item says; it is named.

    Examples
    --------
    >>> cube = load(items, bands=["red", "nir"], crs="EPSG:32723", resolution=10)  # doctest: +SKIP
    """
    if engine not in ENGINES:
        raise BadInput(sentence("engine", f"be one of {', '.join(ENGINES)}", f"engine={engine!r}"))
    steps = lists.groups(items, groupby)
    ordered = [item for step in steps for item in step]
    names = tuple([bands] if isinstance(bands, str) else bands)
    table = None if sensor is None else sensors.get(sensor)
    sources = [lists.sources(item, names, table) for item in ordered]
    lists.check_found(ordered, names, sources)
    kind, declared = lists.stored(ordered, sources, dtype=dtype, nodata=nodata, sensor=table)
    void = lists.fill(kind, declared)
    outlines = _outlines(ordered, sources)
    box = _grid(ordered, outlines, grid, crs, resolution)
    target = painting.target(box, len(names), kind, resampling=resampling, fill=void, overviews=resampling != "nearest")
    numbers = tuple(number for number, step in enumerate(steps) for _ in step)
    request = Request(tuple(ordered), numbers, tuple(sources), target, declared, chunks)
    data = _odc(request, outlines) if engine == "odc" else _stackstac(request)
    coords: dict[str, Any] = {"time": pd.DatetimeIndex([lists.time(step[0]) for step in steps]), "band": list(names)}
    coords |= calibration.coordinates(ordered, sources, numbers, table)
    return schema.wrap(data, target.grid, schema.CUBE, name=name, coords=coords, nodata=void)


# Where items lie, as odc-stac reads them


def _outlines(items: Sequence[pystac.Item], sources: Sequence[Sequence[Source | None]]) -> list[list[Place]]:
    """Give the place of each band of each item, None where it has none: of its pixels, else of the whole item."""
    import odc.stac

    slim = [_slim(item, row) for item, row in zip(items, sources)]
    try:
        parsed = list(odc.stac.parse_items(slim, asset_absolute_paths=False))
    except (ValueError, CRSError) as error:
        raise BadInput(sentence("items", "say rightly where they lie, in STAC's projection fields", error)) from error
    return [_places(item, row, found) for item, row, found in zip(items, sources, parsed)]


def _slim(item: pystac.Item, row: Sequence[Source | None]) -> pystac.Item:
    """Give an item with no more than the assets to be read, and of these those that say where their pixels lie.

    Reading all assets would be most of the work. odc-stac takes all items of a collection to be built alike; so that
    none is taken for another, a collection is here what is built alike.
    """
    keys = dict.fromkeys(source.key for source in row if source is not None)
    assets = {key: item.assets[key] for key in keys if _is_placed(item.assets[key], item.properties)}
    built = [repr([asset.extra_fields.get(field) for field in PLACE]) for asset in assets.values()]
    alike = repr([(key, built.index(place)) for key, place in zip(assets, built)])
    copy = pystac.Item(item.id, item.geometry, item.bbox, _time(item), item.properties, collection=alike)
    copy.stac_extensions = [*item.stac_extensions, PROJECTION]  # some catalogues use it without saying so
    for key, asset in assets.items():
        copy.add_asset(key, pystac.Asset(asset.href, roles=["data"], extra_fields=asset.extra_fields))
    return copy


def _time(item: pystac.Item) -> Any:
    return lists.time(item).to_pydatetime()


def _is_placed(asset: pystac.Asset, properties: Mapping[str, Any]) -> bool:
    fields = {**properties, **asset.extra_fields}
    return all(fields.get(field) for field in PLACE) and any(fields.get(field) for field in SYSTEM)


def _places(item: pystac.Item, row: Sequence[Source | None], parsed: "ParsedItem") -> list[Place]:
    boxes = {key: getattr(found, "geobox", None) for (key, _), found in parsed.bands.items()}
    places: list[Place] = []
    for source in row:
        box = None if source is None else boxes.get(source.key)
        if source is None:
            places.append(None)
        elif isinstance(box, GeoBox) and box.crs is not None:
            places.append((Outline(_wkt(box.crs), box.transform, (box.shape[0], box.shape[1])), True))
        else:
            places.append((_around(item), False))
    return places


@lru_cache(maxsize=1024)
def _wkt(crs: CRS) -> str:
    return str(crs.to_wkt())


def _around(item: pystac.Item) -> Outline:
    """Give the box round an item, in degrees, as one pixel; longitudes run on where it crosses the antimeridian."""
    if item.geometry is not None:
        boxes = shapely.bounds(shapely.get_parts(shapely.geometry.shape(item.geometry)))
        if len(boxes) > 1 and np.ptp(boxes[:, ::2]) > 180:  # cut at the antimeridian, as GeoJSON asks
            boxes[boxes[:, 0] < 0, ::2] += 360.0
    elif item.bbox is not None:
        half = len(item.bbox) // 2
        boxes = np.array([[*item.bbox[:2], *item.bbox[half : half + 2]]], "float64")
        boxes[0, 2] += 360.0 if boxes[0, 0] > boxes[0, 2] else 0.0
    else:
        raise BadInput(sentence(f"item {item.id}", "have a geometry, a bbox or proj:transform", "none of them"))
    (west, south), (east, north) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    return Outline(_wkt(DEGREES), Affine(east - west, 0, west, 0, south - north, north), (1, 1))


def _grid(
    items: Sequence[pystac.Item], outlines: Sequence[Sequence[Place]], grid: Any, crs: Any, resolution: float | None
) -> GeoBox:
    """Give the grid asked for, or the one that holds all items."""
    if grid is not None:
        if crs is not None or resolution is not None:
            raise BadInput(sentence("grid", "come without crs and resolution", "both", "Pass one or the other"))
        return schema.geobox(grid, "grid") if isinstance(grid, xr.DataArray) else grid
    places = {place: item.id for item, row in zip(items, outlines) for place in row if place is not None}
    own = {outline: name for (outline, declared), name in places.items() if declared}
    if crs is None and resolution is None and len(own) == len(places):
        return placing.union(list(own), [f"item {name}" for name in own.values()])
    if resolution is None:
        do = "Pass crs= and resolution=, or grid="
        raise BadInput(sentence("grid", "be said, as the items do not say theirs", f"grid=None, crs={crs}", do))
    whole = {outline: f"item {name}" for (outline, _), name in places.items()}
    lattice = Outline(_system(crs, own), Affine(resolution, 0, 0, 0, -resolution, 0), (1, 1))
    return placing.spanned(list(whole), list(whole.values()), lattice)


def _system(crs: Any, own: Iterable[Outline]) -> str:
    """Give the CRS asked for, or that of most items, as WKT."""
    if crs is None:
        counts = Counter(outline.crs for outline in own)
        if not counts:
            do = "Pass crs= too, or grid="
            raise BadInput(sentence("crs", "be said, as the items do not say theirs", "None", do))
        return counts.most_common(1)[0][0]
    try:
        return _wkt(CRS(crs))
    except (ValueError, TypeError, CRSError) as error:
        raise BadInput(sentence("crs", "be a CRS, such as 'EPSG:32723'", f"crs={crs!r}: {error}")) from error


# The engines: a Request in, a Dask array (time, band, y, x) out


def _odc(request: Request, outlines: Sequence[Sequence[Place]]) -> da.Array:
    lists.check_single(request.items, request.sources)
    found = [place for row in outlines for place in row if place is not None]
    boxes = iter(placing.boxes([outline for outline, _ in found], request.target.outline).tolist())
    layers: list[Layer] = []
    steps: list[int] = []
    for item, step, row, places in zip(request.items, request.steps, request.sources, outlines):
        boxed = [None if place is None else (tuple(next(boxes)), place[1]) for place in places]
        of_item = _layers(item, row, boxed, request.nodata)
        layers += of_item
        steps += [step] * len(of_item)
    return lazy(request.target, layers, steps, request.steps[-1] + 1, request.chunks)


def _layers(item: pystac.Item, row: Sequence[Source | None], boxed: Sequence[Any], nodata: float | None) -> list[Layer]:
    """Describe the files of an item; bands of one file are one layer, so that it is opened once."""
    files: dict[str, list[int]] = {}
    for slot, source in enumerate(row):
        if source is not None:
            files.setdefault(source.key, []).append(slot)
    made = []
    for key, slots in files.items():
        asset, numbers = item.assets[key], tuple(source.number for source in row if source and source.key == key)
        told, (box, declared) = lists.said(asset, numbers[0], "nodata"), boxed[slots[0]]
        void = nodata if told is None else float(told)
        made.append(Layer(lists.href(asset), numbers, tuple(slots), box, fallback=void, declared=declared))
    return made


def _stackstac(request: Request) -> da.Array:
    from lsdask.scenes import shim

    return shim.read(request)

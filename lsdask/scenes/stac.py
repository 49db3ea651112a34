"""STAC: items found in a catalogue, kept in a file, and loaded as a lazy cube. Reached as ``scenes.search`` and so on.

Two engines read the pixels. odc-stac is the default. stackstac is for those who ask for it; it has not followed STAC
since 2024, so it is handed items it understands (``proj:epsg`` besides ``proj:code``), the grid to the pixel, and the
stored dtype and nodata, and answers what odc-stac does.
"""

import json
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
import shapely.geometry
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from shapely.errors import ShapelyError

from lsdask import schema
from lsdask.errors import BadInput, NotFound, Unreadable, sentence

if TYPE_CHECKING:
    import pystac

Group = Literal["time", "solar_day", "id"]
GROUPS: tuple[str, ...] = ("time", "solar_day", "id")
ENGINES: tuple[str, ...] = ("odc", "stackstac")
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Request:
    """What an engine is asked for, the same of each.

    Attributes
    ----------
    items : tuple of pystac.Item
        In order of group, time and id.
    groups : tuple of int
        The time step of each item.
    keys : tuple of str
        The asset key of each band.
    names : tuple of str
        The band names of the cube.
    grid : GeoBox
    dtype : dtype
    nodata : float or int
    resampling : str
    chunks : int
    """

    items: "tuple[pystac.Item, ...]"
    groups: tuple[int, ...]
    keys: tuple[str, ...]
    names: tuple[str, ...]
    grid: GeoBox
    dtype: np.dtype
    nodata: float | int
    resampling: str
    chunks: int


def search(
    api: str,
    collections: str | Sequence[str],
    *,
    aoi: Any = None,
    datetime: Any = None,
    query: Mapping[str, Any] | None = None,
    limit: int | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> "list[pystac.Item]":
    """Find items in a STAC API.

    Parameters
    ----------
    api : str
        The address of the API's landing page.
    collections : str or sequence of str
        What to look in.
    aoi : optional
        Where: (west, south, east, north) in degrees, a GeoJSON geometry, feature or collection, a GeoDataFrame, or a
        file that geopandas reads. All but GeoJSON may be in any CRS.
    datetime : optional
        When: ``"2020-01-01/2020-03-31"``, ``"2020-01"``, or a pair of times.
    query : mapping, optional
        What else, such as ``{"eo:cloud_cover": {"lt": 20}}``.
    limit : int, optional
        At most so many items.
    headers : mapping, optional
        Sent with each request, for APIs that ask for a key.
    timeout : float
        Seconds to wait for an answer. Requests that fail for a while are tried again, with back-off.

    Returns
    -------
    list of pystac.Item
        Each once, in order of time and id.

    Raises
    ------
    NotFound
        If nothing is found.
    Unreadable
        If the API does not answer, or not in STAC.
    BadInput
        If ``aoi`` is no place.

    Examples
    --------
    >>> items = search(api, "CB4A-WPM-L4-DN-1", aoi="area.geojson", datetime="2020-03/2020-05")  # doctest: +SKIP
    """
    import pystac
    import pystac_client
    import requests

    place = {} if aoi is None else _place(aoi)
    names = [collections] if isinstance(collections, str) else list(collections)
    try:
        client = pystac_client.Client.open(api, headers=dict(headers or {}), timeout=timeout)
        asked = client.search(
            collections=names, datetime=datetime, query=dict(query) if query else None, max_items=limit, **place
        )
        found = {(item.collection_id, item.id): item for item in asked.items()}
    except (pystac_client.exceptions.APIError, pystac.STACError, requests.RequestException, ValueError) as error:
        raise Unreadable(sentence("api", "be a STAC API that answers", f"{api}: {error}")) from error
    if not found:
        got = f"none in {', '.join(names)}, {datetime or 'at any time'}"
        raise NotFound(sentence("search", "find at least one item", got, "Widen its area, dates or query"))
    return sorted(found.values(), key=lambda item: (_time(item), item.id))


def _place(aoi: Any) -> dict[str, Any]:
    """Say where in STAC's words."""
    if isinstance(aoi, Sequence) and not isinstance(aoi, str) and len(aoi) == 4:
        west, south, east, north = (float(value) for value in aoi)
        if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90):
            raise BadInput(sentence("aoi", "be (west, south, east, north) in degrees", f"aoi={aoi}"))
        return {"bbox": [west, south, east, north]}
    outline = _outline(aoi)
    if outline.is_empty:
        raise BadInput(sentence("aoi", "hold a place", "nothing"))
    return {"intersects": shapely.geometry.mapping(outline)}


def _outline(aoi: Any) -> Any:
    """Give a place as one geometry in degrees."""
    try:
        if isinstance(aoi, Mapping):
            parts = [part.get("geometry", part) for part in aoi.get("features", [aoi])]
            return shapely.union_all([shapely.geometry.shape(part) for part in parts])
        frame = aoi if isinstance(aoi, gpd.GeoDataFrame | gpd.GeoSeries) else gpd.read_file(aoi)
    except (LookupError, TypeError, AttributeError, ValueError, OSError, RuntimeError, ShapelyError) as error:
        rule = "be (west, south, east, north) in degrees, GeoJSON, a GeoDataFrame or a file that geopandas reads"
        raise BadInput(sentence("aoi", rule, f"{aoi!r}: {error}")) from error
    if frame.crs is None:
        raise BadInput(sentence("aoi", "have a CRS", "none", "Set it: frame.set_crs('EPSG:...')"))
    return frame.to_crs("EPSG:4326").geometry.union_all()


def save(items: "Iterable[pystac.Item]", path: PathLike) -> None:
    """Keep items in a GeoJSON file, so that a run can be repeated without the catalogue.

    Parameters
    ----------
    items : iterable of pystac.Item
        Relative links are made absolute.
    path : path
        The file, written whole before it gets its name.

    Raises
    ------
    BadInput
        If there are no items.
    """
    features = [_absolute(item).to_dict(transform_hrefs=False) for item in items]
    if not features:
        raise BadInput(sentence("items", "hold at least one item", "none"))
    part = Path(f"{os.fspath(path)}.part-{os.getpid()}")
    part.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    part.replace(path)


def _absolute(item: "pystac.Item") -> "pystac.Item":
    copy = item.clone()
    for asset in copy.assets.values():
        asset.href = _href(asset)
    return copy


def read(path: PathLike) -> "list[pystac.Item]":
    """Read items from a file that ``save`` wrote, or from any GeoJSON item or collection of items.

    Parameters
    ----------
    path : path
        A local file.

    Returns
    -------
    list of pystac.Item
        In the file's order; items of older versions of STAC are brought to today's.

    Raises
    ------
    NotFound
        If there is no such file.
    Unreadable
        If it holds no STAC items.
    """
    import pystac

    where = Path(path)
    if not where.is_file():
        raise NotFound(sentence("path", "name a file of STAC items", f"path={os.fspath(path)!r}, where there is none"))
    try:
        found = json.loads(where.read_text())
        items = [pystac.Item.from_dict(feature) for feature in found.get("features", [found])]
    except (ValueError, KeyError, TypeError, AttributeError, pystac.STACError, pystac.STACTypeError) as error:
        raise Unreadable(sentence("path", "name a file of STAC items", f"{where}: {error}")) from error
    for item in items:
        item.set_self_href(item.get_self_href() or str(where.absolute()))
    return items


def load(
    items: "Iterable[pystac.Item]",
    *,
    bands: Sequence[str],
    grid: GeoBox | xr.DataArray | None = None,
    crs: Any = None,
    resolution: float | None = None,
    engine: str = "odc",
    resampling: str = "nearest",
    groupby: "Group | Callable[[pystac.Item], Hashable]" = "time",
    nodata: float | None = None,
    dtype: Any = None,
    chunks: int = 512,
    name: str = "cube",
) -> xr.DataArray:
    """Load STAC items as one lazy cube on one grid.

    Parameters
    ----------
    items : iterable of pystac.Item
        In any order.
    bands : sequence of str
        Asset keys, or common names such as ``"red"``.
    grid : GeoBox or DataArray, optional
        The grid to load on, or an image to be like.
    crs, resolution : optional
        Instead of ``grid``: a CRS and the side of a pixel in its units; the grid then holds all items, its edges at
        whole multiples of the side. Without any of the three: the items' own CRS and resolution.
    engine : {"odc", "stackstac"}
        What reads the pixels.
    resampling : str
        How pixels are put on the grid, as rasterio names it. With ``"nearest"`` every value is one of the file's own
        pixels, never an overview's, and the engines agree (but where a pixel's centre falls midway between two of
        the file's, neither of which is the nearest). The others read overviews with odc-stac only.
    groupby : {"time", "solar_day", "id"} or callable
        Items of one time, local day, id or value make one time step; the first by time and id is on top.
    nodata : float, optional
        What stands for void in the cube, and in files that declare nothing. Default: as the items or their files
        say, else 0 (the lowest value for signed integers).
    dtype : dtype, optional
        Default: as stored, by the items or their files; bands of several dtypes are promoted as numpy does.
    chunks : int
        Side of a chunk, in pixels. All bands are in one chunk.
    name : str
        The name of the DataArray.

    Returns
    -------
    DataArray (time, band, y, x), lazy
        ``time`` is that of the first item of a step. An item that lacks a band is void in it.

    Raises
    ------
    BadInput
        If there are no items, no item has a band, the grid is not said and cannot be found, or the engine cannot
        read such items.

    Examples
    --------
    >>> cube = load(items, bands=["red", "nir"], crs="EPSG:32723", resolution=10)  # doctest: +SKIP
    """
    if engine not in ENGINES:
        raise BadInput(sentence("engine", f"be one of {', '.join(ENGINES)}", f"engine={engine!r}"))
    if resampling not in Resampling.__members__:
        rule = f"be one of {', '.join(Resampling.__members__)}"
        raise BadInput(sentence("resampling", rule, f"resampling={resampling!r}"))
    ordered, groups = _grouped(items, groupby)
    names = tuple([bands] if isinstance(bands, str) else bands)
    keys = tuple(_key(ordered, band) for band in names)
    if dtype is None or nodata is None:
        stored, declared = _stored(ordered, keys, dtype)
        dtype, nodata = stored if dtype is None else dtype, declared if nodata is None else nodata
    void = _void(np.dtype(dtype), nodata)
    target = _grid(ordered, keys, grid, crs, resolution)
    request = Request(tuple(ordered), groups, keys, names, target, np.dtype(dtype), void, resampling, chunks)
    data = _odc(request) if engine == "odc" else _stackstac(request)
    starts = [ordered[groups.index(step)] for step in range(groups[-1] + 1)]
    coords = {"time": pd.DatetimeIndex([_time(item) for item in starts]), "band": list(names)}
    return schema.wrap(data, target, schema.CUBE, name=name, coords=coords, nodata=void)


# Items: their order, bands, dtype and grid


def _grouped(items: "Iterable[pystac.Item]", groupby: Any) -> "tuple[list[pystac.Item], tuple[int, ...]]":
    """Sort items by time and id, and give the time step of each: steps in order of their first item."""
    found = sorted(items, key=lambda item: (_time(item), item.id))
    if not found:
        do = "Widen the search: its area, dates or cloud cover"
        raise BadInput(sentence("items", "hold at least one item", "none", do))
    if not callable(groupby) and groupby not in GROUPS:
        raise BadInput(sentence("groupby", f"be a callable or one of {', '.join(GROUPS)}", f"groupby={groupby!r}"))
    of = groupby if callable(groupby) else _GROUPERS[groupby]
    steps: dict[Hashable, int] = {}
    groups = [steps.setdefault(of(item), len(steps)) for item in found]
    order = sorted(range(len(found)), key=lambda i: groups[i])
    return [found[i] for i in order], tuple(groups[i] for i in order)


def _time(item: "pystac.Item") -> pd.Timestamp:
    """Give an item's time, or the start of its span, as UTC without a zone."""
    time = item.datetime or item.common_metadata.start_datetime
    if time is None:
        raise BadInput(sentence(f"item {item.id}", "have a datetime or a start_datetime", "neither"))
    stamp = pd.Timestamp(time)
    return stamp if stamp.tz is None else stamp.tz_convert("UTC").tz_localize(None)


def _solar_day(item: "pystac.Item") -> Hashable:
    """Give the local day: 15 degrees of longitude are an hour."""
    west, *_, east, _ = item.bbox if item.bbox and len(item.bbox) == 4 else _flat(item)
    return (_time(item) + timedelta(hours=(west + east) / 2 / 15)).date()


def _flat(item: "pystac.Item") -> Sequence[float]:
    if not item.bbox:
        raise BadInput(sentence(f"item {item.id}", "have a bbox, to tell its local day", "none", "Pass groupby='id'"))
    west, south, _, east, north, _ = item.bbox
    return west, south, east, north


_GROUPERS: "Mapping[str, Callable[[pystac.Item], Hashable]]" = {
    "time": _time,
    "solar_day": _solar_day,
    "id": lambda item: item.id,
}


def _key(items: "Sequence[pystac.Item]", band: str) -> str:
    """Give the asset key of a band named by key or common name, looked for in every item until one has it."""
    for item in items:
        if band in item.assets:
            return band
        for key, asset in item.assets.items():
            about = _about(asset)
            if len(about) == 1 and band in (about[0].get("eo:common_name"), about[0].get("common_name")):
                return key
    rule = f"name assets of the items: {', '.join(sorted({key for item in items for key in item.assets}))}"
    raise BadInput(sentence("bands", rule, repr(band), "Pass some of these, or common names such as 'red'"))


def _about(asset: "pystac.Asset") -> list[dict[str, Any]]:
    """Give what an asset says of its bands, in whichever of three STAC fields says most."""
    fields = [asset.extra_fields.get(field) or [] for field in ("bands", "eo:bands", "raster:bands")]
    return max(fields, key=len)


def _href(asset: "pystac.Asset") -> str:
    """Give where an asset lies. A local path is that, even in an item that was read from a URL."""
    return asset.href if os.path.isabs(asset.href) else asset.get_absolute_href() or asset.href


def _stored(items: "Sequence[pystac.Item]", keys: Sequence[str], dtype: Any) -> tuple[np.dtype, float | None]:
    """Give the dtype that holds all bands, and the first nodata declared, by metadata or else by a file."""
    said = [_said(next(item.assets[key] for item in items if key in item.assets), dtype) for key in keys]
    dtypes, voids = [dtype for dtype, _ in said], [void for _, void in said if void is not None]
    return np.result_type(*dtypes), voids[0] if voids else None


def _said(asset: "pystac.Asset", given: Any) -> tuple[np.dtype, float | None]:
    """Give the dtype and nodata of an asset: the metadata's if it says both, else the file's."""
    about = {**asset.extra_fields, **next(iter(asset.extra_fields.get("raster:bands") or [{}]))}
    about |= next(iter(asset.extra_fields.get("bands") or [{}]))
    dtype, void = given or about.get("data_type"), about.get("nodata")
    if dtype is not None and void is not None:
        return np.dtype(dtype), float(void)
    href = _href(asset)
    try:
        with rasterio.open(href) as file:
            return np.dtype(dtype or file.dtypes[0]), file.nodata if void is None else float(void)
    except RasterioError as error:
        if dtype is not None:
            return np.dtype(dtype), None
        do = "Pass dtype= and nodata="
        raise Unreadable(sentence(href, "be a raster, as its item does not say its dtype", str(error), do)) from error


def _void(dtype: np.dtype, nodata: float | None) -> float | int:
    if dtype.kind == "f":
        return float("nan")
    if nodata is None:
        return 0 if dtype.kind == "u" else int(np.iinfo(dtype).min)
    schema.check_nodata(nodata, dtype)
    return int(nodata)


def _grid(items: "Sequence[pystac.Item]", keys: Sequence[str], grid: Any, crs: Any, resolution: float | None) -> GeoBox:
    if grid is not None:
        if crs is not None or resolution is not None:
            raise BadInput(sentence("grid", "come without crs and resolution", "both", "Pass one or the other"))
        found = schema.geobox(grid, "grid") if isinstance(grid, xr.DataArray) else grid
    else:
        import odc.stac

        asked = {} if crs is None else {"crs": crs}
        asked |= {} if resolution is None else {"resolution": resolution}
        found = odc.stac.output_geobox(list(odc.stac.parse_items(items)), bands=keys, **asked)
    if not isinstance(found, GeoBox) or found.crs is None:
        do = "Pass crs= and resolution=, or grid="
        raise BadInput(sentence("grid", "be said, as the items do not say theirs", f"grid={grid!r}", do))
    return found


# The engines: a Request in, a Dask array (time, band, y, x) out


def _odc(request: Request) -> da.Array:
    import odc.stac

    dataset = odc.stac.load(
        [_placed(item, request.keys) for item in request.items],
        bands=list(dict.fromkeys(request.keys)),
        geobox=request.grid,
        groupby=lambda item, parsed, index: request.groups[index],
        preserve_original_order=True,
        dtype=request.dtype.name,
        nodata=request.nodata,
        resampling=request.resampling,
        use_overviews=request.resampling != "nearest",  # else values would be an overview's, not a pixel's
        chunks={"y": request.chunks, "x": request.chunks},
    )
    return da.stack([dataset[key].data for key in request.keys], axis=1).rechunk({1: -1})


def _stackstac(request: Request) -> da.Array:
    try:
        import stackstac
    except ImportError as error:
        do = "Install it, pip install lsdask[stackstac], or use engine='odc'"
        raise BadInput(sentence("engine", "be installed", "engine='stackstac'", do)) from error
    box: BoundingBox = request.grid.boundingbox
    stack = stackstac.stack(
        [_as_stackstac_reads(number, item, request.keys) for number, item in enumerate(request.items)],
        assets=list(dict.fromkeys(request.keys)),
        epsg=_epsg(request.grid),
        resolution=(abs(request.grid.resolution.x), abs(request.grid.resolution.y)),
        bounds=(box.left, box.bottom, box.right, box.top),
        snap_bounds=False,
        resampling=Resampling[request.resampling],
        chunksize=request.chunks,
        dtype=request.dtype,
        fill_value=request.dtype.type(request.nodata),
        rescale=False,
        sortby_date=False,
        xy_coords="center",
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
    )
    if stack.shape[2:] != tuple(request.grid.shape):
        rule = f"have whole pixels of one size in both directions, {tuple(request.grid.shape)} for engine='stackstac'"
        raise BadInput(sentence("grid", rule, f"{stack.shape[2:]} pixels", "Use engine='odc'"))
    whole = _with_dropped_bands(stack, request)
    # stackstac drops items that lie outside the grid, so each is named by its place in the request
    present = np.asarray(request.groups)[stack.id.values.astype(int)]
    edges = np.searchsorted(present, np.arange(request.groups[-1] + 2))
    if (np.diff(edges) == 1).all():
        return whole
    return da.stack([_first(whole[start:stop], request.nodata) for start, stop in pairwise(edges)])


def _with_dropped_bands(stack: xr.DataArray, request: Request) -> da.Array:
    """Give the asked bands in their order, in one chunk; a band of no item on the grid, which is dropped, is void."""
    found = list(stack.band.values)
    shape = (len(stack), *request.grid.shape)
    void = da.full(shape, request.nodata, dtype=request.dtype, chunks=(1, request.chunks, request.chunks))
    bands = [stack.data[:, found.index(key)] if key in found else void for key in request.keys]
    return da.stack(bands, axis=1).rechunk({1: -1})


def _placed(item: "pystac.Item", keys: Sequence[str]) -> "pystac.Item":
    """Give an item whose links odc-stac follows to where they lead: without its own link, if that misleads it."""
    assets = [item.assets[key] for key in keys if key in item.assets]
    if all(_href(asset) == asset.get_absolute_href() for asset in assets):
        return item
    copy = item.clone()
    copy.clear_links("self")
    return copy


def _first(stack: da.Array, nodata: float | int) -> da.Array:
    """Lay the items of one time step on each other, the first on top; none at all are void."""
    if len(stack) == 0:
        return da.full(stack.shape[1:], nodata, dtype=stack.dtype, chunks=stack.chunks[1:])
    if len(stack) == 1:
        return stack[0]
    return da.map_blocks(_lay, stack.rechunk({0: -1}), nodata=nodata, drop_axis=0, dtype=stack.dtype)


def _lay(block: np.ndarray, nodata: float | int) -> np.ndarray:
    """Take, value by value, the first along axis 0 that is data."""
    first = schema.known_block(block, nodata).argmax(axis=0)
    return np.take_along_axis(block, first[np.newaxis], axis=0)[0]


def _epsg(grid: GeoBox) -> int:
    epsg = grid.crs.to_epsg() if grid.crs is not None else None
    if epsg is None:
        raise BadInput(sentence("grid", "be in an EPSG CRS for engine='stackstac'", f"{grid.crs}", "Use engine='odc'"))
    return epsg


def _as_stackstac_reads(number: int, item: "pystac.Item", keys: Sequence[str]) -> dict[str, Any]:
    """Give an item in the form of 2024: ``proj:epsg``, absolute links, the assets that are asked for."""
    for key in keys:
        if key in item.assets and len(_about(item.assets[key])) > 1:
            got = f"{len(_about(item.assets[key]))} bands in {key!r} of {item.id}"
            raise BadInput(sentence("bands", "name assets of one band for engine='stackstac'", got, "Use engine='odc'"))
    return {
        "type": "Feature",
        "id": str(number),
        "bbox": item.bbox,
        "geometry": item.geometry,
        "properties": _with_epsg(item.properties) | {"datetime": _time(item).isoformat() + "Z"},
        "assets": {key: _old_asset(item.assets[key]) for key in dict.fromkeys(keys) if key in item.assets},
    }


def _old_asset(asset: "pystac.Asset") -> dict[str, Any]:
    return {
        **_with_epsg(asset.extra_fields),
        "href": _href(asset),
        "type": asset.media_type,
        "roles": asset.roles or [],
    }


def _with_epsg(fields: Mapping[str, Any]) -> dict[str, Any]:
    code = str(fields.get("proj:code") or "")
    return {**fields, "proj:epsg": int(code[5:])} if code.startswith("EPSG:") else dict(fields)

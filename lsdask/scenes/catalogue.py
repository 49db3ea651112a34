"""Catalogue: items found in a STAC API, over a place, in a time. Reached as ``scenes.search``."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pyproj
import shapely
import shapely.affinity
import shapely.geometry
from shapely.errors import ShapelyError

from lsdask.errors import BadInput, NotFound, Unreadable, sentence
from lsdask.scenes.items import in_order

if TYPE_CHECKING:
    import pystac
    import pystac_client

RETRIES = 4
"""How often a request is sent again that failed for a while: no answer, or one of ``BUSY``."""

BUSY = (429, 500, 502, 503, 504)

PIECES = 64
"""Into how many pieces at least the outline of a place of another CRS is cut before it is projected."""

WORLD = shapely.box(-180, -90, 180, 90)


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
        Where: (west, south, east, north) in degrees, west larger than east if it crosses the antimeridian; a GeoJSON
        geometry, feature or collection; a GeoDataFrame; or a file that geopandas reads (GeoJSON, GeoPackage ...).
        All but GeoJSON may be in any CRS.
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
        In order of time and id, each collection and id once. Several versions of one acquisition are all kept:
        ``latest`` picks the last.

    Raises
    ------
    NotFound
        If nothing is found.
    Unreadable
        If the API does not answer, refuses the headers, or does not answer in STAC.
    BadInput
        If ``aoi`` is no place, or ``datetime`` no time.

    Examples
    --------
    >>> items = search(api, "CB4A-WPM-L4-DN-1", aoi="area.geojson", datetime="2020-03/2020-05")  # doctest: +SKIP
    """
    names = [collections] if isinstance(collections, str) else list(collections)
    place = {} if aoi is None else {"intersects": shapely.geometry.mapping(outline(aoi))}
    asked = {"collections": names, "datetime": datetime, "query": dict(query) if query else None, "max_items": limit}
    found = in_order(_ask(api, {**asked, **place}, headers, timeout))
    if not found:
        got = f"none in {', '.join(names)}, {datetime or 'at any time'}"
        raise NotFound(sentence("search", "find at least one item", got, "Widen its area, dates or query"))
    return found


def _ask(api: str, asked: Mapping[str, Any], headers: Mapping[str, str] | None, timeout: float) -> "list[pystac.Item]":
    """Send the request, page by page."""
    import pystac
    import pystac_client
    import requests
    from pystac_client.stac_api_io import StacApiIO
    from urllib3.util import Retry

    patient = Retry(RETRIES, backoff_factor=0.2, status_forcelist=BUSY, allowed_methods=None, raise_on_status=False)
    try:
        io = StacApiIO(headers=dict(headers or {}), timeout=timeout, max_retries=patient)
        client = pystac_client.Client.open(api, stac_io=io)
        _check_query(client, api, asked)
        pages = _search(client, asked)
        return list(pages.items())
    except (pystac_client.exceptions.APIError, pystac.STACError, pystac.STACTypeError) as error:
        raise _refused(api, error) from error
    except (requests.RequestException, NotImplementedError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, BadInput):
            raise
        raise Unreadable(sentence("api", "be a STAC API that answers", f"{api}: {error}")) from error


def _search(client: "pystac_client.Client", asked: Mapping[str, Any]) -> "pystac_client.ItemSearch":
    """Make the search; nothing is sent before its items are asked for, so what fails here is what was asked."""
    try:
        return client.search(**asked)
    except Exception as error:  # a bare Exception is what it raises for a time that it cannot read
        rule = "be a time, a pair of times or an interval such as '2020-01/2020-03', and query a mapping"
        raise BadInput(sentence("datetime", rule, f"datetime={asked['datetime']!r}: {error}")) from error


def _check_query(client: "pystac_client.Client", api: str, asked: Mapping[str, Any]) -> None:
    """Raise if the API would pass over the query, and so answer another question."""
    if asked["query"] and not client.conforms_to("QUERY"):
        do = "Leave it out, and pick from the items found: item.properties"
        raise BadInput(sentence("query", "be asked of an API that has STAC's query extension", api, do))


def _refused(api: str, error: Any) -> Unreadable:
    """Say why an API did not answer, and what to do if it did not know who asks."""
    status = getattr(error, "status_code", None)
    said = " ".join(str(error).split())[:200]
    got = f"{api}: {said}" if status is None else f"{api}: status {status}, {said}"
    if status in (401, 403):
        return Unreadable(sentence("headers", "hold credentials that the API accepts", got, "Pass headers= with a key"))
    return Unreadable(sentence("api", "be a STAC API that answers", got))


# Places


def outline(aoi: Any) -> Any:
    """Give a place as one shapely geometry in degrees, cut at the antimeridian if it crosses it.

    Parameters
    ----------
    aoi
        As ``search`` takes it.

    Raises
    ------
    BadInput
        If it is no place.
    """
    parts = [part for shape, crs in _shapes(aoi) for part in _polygons(shape, crs)]
    found = shapely.union_all([wrapped(part) for part in parts])
    if found.is_empty:
        raise BadInput(sentence("aoi", "hold a place", "nothing"))
    return found


def _shapes(aoi: Any) -> list[tuple[Any, Any]]:
    """List the geometries of a place, each with its CRS, or None for degrees."""
    if isinstance(aoi, Sequence | np.ndarray) and not isinstance(aoi, str) and len(aoi) == 4:
        return [(_box(aoi), None)]
    try:
        if isinstance(aoi, Mapping):
            parts = [part.get("geometry", part) for part in aoi.get("features", [aoi])]
            return [(shapely.force_2d(shapely.geometry.shape(part)), None) for part in parts]
        frame = aoi if isinstance(aoi, gpd.GeoDataFrame | gpd.GeoSeries) else gpd.read_file(os.fspath(aoi))
    except (LookupError, TypeError, AttributeError, ValueError, OSError, RuntimeError, ShapelyError) as error:
        rule = "be (west, south, east, north) in degrees, GeoJSON, a GeoDataFrame or a file that geopandas reads"
        raise BadInput(sentence("aoi", rule, f"{aoi!r}: {error}")) from error
    if frame.crs is None:
        raise BadInput(sentence("aoi", "have a CRS", "none", "Set it: frame.set_crs('EPSG:...')"))
    crs = None if frame.crs.equals("EPSG:4326", ignore_axis_order=True) else frame.crs
    return [(shapely.force_2d(shape), crs) for shape in frame.geometry if shape is not None]


def _box(aoi: Any) -> Any:
    west, south, east, north = (float(value) for value in aoi)
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east):
        raise BadInput(sentence("aoi", "be (west, south, east, north) in degrees", f"aoi={aoi}"))
    return shapely.box(west, south, east if west < east else east + 360, north)


def _polygons(shape: Any, crs: Any) -> Iterator[Any]:
    """Give the parts of a geometry in degrees; longitudes run on beyond 180 where a part crosses the antimeridian."""
    for part in shapely.get_parts(shape):
        if crs is None or part.is_empty:
            yield part
        else:
            yield _in_degrees(part, crs)


def _in_degrees(part: Any, crs: Any) -> Any:
    """Project a part; a polygon that holds a pole becomes all that lies on the pole's side of its outline."""
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    line = part.exterior if part.geom_type == "Polygon" else part
    points = shapely.get_coordinates(line.segmentize(line.length / PIECES) if line.length else line)
    longitudes, latitudes = to_degrees.transform(*points.T)
    if not (np.isfinite(longitudes).all() and np.isfinite(latitudes).all()):
        raise BadInput(sentence("aoi", "lie on the Earth", f"an outline that {crs.name} cannot place in degrees"))
    way = np.unwrap(longitudes, period=360.0)
    if part.geom_type != "Polygon":
        return type(part)(np.column_stack([way, latitudes]))
    if abs(way[-1] - way[0]) < 180:
        return shapely.Polygon(np.column_stack([way, latitudes]))
    south, north = (-90.0, latitudes.max()) if latitudes.mean() < 0 else (latitudes.min(), 90.0)
    return shapely.box(-180.0, south, 180.0, north)


def wrapped(shape: Any) -> Any:
    """Cut a geometry, whose longitudes run on, at the antimeridian and bring its parts to between -180 and 180."""
    west, _, east, _ = shape.bounds if not shape.is_empty else WORLD.bounds
    if west >= -180 and east <= 180:
        return shape
    turns = [shapely.affinity.translate(shape, xoff=360.0 * turn) for turn in (-1, 0, 1)]
    return shapely.union_all([turned.intersection(WORLD) for turned in turns])

"""Keeping: items in a file, so that a run can be repeated without the catalogue. Reached as ``scenes.save``, ``read``.

Two formats, told by the file's name: GeoJSON, and stac-geoparquet for ``.parquet`` and ``.geoparquet``, a table that
takes a fraction of the space for many items of one collection, and that catalogues publish for bulk use.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsdask.errors import BadInput, NotFound, Unreadable, sentence
from lsdask.scenes.items import href

if TYPE_CHECKING:
    import pystac

PathLike = str | os.PathLike[str]
PARQUET = (".parquet", ".geoparquet")


def save(items: "Iterable[pystac.Item]", path: PathLike) -> None:
    """Keep items in a file, as GeoJSON or, if its name ends in ``.parquet``, as stac-geoparquet.

    Parameters
    ----------
    items : iterable of pystac.Item
        Relative links are made absolute.
    path : path
        The file, written whole before it gets its name.

    Raises
    ------
    BadInput
        If there are no items; if ``rustac`` is not installed, which writes stac-geoparquet; or if items of several
        collections write a field in several types, which a table cannot hold.
    """
    features = [_absolute(item).to_dict(transform_hrefs=False) for item in items]
    if not features:
        raise BadInput(sentence("items", "hold at least one item", "none"))
    where = Path(path)
    part = where.with_name(f".{os.getpid()}-{where.name}")  # a name that ends as the file's does
    try:
        if where.suffix in PARQUET:
            _write_table(part, features)
        else:
            part.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        part.replace(where)
    finally:
        part.unlink(missing_ok=True)


def _absolute(item: "pystac.Item") -> "pystac.Item":
    copy = item.clone()
    for asset in copy.assets.values():
        asset.href = href(asset)
    return copy


def _write_table(path: Path, features: Sequence[Mapping[str, Any]]) -> None:
    rustac = _rustac()
    try:
        rustac.write_sync(str(path), [_plain(feature) for feature in features], format="geoparquet")
    except rustac.RustacError as error:
        do = "Keep them in a .json file, or each collection in a table of its own"
        raise BadInput(sentence("items", "have each field in one type, to be one table", str(error), do)) from error


def _plain(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out links: they are the catalogue's, not the item's."""
    return {**feature, "links": []}


def _whole(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Bring back an item from a row of a table, where what other rows have and it has not is null."""
    properties = {"datetime": None, **_without_nulls(feature["properties"])}
    assets = {key: _without_nulls(asset) for key, asset in feature["assets"].items() if asset is not None}
    return {**feature, "properties": properties, "assets": assets, "bbox": list(feature["bbox"])}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list | tuple) else value


def _rustac() -> Any:
    try:
        import rustac
    except ImportError as error:
        do = "Install it, pip install lsdask[geoparquet], or name a .json file"
        raise BadInput(sentence("path", "name a GeoJSON file, without rustac", "a .parquet file", do)) from error
    return rustac


def read(path: PathLike) -> "list[pystac.Item]":
    """Read items from a file that ``save`` wrote, from stac-geoparquet, or from any GeoJSON item or items.

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
    BadInput
        If it is stac-geoparquet and ``rustac`` is not installed.
    """
    import pystac

    where = Path(path)
    if not where.is_file():
        raise NotFound(sentence("path", "name a file of STAC items", f"path={os.fspath(path)!r}, where there is none"))
    rustac = _rustac() if where.suffix in PARQUET else None
    wrong: tuple[type[Exception], ...] = (ValueError, KeyError, TypeError, AttributeError, OSError)
    wrong += (pystac.STACError, pystac.STACTypeError, *(() if rustac is None else (rustac.RustacError,)))
    try:
        if rustac is None:
            found = json.loads(where.read_text())
            features = found.get("features", [found])
        else:
            features = [_whole(feature) for feature in rustac.read_sync(str(where))["features"]]
        items = [pystac.Item.from_dict(feature) for feature in features]
    except wrong as error:
        raise Unreadable(sentence("path", "name a file of STAC items", f"{where}: {error}")) from error
    for item in items:
        item.set_self_href(item.get_self_href() or str(where.absolute()))
    return items

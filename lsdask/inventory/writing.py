"""Inventories become files, in one go or as they are found."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely

from lsdask.errors import BadInput, NotFound, sentence

DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON"}
"""What GDAL calls a format, by suffix."""

PARQUET = (".parquet", ".geoparquet")

ROWS = 65_536
"""Rows of a table turned to Arrow at once, and of a row group of GeoParquet."""

COVERING, SIDES = "bbox", ("xmin", "ymin", "xmax", "ymax")
"""The column of boxes in GeoParquet, and its fields."""


def write(polygons: gpd.GeoDataFrame | Iterable[gpd.GeoDataFrame], path: str | Path) -> Path:
    """Write an inventory, whole or not at all; what was there before is replaced once the new file is complete.

    Parameters
    ----------
    polygons : GeoDataFrame, or several that are asked for one by one
        Polygons and MultiPolygons, all of the same columns and CRS: a table, or ``batches`` of one, of which memory
        then holds one.
    path : path
        Its suffix says the format: .parquet (GeoParquet 1.1, with a box for each row, so that
        ``geopandas.read_parquet(bbox=...)`` reads what it needs), .gpkg (GeoPackage), .fgb (FlatGeobuf) or .geojson.
        The latter three take MultiPolygons only, so Polygons become those of one part.

    Returns
    -------
    Path

    Raises
    ------
    BadInput
        If the suffix says none of these, a table has no CRS, other columns or CRS than the first, or holds points
        or lines, or there is no table.
    NotFound
        If the folder is not there.
    """
    path = Path(path)
    if path.suffix not in (*PARQUET, *DRIVERS):
        raise BadInput(sentence("path", f"end in one of {', '.join((*PARQUET, *DRIVERS))}", path.name))
    if not path.parent.is_dir():
        raise NotFound(sentence("path", "lie in a folder that exists", str(path.parent)))
    first, frames = _checked(iter([polygons] if isinstance(polygons, gpd.GeoDataFrame) else polygons))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
        whole = Path(folder) / path.name
        if path.suffix in PARQUET:
            _to_parquet(first, frames, whole)
        else:
            _to_gdal(first, frames, whole, DRIVERS[path.suffix])
        whole.replace(path)
    return path


def _checked(frames: Iterator[gpd.GeoDataFrame]) -> tuple[gpd.GeoDataFrame, Iterator[gpd.GeoDataFrame]]:
    """Give the first table, and all of them, each checked as it comes."""
    first = next(frames, None)
    if first is None:
        raise BadInput(sentence("polygons", "be one table or more", "none"))
    if first.crs is None:
        raise BadInput(sentence("polygons", "have a CRS", "none", "Use polygons.set_crs('EPSG:...')"))
    none = first.iloc[:0].copy()
    return none, map(partial(_like, first=none), _again(first, frames))


def _again(first: gpd.GeoDataFrame, frames: Iterator[gpd.GeoDataFrame]) -> Iterator[gpd.GeoDataFrame]:
    """Put what was taken first before the rest; ``itertools.chain`` would hold it to the end."""
    yield first
    del first
    yield from frames


def _like(frame: gpd.GeoDataFrame, first: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    if list(frame) != list(first) or frame.crs != first.crs:
        got = f"columns {list(frame)} in {frame.crs}"
        raise BadInput(sentence("polygons", f"all have the columns {list(first)} in {first.crs}", got))
    if kinds := set(frame.geom_type.dropna()) - {"Polygon", "MultiPolygon"}:
        raise BadInput(sentence("polygons", "be Polygons and MultiPolygons", ", ".join(sorted(kinds))))
    return frame


def _pieces(frames: Iterable[gpd.GeoDataFrame]) -> Iterator[gpd.GeoDataFrame]:
    for frame in frames:
        yield from (frame.iloc[row : row + ROWS] for row in range(0, max(len(frame), 1), ROWS))
        del frame  # not to be held while the next is made


def _table(frame: gpd.GeoDataFrame, shapes: np.ndarray) -> pa.Table:
    """Make an Arrow table of the columns and, as WKB, the shapes, last."""
    columns = pa.Table.from_pandas(pd.DataFrame(frame.drop(columns=frame.geometry.name)), preserve_index=False)
    wkb = pa.array(shapely.to_wkb(shapes), pa.binary())
    return columns.replace_schema_metadata().append_column(str(frame.geometry.name), wkb)


def _to_gdal(first: gpd.GeoDataFrame, frames: Iterable[gpd.GeoDataFrame], path: Path, driver: str) -> None:
    tables = (_table(piece, _multi(piece.geometry.to_numpy())) for piece in _pieces(frames))
    start = next(tables)
    rows = (batch for table in chain([start], tables) for batch in table.cast(start.schema).to_batches())
    options = {"geometry_name": first.geometry.name, "geometry_type": "MultiPolygon", "crs": first.crs.to_wkt()}
    why: list[Exception] = []
    try:
        reader = pa.RecordBatchReader.from_batches(start.schema, _noting(rows, why))
        pyogrio.write_arrow(reader, path, driver=driver, **options)
    except RuntimeError as error:
        raise (why[0] if why else error) from None


def _noting(rows: Iterator[pa.RecordBatch], why: list[Exception]) -> Iterator[pa.RecordBatch]:
    """Pass rows on, and note what ends them: GDAL, which asks for them, says only that they ended."""
    try:
        yield from rows
    except Exception as error:
        why.append(error)
        raise


def _multi(shapes: np.ndarray) -> np.ndarray:
    """Make every Polygon a MultiPolygon."""
    parts, owner = shapely.get_parts(shapes, return_index=True)
    multi = np.full(len(shapes), None, dtype=object)
    shapely.multipolygons(parts, indices=owner, out=multi)
    return multi


def _to_parquet(first: gpd.GeoDataFrame, frames: Iterable[gpd.GeoDataFrame], path: Path) -> None:
    """Write row group by row group; what is only known at the end, such as the whole extent, goes to the footer."""
    name, kinds, extents = str(first.geometry.name), set[str](), [np.full((1, 4), np.nan)]
    pieces = _pieces(frames)
    start = next(pieces)
    schema = _boxed(start).schema
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for piece in chain([start], pieces):
            writer.write_table(_boxed(piece).cast(schema))
            kinds |= set(piece.geom_type.dropna())
            extents.append(piece.total_bounds[None])
        writer.add_key_value_metadata({"geo": _footer(name, first.crs, sorted(kinds), np.concatenate(extents))})


def _boxed(frame: gpd.GeoDataFrame) -> pa.Table:
    """Make an Arrow table with the box of each shape."""
    shapes = frame.geometry.to_numpy()
    sides = [pa.array(side) for side in shapely.bounds(shapes).reshape(-1, 4).T]
    return _table(frame, shapes).append_column(COVERING, pa.StructArray.from_arrays(sides, SIDES))


def _footer(name: str, crs: pyproj.CRS, kinds: list[str], extents: np.ndarray) -> str:
    """Give the metadata of GeoParquet 1.1; an inventory of nothing has no extent."""
    column: dict[str, Any] = {"encoding": "WKB", "crs": crs.to_json_dict(), "geometry_types": kinds}
    column["covering"] = {"bbox": {side: [COVERING, side] for side in SIDES}}
    known = extents[~np.isnan(extents).any(axis=1)]
    if len(known):
        column["bbox"] = [*known[:, :2].min(axis=0).tolist(), *known[:, 2:].max(axis=0).tolist()]
    return json.dumps({"version": "1.1.0", "primary_column": name, "columns": {name: column}})

"""Tables of tiles on disk, written and read a row group at a time."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lsdask.errors import BadInput, NotFound, sentence

ROWS = 2**17
"""Tiles in a row group, about."""


def write(tiles: pd.DataFrame | Iterable[pd.DataFrame], path: str | Path) -> int:
    """Write a tile index, or parts of one as they come, to a parquet file; it appears when it is complete.

    Parameters
    ----------
    tiles : DataFrame or iterable of DataFrame
        Parts with the same columns, such as ``survey`` gives; no more than a part and a row group is held.
    path : path
        Replaced if it is there.

    Returns
    -------
    int
        The number of tiles.

    Raises
    ------
    BadInput
        If there is no tile.
    """
    parts = (tiles,) if isinstance(tiles, pd.DataFrame) else tiles
    beside = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
    try:
        n = _write(_gathered(parts), beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return n


def _write(parts: Iterator[pd.DataFrame], path: Path) -> int:
    first = next(parts, None)
    if first is None:
        raise BadInput(sentence("tiles", "hold at least one tile", "none", "Loosen what selected them"))
    table = pa.Table.from_pandas(first, preserve_index=False)
    with pq.ParquetWriter(path, table.schema) as file:
        file.write_table(table, ROWS)
        n = len(first)
        for part in parts:
            file.write_table(pa.Table.from_pandas(part, table.schema, preserve_index=False), ROWS)
            n += len(part)
    return n


def _gathered(parts: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Join small parts until they fill a row group."""
    held: list[pd.DataFrame] = []
    for part in parts:
        if len(part):
            held.append(part)
        if sum(map(len, held)) >= ROWS:
            yield pd.concat(held, ignore_index=True)
            held = []
    if held:
        yield pd.concat(held, ignore_index=True)


def parts(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
    """Give the tiles of a file row group by row group.

    Parameters
    ----------
    path : path
    columns : sequence of str, optional
        Read those only; all by default.

    Raises
    ------
    NotFound, BadInput
        If the file is not there, is no parquet, or lacks a column.
    """
    file = _open(path, columns)
    return (file.read_row_group(i, columns=_list(columns)).to_pandas() for i in range(file.num_row_groups))


def read(
    path: str | Path, *, split: str | None = None, scene: str | None = None, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read a tile index from a file, no more of it than is asked for.

    Parameters
    ----------
    path : path
    split, scene : str, optional
        Keep the tiles of one split, of one scene.
    columns : sequence of str, optional
        Read those only, ``("y", "x", "size")`` for a stream; all by default.

    Returns
    -------
    DataFrame
        In the file's order, numbered from 0; perhaps without a row.

    Raises
    ------
    NotFound, BadInput
        If the file is not there, is no parquet, lacks a column, or is of several scenes that ``columns`` would not
        tell apart.
    """
    wanted = [(column, "==", value) for column, value in (("split", split), ("scene", scene)) if value is not None]
    file = _open(path, [*(columns or ()), *(column for column, _, _ in wanted)])
    if "scene" in file.schema_arrow.names and scene is None and "scene" not in (columns or ("scene",)):
        raise BadInput(sentence("scene", "name a scene of the table, or columns hold 'scene'", "none"))
    return pq.read_table(path, columns=_list(columns), filters=wanted or None).to_pandas()


def columns_of(path: str | Path) -> list[str]:
    """Name the columns of a file."""
    return list(_open(path).schema_arrow.names)


def _list(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(columns)


def _open(path: str | Path, columns: Sequence[str] | None = None) -> pq.ParquetFile:
    if not Path(path).is_file():
        raise NotFound(sentence("tiles", "name a parquet file", f"{path}, which is not there"))
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise BadInput(sentence("tiles", "name a parquet file", f"{path}: {error}".rstrip("."))) from error
    names = file.schema_arrow.names
    lacking = [column for column in columns or () if column not in names]
    if lacking:
        raise BadInput(sentence("tiles", f"have the column {lacking[0]!r}", f"columns {names}"))
    return file

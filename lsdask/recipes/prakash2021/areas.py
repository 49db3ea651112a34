"""The areas table: which images, heights, landslides and regions each of the seven areas has."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lsdask.errors import BadInput, NotFound, sentence

FILE = "areas.csv"

TRAINED, UNSEEN = ("A", "B", "C", "D"), ("E", "F", "G")
"""Areas with regions to train on, to validate on and to test on; areas that are all test."""

REGIONS = ("train", "valid", "test")

FILES = ("pre", "post", "dem", "inventory")

COLUMNS = ("area", "images", *FILES, *REGIONS)
"""Columns that a table has."""

OPTIONAL = ("void", "stretch", "nodata")
"""Columns that it may have."""

INHERITED = ("dem", "inventory", *REGIONS)
"""What a further image set of an area takes from the first where its row says nothing."""

Row = dict[str, str]
"""A row of the table; "" where it says nothing."""


def read(folder: Path) -> list[Row]:
    """Read and check the table of a folder.

    Parameters
    ----------
    folder : Path
        Holds ``areas.csv``, one row an image set. Paths in it are relative to the folder.

        ===========  ==========================================================================================
        column       meaning
        ===========  ==========================================================================================
        area         A to G; A to D are trained on, E to G are all test
        images       a name of the image set; the first of an area is the one it is tested on
        pre, post    a file with the bands red, green, blue; or three files of one band, ";" between
        dem          heights, m, any grid
        inventory    polygons of the landslides, any CRS
        train,       polygons, or "left top right bottom" as shares of the first image set; none for E to G;
        valid, test  a piece of train that is also in valid is not trained on
        void         polygons of cloud, shadow and snow (may be left out, as what follows)
        stretch      "low high": values that become 0 and 255, before and after alike; needed where images are
                     not of 8 bit
        nodata       the value of void pixels, where the files do not declare it
        ===========  ==========================================================================================

    Returns
    -------
    list of dict
        One an image set, in the table's order.

    Raises
    ------
    NotFound
        If the table or a file that it names is not there.
    BadInput
        If the table breaks a rule; the message names the row.
    """
    path = folder / FILE
    if not path.is_file():
        raise NotFound(sentence("data", f"hold the table {FILE}", f"data={folder}, without it"))
    table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise BadInput(sentence(FILE, f"have the columns {', '.join(COLUMNS)}", f"no {', '.join(missing)}"))
    rows = inherited([dict.fromkeys(OPTIONAL, "") | {str(k): str(v).strip() for k, v in row.items()}
                      for row in table.to_dict("records")])  # fmt: skip
    for row in rows:
        _check(row, folder)
    _check_each_once(rows)
    return rows


def inherited(rows: Iterable[Row]) -> list[Row]:
    """Give further image sets of an area what they share with its first."""
    first: dict[str, Row] = {}
    found = []
    for row in rows:
        held = first.setdefault(row["area"], row)
        other = [name for name in REGIONS if row[name] not in ("", held[name])]
        if other:
            do = "Leave it empty"
            raise BadInput(
                sentence(f"{other[0]} of {name_of(row)}", "be that of the area's first row", row[other[0]], do)
            )
        found.append({**row, **{name: row[name] or held[name] for name in INHERITED}})
    return found


def name_of(row: Row) -> str:
    """Name an image set: its area and its images.

    Examples
    --------
    >>> name_of({"area": "A", "images": "RE"})
    'A-RE'
    """
    return f"{row['area']}-{row['images']}"


def of(rows: Iterable[Row], area: str) -> list[Row]:
    """Give the image sets of an area."""
    return [row for row in rows if row["area"] == area]


def paths_of(cell: str, folder: Path) -> list[Path]:
    """Give the files that a cell names."""
    return [folder / part.strip() for part in cell.split(";")]


def fractions_of(cell: str) -> tuple[float, float, float, float] | None:
    """Give the box that a region's cell names: left, top, right, bottom; None if it names a file.

    Raises
    ------
    BadInput
        If four numbers are no box in an image.
    """
    try:
        left, top, right, bottom = map(float, cell.split())
    except ValueError:
        return None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise BadInput(sentence("a region", "be left top right bottom, shares of the image from 0 to 1", repr(cell)))
    return left, top, right, bottom


def stretch_of(row: Row) -> tuple[float, float] | None:
    """Give the values that become 0 and 255; None if the row says nothing."""
    if not row["stretch"]:
        return None
    try:
        low, high = map(float, row["stretch"].split())
    except ValueError:
        low = high = 0.0
    if low >= high:
        raise BadInput(sentence(f"stretch of {name_of(row)}", "be two rising numbers", repr(row["stretch"])))
    return low, high


def _check(row: Row, folder: Path) -> None:
    """Raise unless a row has what its area needs, and its files are there."""
    name = name_of(row)
    if row["area"] not in (*TRAINED, *UNSEEN) or not row["images"]:
        rule = "name areas from A to G, and their images"
        raise BadInput(sentence(FILE, rule, f"area={row['area']!r}, images={row['images']!r}"))
    given = [part for part in REGIONS if row[part]]
    if row["area"] in TRAINED and len(given) < len(REGIONS):
        lacks = next(part for part in REGIONS if not row[part])
        raise BadInput(sentence(name, f"have the regions {', '.join(REGIONS)}", f"no {lacks}"))
    if row["area"] in UNSEEN and given:
        raise BadInput(sentence(name, "have no regions, as all of it is test", f"{given[0]}={row[given[0]]}"))
    stretch_of(row)
    regions = [part for part in given if fractions_of(row[part]) is None]
    for part in (*FILES, *regions, *(["void"] if row["void"] else [])):
        if not row[part]:
            raise BadInput(sentence(f"{part} of {name}", "name a file", "nothing"))
        gone = [path for path in paths_of(row[part], folder) if not path.exists()]
        if gone:
            raise NotFound(sentence(f"{part} of {name}", "name a file", f"{gone[0]}, which is not there"))


def _check_each_once(rows: list[Row]) -> None:
    names = [name_of(row) for row in rows]
    twice = [name for name in names if names.count(name) > 1]
    if twice or not rows:
        rule = "hold one or more image sets, each once"
        raise BadInput(sentence(FILE, rule, f"two of {twice[0]}" if twice else "none"))

"""The tables of an evaluation as a file: JSON for programs, Markdown for people, CSV for spreadsheets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsdask.errors import BadInput, NotFound, sentence

if TYPE_CHECKING:
    import pandas as pd


def check(path: Path) -> None:
    """Raise unless tables can be written to a path."""
    if path.suffix not in (".json", ".md", ".csv"):
        raise BadInput(sentence("out", "end in .json, .md or .csv", f"out={path}"))
    if not path.parent.is_dir():
        raise NotFound(sentence("out", "lie in a folder that exists", f"out={path}"))


def save(tables: Mapping[str, "pd.DataFrame"], path: Path) -> None:
    """Write tables, the first of which is that of the scores, a row a map.

    JSON holds the scores of the first map by name, and each table as a list of rows; Markdown a section a table; CSV,
    which holds one table, is a file of the scores and one more for each other table, ``<name>-<table>.csv``.
    """
    from lsdask.report.files import beside, write_text

    check(path)
    if path.suffix == ".json":
        write_text(path, json.dumps(_plain(tables), indent=1, allow_nan=False))
    elif path.suffix == ".md":
        write_text(path, "\n".join(f"## {name}\n\n{markdown(table)}" for name, table in tables.items()))
    else:
        for i, (name, table) in enumerate(tables.items()):
            with beside(path if i == 0 else path.with_stem(f"{path.stem}-{name}")) as part:
                table.to_csv(part, index=False)


def _plain(tables: Mapping[str, "pd.DataFrame"]) -> dict[str, Any]:
    """Turn tables into what JSON holds: no NaN, which it does not know, but null."""
    rows = {name: json.loads(table.to_json(orient="records", double_precision=15)) for name, table in tables.items()}
    first = {key: value for key, value in rows["scores"][0].items() if key != "scores"}
    return {**first, **rows}


def markdown(table: "pd.DataFrame") -> str:
    """Make a Markdown table; fractions have four digits."""
    rows = [list(map(str, table)), ["---"] * table.shape[1], *([_cell(v) for v in row] for row in table.to_numpy())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value.replace("|", "\\|")
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"

"""Tables of an experiment, as a paper prints them, and beside what the paper printed."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lsdask.errors import BadInput, NotFound, sentence

DIGITS = "{:.4g}"
"""How numbers are written; whole ones have all digits."""


def published(name: str) -> pd.DataFrame:
    """Give the numbers that a paper printed.

    Parameters
    ----------
    name : str
        ``garcia2022``, ``soares2020``, ``soares2020_samples``, ``soares2020_scores``, ``soares2020_areas``,
        ``prakash2021``, ``prakash2021_runs`` or ``oak2024``.

    Raises
    ------
    NotFound
        If there are none of that name.
    """
    path = files("lsdask.recipes") / "published" / f"{name}.csv"
    if not path.is_file():
        raise NotFound(sentence("name", "be that of a table of the four papers", f"name={name!r}"))
    with path.open() as file:
        return pd.read_csv(file)


def pivot(frame: pd.DataFrame, rows: Sequence[str], column: str, value: str) -> pd.DataFrame:
    """Lay results out as papers do: some columns name the row, the values of one become columns.

    Parameters
    ----------
    frame : DataFrame
        One row a run.
    rows : sequence of str
    column, value : str

    Returns
    -------
    DataFrame
        ``rows`` and one column for each value of ``column``, in the order they come in ``frame``.

    Raises
    ------
    BadInput
        If two runs would share a cell.
    """
    cells = [*rows, column]
    twice = frame[frame.duplicated(cells)]
    if len(twice):
        got = ", ".join(f"{name}={twice.iloc[0][name]}" for name in cells)
        raise BadInput(sentence("frame", f"have one run for each {' and '.join(cells)}", f"two of {got}"))
    wide = frame.pivot(index=list(rows), columns=column, values=value)
    order = frame[list(rows)].drop_duplicates()
    wide = wide.reindex(pd.MultiIndex.from_frame(order) if len(rows) > 1 else pd.Index(order[rows[0]], name=rows[0]))
    return wide[list(dict.fromkeys(frame[column]))].reset_index().rename_axis(columns=None)


def beside(frame: pd.DataFrame, paper: pd.DataFrame, *, on: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Put a paper's numbers beside those of a run, for the runs that both have.

    Parameters
    ----------
    frame, paper : DataFrame
        With the columns ``on``; values that are missing in both are alike.
    on : sequence of str
        What identifies a run.
    values : sequence of str
        Columns to compare.

    Returns
    -------
    DataFrame
        ``on``, and for each value the run's, and the paper's as ``value_paper``.
    """
    mine, theirs = (part[[*on, *values]].copy() for part in (frame, paper))
    for name in on:
        mine[name], theirs[name] = (part[name].map(_key) for part in (mine, theirs))
    joined = mine.merge(theirs, on=list(on), suffixes=("", "_paper"), how="inner")
    return joined[[*on, *(part for value in values for part in (value, f"{value}_paper"))]]


def markdown(frame: pd.DataFrame, formats: Mapping[str, str] | None = None) -> str:
    """Write a table as Markdown; numbers have four digits where ``formats`` does not say otherwise."""
    head = [str(name) for name in frame]
    lines = [head, ["---"] * len(head), *texts(frame, formats)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def latex(frame: pd.DataFrame, formats: Mapping[str, str] | None = None) -> str:
    """Write a table as LaTeX, with the rules of booktabs."""
    shown = pd.DataFrame(texts(frame, formats), columns=[str(name) for name in frame])
    return str(shown.to_latex(index=False, escape=True))


def write(frame: pd.DataFrame, folder: str | Path, name: str, formats: Mapping[str, str] | None = None) -> None:
    """Write a table as NAME.csv (all digits), NAME.md and NAME.tex."""
    folder = Path(folder)
    frame.to_csv(folder / f"{name}.csv", index=False)
    (folder / f"{name}.md").write_text(markdown(frame, formats))
    (folder / f"{name}.tex").write_text(latex(frame, formats))


def _key(value: Any) -> str:
    """Make numbers of either kind, and what is missing, comparable."""
    if pd.isna(value):
        return ""
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def texts(frame: pd.DataFrame, formats: Mapping[str, str] | None = None) -> list[list[str]]:
    """Write the cells of a table, row by row; "-" where there is nothing."""
    forms = formats or {}
    return [
        [_text(value, forms.get(str(name), DIGITS)) for name, value in zip(frame, row)]
        for row in frame.itertuples(index=False)
    ]


def _text(value: Any, form: str) -> str:
    if isinstance(value, str) or not pd.api.types.is_scalar(value):
        return str(value)
    if pd.isna(value):
        return "-"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return form.format(value) if form != DIGITS or not float(value).is_integer() else f"{int(value):,}"

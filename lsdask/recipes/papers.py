"""The papers whose experiments can be run: what a recipe offers, and the whole way from its steps to its tables."""

import inspect
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
from matplotlib.figure import Figure

from lsdask.errors import BadInput, NotFound, sentence
from lsdask.recipes import grid, tables
from lsdask.recipes.cost import Load
from lsdask.recipes.steps import Step
from lsdask.report import experiments

if TYPE_CHECKING:
    from distributed import Client

PAPERS = ("garcia2022", "soares2020", "prakash2021", "oak2024")
"""The recipes, by author and year."""


SYNTHETIC = "synthetic"
"""In place of a folder of data: made scenes."""


class Recipe(Protocol):
    """What the module of a paper offers."""

    TITLE: str
    """Heading of the report."""

    ABOUT: Mapping[str, str]
    """What each table shows."""

    NOTES: tuple[str, ...]
    """What differs from the paper in data and method, a sentence or two each."""

    SCALES: Mapping[str, Any]
    """From how much is done, "full" as the paper, to what that means."""

    def steps(self, data: str | Path, *, scale: str, seed: int, **options: Any) -> list[Step]:
        """Plan the runs on a folder of data."""

    def loads(self, steps: Sequence[Step], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Load]:
        """Say what steps train, given the results of those that are done."""

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Lay results out as the paper does, its numbers beside them."""

    def lead(self, frame: pd.DataFrame) -> str:
        """Say in a sentence what was found."""

    def cards(self, out: Path, frame: pd.DataFrame) -> dict[str, list[tuple[str, Figure, str]]]:
        """Draw the report's figures: from a heading to title, figure and caption."""


def get(name: str) -> Recipe:
    """Give a recipe by name.

    Raises
    ------
    BadInput
        If there is none of that name.
    """
    if name not in PAPERS:
        raise BadInput(sentence("paper", f"be one of {', '.join(PAPERS)}", f"paper={name!r}"))
    recipe: Any = import_module(f"lsdask.recipes.{name}")
    return recipe


def reproduce(
    paper: str,
    data: str | Path,
    out: str | Path,
    *,
    scale: str = "full",
    seed: int = 0,
    only: str | Sequence[str] | None = None,
    retry: bool = False,
    client: "Client | None" = None,
    progress: bool = True,
    **options: Any,
) -> grid.Report:
    """Run a paper's experiments, or those left of them; write tables and report of what is done.

    Parameters
    ----------
    paper : str
        One of ``PAPERS``.
    data : path
        Your scenes, as the recipe's ``steps`` wants them; "synthetic" for made ones, where the recipe makes them.
    out : path
        A folder: new, or one that holds these experiments. ``results.parquet`` has a row a run, ``tables/`` the
        paper's tables as CSV, Markdown and LaTeX, ``report.html`` shows all of it.
    scale : str
        "full" as the paper; "small" and "tiny" for less.
    seed : int
    only, retry, client, progress
        As of ``grid.run``.
    **options
        Further choices of the recipe's ``steps``, such as ``weights=None`` or ``frozen=False``.

    Returns
    -------
    grid.Report

    Raises
    ------
    BadInput, NotFound, OtherPlan
        If the paper is unknown, the data is not as the recipe wants it, or ``out`` holds other experiments.
    """
    recipe, out = get(paper), Path(out)
    steps = recipe.steps(folder_of(data), scale=scale, seed=seed, **options)
    report = grid.run(steps, out, client=client, only=only, retry=retry, progress=progress)
    frame = grid.results(steps, out)
    if len(frame):
        write_page(recipe, frame, write_tables(recipe, frame, out), out)
    return report


def folder_of(data: str | Path) -> Path:
    """Give the folder of data; "synthetic" is none, so that a recipe makes its ground.

    Raises
    ------
    NotFound
        If there is no such folder: a mistyped name must not end in made scenes.
    """
    if str(data) != SYNTHETIC and not Path(data).is_dir():
        do = f"Pass the folder of your scenes, or {SYNTHETIC!r} for made ones"
        raise NotFound(sentence("data", "name a folder", f"data={data}, where there is none", do))
    return Path(data)


def options_of(recipe: Recipe, choices: Sequence[str]) -> dict[str, Any]:
    """Read choices of a recipe such as "weights=none", "frozen=no" or "positive=128".

    Raises
    ------
    BadInput
        If the recipe has no such choice, or it is not written so.
    """
    known = [name for name in inspect.signature(recipe.steps).parameters if name not in ("data", "scale", "seed")]
    words: dict[str, Any] = {"none": None, "yes": True, "no": False}
    found = {}
    for choice in choices:
        name, equals, text = choice.partition("=")
        if not equals or name not in known:
            raise BadInput(sentence("set", f"be name=value, of {', '.join(known)}", f"set={choice}"))
        found[name] = int(text) if text.isdigit() else words.get(text, text)
    return found


def write_tables(recipe: Recipe, frame: pd.DataFrame, out: Path) -> dict[str, pd.DataFrame]:
    """Write the results of the runs that are done, and the paper's tables made of them."""
    frame.to_parquet(out / "results.parquet", index=False)
    made = recipe.tables(frame)
    (out / "tables").mkdir(exist_ok=True)
    for name, table in made.items():
        tables.write(table, out / "tables", name)
    (out / "tables" / "notes.md").write_text("".join(f"- {note}\n" for note in recipe.NOTES))
    return made


def write_page(recipe: Recipe, frame: pd.DataFrame, made: Mapping[str, pd.DataFrame], out: Path) -> Path:
    """Write ``report.html``: the tables, the figures, and what differs from the paper."""
    shown = {
        heading(name): (recipe.ABOUT[name], tables.texts(table), list(map(str, table))) for name, table in made.items()
    }
    return experiments.write_experiment(
        out / "report.html",
        title=recipe.TITLE,
        lead=recipe.lead(frame),
        tables=shown,
        cards=recipe.cards(out, frame),
        notes=recipe.NOTES,
    )


def heading(name: str) -> str:
    """Write the name of a table as a paper does.

    Examples
    --------
    >>> heading("table2")
    'Table 2'
    """
    return re.sub(r"(?<=[a-z])(?=\d)", " ", name).replace("_", " ").capitalize()

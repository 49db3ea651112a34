"""The command that runs the experiments of a paper."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lsdask.cli.app import app, console, finish, say
from lsdask.cli.running import Cluster, Scheduler, Workers, client_of

if TYPE_CHECKING:
    import pandas as pd

    from lsdask.recipes.papers import Recipe
    from lsdask.recipes.steps import Step


@app.command()
def reproduce(
    paper: Annotated[str, typer.Argument(help="garcia2022, soares2020 ...", show_default=False)],
    data: Annotated[Path, typer.Option(help="Your scenes, as each paper's page says; or 'synthetic'.")],
    out: Annotated[Path, typer.Option(help="Where everything is written. Run again to do what is not done.")],
    scale: Annotated[str, typer.Option(help="full as the paper, small for hours, tiny for minutes.")] = "full",
    only: Annotated[str | None, typer.Option(help="Patterns of steps, comma between, such as 'runs/unet*'.")] = None,
    choices: Annotated[
        list[str] | None, typer.Option("--set", help="A choice of the recipe: weights=none, frozen=no, split=random.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Also do what failed before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the steps and what they cost; do none.")] = False,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
    workers: Workers = 0,
    cluster: Cluster = None,
    scheduler: Scheduler = None,
) -> None:
    """Run the experiments of a paper on your scenes, and print its tables beside what it printed."""
    from lsdask.recipes import grid, papers

    recipe = papers.get(paper)
    options = papers.options_of(recipe, choices or [])
    steps = recipe.steps(papers.folder_of(data), scale=scale, seed=seed, **options)
    patterns = None if only is None else [part.strip() for part in only.split(",")]
    if dry_run:
        _tell(f"{paper} at scale {scale}", recipe, grid.wanted(steps, patterns), out, workers)
        return
    with client_of(workers, cluster, scheduler) as client:
        report = papers.reproduce(
            paper, data, out, scale=scale, seed=seed, only=patterns, retry=retry, client=client, **options
        )
    frame = grid.results(steps, out)
    for name, table in (recipe.tables(frame) if len(frame) else {}).items():
        _show(f"{papers.heading(name)}. {recipe.ABOUT[name]}", table)
    for note in recipe.NOTES:
        say(f"- {note}")
    say(f"Report: {out / 'report.html'}")
    finish(report)


def _tell(title: str, recipe: "Recipe", steps: "list[Step]", out: Path, workers: int) -> None:
    """Print the grid and what it costs."""
    from lsdask.recipes import cost, grid

    with console.status("Timing a few training steps of each network"):
        frame = cost.plan(steps, out, recipe.loads, threads=1 if workers else None)
    _show(title, frame)
    done = frame["state"] == "done"
    say(f"{len(steps)} steps, {len(grid.runs(steps))} of them runs; {done.sum()} done.")
    left = frame["hours"].where(~done, 0).fillna(0)
    alone = f"{frame['hours'].sum():.3g} h of training at most, {left.sum():.3g} h of them to do"
    workers = min(workers, os.cpu_count() or 1)
    shared = cost.makespan(steps, dict(zip(frame["name"], left)), workers) if workers else left.sum()
    together = (
        f" on one thread; {shared:.3g} h with {workers} workers at once." if workers else ", one after the other."
    )
    say(f"{alone}{together} {cost.HOW}")


def _show(title: str, frame: "pd.DataFrame") -> None:
    from lsdask.recipes.tables import texts

    table = Table(*map(str, frame), title=title, title_justify="left")
    for row in texts(frame):
        table.add_row(*row)
    console.print(table)

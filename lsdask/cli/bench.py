"""The command that measures this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lsdask.cli.app import app, console, names, say, table_of

if TYPE_CHECKING:
    from lsdask.bench import Benchmark


@app.command()
def bench(
    quick: Annotated[
        bool, typer.Option("--quick/--full", help="1024 px a side, about a minute, or 4096 px, some minutes.")
    ] = True,
    only: Annotated[
        str | None, typer.Option(help="Steps, comma between: tiles, training, clusters, prediction ...")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to keep the figures in, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the roofline here, a .png or .svg file.")] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Measure nothing; show what was kept in --out in the course of time.")
    ] = False,
) -> None:
    """Measure this machine: its limit, lsdask, and what one would have written, step by step."""
    from lsdask import bench as measuring

    if history:
        console.print(table_of(measuring.history(out or "benchmarks/results"), _TEXTS))
        return
    with console.status("measuring") as status:
        found = measuring.run(
            size=1024 if quick else 4096, only=names(only), say=lambda text: status.update(f"measuring: {text}")
        )
    _show(found)
    if out is not None:
        say(f"Kept {found.write(out)}")
    if plot is not None:
        measuring.figure_roofline(found).savefig(plot, dpi=150)
        say(f"Drew {plot}")


_TEXTS = {column: "{}" for column in ("machine", "when", "lsdask", "size", "step")}


def _show(found: "Benchmark") -> None:
    machine, bounds = found.machine, found.ceilings
    say(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_GB']} GB; {machine['gpu'] or 'no GPU'}. "
        f"{bounds['GFLOP_s']:.0f} billion float32 operations a second, memory {bounds['memory_GB_s']:.1f} GB/s, "
        f"store {bounds['store_GB_s']:.2f} GB/s. A scene of {found.size} x {found.size} px."
    )
    table = Table("step", "this machine's limit", "lsdask", "of it", "what one would have written", "faster")
    for row, (_, ratios) in zip(found.rows, found.table.iterrows()):
        unit = f"{row['unit']}/s"
        table.add_row(
            row["name"],
            f"{_short(row['limit'])}{unit}  {row['limit_is']}",
            f"{_short(row['lsdask'])}{unit}",
            f"{ratios['of_limit']:.2f}",
            f"{_short(row['usual'])}{unit}  {row['usual_is']}",
            f"{ratios['times_usual']:.1f} x",
        )
    console.print(table)


def _short(rate: float) -> str:
    """Write a rate with three digits."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if rate >= size:
            return f"{rate / size:.3g}{letter}"
    return f"{rate:.3g} "

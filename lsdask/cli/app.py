"""The application: what every command shares."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from lsdask.errors import BadInput, NotFound, sentence

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

STEPS = (
    "demo",
    "mosaic",
    "cluster",
    "tiles",
    "pretrain",
    "train",
    "predict",
    "status",
    "evaluate",
    "polygons",
    "report",
    "info",
    "reproduce",
    "bench",
)


class InOrder(TyperGroup):
    """The commands in the order of the work, not of the modules that hold them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=STEPS.index)


app = typer.Typer(
    name="lsdask",
    cls=InOrder,
    help="Landslide maps from satellite scenes over whole mountain ranges.\n\n"
    "A map is made in steps, each of which reads and writes stores that xarray opens: "
    "mosaic, tiles, train, predict, evaluate, polygons, report. `lsdask demo` runs them all.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

# Texts hold names of bands, files and classes in brackets, which are not rich's markup
PLAIN: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}

console = Console(**PLAIN)

# Stores are text, not Path, which would make one slash of the two in s3://
Store = Annotated[
    str, typer.Argument(help="A Zarr store of lsdask, or any with one image: a path or URL.", show_default=False)
]
Threshold = Annotated[float, typer.Option(help="Score from which a pixel is a landslide, 0 to 1.", min=0, max=1)]
Class = Annotated[str | None, typer.Option("--class", help="Which class, by its name; needed if there are several.")]
Out = Annotated[str, typer.Argument(help="The new store: a path or URL.", show_default=False)]


def say(text: object) -> None:
    """Print a text; a line of it stays one line, in a file too."""
    console.print(str(text), soft_wrap=True)


def tell(text: str, style: str) -> None:
    """Print a line to the standard error, under the command's name."""
    name = Text("lsdask:", style=style)
    Console(stderr=True, **PLAIN).print(name, text, soft_wrap=True)


def show(title: str, rows: Any) -> None:
    """Print names and values as a table."""
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(str(name), str(value))
    console.print(table)


def table_of(frame: "pd.DataFrame", formats: Mapping[str, str], title: str | None = None) -> Table:
    """Make a table of a frame; numbers have four digits where ``formats`` does not say otherwise, NaN is a dash."""
    table = Table(*(str(column) for column in frame), title=title, title_justify="left")
    for row in frame.itertuples(index=False):
        table.add_row(*(cell(formats.get(str(name), "{:.4g}"), value) for name, value in zip(frame, row)))
    return table


def cell(form: str, value: Any) -> str:
    """Write a value; NaN, of which nothing is known, as a dash."""
    return "-" if value != value else form.format(value)


# Running


def finish(report: Any) -> None:
    """Print what a run did; exit with 1 if tiles are not done."""
    say(report)
    if report.failed:
        raise typer.Exit(1)


# Reading options


def there(path: Path, name: str) -> Path:
    if not path.exists():
        raise NotFound(sentence(name, "name a file", f"{name}={path}, where there is none"))
    return path


def check_run(path: str, name: str) -> None:
    """Raise unless a store is the target of a run."""
    import lsdask as ls

    if ls.ledger.NAME not in ls.store.group(path):
        rule = "be what a run wrote or writes: `lsdask mosaic`, `cluster` or `predict`"
        raise BadInput(sentence(name, rule, f"{path}, of no run"))


def scores_of(path: str) -> "xr.DataArray":
    """Open scores; a mask or labels, whose few numbers would all be low scores, are refused."""
    import lsdask as ls

    scores = ls.store.open(path)
    if scores.dtype == "uint8" and "scale_factor" not in scores.attrs:
        rule = (
            f"hold probabilities: floats, or uint8 with a scale of 1/{ls.schema.SCORE_STEPS} as `lsdask predict` writes"
        )
        raise BadInput(sentence("scores", rule, f"{path}, uint8 without a scale"))
    return scores


def class_of(scores: "xr.DataArray", text: str | None) -> Any:
    """Find the label of a class by what it reads as."""
    if text is None:
        return None
    labels = scores["class"].values.tolist() if "class" in scores.coords else list(range(scores.sizes.get("class", 1)))
    named = {str(label): label for label in labels}
    if text not in named:
        raise BadInput(sentence("class", f"be one of {', '.join(named)}", f"class={text}"))
    return named[text]


def names(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]


def _parse(name: str, text: str, kind: Callable[[str], Any], rule: str) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise BadInput(sentence(name, rule, f"{name}={text}")) from error


def numbers(name: str, text: str) -> list[int]:
    return _parse(name, text, int, "be whole numbers with commas between")


def floats(name: str, text: str, count: int) -> list[float]:
    rule = f"be {count} numbers with commas between"
    found = _parse(name, text, float, rule)
    if len(found) != count:
        raise BadInput(sentence(name, rule, f"{name}={text}"))
    return found

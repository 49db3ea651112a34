"""The command ``lsdask``: the steps from scenes to an inventory, one command each."""

import sys

from rich.console import Console

from lsdask.cli import about, bench, clusters, demo, mosaic, predict, reproduce, results, status, tiles, training
from lsdask.cli.app import app
from lsdask.errors import LsdaskError

__all__ = [
    "about",
    "app",
    "bench",
    "clusters",
    "demo",
    "main",
    "mosaic",
    "predict",
    "reproduce",
    "results",
    "status",
    "tiles",
    "training",
]


def main() -> None:
    """Run the command; what lsdask raises on purpose becomes one line and exit code 2."""
    try:
        app()
    except LsdaskError as error:
        Console(stderr=True).print(f"[red]lsdask:[/red] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)

"""The command that says how far a run is, and whether what it wrote is still there."""

from typing import Annotated

import typer

import lsdask as ls
from lsdask.cli.app import Store, app, check_run, finish, say


@app.command()
def status(
    store: Store,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read it all; what is torn, altered or lost is to do again.")
    ] = False,
) -> None:
    """Say how far the run that writes a store is, and which tiles failed; with --verify, whether any is damaged."""
    check_run(store, "store")
    if verify:
        finish(ls.tasks.verify(store))
    say(str(ls.tasks.status(store)))

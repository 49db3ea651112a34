"""Scores of an image, store to store, as a run that survives."""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import xarray as xr

from lsdask import tasks
from lsdask.predict.calling import call_of
from lsdask.predict.jobs import Options, job
from lsdask.predict.memory import give_back
from lsdask.predict.probing import look, settle
from lsdask.predict.scoring import Model
from lsdask.predict.skipping import Where

if TYPE_CHECKING:
    from distributed import Client


def run(
    source: str | Path | xr.DataArray,
    target: str | Path,
    model: Model,
    *,
    where: Where | None = None,
    client: "Client | None" = None,
    workers: int | None = None,
    retries: int = 2,
    progress: bool = True,
    **options: Unpack[Options],
) -> tasks.Report:
    """Write the scores of an image to a store, tile by tile; a run that was stopped goes on when called again.

    Parameters
    ----------
    source : path or DataArray (band, y, x)
        A store, one that ``store.open`` opened, or any other image, which then travels with the work.
    target : str or Path
        The store of scores: new, or one that holds this very run.
    model : path, torch module or callable
        As for ``apply``. Workers of a cluster on other machines must see the folder or can be given the network.
    where : DataArray (y, x) bool, GeoDataFrame, GeoSeries or path, optional
        Where scores are wanted: ``True``, or inside polygons in any CRS. Elsewhere they are unknown, and tiles
        without any wanted pixel are not read; nor are tiles of which the source stores nothing.
    client : distributed.Client, optional
        Where to run; default threads of this process.
    workers : int, optional
        Those threads; default two for a network, which itself uses all cores: one computes while the other reads
        and writes.
    retries : int
        How often a tile is tried again after a failed read or write.
    progress : bool
        Show a bar once the run has taken two seconds.
    **options
        See ``Options``: ``tile``, ``halo``, ``window``, ``blend``, ``tta``, ``classes``, ``dtype`` ...

    Returns
    -------
    tasks.Report
        With the tiles that failed and why; ``metrics`` sums pixels, bytes read, and seconds of reading, computing and
        writing over the threads; ``bottleneck()`` is the step that took most.

    Raises
    ------
    BadInput, NotFound, Unreadable
        If source or model cannot be used.
    OtherPlan
        If the target holds another run.

    Warns
    -----
    UserWarning
        If a network looks further than the halo, and scores of a block of the image show it.
    """
    described = job(source, target, model, where=where, **options)
    settle(described, target, client)
    look(described, client)
    give_back()
    return tasks.run(
        described.kernel,
        target=target,
        template=described.template,
        tile=described.grid.tile[0],
        halo=described.grid.halo,
        plan=described.plan,
        client=client,
        workers=workers or (2 if described.scorer.networks else None),
        retries=retries,
        progress=progress,
        label="predict",
        void=described.void,
        call=call_of(source, model, where, options),
    )

"""Going on with a run by the name of its target only."""

from pathlib import Path
from typing import TYPE_CHECKING

from lsdask import ledger, tasks
from lsdask.errors import BadInput, sentence
from lsdask.predict.running import run

if TYPE_CHECKING:
    from distributed import Client


def resume(
    path: str | Path,
    *,
    client: "Client | None" = None,
    workers: int | None = None,
    retries: int = 2,
    progress: bool = True,
) -> tasks.Report:
    """Go on with the run of a target, with the image, the model and the options it was begun with.

    Parameters
    ----------
    path : str or Path
        The target of a ``run`` whose source and model are paths.
    client, workers, retries, progress
        As for ``run``.

    Returns
    -------
    tasks.Report

    Raises
    ------
    BadInput
        If the target is no run of ``predict``, or what it needs was not a path: then call ``run`` again.
    OtherPlan
        If the image or the model at those paths is another one by now.
    """
    call = ledger.call_of(path)
    if ledger.plan_of(path).get("what") != "predict":
        raise BadInput(sentence("path", "be the target of predict.run", f"path={path}, of another kind of run"))
    missing = call.get("missing", ["source", "model"])
    if missing:
        got = f"path={path}, where the {' and the '.join(missing)} cannot"
        do = "Call predict.run again with the same arguments"
        raise BadInput(sentence("path", "be of a run whose arguments can be written down", got, do))
    return run(
        call["source"],
        path,
        call["model"],
        where=call["where"],
        client=client,
        workers=workers,
        retries=retries,
        progress=progress,
        **call["options"],
    )

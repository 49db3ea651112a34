"""What a notebook has cost so far: the table in its last cell."""

import resource
import sys
import time
from pathlib import Path

import pandas as pd

from lsdask.telling import size, span


def table(folder: Path, begun: float) -> pd.DataFrame:
    """Tell time, memory and disk.

    Parameters
    ----------
    folder : Path
        Where the notebook has written.
    begun : float
        What ``time.perf_counter`` said when it began.

    Returns
    -------
    DataFrame with one column
    """
    unit = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    files = [path for path in folder.rglob("*") if path.is_file()]
    told = {
        "time, since the first cell": span(time.perf_counter() - begun),
        "memory, at most, of this process": size(peak),
        f"disk, in {folder}": f"{size(sum(path.stat().st_size for path in files))} in {len(files)} files",
    }
    return pd.DataFrame({"cost": told})

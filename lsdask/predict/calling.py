"""How to call a run again, as its target keeps it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from lsdask import store


def call_of(source: Any, model: Any, where: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Give what ``resume`` needs to call ``run`` again; of what is no path, only that it was there.

    Returns
    -------
    dict
        JSON. ``missing`` names the arguments that cannot be written down.
    """
    image = store.source(source) if isinstance(source, xr.DataArray) else source
    paths = {"source": _path(image), "model": _path(model), "where": _path(where)}
    given = {"source": True, "model": True, "where": where is not None}
    missing = [name for name, path in paths.items() if given[name] and path is None]
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}
    return {**paths, "missing": missing, "options": plain}


def _path(value: Any) -> Any:
    """Give a path, or a list of paths, wherever the reader of it stands; None of anything else."""
    if isinstance(value, list | tuple):
        paths = [_path(part) for part in value]
        return None if None in paths else paths
    if not isinstance(value, str | Path):
        return None
    return str(Path(value).resolve()) if store.is_local(value) else store.text(value)

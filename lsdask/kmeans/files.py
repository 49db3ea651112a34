"""Centres in a JSON file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from lsdask import schema
from lsdask.errors import NotFound, Unreadable, sentence
from lsdask.kmeans.book import CENTERS, check_k

_FORMAT = "lsdask k-means centres 1"


def save(centers: xr.DataArray, path: str | Path) -> None:
    """Write centres to a JSON file; ``open`` gives the same numbers back, to the bit.

    Parameters
    ----------
    centers : DataArray (k, cluster, band)
        From ``fit``.
    path : str or Path
        Replaced if it is there.
    """
    schema.check(centers, CENTERS, "centers")
    ks = [int(k) for k in centers["k"].values]
    record = {
        "format": _FORMAT,
        "bands": list(schema.bands(centers)),
        "scale": centers["scale"].values.tolist(),
        "inertia": centers["inertia"].values.tolist(),
        "k": {
            str(k): {
                "centers": centers.values[i, :k].tolist(),
                "size": centers["size"].values[i, :k].tolist(),
            }
            for i, k in enumerate(ks)
        },
        "attrs": dict(centers.attrs),
    }
    Path(path).write_text(json.dumps(record, indent=1))


def open(path: str | Path) -> xr.DataArray:
    """Read centres that ``save`` wrote.

    Returns
    -------
    DataArray (k, cluster, band)

    Raises
    ------
    NotFound, Unreadable
        If there is no such file, or it is not one of centres.
    """
    try:
        record = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise NotFound(sentence("path", "name a file of centres", f"path={path}, where there is none")) from error
    except (OSError, ValueError) as error:
        raise Unreadable(sentence("path", "name a file of centres", f"path={path}: {error}")) from error
    try:
        return _from_record(record)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise Unreadable(sentence("path", f"hold {_FORMAT!r}", f"path={path}: {error!r}")) from error


def _from_record(record: dict[str, Any]) -> xr.DataArray:
    if record["format"] != _FORMAT:
        raise ValueError(record["format"])
    ks = [check_k(int(k)) for k in record["k"]]
    values = np.full((len(ks), max(ks), len(record["bands"])), np.nan)
    size = np.zeros(values.shape[:2], dtype="int64")
    for i, (k, entry) in enumerate(zip(ks, record["k"].values())):
        values[i, :k], size[i, :k] = entry["centers"], entry["size"]
    coords = {
        "k": ks,
        "cluster": np.arange(max(ks)),
        "band": record["bands"],
        "scale": ("band", np.asarray(record["scale"], dtype="float64")),
        "inertia": ("k", np.asarray(record["inertia"], dtype="float64")),
        "size": (("k", "cluster"), size),
    }
    return xr.DataArray(values, dims=CENTERS, coords=coords, name="centers", attrs=record["attrs"])

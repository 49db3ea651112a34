"""Images in Zarr: created, written, opened and read by windows, locally, in object stores and in repositories.

A store is a Zarr v3 group that plain ``xarray.open_zarr`` opens: one image variable, its coordinates, the CRS in
``spatial_ref``. All leading axes (bands, classes, several k) lie in one chunk; chunks lie in shards, the stored
objects, and a shard is always written whole by one writer.
"""

from lsdask.store.checksums import Stored, examine, fold, noting, remove
from lsdask.store.leases import Lease
from lsdask.store.making import ID, create, making, rename, write
from lsdask.store.places import Place, absolute, add, contents, exists, group, is_local, objects, text, told
from lsdask.store.reading import OVERVIEWS, SOURCE, array, fingerprint, level_path, open, source
from lsdask.store.versions import Fork, fork, is_repository, merge, part, session
from lsdask.store.windows import Reader, put, reader, sweep

__all__ = [
    "ID",
    "OVERVIEWS",
    "SOURCE",
    "Fork",
    "Lease",
    "Place",
    "Reader",
    "Stored",
    "absolute",
    "add",
    "array",
    "contents",
    "create",
    "examine",
    "exists",
    "fingerprint",
    "fold",
    "fork",
    "group",
    "is_local",
    "is_repository",
    "level_path",
    "making",
    "merge",
    "noting",
    "objects",
    "open",
    "part",
    "put",
    "reader",
    "remove",
    "rename",
    "session",
    "source",
    "sweep",
    "text",
    "told",
    "write",
]

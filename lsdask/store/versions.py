"""Icechunk repositories as stores: every run is one commit, and every commit can be read again.

A repository is named ``icechunk:PLACE`` or ``icechunk:PLACE@REF``: a local path, ``s3://`` or ``gs://``, and a branch
(default ``main``), tag or snapshot. Within ``session`` everything goes to one transaction, which is committed when the
block ends, also by an error: what a run has done is in its ledger, so that the next run goes on. What a killed
process did not commit is lost.

A task, in a thread or on a worker of a cluster, writes to a ``part`` of its own of the transaction's ``fork``. Whoever
holds the transaction merges the part when the task has ended well; what a failed or killed task wrote is nowhere.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout
from zarr.abc.store import Store
from zarr.storage import WrapperStore

from lsdask.errors import BadInput, NotFound, OtherPlan, sentence

if TYPE_CHECKING:
    from icechunk import ForkSession, Repository, Session

_PREFIX = "icechunk:"
_MAIN = "main"

_open: dict[str, "Session"] = {}
"""The transactions of the runs of this process, by their absolute places."""

_part: ContextVar["tuple[str, ForkSession] | None"] = ContextVar("part", default=None)
"""The part that this thread writes, and of where: kernels know a target by its name only."""


def is_repository(path: object) -> bool:
    """Say whether a path names an Icechunk repository."""
    return isinstance(path, str | Path) and str(path).startswith(_PREFIX)


def absolute(place: str) -> str:
    """Give a place as processes know it that were started in other folders.

    Examples
    --------
    >>> absolute("icechunk:/data/../repo@v1")
    'icechunk:/repo@v1'
    """
    where, name = _parts(place)
    return _PREFIX + _folder(where) + ("" if name is None else f"@{name}")


def _folder(where: str) -> str:
    return where if "://" in where else os.path.abspath(where)


def node(place: str) -> Store:
    """Give the store of a repository: of this thread's part or of the transaction, if there is one, else of a version.

    Raises
    ------
    NotFound
        If there is no repository, or it has no such branch, tag or snapshot.
    """
    held = _held(absolute(place))
    return _Named((_reading(place) if held is None else held).store, place)


def _held(where: str) -> "Session | None":
    place, part = _part.get() or ("", None)
    return part if place == where else _open.get(where)


class _Named(WrapperStore[Store]):
    """A repository's store that can be named at any time.

    Zarr names a store whenever it opens a group. Icechunk then waits for the writes of other threads, and these, as
    seen with 2.3.0, for the thread that waits.
    """

    def __init__(self, store: Store, place: str = "") -> None:
        super().__init__(store)
        self._place = place

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self._place)

    @property
    def supports_consolidated_metadata(self) -> bool:
        return self._store.supports_consolidated_metadata

    def __str__(self) -> str:
        return self._place

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._place!r})"


@contextmanager
def session(place: str, message: str) -> Iterator[None]:
    """Write a repository, made if there is none, in one transaction, and commit it.

    Parameters
    ----------
    place : str
        ``icechunk:PLACE`` or ``icechunk:PLACE@BRANCH``.
    message : str
        What the commit says.

    Raises
    ------
    OtherPlan
        If another run writes it. In an object store that shows when the later one commits, which then fails.
    """
    icechunk = _icechunk(place)
    where, branch = _parts(place)
    storage = _storage(where)
    with _alone(where, place):
        writing = icechunk.Repository.open_or_create(storage).writable_session(branch or _MAIN)
        key = absolute(place)
        _open[key] = writing
        try:
            yield
        finally:
            del _open[key]
            _commit(writing, place, message)


@contextmanager
def _alone(where: str, place: str) -> Iterator[None]:
    """Keep other runs of this machine away from a local repository, where commits are not safe from each other."""
    if "://" in where:
        yield
        return
    Path(where).parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{where}.lock", timeout=0):
            yield
    except Timeout as error:
        do = "Wait for it to end, or pass another target."
        raise OtherPlan(f"{place} is being written by another run. {do}") from error


def _commit(writing: "Session", place: str, message: str) -> None:
    import icechunk

    if not writing.has_uncommitted_changes:
        return
    try:
        writing.commit(message)
    except icechunk.ConflictError as error:
        kept = f"{_PREFIX}{_parts(place)[0]}@{writing.flush(message)}"
        do = f"Run again to write on top of it. What this run wrote is {kept}."
        raise OtherPlan(f"{place} was written by another run meanwhile, so nothing was committed. {do}") from error


# What tasks write


@dataclass(frozen=True)
class Fork:
    """A transaction as it was when ``fork`` was called: what tasks write parts of, here or where it is unpickled.

    Attributes
    ----------
    where : str
        The absolute place of the repository.
    session : icechunk.ForkSession
        Never written itself.
    """

    where: str
    session: "ForkSession"


def fork(place: str) -> Fork | None:
    """Fork the transaction of a place, with all that it holds so far; None where there is no transaction.

    Icechunk, from 2.0 on, saves what is not committed yet as a snapshot of no branch, which the forks begin at.
    """
    held = _open.get(absolute(place)) if is_repository(place) else None
    return None if held is None else Fork(absolute(place), held.fork())


@contextmanager
def part(fork: Fork | None) -> Iterator["ForkSession | None"]:
    """Let this thread, in this block, write to a part of its own, which nobody sees until it is merged.

    Parameters
    ----------
    fork : Fork or None
        None where there is no transaction: nothing is done.

    Yields
    ------
    icechunk.ForkSession or None
        What ``merge`` takes; it may be pickled.
    """
    if fork is None:
        yield None
        return
    own = fork.session.fork()
    token = _part.set((fork.where, own))
    try:
        yield own
    finally:
        _part.reset(token)


def merge(place: str, part: "ForkSession | None") -> None:
    """Take over into the transaction of a place what was written to a part of its fork."""
    if part is not None:
        _open[absolute(place)].merge(part)


# Repositories


def _reading(place: str) -> "Session":
    """Open a version of a repository; a name is a branch, else a tag, else a snapshot."""
    icechunk = _icechunk(place)
    where, name = _parts(place)
    repository = _repository(where, place)
    if name is None or name in repository.list_branches():
        return repository.readonly_session(name or _MAIN)
    if name in repository.list_tags():
        return repository.readonly_session(tag=name)
    try:
        return repository.readonly_session(snapshot_id=name)
    except (icechunk.IcechunkError, ValueError) as error:
        held = ", ".join(sorted({*repository.list_branches(), *repository.list_tags()}))
        rule = "name a branch, tag or snapshot of the repository after '@'"
        raise NotFound(sentence("path", rule, f"path={place}", f"It holds {held}")) from error


def _repository(where: str, place: str) -> "Repository":
    import icechunk

    storage = _storage(where)
    if not icechunk.Repository.exists(storage):
        raise NotFound(sentence("path", "name an Icechunk repository", f"path={place}, where there is none"))
    return icechunk.Repository.open(storage)


def _icechunk(place: str) -> Any:
    """Import Icechunk, which is optional."""
    try:
        import icechunk
    except ImportError as error:
        do = "Install it: pip install 'lsdask[icechunk]'"
        rule = "name no repository where icechunk is not installed"
        raise BadInput(sentence("path", rule, f"path={place}", do)) from error
    return icechunk


def _parts(place: str) -> tuple[str, str | None]:
    """Cut a place into where it is and which version.

    Examples
    --------
    >>> _parts("icechunk:s3://bucket/repo@v1")
    ('s3://bucket/repo', 'v1')
    """
    where, _, name = place.removeprefix(_PREFIX).rpartition("@")
    return (where, name) if where and "/" not in name else (place.removeprefix(_PREFIX), None)


def _storage(where: str) -> Any:
    """Give what Icechunk calls a storage, with the credentials of the environment."""
    import icechunk

    scheme, _, rest = where.rpartition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme == "":
        return icechunk.local_filesystem_storage(_folder(where))
    if scheme == "s3":
        return icechunk.s3_storage(bucket=bucket, prefix=prefix, from_env=True, **_endpoint())
    if scheme == "gs":
        return icechunk.gcs_storage(bucket=bucket, prefix=prefix, from_env=True)
    raise BadInput(sentence("path", "be local, s3:// or gs:// for an Icechunk repository", f"{where}"))


def _endpoint() -> dict[str, Any]:
    """Give the endpoint of the environment, which Icechunk, unlike obstore, does not read by itself."""
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if url is None:
        return {"region": region}
    return {"endpoint_url": url, "region": region, "allow_http": url.startswith("http://"), "force_path_style": True}

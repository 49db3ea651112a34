"""Where a store may lie: a folder, an object store, a web server or an Icechunk repository, each as Zarr opens it.

A place is a local path; ``s3://``, ``gs://``, ``az://`` or ``https://``, through obstore, which reads credentials,
region and endpoint from the environment variables of each service; or ``icechunk:`` before a local path or
``s3://`` (see ``lsdask.store.versions``). Where ``https://`` names an object store of Amazon, Google, Microsoft or
Cloudflare it is that store; any other web server can be read, and written if it speaks WebDAV (see
``lsdask.store.web``). Nothing else in lsdask knows what a place is.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.errors import GroupNotFoundError
from zarr.storage import ObjectStore

from lsdask.errors import BadInput, LsdaskError, NotFound, Unreadable, sentence
from lsdask.store import versions, web

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Objects
    from obstore.store import RetryConfig

Place = str | Path | Store
"""A path or URL, or a store that Zarr opens already."""

RETRY: "RetryConfig" = {
    "max_retries": 8,
    "backoff": {"init_backoff": timedelta(seconds=0.3), "max_backoff": timedelta(seconds=10), "base": 3},
    "retry_timeout": timedelta(minutes=3),
}
"""How obstore tries again after 5xx and lost connections: each time later, for about half a minute."""

_GOOGLE = "https://storage.googleapis.com/"
"""Where Google's buckets are on the web, which obstore takes for any web server."""


def text(path: Place) -> str:
    """Give a place as a string; the ``//`` of a URL that went through ``Path`` comes back.

    Examples
    --------
    >>> text(Path("s3://bucket/mosaic.zarr"))
    's3://bucket/mosaic.zarr'
    """
    return re.sub(r"^(icechunk:)?(s3a?|gs|az|https?):/(?=[^/])", r"\1\2://", str(path))


def absolute(path: Place) -> str:
    """Give a place as processes know it that were started in other folders; a folder of this machine becomes absolute.

    Examples
    --------
    >>> absolute("s3://bucket/mosaic.zarr")
    's3://bucket/mosaic.zarr'
    """
    place = text(path)
    if versions.is_repository(place):
        return versions.absolute(place)
    return os.path.abspath(place) if is_local(path) else place


def is_local(path: Place) -> bool:
    """Say whether ``path`` is a folder of this machine rather than a URL, a repository or a store."""
    return not isinstance(path, Store) and "://" not in text(path) and not versions.is_repository(path)


def node(path: Place, *, write: bool = False) -> str | Store:
    """Give what Zarr opens for a place.

    Parameters
    ----------
    path : str, Path or zarr Store
    write : bool
        Whether it will be written.

    Returns
    -------
    str or zarr Store

    Raises
    ------
    BadInput
        If the package that reaches it is not installed, or it is no URL.
    """
    if isinstance(path, Store):
        return path
    place = text(path)
    if versions.is_repository(place):
        return versions.node(place)
    if "://" not in place:
        return place
    held: Any = objects(place)
    return (web.WebStore if is_web(place) else ObjectStore)(held, read_only=not write)


def is_web(path: Place) -> bool:
    """Say whether a place is on a web server rather than in an object store: it is not listed."""
    place = text(path)
    if isinstance(path, Store) or not place.startswith(("http://", "https://")) or place.startswith(_GOOGLE):
        return False
    return bool(_obstore(place).parse_scheme(place) == "http")


def objects(url: str) -> "Objects":
    """Open a URL with obstore.

    Raises
    ------
    BadInput
        If obstore is not installed or does not know the URL, or a password is part of it.
    """
    obstore = _obstore(url)
    try:
        if is_web(url):
            return web.opened(url, RETRY)
        return obstore.store.from_url(url.replace(_GOOGLE, "gs://", 1), retry_config=RETRY)
    except LsdaskError:
        raise
    except (obstore.exceptions.BaseError, ValueError) as error:
        raise BadInput(sentence("path", "be a URL that obstore opens", f"path={url}: {_first_line(error)}")) from error


def _obstore(url: str) -> Any:
    """Import obstore, which is optional."""
    try:
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        do = "Install it: pip install 'lsdask[cloud]'"
        raise BadInput(sentence("path", "be local where obstore is not installed", f"path={url}", do)) from error
    return obstore


def exists(path: Place) -> bool:
    """Say whether there is anything at ``path``: any file locally, a Zarr group elsewhere.

    Raises
    ------
    BadInput, Unreadable
        If the place cannot be asked: see ``told``.
    """
    if is_local(path):
        return os.path.lexists(path)  # type: ignore[arg-type]
    try:
        group(path)
    except NotFound:
        return False
    return True


def group(path: Place, *, write: bool = False) -> zarr.Group:
    """Open the group at a place.

    Raises
    ------
    NotFound
        If there is none.
    BadInput, Unreadable
        If the place cannot be reached: see ``told``.
    """
    try:
        with told(path):
            return zarr.open_group(node(path, write=write), mode="r+" if write else "r", use_consolidated=False)
    except (FileNotFoundError, GroupNotFoundError) as error:
        raise NotFound(sentence("path", "name a Zarr group", f"path={text(path)}, where there is none")) from error


def add(path: Place, key: str, content: bytes) -> None:
    """Write an object into a group that is not local: a few lines of text beside its arrays.

    Raises
    ------
    BadInput, Unreadable
        If the place cannot be reached: see ``told``.
    """
    with told(path):
        sync(group(path, write=True).store.set(key, default_buffer_prototype().buffer.from_bytes(content)))


def contents(path: str, folder: str) -> Iterator[bytes]:
    """Read the objects of a folder in a group that is not local, by their names; none where a web server lists none.

    Raises
    ------
    BadInput, Unreadable
        If the place cannot be reached: see ``told``.
    """
    with told(path):
        held = objects(path)
        if is_web(path):
            keys = [f"{folder}/{name}" for name in web.names(f"{path.rstrip('/')}/{folder}")]
        else:
            keys = sorted(found["path"] for page in held.list(folder) for found in page)
        yield from (bytes(held.get(key).bytes()) for key in keys)


@contextmanager
def told(path: Place | None = None) -> Iterator[None]:
    """Turn what obstore, Icechunk and requests raise in this block into one sentence that names the place.

    A zarr Store has no name to give: what it raises goes on to the block that knows its place.

    Raises
    ------
    BadInput
        If there is no such bucket, or the credentials are missing or refused.
    Unreadable
        If the server did not answer, or answered with an error, more often than ``RETRY`` allows. An OSError, so
        that tasks are tried again.
    """
    try:
        yield
    except Exception as raised:
        error = _single(raised)
        if not isinstance(path, Store) and type(error).__module__.split(".")[0] in _FOREIGN:
            raise _sentence(error, "a store" if path is None else text(path)) from raised
        if error is not raised:
            raise error from raised
        raise


def _single(error: Exception) -> Exception:
    """Give the first error of a group: Zarr reads the parts of a shard at once, and one that fails ends the others."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


_FOREIGN = ("obstore", "icechunk", "requests")

_CREDENTIALS = "Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (for gs://, GOOGLE_SERVICE_ACCOUNT)"

_CAUSES: tuple[tuple[str, type[LsdaskError], str, str, str], ...] = (
    (
        r"NoSuchBucket|bucket does not exist",
        BadInput,
        "name a bucket that exists",
        "which the server does not know",
        "",
    ),
    (
        r"InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|InvalidClientTokenId|InvalidToken|"
        r"40[13] (Forbidden|Unauthorized)|permission|Unauthenticated|PermissionDenied",
        BadInput,
        "be open to these credentials",
        "which the server refused",
        _CREDENTIALS,
    ),
    (
        r"169\.254\.|credential|metadata\.google",
        BadInput,
        "be open to the credentials of the environment",
        "and none were found",
        _CREDENTIALS,
    ),
    (
        r"builder error|URL scheme is not allowed",
        BadInput,
        "be reached over https",
        "whose endpoint is plain http",
        "Set AWS_ALLOW_HTTP=true to allow that",
    ),
    (
        r"Range request not supported",
        BadInput,
        "be on a server that answers requests for parts of a file",
        "which does not",
        "Copy it to another place",
    ),
    (
        r"error sending request|dispatch failure|Max retries exceeded|Connection aborted|timed out",
        Unreadable,
        "name a server that answers",
        "which does not",
        "",
    ),
)


def _sentence(error: Exception, place: str) -> LsdaskError:
    """Say why a place cannot be reached."""
    described = f"{type(error).__name__} {error}"
    if is_web(place) and (said := web.why(described, place)) is not None:
        return said
    for pattern, kind, rule, got, do in _CAUSES:
        if re.search(pattern, described):
            return kind(sentence("path", rule, f"path={place}, {got}", do))
    return Unreadable(sentence("path", "name a store that can be reached", f"path={place}: {_first_line(error)}"))


def _first_line(error: Exception) -> str:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line.rstrip(".")[:300]

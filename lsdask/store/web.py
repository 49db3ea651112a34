"""Web servers as stores: any is read; one that speaks WebDAV, as Apache and nginx can, is written too.

obstore gets, puts and deletes. What else a store needs (RFC 4918) is asked for here, by requests: as of 0.12, obstore
makes no collection above its own address, fails where another thread has just made one, cuts what is longer than
5 MB into parts that no such server takes, and lists names that lead nowhere. Servers differ in the rest, as seen with
Apache 2.4 and nginx 1.22: nginx knows no listing, no conditions and no locks, Apache lists no more than one folder at
a time. So a run needs nothing but GET, HEAD, PUT, DELETE and MKCOL.

Who asks is said by ``GDAL_HTTP_USERPWD``, as to GDAL, which reads scenes from such servers, or by a line of
``~/.netrc``; each process reads them for itself, so that no store, graph or message holds a password.
"""

import asyncio
import base64
import os
import re
from collections.abc import Collection
from functools import cache
from http.client import responses
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

from zarr.core.buffer import Buffer
from zarr.storage import ObjectStore

from lsdask.errors import BadInput, LsdaskError, Unreadable, sentence

if TYPE_CHECKING:
    from obstore.store import ClientConfig, HTTPStore
    from requests import HTTPError, PreparedRequest, Response, Session

TRIES = 8
"""How often a request is sent again after 5xx and lost connections: each time later, for about half a minute."""

CONNECT_SECONDS, TIMEOUT_SECONDS = 5, 300
"""How long a server may take to be there, and to answer: a slow line needs more than 30 s for a shard."""

CREATED, SEVERAL, FORBIDDEN, MISSING, NOT_ALLOWED, NO_PARENT, UNKNOWN = 201, 207, 403, 404, 405, 409, 501
"""What servers answer."""

_NAME = "Set GDAL_HTTP_USERPWD=user:password, or give the server a line in ~/.netrc"

_CAUSES: dict[int, tuple[type[LsdaskError], str, str, str]] = {
    **dict.fromkeys(
        (401, FORBIDDEN),
        (BadInput, "be open to these credentials", "which the server refused", _NAME),
    ),
    **dict.fromkeys(
        (NOT_ALLOWED, UNKNOWN),
        (
            BadInput,
            "be on a web server that takes PUT, DELETE and MKCOL, as WebDAV servers do, to be written",
            "which does not",
            "For a server that speaks S3 pass s3://, and set AWS_ENDPOINT_URL",
        ),
    ),
    **dict.fromkeys(
        (301, 302, 303, 307, 308),
        (BadInput, "be the server's own address, to be written", "which sends on to another", "Pass that"),
    ),
    SEVERAL: (Unreadable, "be a folder that its server removes whole", "of which it kept a part", "Remove that there"),
    NO_PARENT: (BadInput, "lie in a folder of its server that is there or can be made", "which does not", ""),
    413: (
        BadInput,
        "be on a server that takes objects of this size",
        "which does not",
        "Pass a smaller shard, or let the server take more (client_max_body_size of nginx)",
    ),
    507: (Unreadable, "be on a server with room left", "which has none", "Make room, then run again"),
}


def opened(url: str, retry: Any) -> "HTTPStore":
    """Open an address with obstore and the credentials that its server has been given.

    Parameters
    ----------
    url : str
    retry : obstore RetryConfig

    Raises
    ------
    BadInput
        If a password is part of the address.
    """
    from obstore.store import HTTPStore

    options: ClientConfig = {"allow_http": True, "timeout": f"{TIMEOUT_SECONDS}s", "default_headers": _signed(url)}
    return HTTPStore(url, client_options=options, retry_config=retry)


class WebStore(ObjectStore["HTTPStore"]):
    """A folder of a web server as Zarr reads and writes it; it travels as its address."""

    @property
    def supports_listing(self) -> bool:
        return False

    async def set(self, key: str, value: Buffer) -> None:
        import obstore

        self._check_writable()
        await asyncio.to_thread(make, self._url(key).rpartition("/")[0])
        await obstore.put_async(self.store, key, value.as_buffer_like(), use_multipart=False)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        if not await self.exists(key):
            await self.set(key, value)

    async def delete_dir(self, prefix: str) -> None:
        self._check_writable()
        await asyncio.to_thread(remove, self._url(prefix))

    def _url(self, key: str) -> str:
        return f"{self.store.url.rstrip('/')}/{quote(key)}".rstrip("/")

    def __getstate__(self) -> dict[Any, Any]:
        return {**self.__dict__, "store": (self.store.url, self.store.retry_config)}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self.__dict__.update({**state, "store": opened(*state["store"])})


def make(url: str) -> int:
    """Make a collection and those it lies in; see ``mkcol``, of which there is no ``NO_PARENT`` then.

    Raises
    ------
    requests.HTTPError
        If those cannot be made.
    """
    answer = mkcol(url)
    if answer == NO_PARENT and urlsplit(url).path.count("/") > 1:
        make(url.rpartition("/")[0])
        answer = mkcol(url)
    if answer == NO_PARENT:
        raise error(answer, "MKCOL")
    return answer


def mkcol(url: str) -> int:
    """Make a collection: of those who try it at once one is told ``CREATED``, the others ``NOT_ALLOWED``.

    Returns
    -------
    int
        Or ``NO_PARENT`` if there is nothing to make it in; ``NOT_ALLOWED`` or ``UNKNOWN`` if the server makes none.
    """
    also = (NOT_ALLOWED, NO_PARENT, UNKNOWN)
    answer = ask("MKCOL", f"{url}/", also=(*also, FORBIDDEN)).status_code
    if answer == FORBIDDEN:  # what Apache tells those who are later by less than a moment, once
        answer = ask("MKCOL", f"{url}/", also=also).status_code
    return int(answer)


def remove(url: str) -> None:
    """Remove a collection and what lies in it, if it is there."""
    if ask("DELETE", f"{url}/", also=(MISSING,)).status_code == SEVERAL:  # which then says what was not removed
        raise error(SEVERAL, "DELETE")


def read(url: str) -> bytes | None:
    """Give a file, None if there is none."""
    answer = ask("GET", url, also=(MISSING,))
    return None if answer.status_code == MISSING else bytes(answer.content)


def names(url: str) -> list[str]:
    """Give the names of the files in a collection, sorted: none if it is not there, or the server does not list."""
    answer = ask("PROPFIND", f"{url}/", also=(MISSING, NOT_ALLOWED, UNKNOWN), headers={"Depth": "1"})
    if answer.status_code != SEVERAL:
        return []
    found = (
        unquote(urlsplit(one.text or "").path) for one in ElementTree.fromstring(answer.content).iter("{DAV:}href")
    )
    return sorted(path.rpartition("/")[2] for path in found if not path.endswith("/"))


def ask(
    method: str,
    url: str,
    *,
    content: bytes | None = None,
    headers: dict[str, str] | None = None,
    also: Collection[int] = (),
) -> "Response":
    """Send a request, again where that may help, and no further than to this address.

    Parameters
    ----------
    method, url : str
    content : bytes, optional
    headers : dict, optional
    also : collection of int
        Answers besides 2xx that are no errors.

    Raises
    ------
    requests.RequestException
        If the server does not answer, or with an error; ``store.told`` makes a sentence of it.
    """
    timeouts = (CONNECT_SECONDS, TIMEOUT_SECONDS)
    answer = _session().request(
        method, url, data=content, headers=headers, auth=_sign, timeout=timeouts, allow_redirects=False
    )
    if answer.status_code >= 300 and answer.status_code not in also:
        raise error(answer.status_code, method)
    return answer


def error(status: int, method: str) -> "HTTPError":
    """Give the error of an answer, in words that ``why`` knows."""
    from requests import HTTPError

    return HTTPError(f"{method}: status code: {status} {responses.get(status, '')}".rstrip())


@cache
def _session() -> "Session":
    """Give the connections of this process."""
    from requests import Session
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    again = Retry(
        TRIES,
        backoff_factor=0.3,
        backoff_max=10,
        status_forcelist=(423, 429, 500, 502, 503, 504),
        allowed_methods=None,
        raise_on_status=False,
        respect_retry_after_header=False,  # a lease cannot wait as long as a server may ask for
    )
    session = Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=again))
    return session


def _sign(request: "PreparedRequest") -> "PreparedRequest":
    request.headers.update(_signed(str(request.url)))
    return request


def _signed(url: str) -> dict[str, str]:
    """Give the header that says who asks, none if nobody was named."""
    from requests.utils import get_netrc_auth

    _check(url)
    given = os.environ.get("GDAL_HTTP_USERPWD") or ":".join(get_netrc_auth(url) or ())
    return {"authorization": f"Basic {base64.b64encode(given.encode()).decode()}"} if given else {}


def _check(url: str) -> None:
    """Raise BadInput if a password is part of an address, from where it would get into ledgers and logs."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        named = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise BadInput(sentence("path", "hold no user and password", f"them in {named}", _NAME))


def why(described: str, place: str) -> LsdaskError | None:
    """Say in one sentence what an answer of a web server means, None if it does not say itself.

    Parameters
    ----------
    described : str
        What obstore or ``ask`` has raised.
    place : str
        What was asked for.
    """
    status = re.search(r"status code: (\d{3})", described)
    if status is None or int(status[1]) not in _CAUSES:
        return None
    kind, rule, got, do = _CAUSES[int(status[1])]
    return kind(sentence("path", rule, f"path={place}, {got} ({status[1]})", do))

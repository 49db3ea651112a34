"""A lease on a web server, made of collections: the one thing that every WebDAV server makes for one of many only.

``TARGET.lock`` is made by the run that gets the lease, which puts its name into it, again and again. Where that run
was killed, the next makes a collection in that collection, the one after it a third in the second: each dead run has
one heir. Whose collection lies deepest holds the lease, and removes them all when it ends.
"""

import json
import uuid
from typing import Any, NamedTuple

from lsdask.store import web

_HEIR, _OWNER = "heir", "owner.json"


class Held(NamedTuple):
    """The deepest collection and what its run has put into it: nothing in the moment before it does."""

    place: str
    owner: bytes | None


class Nest:
    """The lease of one target, as one run sees it."""

    def __init__(self, target: str) -> None:
        self._base = f"{target}.lock"
        self._there: set[str] = set()
        self._mine: str | None = None

    def read(self) -> tuple[dict[str, Any], Held | None]:
        """Give who holds the lease, as far as it can be read, and the version of it; None if nobody does."""
        held, inner = None, self._base
        while (owner := web.read(f"{inner}/{_OWNER}")) is not None or inner in self._there:
            if owner is not None:
                self._there.discard(inner)  # it goes when its owner goes
            held, inner = Held(inner, owner), f"{inner}/{_HEIR}"
        return _parsed(held.owner if held else None), held

    def put(self, owner: bytes, instead_of: Held | None) -> Held | None:
        """Put the lease in the place of that version of it, or of none; None if another run was faster."""
        if instead_of is None:
            return self._make(self._base, owner, web.make(self._base))
        if instead_of.place == self._mine:
            return self._write(self._mine, owner) if self.read()[1] == instead_of else None
        heir = f"{instead_of.place}/{_HEIR}"
        return self._make(heir, owner, web.mkcol(heir))

    def remove(self) -> None:
        """Give the lease back."""
        web.remove(self._base)

    def _make(self, place: str, owner: bytes, answer: int) -> Held | None:
        if answer == web.CREATED:
            self._mine = place
            return self._write(place, owner)
        if answer == web.NO_PARENT:  # the lease was given back meanwhile
            self._there.clear()
            return None
        self._check()
        self._there.add(place)
        return None

    def _write(self, place: str, owner: bytes) -> Held:
        web.ask("PUT", f"{place}/{_OWNER}", content=owner)
        return Held(place, owner)

    def _check(self) -> None:
        """Raise if the server makes no collections: it then says of each what others say of those that are there."""
        answer = web.mkcol(f"{self._base}-{uuid.uuid4().hex}/{_HEIR}")
        if answer != web.NO_PARENT:
            raise web.error(answer, "MKCOL")


def _parsed(owner: bytes | None) -> dict[str, Any]:
    """Read a name; one that is being put just now may be in parts."""
    try:
        return dict(json.loads(owner or b"{}"))
    except ValueError:
        return {}

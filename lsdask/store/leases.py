"""One run at a time on a target in an object store or on a web server, where there is no file to lock.

A lease is a small object beside the target, ``TARGET.lock``, put there on the condition that it is not there yet, and
put again every few seconds on the condition that nobody else has put it. A lease that stops changing is that of a
run that was killed: whoever has watched it for ``EXPIRY_SECONDS`` takes it over, on the same condition. No clocks
are compared. The stores of Amazon, Google, Microsoft and most others keep such conditions; web servers do not all,
so that there it is a collection (see ``nests``).
"""

import json
import logging
import os
import platform
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Self

from lsdask.errors import OtherPlan, Unreadable
from lsdask.store import places
from lsdask.store.nests import Nest

if TYPE_CHECKING:
    from obstore import UpdateVersion

EXPIRY_SECONDS = 30.0
"""How long a lease must not change before another run takes it over."""

BEAT_SECONDS = 6.0
"""How often a run renews its lease: four renewals may fail before it is lost."""

_log = logging.getLogger(__name__)


class Lease:
    """The right to write a target, held until ``release`` and renewed in between.

    Attributes
    ----------
    lost : bool
        Whether another run took the lease over, because it was not renewed in time.
    """

    def __init__(self, target: str) -> None:
        self.lost = False
        self._target = target
        name = target.rstrip("/")
        self._held: Nest | _Object = Nest(name) if places.is_web(target) else _Object(name)
        self._version: Any = None  # of its own kind
        self._run = uuid.uuid4().hex
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="lsdask-lease", daemon=True)

    def acquire(self) -> Self:
        """Take the lease, or that of a run that was killed, after waiting until it expires.

        Raises
        ------
        OtherPlan
            If another run holds and renews it.
        BadInput, Unreadable
            If the store cannot be reached, or not be written.
        """
        with places.told(self._target):
            expired = None
            while not self._put(expired):
                expired = self._expired()
        self._beating.start()
        return self

    def check(self) -> None:
        """Raise OtherPlan if another run has taken the lease over."""
        if self.lost:
            do = "Wait for it to end, then run again."
            raise OtherPlan(f"{self._target} was taken over by another run, as this one did not answer. {do}")

    def release(self) -> None:
        """Give the lease back, unless it is another run's by now; where the store does not answer, it expires."""
        self._ended.set()
        self._beating.join()
        try:
            with places.told(self._target):
                if self._held.read()[0].get("run") == self._run:
                    self._held.remove()
        except Unreadable as error:
            _log.warning("The lease of %s could not be given back: %s", self._target, error)

    def _expired(self) -> Any:
        """Watch another's lease until it has expired; give the version of it that did, None if it was given back."""
        seen = self._held.read()[1]
        _log.warning("%s is leased to another run; waiting %.0f s for a sign of life.", self._target, EXPIRY_SECONDS)
        until = time.monotonic() + EXPIRY_SECONDS
        while time.monotonic() < until and seen is not None:
            time.sleep(min(1.0, EXPIRY_SECONDS / 10))
            owner, now = self._held.read()
            if now != seen and now is not None:
                self._refuse(owner)
            seen = now
        return seen

    def _refuse(self, owner: dict[str, Any]) -> None:
        by = f" (process {owner['process']} on {owner['machine']})" if owner else ""
        do = "Wait for it to end, or pass another target."
        raise OtherPlan(f"{self._target} is being written by another run{by}. {do}")

    def _put(self, instead_of: Any) -> bool:
        """Put the lease in the place of that version of it, or of none; say whether it is this run's now."""
        owner = {"run": self._run, "machine": platform.node(), "process": os.getpid(), "beat": uuid.uuid4().hex}
        self._version = self._held.put(json.dumps(owner).encode(), instead_of)
        if self._version is not None:
            return True
        # A put whose answer was lost is sent again, and then finds what it has put itself.
        held, self._version = self._held.read()
        return bool(held.get("run") == self._run)

    def _beat(self) -> None:
        """Renew the lease until it ends or is lost."""
        while not self._ended.wait(BEAT_SECONDS):
            try:
                self.lost = not self._put(self._version)
            except Exception as error:
                if not isinstance(error, OSError) and type(error).__module__.split(".")[0] != "obstore":
                    raise
            if self.lost:
                return


class _Object:
    """The lease of a target in an object store; a version of it tells it from the one put in its place."""

    def __init__(self, target: str) -> None:
        where, _, name = target.rpartition("/")
        self._name = f"{name}.lock"
        self._store = places.objects(where)

    def read(self) -> "tuple[dict[str, Any], UpdateVersion | None]":
        """Give who holds the lease and the version of it, nothing and None if nobody does."""
        try:
            held = self._store.get(self._name)
        except FileNotFoundError:
            return {}, None
        return json.loads(bytes(held.bytes())), _version(held.meta)

    def put(self, owner: bytes, instead_of: "UpdateVersion | None") -> "UpdateVersion | None":
        """Put the lease in the place of that version of it, or of none; None if another run was faster."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            return _version(self._store.put(self._name, owner, mode=instead_of or "create"))
        except (AlreadyExistsError, PreconditionError):
            return None

    def remove(self) -> None:
        """Give the lease back."""
        self._store.delete(self._name)


def _version(said: Any) -> "UpdateVersion":
    """Give what tells an object from the one put in its place: Google counts versions, the others make tags."""
    version: UpdateVersion = {"e_tag": said["e_tag"]}
    if said["version"] is not None:
        version["version"] = said["version"]
    return version

"""One run at a time on a target in an object store, where there is no file to lock.

A lease is a small object beside the target, ``TARGET.lock``, put there on the condition that it is not there yet, and
put again every few seconds on the condition that nobody else has put it. A lease that stops changing is that of a
run that was killed: whoever has watched it for ``EXPIRY_SECONDS`` takes it over, on the same condition. No clocks
are compared. The stores of Amazon, Google, Microsoft and most others keep such conditions.
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

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore

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
        where, _, name = target.rstrip("/").rpartition("/")
        self.lost = False
        self._target, self._name = target, f"{name}.lock"
        self._store: ObjectStore = places.objects(where)
        self._version: UpdateVersion | None = None
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
            If the store cannot be reached.
        """
        with places.told(self._target):
            if not self._put(None):
                self._take_over()
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
                if self._owner()[0].get("run") == self._run:
                    self._store.delete(self._name)
        except Unreadable as error:
            _log.warning("The lease of %s could not be given back: %s", self._target, error)

    def _take_over(self) -> None:
        """Watch another's lease until it has expired, then put this one in its place."""
        seen = self._seen()
        _log.warning("%s is leased to another run; waiting %.0f s for a sign of life.", self._target, EXPIRY_SECONDS)
        until = time.monotonic() + EXPIRY_SECONDS
        while time.monotonic() < until and seen is not None:
            time.sleep(min(1.0, EXPIRY_SECONDS / 10))
            if (now := self._seen()) != seen and now is not None:
                self._refuse()
            seen = now
        if not self._put(seen):
            self._refuse()

    def _refuse(self) -> None:
        owner, _ = self._owner()
        by = f" (process {owner['process']} on {owner['machine']})" if owner else ""
        do = "Wait for it to end, or pass another target."
        raise OtherPlan(f"{self._target} is being written by another run{by}. {do}")

    def _seen(self) -> "UpdateVersion | None":
        """Give the version of the lease as it is now, None if there is none."""
        return self._owner()[1]

    def _owner(self) -> "tuple[dict[str, Any], UpdateVersion | None]":
        """Give what the lease says and its version, nothing if there is none."""
        try:
            held = self._store.get(self._name)
        except FileNotFoundError:
            return {}, None
        return json.loads(bytes(held.bytes())), _version(held.meta)

    def _put(self, instead_of: "UpdateVersion | None") -> bool:
        """Put the lease in the place of that version of it, or of none; say whether it is this run's now."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        owner = {"run": self._run, "machine": platform.node(), "process": os.getpid(), "beat": uuid.uuid4().hex}
        try:
            put = self._store.put(self._name, json.dumps(owner).encode(), mode=instead_of or "create")
        except (AlreadyExistsError, PreconditionError):
            # A put whose answer was lost is sent again, and then finds what it has put itself.
            held, self._version = self._owner()
            return held.get("run") == self._run
        self._version = _version(put)
        return True

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


def _version(said: Any) -> "UpdateVersion":
    """Give what tells an object from the one put in its place: Google counts versions, the others make tags."""
    version: UpdateVersion = {"e_tag": said["e_tag"]}
    if said["version"] is not None:
        version["version"] = said["version"]
    return version

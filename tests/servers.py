"""Real components on loopback: a STAC API, and pixels over HTTP with range requests, which can be told to fail.

Each starts on a free port, is waited for until it answers, and is stopped on leaving, also after a failure.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pystac
from RangeHTTPServer import RangeRequestHandler


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(address: str, *, seconds: float = 20.0, alive=lambda: True) -> None:
    """Wait until a server answers, or raise."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and alive():
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{address} did not answer within {seconds} s")


# Pixels


@dataclass
class Fault:
    """What a server does instead of answering: a status, or silence; so many times, or always if below 0."""

    status: int = 0
    seconds: float = 0.0
    times: int = -1


@dataclass
class Pixels:
    """A folder served over HTTP with range requests.

    Attributes
    ----------
    address : str
        Without a slash at the end.
    asked : list of (method, path, range header or None)
        Every request.
    faults : dict
        From the end of a path to what is done instead.
    swapped : dict
        From a path to the file served instead.
    """

    address: str
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    faults: dict[str, Fault] = field(default_factory=dict)
    swapped: dict[str, str] = field(default_factory=dict)
    scratch: str = ""

    def url(self, path: str) -> str:
        return f"{self.address}/{path}"

    def fail(self, path: str, status: int, *, times: int = -1) -> None:
        """Answer with a status, for paths that end so."""
        self.faults[path] = Fault(status=status, times=times)

    def stall(self, path: str, *, seconds: float = 3.0, times: int = -1) -> None:
        """Say nothing for a while, then hang up."""
        self.faults[path] = Fault(seconds=seconds, times=times)

    def cut(self, file: Path, path: str, share: float) -> None:
        """Serve the first part of a file only."""
        short = Path(self.scratch) / Path(path).name
        short.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
        self.swapped[f"/{path}"] = str(short)

    def heal(self) -> None:
        self.faults.clear()
        self.swapped.clear()

    def due(self, path: str) -> Fault | None:
        """The fault of a path, counted."""
        for end, fault in self.faults.items():
            if path.endswith(end) and fault.times:
                fault.times -= 1
                return fault
        return None


class _Handler(RangeRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args, told: Pixels, **options) -> None:
        self.told = told
        super().__init__(*args, **options)

    def send_head(self):
        self.told.asked.append((self.command, self.path, self.headers.get("Range")))
        fault = self.told.due(self.path)
        if fault is None:
            return super().send_head()
        if fault.status:
            self.send_error(fault.status)
        else:
            time.sleep(fault.seconds)
            self.close_connection = True
        return None

    def translate_path(self, path: str) -> str:
        return self.told.swapped.get(path, super().translate_path(path))

    def log_message(self, *args) -> None:
        pass


@contextmanager
def pixels(folder: Path) -> Iterator[Pixels]:
    """Serve a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        told = Pixels("", scratch=scratch)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, told=told, directory=str(folder)))
        server.daemon_threads = True
        told.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            wait_for(told.address)
            told.asked.clear()
            yield told
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


# Catalogues


@contextmanager
def stac_api(items: Sequence[pystac.Item | dict]) -> Iterator[str]:
    """Serve items by a STAC API, rustac's: search by POST, pages, collections, bbox, intersects and datetime."""
    program = shutil.which("rustac", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        raise RuntimeError("rustac is not installed: pip install lsdask[dev]")
    features = [item if isinstance(item, dict) else item.to_dict(False, transform_hrefs=False) for item in items]
    features = [{**feature, "links": []} for feature in features]
    with tempfile.TemporaryDirectory() as scratch:
        catalogue = Path(scratch) / "items.json"
        catalogue.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        where = f"127.0.0.1:{free_port()}"
        with open(Path(scratch) / "log", "w") as log:
            command = [program, "serve", "--addr", where, "--create-collections", str(catalogue)]
            server = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                wait_for(f"http://{where}", alive=lambda: server.poll() is None)
                yield f"http://{where}"
            finally:
                server.terminate()
                server.wait(timeout=10)

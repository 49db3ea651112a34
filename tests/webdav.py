"""A real WebDAV server on this machine, for as long as a test needs it, and trouble before it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import s3

USER, PASSWORD = "ann", "pass:w/örd"


class Server:
    """A process that serves a folder by WebDAV on a free port of loopback, to one user."""

    def __init__(self, folder: Path, *, readonly: bool = False) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-u", "-c", _SERVE, str(folder), json.dumps(readonly), USER, PASSWORD]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def keys(self, url: str) -> set[str]:
        """What lies beside and below an address, as files of the folder."""
        folder = (self.folder / url.removeprefix(f"{self.url}/")).parent
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


_SERVE = """
import json, os, sys, threading, time
from cheroot.wsgi import Server
from wsgidav.wsgidav_app import WsgiDAVApp
folder, readonly, user, password = sys.argv[1:]
server = Server(("127.0.0.1", 0), WsgiDAVApp({
    "provider_mapping": {"/": {"root": folder, "readonly": json.loads(readonly)}},
    "simple_dc": {"user_mapping": {"*": {user: {"password": password}}}},
    "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
    "logging": {"enable": False},
    "verbose": 0,
}))
server.prepare()
print(server.bind_addr[1])
threading.Thread(target=server.serve, daemon=True).start()
test = os.getppid()
while os.getppid() == test:  # also where the test is killed
    time.sleep(0.5)
os._exit(0)  # threads that answer would be waited for
"""


@contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch, *, readonly: bool = False) -> Iterator[Server]:
    """Serve a folder, and name its user in the environment."""
    server = Server(folder, readonly=readonly)
    try:
        monkeypatch.setenv("GDAL_HTTP_USERPWD", f"{USER}:{PASSWORD}")
        yield server
    finally:
        server.stop()


class Troubled(s3.Troubled):
    """Stands before a server and passes requests on, except those it has ``answers`` for.

    Attributes
    ----------
    answers : dict
        From a method and a part of a path to the next statuses; when they end, requests are passed on again.
    asked : list of str
        Methods and paths of all requests.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(server)  # type: ignore[arg-type]
        self.RequestHandlerClass = _Pass
        self.answers: dict[tuple[str, str], Iterator[int]] = {}
        self.asked: list[str] = []


class _Pass(s3._Pass):
    server: Troubled
    wbufsize = -1  # an answer in one piece, not two of which the second waits
    disable_nagle_algorithm = True

    def _pass(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        for (method, part), statuses in self.server.answers.items():
            if self.command == method and part in self.path and (status := next(statuses, None)) is not None:
                self._body()
                self.server.refused += 1
                return self._fail(status)
        return super()._pass()

    def _fail(self, status: int) -> None:
        """Answer with a status; one that sends on names the server behind."""
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if status // 100 == 3:
            self.send_header("Location", f"http://{self.server.behind}{self.path}")
        self.end_headers()

    do_GET = do_PUT = do_HEAD = do_DELETE = do_MKCOL = do_PROPFIND = _pass

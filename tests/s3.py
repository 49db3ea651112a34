"""A real S3 endpoint on this machine, for as long as a test needs it."""

import http.client
import http.server
import json
import subprocess
import sys
import threading
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BUCKET = "scenes"


class Server:
    """A process that speaks S3 on a free port of loopback and holds its objects in memory."""

    def __init__(self) -> None:
        command = [sys.executable, "-u", "-c", _SERVE]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.ask("PUT", BUCKET)

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request without a signature."""
        request = urllib.request.Request(
            f"{self.url}/{path}", data=body, method=method, headers={"Content-Type": "text/plain"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def environment(self) -> dict[str, str]:
        """What a client needs to know."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


_SERVE = """
import os
import time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1])
test = os.getppid()
while os.getppid() == test:  # also where the test is killed
    time.sleep(0.5)
"""


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve an empty bucket, ``s3://scenes``, and point the environment at it."""
    server = Server()
    try:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server
    finally:
        server.stop()


class Google(http.server.ThreadingHTTPServer):
    """Stands before a server and lets it answer as Google's does where that differs: objects have generations."""

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Translate)
        self.behind = server.url.removeprefix("http://")
        self.alone = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def key(self) -> str:
        """Give the service account that obstore, told by GOOGLE_SERVICE_ACCOUNT_KEY, comes here with."""
        account = {"gcs_base_url": f"http://127.0.0.1:{self.server_address[1]}", "disable_oauth": True}
        return json.dumps({**account, "client_email": "", "private_key": "", "private_key_id": ""})


class Troubled(http.server.ThreadingHTTPServer):
    """Stands before a server and passes requests on, except while it is ``broken``: then it answers 503."""

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Pass)
        self.behind = server.url.removeprefix("http://")
        self.broken = False
        self.refused = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Pass(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Troubled | Google

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _ask(self, method: str, headers: dict[str, str], body: bytes = b"") -> tuple[http.client.HTTPResponse, bytes]:
        behind = http.client.HTTPConnection(self.server.behind, timeout=10)
        behind.request(method, self.path, body, headers)
        answer = behind.getresponse()
        return answer, answer.read()

    def _answer(self, answer: http.client.HTTPResponse, content: bytes, **more: str) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "server", "date"):
                self.send_header(name, value)
        for name, value in more.items():
            self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length", str(len(content))))
        self.end_headers()
        self.wfile.write(content)

    def _fail(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _pass(self) -> None:
        body = self._body()
        if isinstance(self.server, Troubled) and self.server.broken:
            self.server.refused += 1
            return self._fail(503)
        return self._answer(*self._ask(self.command, dict(self.headers), body))

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass

    def log_message(self, *parts: object) -> None:
        pass


class _Translate(_Pass):
    """Asks for a generation of an object as S3 asks for its tag, and takes what has no content type."""

    def _pass(self) -> None:
        body, headers = self._body(), {name.lower(): value for name, value in self.headers.items()}
        headers.setdefault("content-type", "application/octet-stream")
        headers["authorization"] = _SIGNED
        wanted = headers.pop("x-goog-if-generation-match", None)
        assert isinstance(self.server, Google)
        with self.server.alone:
            if wanted is not None and wanted != self._now():
                return self._fail(412)
            answer, content = self._ask(self.command, headers, body)
            tag = answer.getheader("ETag")
            return self._answer(answer, content, **({"x-goog-generation": str(_generation(tag))} if tag else {}))

    def _now(self) -> str:
        """Give the generation of the object as it is, "0" if there is none."""
        answer, _ = self._ask("HEAD", {"authorization": _SIGNED})
        return str(_generation(answer.getheader("ETag", ""))) if answer.status == 200 else "0"

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass


_SIGNED = "AWS4-HMAC-SHA256 Credential=tester/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
"""What makes a caller known: signatures are not checked."""


def _generation(tag: str) -> int:
    return zlib.crc32(tag.encode()) + 1

"""A web server of one file that fails when it is told to. In a process of its own: GDAL holds the lock of Python.

Run as `python failing_server.py FILE`. It prints its port, and serves until its standard input ends. /fail/KIND/N lets
the next N requests for parts of the file fail: `drop` the connection, `cut` it or `stall` in the
middle, or answer with a status. It is also a server of S3 with a bucket of that name: `bucket/in/` holds 1,100 names,
of which the second page is such a part.
"""

import contextlib
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    content = b""
    failures: list[str] = []  # noqa: RUF012 - of the whole server

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        if self.path == "/image.tif":
            self.answer(200, b"", Content_Length=str(len(self.content)), Accept_Ranges="bytes")
        else:
            self.answer(404)

    def do_GET(self) -> None:
        if self.path.startswith("/fail/"):
            kind, count = self.path.split("/")[2:]
            Handler.failures[:] = [kind] * int(count)
            return self.answer(200)
        if self.path == "/failures":
            return self.answer(200, str(len(Handler.failures)).encode())
        if self.path.startswith("/bucket/?"):
            return self.list_names("marker" in self.path)
        if self.path != "/image.tif":
            return self.answer(404)
        first, last = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")
        begin, end = int(first), min(int(last or 1e12), len(self.content) - 1) + 1
        place = {"Content-Range": f"bytes {begin}-{end - 1}/{len(self.content)}"}
        return self.answer_or_fail(206, self.content[begin:end], **place)

    def list_names(self, is_second: bool) -> None:
        names = range(1000, 1100) if is_second else range(1000)
        entries = "".join(f"<Contents><Key>in/{name}.tif</Key><Size>1</Size></Contents>" for name in names)
        text = (
            "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"
            f"<Name>bucket</Name><Prefix>in/</Prefix><MaxKeys>1000</MaxKeys><IsTruncated>{str(not is_second).lower()}"
            f"</IsTruncated>{entries}</ListBucketResult>"
        )
        (self.answer_or_fail if is_second else self.answer)(200, text.encode())

    def answer_or_fail(self, status: int, body: bytes, **headers: str) -> None:
        kind = Handler.failures.pop() if Handler.failures else ""
        if kind == "drop":
            self.close_connection = True
            return None
        if kind.isdigit():
            return self.answer(int(kind))
        if kind not in ("stall", "cut"):
            return self.answer(status, body, **headers)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:10])
        self.wfile.flush()
        time.sleep(600 if kind == "stall" else 0)
        self.close_connection = True
        return None


class FailingServer:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/image.tif"
        self.port = port

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            return bytes(answer.read())

    def fail(self, kind: str, count: int) -> None:
        """Let the next requests for parts of the file fail."""
        self._get(f"/fail/{kind}/{count}")

    def failures(self) -> int:
        """How many are still to fail."""
        return int(self._get("/failures"))


@contextlib.contextmanager
def serving(path: Path) -> Iterator[FailingServer]:
    """Serve a file as /image.tif."""
    command = [sys.executable, __file__, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield FailingServer(int(process.stdout.readline()))
        finally:
            process.stdin.close()


if __name__ == "__main__":
    Handler.content = Path(sys.argv[1]).read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)  # noqa: T201 - how the port is told
    sys.stdin.read()

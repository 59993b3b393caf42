"""A web server of a folder, in a process of its own: GDAL holds the lock of Python while it waits.

Run as `python folder_server.py FOLDER LOG`. It prints its port, serves until its standard input ends, and writes a line
for each request into LOG. What it says of a file goes by the first part of the path: /etag/a.tif is a.tif with an ETag,
/date/ has a Last-Modified, /both/ has both, and /none/ none. /moved/URL is a redirect to that URL.
"""

import contextlib
import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder, log = Path(), Path()

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        with Handler.log.open("a") as log:
            log.write(f"{self.command} {self.path}\n")
        kind, _, name = self.path.lstrip("/").partition("/")
        if kind == "moved":
            return self.send(302, b"", Location=name)
        path = self.folder / name
        if not path.is_file():
            return self.send(404, b"")
        content, headers = path.read_bytes(), {"Accept-Ranges": "bytes"}
        if kind in ("etag", "both"):
            headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        if kind in ("date", "both"):
            headers["Last-Modified"] = formatdate(path.stat().st_mtime, usegmt=True)
        wanted = self.headers.get("Range")
        if wanted is None:
            return self.send(200, content, **headers)
        first, last = wanted.removeprefix("bytes=").split("-")
        begin, end = int(first), min(int(last or 1e12), len(content) - 1) + 1
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        return self.send(206, content[begin:end], **headers)

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


class FolderServer:
    """The server. `url` is its address, without a slash at its end."""

    def __init__(self, port: int, log: Path) -> None:
        self.url, self._log = f"http://127.0.0.1:{port}", log

    def requests(self) -> list[str]:
        """Return what was asked since the last call, such as "HEAD /etag/a.tif"."""
        found = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return found


@contextlib.contextmanager
def serving(folder: Path, log: Path) -> Iterator[FolderServer]:
    """Serve the files of a folder."""
    command = [sys.executable, __file__, str(folder), str(log)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield FolderServer(int(process.stdout.readline()), log)
        finally:
            process.stdin.close()


if __name__ == "__main__":
    Handler.folder, Handler.log = map(Path, sys.argv[1:])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)  # noqa: T201 - how the port is told
    sys.stdin.read()

"""A service in a process of its own, started by the command line as users start it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

SECONDS = 120.0
"""How long a state is waited for before a test fails. None is expected to take a tenth of it."""


class Serving:
    """The service, and a client of it.

    Args:
        folder: a folder for its log and its temporary files.
        model: the model file.
        options: options of the command.
    """

    def __init__(self, folder: Path, model: Path, *options: str) -> None:
        self.scratch, self._log = folder / "scratch", folder / "log"
        self.scratch.mkdir(parents=True)
        environment = os.environ | {"TMPDIR": str(self.scratch), "COLUMNS": "200"}
        command = [sys.executable, "-m", "skystill", "serve", str(model), "--port=0", *options]
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        wait_until(lambda: " on http://" in self.log or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise RuntimeError(f"exit code {self.process.returncode}: {self.log}")
        self.url = next(line for line in self.log.splitlines() if " on http://" in line).split(" on ")[1]
        self.port = int(self.url.rsplit(":", 1)[1])
        self.client = httpx.Client(base_url=self.url, timeout=SECONDS)
        wait_until(lambda: self._answers())

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def memory(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def files(self) -> list[str]:
        """Images and results that are kept, without the folder of the service and its lock."""
        try:
            return self._files()
        except FileNotFoundError:  # a folder went meanwhile
            return self.files()

    def _files(self) -> list[str]:
        found = (path.relative_to(self.scratch) for path in self.scratch.glob("skystill-*/**/*") if path.is_file())
        return [str(path) for path in found if path.name != "lock"]

    def post(self, path: str, body: Any, kind: str | None = None, **headers: str) -> httpx.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if kind is not None:
            given["Content-Type"] = kind
        return self.client.post(path, content=body, headers=given)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def _answers(self) -> bool:
        try:
            return self.client.get("/health").status_code == 200
        except httpx.TransportError:
            return False


def wait_until(is_so: Any) -> None:
    """Wait for a state."""
    until = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < until, "the state did not come"
        time.sleep(0.02)

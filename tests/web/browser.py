"""A real browser without a window: the page is opened from a file, as a user does.

Chromium is driven over a pipe by its own protocol (`--remote-debugging-pipe`), which needs no other program.
"""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

_PATIENCE = 240  # seconds; a machine may be busy
_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe")  # fmt: skip


class Browser:
    """One page of Chromium.

    Args:
        writing, reading: the ends of its pipes.
        folder: takes what the page saves.
    """

    def __init__(self, writing: BinaryIO, reading: BinaryIO, folder: Path) -> None:
        self._writing, self._reading, self.folder = writing, reading, folder
        self._number, self._rest = 0, b""
        self.requests: list[str] = []
        """The addresses of all requests of the page and its workers."""
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def call(self, method: str, session: str | None = None, **given: Any) -> Any:
        """Send a command, and return its answer. What the browser tells meanwhile is noted."""
        number = self._send(method, session or self._session, given)
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            self._note(message)

    def _send(self, method: str, session: str | None, given: dict[str, Any]) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        content = message | ({"sessionId": session} if session else {})
        self._writing.write(json.dumps(content).encode() + b"\0")
        self._writing.flush()
        return self._number

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._reading.fileno(), 2**20)
            assert part, "the browser has ended"
            self._rest += part
        first, self._rest = self._rest.split(b"\0", 1)
        found: dict[str, Any] = json.loads(first)
        return found

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        if message.get("method") == "Target.attachedToTarget":  # a worker, which waits for this
            session = message["params"]["sessionId"]
            self._send("Network.enable", session, {})
            self._send("Runtime.runIfWaitingForDebugger", session, {})

    def run(self, script: str) -> Any:
        """Return the value of an expression; a promise is waited for."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def open(self, page: Path) -> None:
        """Open the page, and wait until its model is ready."""
        self.run("document.documentElement.dataset.state = 'left'")  # of the page before it
        self.call("Page.navigate", url=page.as_uri())
        assert self.wait("ready", "failed") == "ready", self.status

    def wait(self, *states: str) -> str:
        """Wait until the page is in one of these states, and return it."""
        end = time.monotonic() + _PATIENCE
        while (state := self.run("document.documentElement?.dataset.state")) not in states:
            assert time.monotonic() < end, f"the page is {state}: {self.status}"
            time.sleep(0.05)
        return str(state)

    @property
    def status(self) -> str:
        """What the page says of its work."""
        return str(self.run("document.getElementById('status')?.textContent"))

    def click(self, button: str) -> None:
        """Press a button by its id."""
        self.run(f"document.getElementById('{button}').click()")

    def choose(self, *files: Path) -> None:
        """Choose files as a user does. The page is in the state "chosen" until it takes the first of them."""
        self.run("document.documentElement.dataset.state = 'chosen'")
        found = self.call("Runtime.evaluate", expression="document.getElementById('input')")["result"]["objectId"]
        self.call("DOM.setFileInputFiles", files=[str(path) for path in files], objectId=found)

    def label(self, *files: Path) -> str:
        """Choose files, and return the state in which the page is then."""
        self.choose(*files)
        return self.wait("done", "refused")

    def save(self, button: str, name: str) -> Path:
        """Press a button that saves, and return the file once it is whole."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        self.click(button)
        end = time.monotonic() + _PATIENCE
        while not path.exists() or not path.stat().st_size:
            self.run("1")  # take what the browser tells
            assert time.monotonic() < end, f"{name} was not saved"
            time.sleep(0.05)
        return path

    def picture(self, path: Path) -> None:
        """Write a picture of the page."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """Start Chromium, or skip the test where there is none.

    Args:
        folder: takes the profile, and what the page saves.
    """
    binary = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if binary is None:
        pytest.skip(f"none of {', '.join(_NAMES)} is installed: the page is not tried in a browser")
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    command = [binary, *_FLAGS, f"--user-data-dir={folder / 'profile'}"]
    process = subprocess.Popen(  # the browser reads from 3 and writes to 4
        ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", *command],
        pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        with os.fdopen(ours_out, "wb") as writing, os.fdopen(ours_in, "rb") as reading:
            yield Browser(writing, reading, folder)
    finally:
        process.terminate()
        process.wait()

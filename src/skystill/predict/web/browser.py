"""A Chromium without a window, which opens a page from a file as a user does.

It is driven over a pipe by its own protocol (`--remote-debugging-pipe`), which needs no other program.
"""

import base64
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Without a sandbox: a container may have none, and the page is our own, which can reach nothing.
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe")  # fmt: skip
_START = """import os, sys
from fcntl import F_DUPFD, fcntl
for file, place in [(fcntl(int(given), F_DUPFD, 10), place) for given, place in zip(sys.argv[1:3], (3, 4))]:
    os.dup2(file, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class BrowserFailed(Exception):
    """The browser does not start, or does not answer in time."""


class PageFailed(BrowserFailed):
    """The page says why it does not work."""


def find_browser() -> str | None:
    """Return the path of Chromium or Chrome, or None where neither is found, or where it cannot be driven."""
    if os.name != "posix":  # it takes its pipes as files 3 and 4
        return None
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page of Chromium.

    Args:
        writing, reading: the ends of its pipes.
        folder: takes what the page saves.
        patience: seconds that the page and the browser have for each answer.

    Raises:
        BrowserFailed: the browser does not answer. All methods raise it.
    """

    def __init__(self, writing: BinaryIO, reading: BinaryIO, folder: Path, patience: float) -> None:
        self._writing, self._reading, self.folder, self._patience = writing, reading, folder, patience
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

    def call(self, method: str, session: str | None = None, **given: object) -> dict[str, Any]:
        """Send a command, and return its answer. What the browser tells meanwhile is noted."""
        number = self._send(method, session or self._session, given)
        end = time.monotonic() + self._patience
        while True:
            message = self._receive(end)
            if message.get("id") == number:
                if "result" not in message:
                    raise BrowserFailed(f"{method} failed: {json.dumps(message)}")
                return dict(message["result"])
            self._note(message)

    def _send(self, method: str, session: str | None, given: dict[str, object]) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        content = message | ({"sessionId": session} if session else {})
        rest, end = json.dumps(content).encode() + b"\0", time.monotonic() + self._patience
        try:
            while rest:
                _, ready, _ = select.select([], [self._writing], [], max(0.0, end - time.monotonic()))
                if not ready:
                    raise BrowserFailed(f"the browser takes nothing within {self._patience:g} s")
                rest = rest[os.write(self._writing.fileno(), rest) :]
        except OSError as error:
            raise BrowserFailed("the browser has ended") from error
        return self._number

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reading], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise BrowserFailed(f"the browser does not answer within {self._patience:g} s")
            part = os.read(self._reading.fileno(), 2**20)
            if not part:
                raise BrowserFailed("the browser has ended")
            self._rest += part
        first, self._rest = self._rest.split(b"\0", 1)
        try:
            return dict(json.loads(first))
        except (ValueError, TypeError) as error:
            raise BrowserFailed("its answer is not that of a browser") from error

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        if message.get("method") == "Target.attachedToTarget":  # a worker, which waits for this
            session = message["params"]["sessionId"]
            self._send("Network.enable", session, {})
            self._send("Runtime.runIfWaitingForDebugger", session, {})

    def run(self, script: str) -> Any:  # noqa: ANN401 - what the page gives
        """Return the value of an expression; a promise is waited for."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in done:
            raise BrowserFailed(str(done["exceptionDetails"].get("exception", {}).get("description")))
        return done["result"].get("value")

    def open(self, page: Path | str) -> None:
        """Open the page, a file or an address, and wait until its model is ready."""
        self.run("document.documentElement.dataset.state = 'left'")  # of the page before it
        self.call("Page.navigate", url=page.absolute().as_uri() if isinstance(page, Path) else page)
        if self.wait("ready", "failed") == "failed":
            raise PageFailed(self.status)

    def wait(self, *states: str) -> str:
        """Wait until the page is in one of these states, and return it."""
        end = time.monotonic() + self._patience
        while (state := self._state()) not in states:
            if time.monotonic() > end:
                raise BrowserFailed(f"after {self._patience:g} s the page is {state}: {self.status}")
            time.sleep(0.05)
        return str(state)

    def _state(self) -> object:
        """The state of the page, or None while it is loaded anew."""
        try:
            return self.run("document.documentElement?.dataset.state")
        except BrowserFailed as error:
            if re.search("navigated|execution context|context was destroyed", str(error)) is None:
                raise
            return None

    @property
    def version(self) -> str:
        """Its main version, such as 156."""
        return str(self.call("Browser.getVersion")["product"]).partition("/")[2].partition(".")[0]

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
        end = time.monotonic() + self._patience
        while not path.exists() or not path.stat().st_size:
            self.run("1")  # take what the browser tells
            if time.monotonic() > end:
                raise BrowserFailed(f"{name} was not saved")
            time.sleep(0.05)
        return path

    def picture(self, path: Path) -> None:
        """Write a picture of the page."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def open_browser(binary: str, folder: Path, patience: float) -> Iterator[Browser]:
    """Start Chromium, and end it with all its processes.

    Args:
        binary: its path, as `find_browser` gives it.
        folder: takes the profile, and what the page saves.
        patience: seconds that the page and the browser have for each answer.

    Raises:
        BrowserFailed: it does not start or does not answer.
    """
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    os.set_blocking(ours_out, False)  # a browser that hangs must not hold us
    command = [sys.executable, "-P", "-c", _START, str(theirs_in), str(theirs_out), binary, *_FLAGS]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={folder / 'profile'}"],
        pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, env=os.environ | {"TMPDIR": str(folder)},  # its own temporary folders outlive it
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        with os.fdopen(ours_out, "wb", buffering=0) as writing, os.fdopen(ours_in, "rb", buffering=0) as reading:
            yield Browser(writing, reading, folder, patience)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its session holds only what it started
        process.wait()

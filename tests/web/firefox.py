"""Firefox without a window, driven by Marionette, its own protocol: the length of a message, a colon, and JSON."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_PATIENCE = 240  # seconds; a machine may be busy
_NAMES = ("firefox-esr", "firefox")
_PREFERENCES = {
    "marionette.port": 0,  # one that is free; the profile then holds a file with its number
    "browser.download.folderList": 2,
    "browser.helperApps.neverAsk.saveToDisk": "image/tiff,image/png,application/geo+json,text/csv",
}


class Firefox:
    """One page of Firefox.

    Args:
        connection: to Marionette.
        folder: takes what the page saves.
    """

    def __init__(self, connection: socket.socket, folder: Path) -> None:
        self._connection, self._stream, self.folder = connection, connection.makefile("rb"), folder
        self._number = 0
        self._receive()  # it greets
        self.call("WebDriver:NewSession")

    def call(self, command: str, **given: object) -> Any:
        """Send a command, and return its answer."""
        self._number += 1
        message = json.dumps([0, self._number, command, given]).encode()
        self._connection.sendall(b"%d:%s" % (len(message), message))
        _, _, error, found = self._receive()
        assert error is None, error
        return found

    def _receive(self) -> Any:
        length = b""
        while not length.endswith(b":"):
            part = self._stream.read(1)
            assert part, "Firefox has ended"
            length += part
        return json.loads(self._stream.read(int(length[:-1])))

    def run(self, script: str) -> Any:
        """Return the value of an expression."""
        return self.call("WebDriver:ExecuteScript", script=f"return {script}", args=[])["value"]

    def wait(self, *states: str) -> str:
        """Wait until the page is in one of these states, and return it."""
        return str(until(lambda: (state := self.run("document.documentElement.dataset.state")) in states and state))

    def label(self, image: Path) -> str:
        """Choose a file, and return the state in which the page is then."""
        self.run("document.documentElement.dataset.state = 'chosen'")
        found = self.call("WebDriver:FindElement", using="css selector", value="#input")["value"]
        [element] = found.values()
        self.call("WebDriver:ElementSendKeys", id=element, text=str(image))
        return self.wait("done", "refused")

    def save(self, button: str, name: str) -> Path:
        """Press a button that saves, and return the file once it is whole: until then, a file .part is beside it."""
        path = self.folder / name
        self.run(f"document.getElementById('{button}').click()")
        until(lambda: path.is_file() and path.stat().st_size and not list(self.folder.glob("*.part")))
        return path


def until(look: Callable[[], Any]) -> Any:
    """Wait for a value that is true, and return it."""
    end = time.monotonic() + _PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, "Firefox does not get on"
        time.sleep(0.05)
    return found


@contextmanager
def open_firefox(folder: Path) -> Iterator[Firefox]:
    """Start Firefox, or skip the test where there is none.

    Args:
        folder: takes the profile, and what the page saves.
    """
    binary = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if binary is None:
        pytest.skip("Firefox is not installed: the page is not tried in it")
    profile, saved = folder / "profile", folder / "saved"
    profile.mkdir()
    saved.mkdir()
    preferences = _PREFERENCES | {"browser.download.dir": str(saved)}
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()]
    (profile / "user.js").write_text("".join(lines))
    process = subprocess.Popen(
        [binary, "--headless", "--marionette", "--no-remote", "--profile", str(profile)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        port = profile / "MarionetteActivePort"
        until(lambda: process.poll() is not None or (port.is_file() and port.read_text()))
        assert process.poll() is None, "Firefox does not start"
        with socket.create_connection(("127.0.0.1", int(port.read_text())), timeout=_PATIENCE) as connection:
            yield Firefox(connection, saved)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()

"""Firefox, driven by Marionette, its own protocol: the length of a message, a colon, and JSON."""

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
# What a file manager does, in the window of Firefox itself: a file is over the page, which takes it, and is let go.
_DROP = """const [path, done] = arguments;
(async () => {
  const win = Services.wm.getMostRecentWindow("navigator:browser");
  const browser = win.gBrowser.selectedBrowser;
  const service = Cc["@mozilla.org/widget/dragservice;1"].getService(Ci.nsIDragService);
  const COPY = Ci.nsIDragService.DRAGDROP_ACTION_COPY;
  service.startDragSessionForTests(win, COPY);
  const session = service.getCurrentSession(win);
  const dataTransfer = new win.DataTransfer();
  const file = Cc["@mozilla.org/file/local;1"].createInstance(Ci.nsIFile);
  file.initWithPath(path);
  dataTransfer.mozSetDataAt("application/x-moz-file", file, 0); // a second one is not possible
  session.dataTransfer = dataTransfer;
  const { x, y } = browser.getBoundingClientRect();
  const [clientX, clientY] = [x + 200, y + 200];
  const send = (type) => win.windowUtils.dispatchDOMEventViaPresShellForTesting(browser, new win.DragEvent(type, {
    bubbles: true, cancelable: true, view: win, clientX, clientY, dataTransfer,
    screenX: win.mozInnerScreenX + clientX, screenY: win.mozInnerScreenY + clientY }));
  for (const type of ["dragenter", "dragover"]) {
    session.dragAction = COPY;
    send(type);
  }
  while (!session.canDrop || session.dragAction !== COPY) await new Promise((next) => win.setTimeout(next, 50));
  send("drop");
})().then(() => done("dropped"), (error) => done(String(error)));"""


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

    def drop(self, path: Path) -> None:
        """Drop a file or a folder on the page. Firefox must have a screen."""
        self.run("addEventListener('dragover', (event) => { event.dataTransfer.dropEffect = 'copy'; })")
        self.call("WebDriver:SetTimeouts", script=1000 * _PATIENCE)
        self.call("Marionette:SetContext", value="chrome")
        done = self.call("WebDriver:ExecuteAsyncScript", script=_DROP, args=[str(path)])["value"]
        assert done == "dropped", done
        self.call("Marionette:SetContext", value="content")

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
def open_screen() -> Iterator[str]:
    """Start a screen that nobody sees and yield its name, or skip the test where there is no program for it."""
    binary = shutil.which("Xvfb")
    if binary is None:
        pytest.skip("Xvfb is not installed: nothing is dropped on Firefox")
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [binary, "-displayfd", str(writing), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"],
        pass_fds=(writing,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writing)
    try:
        with os.fdopen(reading) as told:
            number = told.readline().strip()
        assert number, "Xvfb does not start"
        yield f":{number}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def open_firefox(folder: Path, screen: str | None = None) -> Iterator[Firefox]:
    """Start Firefox, or skip the test where there is none.

    Args:
        folder: takes the profile, and what the page saves.
        screen: name of the screen that it is seen on. Without one it has no window, and nothing can be dropped on it.
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
    shown = ["-remote-allow-system-access"] if screen else ["--headless"]
    process = subprocess.Popen(
        [binary, *shown, "--marionette", "--no-remote", "--profile", str(profile)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env=os.environ | ({"DISPLAY": screen} if screen else {}),
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

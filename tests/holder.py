"""A process that holds locks until it is told to release them."""

import subprocess
import sys
from pathlib import Path
from types import TracebackType

_HOLDS = """
import sys
from contextlib import ExitStack
from pathlib import Path
from skystill.locks import hold_lock
with ExitStack() as held:
    for path in sys.argv[1:]:
        held.enter_context(hold_lock(Path(path), path))
    print("held", flush=True)
    sys.stdin.read()
"""


class Holder:
    """Holds some locks in a process of its own.

    Args:
        paths: the files of the locks.
    """

    def __init__(self, *paths: Path) -> None:
        command = [sys.executable, "-c", _HOLDS, *map(str, paths)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def __enter__(self) -> "Holder":
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "held\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def release(self) -> None:
        """Release the locks, and wait until the process has ended."""
        self._process.communicate()

    def kill(self) -> None:
        """End the process as kill -9 does."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

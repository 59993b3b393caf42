"""Run a command that ends when the process that started it ends, also if that is killed.

    python -m skystill.cluster.tied COMMAND ...

Standard input is a pipe from that process. When it is closed, the command is killed with all that it has started. What
it runs must go on from its files, therefore.
"""

import os
import signal
import subprocess
import sys
import threading

KILLED = 128
"""The exit code of a command that a signal has killed is this and the number of the signal, as in a shell."""


def run(command: list[str]) -> int:
    """Run a command in a group of processes of its own, and return its exit code."""
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def end() -> None:
        while os.read(0, 1024):  # not by sys.stdin: its lock must not be held when Python ends
            pass
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)

    threading.Thread(target=end, daemon=True).start()
    code = started.wait()
    return code if code >= 0 else KILLED - code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))

"""Ctrl-C while a cluster is started: it waits, and the processes that are started never see it.

A process of its own presses it: where another thread takes the signal it can come late, and would stop all tests.
"""

import signal
import subprocess
import sys
import threading

import pytest

from skystill.cluster.signals import holding_interrupts

START = """
import os, signal, subprocess, sys, threading
from skystill.cluster.signals import holding_interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
ASK = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
found = []
def ask():
    found.append(subprocess.check_output([sys.executable, "-S", "-c", ASK], text=True).strip())
def press():
    os.kill(os.getpid(), signal.SIGINT)
"""
WAITS = """
reached = False
try:
    with holding_interrupts():
        press()
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        reached = True
except KeyboardInterrupt:
    ask()
print(reached, *found, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
ERROR = """
try:
    with holding_interrupts():
        press()
        raise ValueError("mine")
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(("code", "said"), [(WAITS, "True True False True"), (ERROR, "mine")])
def test_ctrl_c_waits_and_processes_of_threads_do_not_see_it(code: str, said: str) -> None:
    """Asked inside, a process of a thread has the signal held; afterwards everything is as it was."""
    done = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True)
    assert done.stdout.strip() == said, done.stderr


def test_a_thread_is_not_held() -> None:
    held: list[bool] = []
    before = signal.getsignal(signal.SIGINT)

    def hold() -> None:
        with holding_interrupts():
            held.append(signal.getsignal(signal.SIGINT) is before)

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert held == [True]

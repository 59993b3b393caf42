"""Ctrl-C while a cluster is started: it waits, and the processes that are started never see it."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from skystill.cluster.signals import holding_interrupts

ASK = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"


def ask(found: list[bytes]) -> None:
    found.append(subprocess.check_output([sys.executable, "-S", "-c", ASK]).strip())


def test_ctrl_c_waits_and_processes_of_threads_do_not_see_it() -> None:
    found: list[bytes] = []
    reached = False
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), holding_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        thread = threading.Thread(target=ask, args=(found,))
        thread.start()
        thread.join()
        reached = True
    assert reached and found == [b"True"]
    assert signal.getsignal(signal.SIGINT) is before
    ask(found)
    assert found[1] == b"False"  # everything is as it was


def test_an_error_is_not_replaced_and_a_thread_is_not_held() -> None:
    with pytest.raises(ValueError, match="mine"), holding_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("mine")
    held: list[bool] = []

    def hold() -> None:
        with holding_interrupts():
            held.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert held == [True]

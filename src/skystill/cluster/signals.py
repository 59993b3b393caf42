"""Ctrl-C while a cluster is started or ended: it waits, because what is started half cannot be ended."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType


@contextmanager
def holding_interrupts() -> Iterator[None]:
    """Let Ctrl-C wait until the end of the context, and let processes that are started there never see it.

    A terminal sends it to all processes of a command. Workers would die by it in the middle of their imports, before
    they can ignore it. They are started by threads that are started here, and take the mask of signals from them.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield  # no other thread may set handlers, and Ctrl-C comes to none
        return
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True

    has_masks = hasattr(signal, "pthread_sigmask")  # not on Windows
    if has_masks:
        resource_tracker.ensure_running()  # starting it takes SIGINT out of the mask
    signal.signal(signal.SIGINT, note)  # threads of libraries are there already, and take the signal without the mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if has_masks else None
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
    if pressed and sys.exc_info()[1] is None:  # otherwise the command ends already, such as by an earlier Ctrl-C
        signal.raise_signal(signal.SIGINT)

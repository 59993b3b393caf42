"""Settings of glibc's memory allocator for the whole process. They have no effect with other C libraries."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8  # parameters of mallopt(3)
_LARGE = 2**20
_NEVER = 2**31 - 1
_MAPS = 2**16  # glibc's own limit of arrays that are mapped at the same time
_kept = False


def keep_freed_memory() -> None:
    """Allocate large tensors on the heap and keep freed memory there, so that the next training step can reuse it.

    By default glibc maps new pages for each tensor of more than a few MB and unmaps them when the tensor is freed. The
    system then fills the new pages with zeros each time. This took 23 to 31 % of a training step on two cores. Peak
    memory is the same with and without this setting.
    """
    global _kept
    _set(_MMAP_MAX, 0)
    _set(_TRIM_THRESHOLD, _NEVER)
    _kept = True


@contextmanager
def freed_memory_returned() -> Iterator[None]:
    """Undo `keep_freed_memory` for a while: for work between the steps of a training, whose arrays have other sizes.

    A validation of whole images found no room between the arrays of the steps, and added 400 to 600 MB to the peak of
    a training, as much as the steps themselves. Without `keep_freed_memory` before it, it does nothing.
    """
    if not _kept:
        yield
        return
    trim_heap()
    _set(_MMAP_MAX, _MAPS)
    return_large_arrays()
    try:
        yield
    finally:
        keep_freed_memory()


def use_one_heap() -> None:
    """Let all threads share one heap. Call this before any thread is started.

    By default each thread has its own heap, and memory that is freed there cannot be reused by other threads. In
    prediction, where a reader passes rows to workers and they pass results to a writer, this wasted 10 to 20 MB.
    """
    _set(_ARENA_MAX, 1)


def return_large_arrays(least: int = _LARGE) -> None:
    """Return every array of a megabyte, or of `least` bytes, or more to the system as soon as it is freed.

    By default glibc keeps freed arrays of up to 32 MB on the heap, between others that are in use, where no larger one
    fits: half of the memory of a prediction may be such holes. Fresh pages cost 0.25 ms per MB.
    """
    _set(_MMAP_THRESHOLD, least)


def trim_heap() -> None:
    """Return all pages of the heap that nothing uses to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _set(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(parameter, value)

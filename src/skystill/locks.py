"""Locks between processes: one at a time writes into a run folder, an output or a cache, and the others know who."""

import contextlib
import errno
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from skystill.errors import DiskFull, InUse, RunFolderError, SkystillError, shortened
from skystill.parsing import read_json
from skystill.progress import Message, Note, OnProgress, ignore_progress

_POLL_SECONDS = 0.2
_ATTEMPTS = 100  # to make a folder that another process removes
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What a lock fails with on file systems that have none, such as some network mounts."""


@contextmanager
def hold_lock(path: Path, what: str, on_progress: OnProgress = ignore_progress, wait: bool = False) -> Iterator[None]:
    """Hold a lock inside the context. It is released when the process ends, even after kill -9.

    On a file system without locks, a note is given and nothing is locked.

    Args:
        path: the file of the lock. Its folder is made if it does not exist. A file beside it says who holds the lock.
        what: what is locked, for messages, such as the path of a run folder.
        on_progress: receives a `Message` if it waits, and a `Note` where there are no locks.
        wait: wait for another process that holds the lock, instead of refusing.

    Raises:
        InUse: another process holds the lock. The message says which, where, and since when.
        DiskFull: the file cannot be made.
    """
    lock = FileLock(path)
    taken = _acquire(lock, path, what, on_progress, wait)
    try:
        if taken:
            _write_holder(path)
        yield
    finally:
        if taken:
            with contextlib.suppress(OSError):
                _holder_of(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)  # while it is held: who opened it before sees that it is gone
            lock.release()


def lock_files(path: Path) -> tuple[Path, Path]:
    """Return the file of a lock and the file beside it that says who holds it."""
    return path, _holder_of(path)


def _acquire(lock: FileLock, path: Path, what: str, on_progress: OnProgress, wait: bool) -> bool:
    """Acquire a lock. Returns False if the file system has no locks."""
    told, attempts = False, 0
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on the lack of locks, which the note below is about
                lock.acquire(timeout=0)
            return True
        except Timeout as error:
            if not wait:
                raise InUse(
                    f"{what} is in use by {_who(path)}. Wait until it has ended, or choose another --out."
                ) from error
        except OSError as error:
            attempts += 1
            if isinstance(error, FileNotFoundError) and attempts < _ATTEMPTS:
                continue  # who held the lock before has just removed its folder
            if error.errno not in _NO_LOCKS:
                raise DiskFull(path, error) from error
            on_progress(
                Note(
                    f"{what}: this file system has no locks ({os.strerror(error.errno)}). Run one command in it at a "
                    "time."
                )
            )
            return False
        if not told:
            on_progress(Message(f"{what} is in use by {_who(path)}; this process waits until it has ended."))
            told = True
        time.sleep(_POLL_SECONDS)


def _holder_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-holder")


def _write_holder(path: Path) -> None:
    """Say beside a lock who holds it. Whoever cannot write this has the lock all the same."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError):
        _holder_of(path).write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))


def _who(path: Path) -> str:
    """Describe the process that holds a lock, or "another process" if that is not known."""
    import psutil

    try:
        content: Any = read_json(_holder_of(path), RunFolderError)
        pid, host, since = int(content["pid"]), shortened(content["host"]), shortened(content["since"])
    except (SkystillError, OSError, ValueError, KeyError, TypeError):
        return "another process"
    if host == socket.gethostname() and not psutil.pid_exists(pid):
        return "another process"  # of one that was killed: the one that holds the lock has not written its own yet
    return f"another process (process {pid} on {host}, since {since})"

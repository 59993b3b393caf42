"""Folders for temporary files that do not outlive a killed process for long: the next one removes them.

A process holds a lock in each of its folders, which the system releases when the process ends, however it ends. A
folder whose lock is free is left over. The number of a process would not do: it is used again, and another container
that shares the folder for temporary files has numbers of its own.
"""

import contextlib
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "skystill-scratch-"
_UNLOCKED = "skystill-new-"  # a folder has this name until its process holds its lock
_UNLOCKED_SECONDS = 3600
_LOCK = "lock"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder for temporary files, and delete it afterwards.

    Raises:
        OSError: the folder cannot be made.
    """
    folder, lock = _make()
    try:
        yield folder
    finally:
        _delete(folder, lock)


def make_scratch(owner: object) -> Path:
    """Make a folder for temporary files.

    Args:
        owner: the folder is deleted with this object, at the latest when the process ends.

    Raises:
        OSError: the folder cannot be made.
    """
    folder, lock = _make()
    weakref.finalize(owner, _delete, folder, lock)
    return folder


def clear_scratch() -> None:
    """Delete the folders that killed processes of this user left."""
    for new in Path(tempfile.gettempdir()).glob(f"{_UNLOCKED}*"):
        with contextlib.suppress(OSError):
            if time.time() - new.stat().st_mtime > _UNLOCKED_SECONDS:
                shutil.rmtree(new, ignore_errors=True)
    for lock_path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        lock = FileLock(lock_path)
        with contextlib.suppress(Timeout, OSError):  # it is in use, belongs to somebody else, or has just gone
            lock.acquire(timeout=0)
            _delete(lock_path.parent, lock)


def empty_folder(folder: Path, but: str) -> None:
    """Delete everything in a folder.

    Args:
        folder: the folder, which stays.
        but: name of the file that stays, such as a lock that is held.
    """
    for entry in folder.iterdir():
        if entry.name != but:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()


def _make() -> tuple[Path, FileLock]:
    clear_scratch()
    new = Path(tempfile.mkdtemp(prefix=_UNLOCKED))
    lock = FileLock(new / _LOCK, thread_local=False)  # the garbage collector may run in another thread
    lock.acquire(timeout=0)
    # Only now does it get a name that other processes look for: they would find the lock free, and delete the folder.
    return new.rename(new.with_name(new.name.replace(_UNLOCKED, _PREFIX))), lock


def _delete(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()

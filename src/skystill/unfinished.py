"""The names of unfinished files, and which of them a process left that has ended.

A file is written under a name of its own, and renamed when it is whole. Several processes, also of several machines,
may write the same file at the same time: their names never meet.
"""

import contextlib
import hashlib
import os
import re
import secrets
import socket
import time
from functools import cache
from pathlib import Path

PART = r"\.part-(?:(?P<machine>[0-9a-f]{6})-(?P<process>[0-9]{1,9})-[0-9a-f]{6}|[0-9]+)-"
"""Pattern of what stands before the name of a file while it is unfinished. Earlier versions wrote one number there."""

_WHILE = 3600.0  # seconds in which a process writes on, also on a slow disk of the network


def part_of(path: Path) -> Path:
    """Return a new name beside a file, under which it is written. The suffix stays: GDAL takes the format from it."""
    return path.with_name(f".part-{_machine()}-{os.getpid()}-{secrets.token_hex(3)}-{path.name}")


def is_left(part: Path) -> bool:
    """Return whether an unfinished file surely is of a process that has ended.

    That is one of this machine that is not there any more. Of others, it is known when nothing was written for an hour.
    """
    found = re.match(PART, part.name)
    if found and found["machine"] == _machine() and _has_ended(int(found["process"])):
        return True
    try:
        return time.time() - part.stat().st_mtime > _WHILE
    except OSError:  # it was renamed by whoever wrote it
        return False


def _has_ended(process: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(process).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


@cache
def _machine() -> str:
    """Return a number that this machine has since its last start, or this container: one for each count of processes.

    Two machines may have the same name.
    """
    about = [socket.gethostname()]
    with contextlib.suppress(OSError):  # they are there on Linux
        about.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        about.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - it names no file
    return hashlib.sha256("\n".join(about).encode("utf-8", "surrogateescape")).hexdigest()[:6]

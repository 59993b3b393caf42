"""What a worker of a cluster does to fill a cache of logits. Small records go to it and come back, and no pixels.

A worker keeps the teacher that it has loaded. If Dask gives it several tasks at the same time, they take turns, and
each of them has all threads of the worker.
"""

import functools
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from lightning_fabric import Fabric
from torch import nn

from skystill.allocator import keep_freed_memory
from skystill.cluster.connection import Versions, check_worker
from skystill.data.unlabeled import ImageWindow
from skystill.errors import ClusterError, DataError, SkystillError, TeacherNotFinite, shortened
from skystill.run_folder import naming_failed_writes
from skystill.train.networks.blocks import to_memory_format
from skystill.train.teachers.logit_cache import LogitCache, mirror_agreement
from skystill.train.teachers.origins import Teachers, files_digest

_PATIENCE_SECONDS = 10.0
"""How long a worker waits for the sign of the command: disks of the network show new files late."""


@dataclass(frozen=True)
class CacheOrder:
    """What all tasks of one teacher have in common.

    Args:
        cache: the cache of the teacher. Its folder is absolute.
        teachers: the teachers. Their paths are absolute.
        index: the number of the teacher.
        digest: result of `files_digest` where the command runs.
        versions: what every worker must have.
        sign: a file in the cache. Its content is `token`.
        token: another one in every run of the command.
        samples: some of the images.
    """

    cache: LogitCache
    teachers: Teachers
    index: int
    digest: str
    versions: Versions
    sign: Path
    token: str
    samples: tuple[Path, ...]


@dataclass(frozen=True)
class Filled:
    """What became of some images.

    Args:
        done: number of images whose logits are in the cache.
        problems: why others are not.
    """

    done: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fatal:
    """Why nothing can go on: this worker cannot be used, the teacher is at fault, or the disk is full."""

    text: str


@dataclass(frozen=True)
class Failed:
    """A task that failed for a reason that is not known."""

    text: str


_ONE_AT_A_TIME = threading.Lock()
_seen: set[str] = set()
_loaded: dict[str, tuple[nn.Module, torch.device]] = {}
P = ParamSpec("P")
R = TypeVar("R")


def _task(work: Callable[P, R]) -> Callable[P, R | Fatal | Failed]:
    """Make a task of a function: one at a time, and an error is returned as its text."""

    @functools.wraps(work)
    def run(*arguments: P.args, **keywords: P.kwargs) -> R | Fatal | Failed:
        try:
            with _ONE_AT_A_TIME:
                return work(*arguments, **keywords)
        except ImportError as error:
            return Fatal(f"the worker on {socket.gethostname()} lacks a package: {error}. Install it there.")
        except SkystillError as error:
            return Fatal(str(error))
        except Exception as error:  # noqa: BLE001 - such as a GPU without memory; not every exception can be sent
            return Failed(f"{type(error).__name__} on {socket.gethostname()}: {shortened(error)}")

    return run


@_task
def look_around(order: CacheOrder) -> None:
    """Check that this worker has the right versions, sees the cache, the images and the teacher, and may write."""
    _check(order)


@_task
def fill_some(work: tuple[CacheOrder, tuple[ImageWindow, ...]]) -> Filled:
    """Write the logits of the images that have none yet. A bad image does not keep the others from being done."""
    order, windows = work
    _check(order)
    cache, problems = order.cache, list[str]()
    for window in windows:
        try:
            missing = cache.missing([window])
            if missing:
                cache.fill(missing, *_teacher(order))
        except (DataError, TeacherNotFinite) as error:
            problems.append(str(error))
        except OSError as error:  # it is not there, or the network does not give it
            problems.append(f"{window.name} cannot be read on {socket.gethostname()}: {shortened(error)}")
    return Filled(len(windows) - len(problems), tuple(problems))


@_task
def compare_mirrored(work: tuple[CacheOrder, ImageWindow]) -> float:
    """Return the agreement of cache and teacher on a mirrored image, as `mirror_agreement`."""
    order, window = work
    _check(order)
    return mirror_agreement(order.cache, window, *_teacher(order))


def _check(order: CacheOrder) -> None:
    """Check this worker, once for each run of the command.

    Raises:
        ClusterError: it cannot be used.
        DiskFull: it cannot write into the cache.
    """
    if order.token in _seen:
        return
    check_worker(order.versions)
    host = socket.gethostname()
    if not _sees(order.sign, order.token):
        raise ClusterError(
            f"the worker on {host} does not see {order.cache.folder}, into which the logits go. All workers and this "
            "command need it on one disk that they share, under the same path. No image was begun; choose another "
            "--cache."
        )
    for path in order.samples:
        if not path.exists():
            raise ClusterError(
                f"the worker on {host} does not see {path}. All workers need the images under the same path as this "
                "command."
            )
    try:
        same = files_digest(order.teachers.origins[order.index]) == order.digest
    except OSError as error:
        raise ClusterError(
            f"the worker on {host} does not see the teacher {order.teachers.origins[order.index].text} "
            f"({shortened(error)}). All workers need its files under the same path as this command."
        ) from error
    if not same:
        raise ClusterError(
            f"the worker on {host} has other files of the teacher {order.teachers.origins[order.index].text} than this "
            "command. Give all workers the same, and do not change them while the command runs."
        )
    with naming_failed_writes(order.cache.own_folder), tempfile.TemporaryFile(dir=order.cache.own_folder):
        order.cache.clear()  # of workers of this machine that were killed, only one that takes their place knows
    _seen.add(order.token)


def _sees(sign: Path, token: str) -> bool:
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            list(sign.parent.iterdir())  # lets a disk of the network look again
            if sign.read_text() == token:
                return True
        except OSError:
            pass  # it is not there, or not yet
        if time.monotonic() > until:
            return False
        time.sleep(0.5)


def _teacher(order: CacheOrder) -> tuple[nn.Module, torch.device]:
    """Return the teacher, loaded once, and its device. Dask starts workers with one thread for torch."""
    from distributed import get_worker

    key = f"{order.cache.teacher_key} {order.digest}"
    torch.set_num_threads(max(1, int(get_worker().state.nthreads)))
    if key not in _loaded:
        _loaded.clear()
        keep_freed_memory()
        fabric: Any = Fabric(accelerator="auto", devices=1)
        teacher = order.teachers.load_one(order.index)
        fabric.to_device(to_memory_format(teacher, torch.channels_last))
        _loaded[key] = teacher, fabric.device
    return _loaded[key]

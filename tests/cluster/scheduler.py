"""Schedulers and workers of Dask as processes of their own, which tests may kill."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEADLINE_SECONDS = 120


def start(kind: str, log: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `dask scheduler` or `dask worker`. What it prints goes into a file."""
    command = [sys.executable, "-m", "distributed.cli.dask_" + kind, *arguments, "--no-dashboard"]
    with log.open("w") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **(environment or {})})


def address_in(log: Path) -> str:
    """Wait until a scheduler has printed its address."""
    until = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < until:
        found = re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@contextlib.contextmanager
def running(
    folder: Path, workers: int = 2, preload: str = "", worker_preload: str = "", nanny: bool = False
) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Yield the address of a scheduler, and all processes: the scheduler, then its workers."""
    folder.mkdir(parents=True, exist_ok=True)
    code = ["--preload", preload] if preload else []
    where = ["--host", "127.0.0.1", "--port", "0"]
    scheduler = start("scheduler", folder / "scheduler.log", *where, *code)
    processes = [scheduler]
    try:
        address = address_in(folder / "scheduler.log")
        processes.extend(start_worker(address, folder, n, worker_preload, nanny) for n in range(workers))
        yield address, processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def start_worker(
    address: str, folder: Path, number: int, preload: str = "", nanny: bool = False
) -> subprocess.Popen[bytes]:
    """Start a worker of one thread. Only with a nanny is it started again when it dies."""
    code = ["--preload", preload] if preload else []
    own = [
        "--nthreads",
        "1",
        "--nanny" if nanny else "--no-nanny",
        "--local-directory",
        str(folder / f"worker-{number}"),
    ]
    return start("worker", folder / f"worker-{number}.log", address, "--host", "127.0.0.1", *own, *code)


@dataclass(frozen=True)
class Change:
    """What is changed in the processes of a cluster for the time of a test: this is cheaper than others of their own.

    Args:
        code: changes it.
        undone: takes it back.
    """

    code: str
    undone: str


_AGAIN = "from skystill.cluster.connection import _cached_versions; _cached_versions.cache_clear(); import skystill; "
OLD = Change(
    _AGAIN + "skystill.kept, skystill.__version__ = skystill.__version__, '0.0.1'",
    _AGAIN + "skystill.__version__ = getattr(skystill, 'kept', skystill.__version__)",
)
"""Another version of skystill. A worker that came in the meantime was not changed."""
WITHOUT_RUNTIME = Change(
    "import sys; sys.kept = sys.modules.get('onnxruntime'); sys.modules['onnxruntime'] = None",
    "import sys; kept = getattr(sys, 'kept', None); sys.modules.pop('onnxruntime', None); "
    "sys.modules.update({'onnxruntime': kept} if kept else {})",
)


@contextlib.contextmanager
def changed(address: str, change: Change, on_scheduler: bool = False) -> Iterator[None]:
    """Change the workers of a cluster, or its scheduler, inside the context."""
    from distributed import Client

    def run(code: str) -> None:
        exec(code, {})

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=DEADLINE_SECONDS)
        call = client.run_on_scheduler if on_scheduler else client.run
        call(run, change.code)
        try:
            yield
        finally:
            call(run, change.undone)


@contextlib.contextmanager
def worker_of(address: str, folder: Path, preload: str, nanny: bool = False) -> Iterator[None]:
    """Run one worker of a scheduler that has no other, from when it is there until it has gone."""
    from distributed import Client

    folder.mkdir(parents=True, exist_ok=True)
    with Client(address, set_as_default=False) as client:
        process = start_worker(address, folder, 0, preload, nanny)
        try:
            client.wait_for_workers(1, timeout=DEADLINE_SECONDS)
            yield
        finally:
            process.terminate() if nanny else process.kill()  # a nanny ends its worker first
            process.wait()
            until = time.monotonic() + DEADLINE_SECONDS
            while client.nthreads() and time.monotonic() < until:
                time.sleep(0.05)

"""Many small pieces of work on a cluster, of which Dask knows only a few for each worker at a time."""

import itertools
import queue
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from distributed import Future
from distributed import KilledWorker as WorkersKilled

from skystill.cluster.connection import Connection
from skystill.progress import OnProgress

__all__ = ["WorkersKilled", "count_workers", "stream", "threads_of_workers", "wait_for_some"]

_AHEAD = 2  # tasks of each worker that Dask knows of, besides the one that it runs
_TICK_SECONDS = 1.0
_TELL_SECONDS = 30.0
T = TypeVar("T")


def stream(
    connection: Connection, run: Callable[[T], Any], waiting: deque[T], on_progress: OnProgress
) -> Iterator[tuple[T, Any]]:
    """Run a function on the workers for each piece of work in a queue. A piece whose worker is lost goes to another.

    Args:
        connection: the cluster.
        run: a function of a module that the workers can import. It gets one piece of work.
        waiting: the work. The caller may add to it while it takes results.
        on_progress: receives a `Message` while there is no worker.

    Yields:
        each piece and its result, in the order in which they end. The result is an exception if the function raised it,
        or if the workers that ran it were lost, one after the other.

    Raises:
        ClusterError: the scheduler is lost.
    """
    flying: dict[str, tuple[Future, T]] = {}
    landed: queue.SimpleQueue[str] = queue.SimpleQueue()
    name, numbers = f"skystill-{secrets.token_hex(8)}", itertools.count()
    told = time.monotonic()
    try:
        while waiting or flying:
            workers = count_workers(connection)
            if not workers and time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                on_progress(connection.waits())
            while waiting and len(flying) < (1 + _AHEAD) * max(1, workers):
                work = waiting.popleft()
                future = connection.client.submit(run, work, key=f"{name}-{next(numbers)}", pure=False)
                flying[future.key] = future, work
                future.add_done_callback(lambda done: landed.put(done.key))
            for key in wait_for_some(landed):
                future, work = flying.pop(key)
                yield work, _result(connection, future)
    finally:
        if not connection.is_lost:
            connection.client.cancel([future for future, _ in flying.values()])


def count_workers(connection: Connection) -> int:
    """Return the number of workers that are there.

    Raises:
        ClusterError: the scheduler is lost.
    """
    if connection.is_lost:
        raise connection.lost()
    try:
        return int(connection.client.scheduler_info(n_workers=0).get("n_workers", 0))
    except (OSError, TimeoutError) as error:
        raise connection.lost() from error


def threads_of_workers(connection: Connection) -> set[int]:
    """Return the numbers of threads that workers have.

    Raises:
        ClusterError: the scheduler is lost.
    """
    count_workers(connection)
    return {int(about["nthreads"]) for about in connection.client.scheduler_info(n_workers=-1)["workers"].values()}


def wait_for_some(landed: queue.SimpleQueue[str]) -> list[str]:
    """Return the tasks that have ended. Wait for the first, but not for long.

    Args:
        landed: keys of tasks, which their callbacks put there.
    """
    try:
        keys = [landed.get(timeout=_TICK_SECONDS)]
    except queue.Empty:
        return []
    while not landed.empty():
        keys.append(landed.get())
    return keys


def _result(connection: Connection, future: Future) -> Any:  # noqa: ANN401 - what the function returns
    """Return the result of a task, or the exception that stands for it."""
    if connection.is_lost:
        raise connection.lost()
    try:
        return future.result(timeout=_TELL_SECONDS)
    except Exception as error:  # of the function, of a lost worker, or of a lost scheduler
        if connection.is_lost:
            raise connection.lost() from error
        return error

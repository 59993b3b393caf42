"""Several small jobs at the same time, one large job alone, and all results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")


def run_in_order(
    jobs: Iterable[J], run: Callable[[J], R], is_small: Callable[[J], bool], workers: int
) -> Iterator[tuple[J, R | Exception]]:
    """Run jobs, and yield each with its result, or with the exception that it raised, in their order.

    A large job runs in this thread, with no other beside it. Small jobs run in `workers` threads, as many at a time. If
    this is interrupted, small jobs that have begun are finished, and no other begins.

    Args:
        jobs: the jobs.
        run: runs one of them. For small jobs it is called from several threads at the same time.
        is_small: tells small jobs from large ones. It is called once for each job, in this thread.
        workers: number of small jobs that run at the same time. With 1, all jobs run in this thread.
    """

    def attempt(job: J) -> R | Exception:
        try:
            return run(job)
        except Exception as error:  # noqa: BLE001 - the caller decides
            return error

    running: deque[tuple[J, Future[R | Exception]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for job in jobs:
                small = workers > 1 and is_small(job)
                while running and (not small or len(running) > workers):
                    first, future = running.popleft()
                    yield first, future.result()
                if small:
                    running.append((job, pool.submit(attempt, job)))
                else:
                    yield job, attempt(job)
            while running:
                first, future = running.popleft()
                yield first, future.result()
        finally:
            for _, future in running:
                future.cancel()

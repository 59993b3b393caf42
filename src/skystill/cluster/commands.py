"""One command on each worker of a cluster, in a process of its own, for work that wants a process: a training.

Command and workers meet in a folder that all of them see. A file in it is a fence: a worker whose command was killed
looks at it once a second, and ends its process when another command has begun, or when its own has ended.
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distributed import Future, get_worker

from skystill.cluster.connection import Connection, Versions, check_worker
from skystill.cluster.tied import KILLED
from skystill.environment import SAFE_PATH
from skystill.errors import ClusterError, SkystillError, shortened
from skystill.progress import Message, OnProgress
from skystill.run_folder import write_text

_FENCE = ".cluster"
_TICK_SECONDS = 1.0
_TELL_SECONDS = 30.0
_PATIENCE_SECONDS = 10.0  # disks of the network show new files late
_MOST_TEXT = 4000
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # Dask sets them to 1


@dataclass(frozen=True)
class CommandOrder:
    """What each worker is to run.

    Args:
        command: the command, without the Python that runs it.
        current: the current folder of the command.
        fence: a file that all workers see. Its content is `token`.
        token: another one in every run of the command.
        versions: what every worker must have.
    """

    command: tuple[str, ...]
    current: str
    fence: Path
    token: str
    versions: Versions


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Args:
        code: its exit code; None if it could not be started, or was ended by the fence.
        said: the end of what it printed on standard error, or why it could not be started.
    """

    code: int | None
    said: str = ""


def run_on_each_worker(
    connection: Connection,
    command: Sequence[str],
    folder: Path,
    count_wanted: Callable[[], int],
    on_progress: OnProgress,
) -> None:
    """Run a command on each worker, also on workers that join later, until there is nothing left to do.

    A command that ends with exit code 0 is started again where there is something left. The command of a worker that is
    lost is killed with it.

    Args:
        connection: the cluster.
        command: the arguments of Python, such as -m and skystill.
        folder: a folder that all workers see. It exists.
        count_wanted: returns how many workers can have something to do; 0 if all is done. It is called once a second.
        on_progress: receives a `Message` while there is no worker.

    Raises:
        ClusterError: the cluster is lost, a worker cannot be used, or a command failed; its own message is in it.
    """
    order = CommandOrder(
        tuple(command), str(Path.cwd()), folder.absolute() / _FENCE, secrets.token_hex(16), connection.versions
    )
    write_text(order.fence, order.token)
    running: dict[str, Future] = {}
    told = time.monotonic()
    try:
        while wanted := count_wanted():
            _check_fence(order)
            workers = _addresses(connection)
            for worker in [worker for worker in running if worker not in workers]:
                connection.client.cancel([running.pop(worker)])  # it would wait for this worker for ever
            for worker in [worker for worker, future in running.items() if future.done()]:
                _check_ended(worker, running.pop(worker))
            for worker in [worker for worker in workers if worker not in running][: max(0, wanted - len(running))]:
                key = f"skystill-{secrets.token_hex(8)}"
                running[worker] = connection.client.submit(take_part, order, workers=[worker], key=key, pure=False)
            if not workers and time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                on_progress(Message(f"no worker of {connection.where} is there; this command waits for one."))
            time.sleep(_TICK_SECONDS)
    finally:
        if _read(order.fence) == order.token:
            order.fence.unlink(missing_ok=True)
        if not connection.is_lost:
            connection.client.cancel(list(running.values()))


def host_name() -> str:
    """Return the name of the machine that this runs on."""
    return socket.gethostname()


def take_part(order: CommandOrder) -> Ended:
    """Run the command on this worker, until it ends or the fence falls."""
    try:
        check_worker(order.versions)
        _check_sight(order)
    except SkystillError as error:
        return Ended(None, str(error))
    threads = str(get_worker().state.nthreads)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "skystill.cluster.tied", sys.executable, *order.command],
            cwd=order.current,
            env=os.environ | dict.fromkeys(_THREADS, threads) | SAFE_PATH,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        while process.poll() is None and _read(order.fence) == order.token:
            time.sleep(_TICK_SECONDS)
        ended_itself = process.poll() is not None
        process.communicate()  # closes its standard input, which ends it
        if not ended_itself or process.returncode == 0:
            return Ended(0 if ended_itself else None)
        said.seek(0)
        return Ended(process.returncode, _last_error(said.read().decode(errors="replace")))


def _last_error(said: str) -> str:
    """Return the message of an error at the end of what a command printed, or else the end of it."""
    _, found, message = f"\n{said}".rpartition("\nerror: ")
    return f"error: {message}" if found else said[-_MOST_TEXT:]


def _addresses(connection: Connection) -> list[str]:
    """Return the addresses of the workers that are there."""
    if connection.is_lost:
        raise connection.lost()
    try:
        return list(connection.client.scheduler_info(n_workers=-1)["workers"])
    except (OSError, TimeoutError) as error:
        raise connection.lost() from error


def _check_fence(order: CommandOrder) -> None:
    found = _read(order.fence)
    if found is not None and found != order.token:
        raise ClusterError(f"another command has begun with {order.fence.parent} on a cluster, so this one ends.")


def _check_ended(worker: str, future: Future) -> None:
    """Check how the command of a worker has ended."""
    if future.status != "finished":
        return  # the worker was lost, and the command with it
    ended = future.result()
    if ended.code is None and ended.said:
        raise ClusterError(ended.said)
    if ended.code and KILLED < ended.code < KILLED + 65:
        raise ClusterError(
            f"worker {worker}: its command was killed by signal {ended.code - KILLED}, such as for lack of memory. "
            "What is done is kept: the same command goes on."
        )
    if ended.code:
        raise ClusterError(f"worker {worker}: its command ended with exit code {ended.code}:\n{ended.said.strip()}")


def _check_sight(order: CommandOrder) -> None:
    """Check that this worker sees the folder of the command and its current one.

    Raises:
        ClusterError: it does not.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while _read(order.fence) is None and time.monotonic() < until:
        time.sleep(_TICK_SECONDS / 2)
    for path in (order.fence.parent, Path(order.current)):
        if not path.is_dir() or _read(order.fence) is None:
            raise ClusterError(
                f"the worker on {host_name()} does not see {shortened(path)}. All workers and this command "
                "need it on one disk that they share, under the same path. Nothing was begun there."
            )


def _read(fence: Path) -> str | None:
    try:
        return fence.read_text()
    except OSError:
        return None

"""A command on each worker: it ends with its worker, and with the command that wanted it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from distributed import Client

from skystill.cluster.commands import Ended, _check_ended, run_on_each_worker
from skystill.cluster.connection import Connection, versions_here
from skystill.errors import ClusterError
from skystill.progress import ignore_progress

from .scheduler import running, start_worker

WAITS = """
import json, os, sys, time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
folder = Path(sys.argv[1])
(folder / f".{os.getpid()}").write_text(json.dumps([os.getcwd(), os.environ["OMP_NUM_THREADS"]]))
(folder / f".{os.getpid()}").rename(folder / f"runs-{os.getpid()}")
while not (folder / "go").exists():
    time.sleep(0.05)
"""
Cluster = tuple[Connection, Path, list[subprocess.Popen[bytes]]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("dask")
    with running(folder, 2) as (address, processes), Client(address, set_as_default=False) as client:
        client.wait_for_workers(2)
        yield Connection(client, f"--dask {address}", versions_here(())), folder, processes


def processes_in(folder: Path) -> dict[int, list[str]]:
    return {int(path.name[5:]): json.loads(path.read_text()) for path in folder.glob("runs-*")}


def have_ended(pids: set[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for a state; a test that waits in vain is ended by its timeout."""
    while not is_so():
        time.sleep(0.05)


def test_each_worker_runs_it_and_a_killed_one_takes_it_along(cluster: Cluster, tmp_path: Path) -> None:
    connection, folder, workers = cluster
    first: set[int] = set()
    asked = 0

    def count_wanted() -> int:
        nonlocal asked
        asked += 1
        found = processes_in(tmp_path)
        if len(found) == 2 and not first:
            first.update(found)
            workers[1].send_signal(signal.SIGKILL)
            wait_until(lambda: sum(have_ended({pid}) for pid in first) == 1)
            workers.append(start_worker(connection.client.scheduler.address, folder, 5))
        if len(found) == 3:  # the worker that has joined runs it, too
            (tmp_path / "go").touch()
            return 0 if have_ended(set(found)) else 3
        return 3

    run_on_each_worker(connection, ["-c", WAITS, str(tmp_path)], tmp_path, count_wanted, ignore_progress)
    assert all(about == [str(Path.cwd()), "1"] for about in processes_in(tmp_path).values())
    assert asked > 2 and not (tmp_path / ".cluster").exists()


def test_no_more_run_than_can_have_something_to_do(cluster: Cluster, tmp_path: Path) -> None:
    connection, _, _ = cluster
    asked = 0

    def count_wanted() -> int:
        nonlocal asked
        asked += len(processes_in(tmp_path))
        return 0 if asked > 2 else 1

    run_on_each_worker(connection, ["-c", WAITS, str(tmp_path)], tmp_path, count_wanted, ignore_progress)
    assert len(processes_in(tmp_path)) == 1
    wait_until(lambda: have_ended(set(processes_in(tmp_path))))  # the work is over, and it goes on: it is ended


def test_a_command_that_fails_ends_all_and_its_words_are_passed_on(cluster: Cluster, tmp_path: Path) -> None:
    connection, _, _ = cluster
    fails = "import sys; sys.exit('a log of hours\\nerror: data has no pairs')"
    with pytest.raises(ClusterError, match=r"ended with exit code 1:\nerror: data has no pairs"):
        run_on_each_worker(connection, ["-c", fails], tmp_path, lambda: 2, ignore_progress)
    assert not (tmp_path / ".cluster").exists()


def test_a_command_that_takes_all_memory_is_killed_and_the_message_says_so() -> None:
    tied = [sys.executable, "-m", "skystill.cluster.tied", sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    ended = Ended(subprocess.run(tied, stdin=subprocess.PIPE, check=False).returncode)
    future = SimpleNamespace(status="finished", result=lambda: ended)
    with pytest.raises(ClusterError, match=r"killed by signal 9, such as for lack of memory\. What is done is kept"):
        _check_ended("tcp://a:1", cast(Any, future))


def test_a_second_command_ends_the_first(cluster: Cluster, tmp_path: Path) -> None:
    connection, _, _ = cluster

    def count_wanted() -> int:
        if len(processes_in(tmp_path)) == 2:
            (tmp_path / ".cluster").write_text("the number of the second")
        return 2

    with pytest.raises(ClusterError, match="another command has begun with"):
        run_on_each_worker(connection, ["-c", WAITS, str(tmp_path)], tmp_path, count_wanted, ignore_progress)
    wait_until(lambda: have_ended(set(processes_in(tmp_path))))
    assert (tmp_path / ".cluster").read_text() == "the number of the second"

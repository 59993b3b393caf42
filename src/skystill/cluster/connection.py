"""The connection to a Dask cluster: a scheduler that runs already, worker processes here, or what a file describes.

All processes of a cluster must run the same versions. Results would otherwise be a mixture, or a worker would fail in
the middle of the night. Scheduler and workers are checked at the start. A worker that joins later is checked by each of
its tasks (`check_worker`).
"""

import asyncio
import contextlib
import logging
import re
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from distributed import Client, LocalCluster
from distributed.comm import CommClosedError, connect
from distributed.versions import VersionMismatchWarning

from skystill.cluster.described import read_cluster_file
from skystill.cluster.signals import holding_interrupts
from skystill.errors import ClusterError, SettingsError, SkystillError, shortened
from skystill.model.measure import cores
from skystill.progress import Message, OnProgress, ignore_progress
from skystill.settings import ClusterSettings

RUNTIME = ("onnxruntime",)
"""Packages whose version decides the result of a prediction."""

Versions = Mapping[str, str | None]
"""Versions by the name of the package; "Python" for Python itself. None for a package that is missing."""

_CONNECT_SECONDS = 20.0
_ATTEMPTS = 5
_ADDRESS = re.compile(r"((tcp|tls|ucx)://)?([^/:\s]+|\[[^/\]\s]+\]):[0-9]+|(ws|wss|inproc)://\S+")
"""What is no such address, such as that of the dashboard, Dask tries for ever."""
_OTHERS = ("tls://", "ucx://", "ws://", "wss://", "inproc://")


class _Client(Client):  # type: ignore[misc]
    """A client that ends in silence if it never connected: Dask's own waits 40 s, and prints a traceback."""

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close(timeout=1.0)


@dataclass(frozen=True)
class Connection:
    """An open connection, whose scheduler and workers were checked.

    Args:
        client: the client of Dask.
        where: the cluster in words, for messages.
        versions: what every worker must have, for `check_worker`.
    """

    client: Client
    where: str
    versions: Versions

    @property
    def dashboard(self) -> str | None:
        """Address of the dashboard, or None if the scheduler has none (it needs the package bokeh)."""
        services = self.client.scheduler_info(n_workers=0).get("services", {})
        has_pages = "dashboard" in services and self.client.run_on_scheduler(_finder("bokeh"))
        return str(self.client.dashboard_link) if has_pages else None

    @property
    def is_lost(self) -> bool:
        """Whether the scheduler has gone."""
        return bool(self.client.status != "running")

    def lost(self) -> ClusterError:
        """Return the error about a scheduler that has gone."""
        return ClusterError(
            f"the scheduler of {self.where} has gone. What is done is kept. Start it again, and then the same command: "
            "it goes on."
        )

    def waits(self) -> Message:
        """Return the message of a command that waits for a worker."""
        return Message(f"no worker of {self.where} is there; this command waits for one.")


@contextmanager
def open_connection(
    settings: ClusterSettings, on_progress: OnProgress = ignore_progress, needs: Sequence[str] = RUNTIME
) -> Iterator[Connection]:
    """Connect to the cluster of the settings, or start it, and check its scheduler and its workers.

    A cluster that is started here ends with the context. In a script that starts processes (`workers`), the call must
    stand below `if __name__ == "__main__":`.

    Args:
        settings: which cluster. One of its fields must be set.
        on_progress: receives a `Message` with the address of the dashboard, if there is one.
        needs: packages that each worker must have in the version of this process, besides Python and skystill.

    Raises:
        ClusterError: the scheduler does not answer, the cluster cannot be started, or a process has other versions.
        SettingsError: the file of `dask_config` cannot be used.
    """
    for name in ("distributed", "distributed.client", "distributed.core", "distributed.comm"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what is lost, this module says in words
    logging.getLogger("asyncio").addFilter(_is_not_of_dask)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", VersionMismatchWarning)  # it is about packages that do not matter here
        client, where = _open_client(settings, stack)
        versions = versions_here(needs)
        connection = Connection(client, where, versions)
        stack.enter_context(_naming_loss(connection))
        check_versions(connection)
        dashboard = connection.dashboard
        if dashboard:
            on_progress(Message(f"dashboard of Dask: {dashboard}"))
        yield connection


@contextmanager
def _naming_loss(connection: Connection) -> Iterator[None]:
    """Turn what Dask raises when the scheduler goes into an error that says so.

    Raises:
        ClusterError: the scheduler has gone.
    """
    try:
        yield
    except SkystillError:
        raise
    except Exception as error:
        if connection.is_lost or isinstance(error, CommClosedError):
            raise connection.lost() from error
        raise


def _is_not_of_dask(record: logging.LogRecord) -> bool:
    """Return whether a record of asyncio is about another library than Dask, whose tasks end in errors at its end."""
    error = record.exc_info[1] if record.exc_info else None
    frames = traceback.walk_tb(error.__traceback__ if error is not None else None)
    return not any(str(frame.f_globals.get("__name__")).startswith("distributed.") for frame, _ in frames)


def check_versions(connection: Connection) -> None:
    """Check the scheduler, and the workers that are there.

    Raises:
        ClusterError: a process lacks a package, or has it in another version.
    """
    client, expected = connection.client, connection.versions
    # First Python, by Dask's own call: a function that is sent to another Python could crash it.
    found = client.get_versions()
    places = {"the scheduler": found["scheduler"], **{f"worker {name}": v for name, v in found["workers"].items()}}
    for place, about in places.items():
        packages = about.get("packages") if isinstance(about, Mapping) else None
        if packages:
            _compare(place, {"Python": _short(packages["python"])}, {"Python": expected["Python"]})
    read = _versions_function(tuple(name for name in expected if name not in ("Python", "skystill")))
    scheduler = client.run_on_scheduler(read)  # it imports the functions of tasks, and runs no model
    _compare("the scheduler", scheduler, {name: expected[name] for name in ("Python", "skystill")})
    for name, versions in run_everywhere(client, read).items():
        if isinstance(versions, Mapping):  # otherwise the worker has just gone
            _compare(f"worker {name}", versions, expected)


def run_everywhere(client: Client, function: Callable[..., Any], *arguments: object) -> dict[str, Any]:
    """Run a function on all workers that are there, outside of their tasks. A worker may come or go meanwhile.

    Args:
        client: the client of Dask.
        function: what is run.
        arguments: its arguments.

    Returns:
        what each worker returned, or the exception that it raised, by its address.

    Raises:
        ClusterError: the workers do not answer.
    """
    for _ in range(_ATTEMPTS):
        try:
            return dict(client.run(function, *arguments, on_error="return"))
        except (AssertionError, OSError, KeyError) as error:  # of Dask, about a worker that has just gone
            failure = error
            time.sleep(1.0)
    raise ClusterError(f"the workers do not answer ({_first_cause(failure)}). See their logs, and start them again.")


def check_worker(expected: Versions) -> None:
    """Check this process, which does work of a cluster. It may have joined after `check_versions`.

    Raises:
        ClusterError: it lacks a package, or has it in another version.
    """
    found = versions_here(tuple(name for name in expected if name not in ("Python", "skystill")))
    if found != expected:
        _compare(f"the worker on {socket.gethostname()}", found, expected)


def versions_here(needs: Sequence[str] = RUNTIME) -> Versions:
    """Return the versions of this process."""
    return _cached_versions(tuple(needs))


@cache
def _cached_versions(needs: tuple[str, ...]) -> Versions:
    return _versions_function(needs)()


def _versions_function(needs: tuple[str, ...]) -> Callable[[], dict[str, str | None]]:
    """Return a function that returns the versions of a process.

    As an inner function it is sent as it is. A function of a module would have to be there already.
    """

    def read() -> dict[str, str | None]:
        import importlib
        import sys

        found: dict[str, str | None] = {"Python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
        for name in ("skystill", *needs):
            try:
                found[name] = str(importlib.import_module(name).__version__)
            except ImportError:
                found[name] = None
        return found

    return read


def _finder(package: str) -> Callable[[], bool]:
    """Return a function that tells whether a process has a package. It is sent as it is, as that of the versions."""

    def has() -> bool:
        import importlib.util

        return importlib.util.find_spec(package) is not None

    return has


def _compare(place: str, found: Versions, expected: Versions) -> None:
    """Raise an error that names both versions if they differ."""
    for name, version in expected.items():
        if found.get(name) == version:
            continue
        if found.get(name) is None:
            install = 'pip install "skystill[cluster]"' if name in ("skystill", *RUNTIME) else f"install {name} there"
            raise ClusterError(f"{place} has no {name}; {version} is needed, as here. Install it there: {install}.")
        raise ClusterError(
            f"{place} has {name} {found[name]}, and this process has {version}. Results would be a mixture: install "
            f"the same version of {name} everywhere, and start the cluster again."
        )


def _short(version: str) -> str:
    """Return 3.11 of 3.11.7.final.0: patches of Python understand each other."""
    return ".".join(version.split(".")[:2])


def _open_client(settings: ClusterSettings, stack: contextlib.ExitStack) -> tuple[Client, str]:
    """Return a client that is closed with the stack, and the cluster in words."""
    if settings.dask is not None:
        address, where = settings.dask, f"--dask {settings.dask}"
    elif settings.workers is not None:
        where = f"--workers {settings.workers}"
        address = _started(where, lambda: _local_cluster(settings.workers or 1), stack)
    elif settings.dask_config is not None:
        described, where = read_cluster_file(settings.dask_config), f"--dask-config {settings.dask_config}"
        address = _started(where, described.start, stack)
    else:
        raise SettingsError("no cluster is named; give --dask ADDRESS, --workers N or --dask-config FILE.")
    try:
        if settings.dask is not None and not _ADDRESS.fullmatch(settings.dask):
            raise ValueError("it is no address")
        if settings.dask is not None and not settings.dask.startswith(_OTHERS):
            _greet(settings.dask)
        client = _Client(address, timeout=_CONNECT_SECONDS, set_as_default=False, name="skystill")
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ClusterError(
            f"{where}: no scheduler of Dask answers there within {_CONNECT_SECONDS:.0f} s ({shortened(error)}). See "
            "that it runs, that the address is the one that it prints, such as tcp://10.0.0.5:8786, and that no "
            "firewall is between."
        ) from error
    stack.callback(_close, client)
    return client, where


def _greet(address: str) -> None:
    """Exchange the greetings of Dask, for whose answer its client waits for ever, such as with its own dashboard.

    Raises:
        OSError: nothing listens there.
        ValueError: another program does.
    """

    async def greet() -> None:
        await (await connect(address, timeout=_CONNECT_SECONDS)).close()

    with ThreadPoolExecutor(1) as thread:  # a notebook has a loop in its own
        try:
            thread.submit(asyncio.run, asyncio.wait_for(greet(), _CONNECT_SECONDS + 1)).result()
        except (TimeoutError, MemoryError) as error:  # its text may be taken for a length
            raise ValueError("what listens there is no scheduler, but perhaps its dashboard") from error


def _local_cluster(workers: int) -> LocalCluster:
    # As many threads as each worker gets cores. Memory is bounded by --max-memory, and not by killing workers.
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=max(1, cores() // workers),
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        silence_logs=logging.CRITICAL,
        scheduler_kwargs={"allowed_failures": 1},  # an input that kills a worker should not kill many
        preload=["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],  # Ctrl-C is for this process
    )


def _started(where: str, start: Callable[[], Any], stack: contextlib.ExitStack) -> Any:  # noqa: ANN401 - any cluster
    """Start a cluster that ends with the stack."""
    try:
        with holding_interrupts():
            cluster = start()
            stack.callback(_close, cluster)
    except Exception as error:
        raise ClusterError(f"{where}: the cluster cannot be started ({_first_cause(error)}).") from error
    return cluster


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return shortened(error) or type(error).__name__


def _close(opened: Any) -> None:  # noqa: ANN401 - a client or any cluster
    with holding_interrupts(), contextlib.suppress(Exception):  # of a cluster that has gone
        opened.close()

import gc
import importlib.metadata
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from skystill import __version__
from skystill.cluster.connection import open_connection, versions_here
from skystill.errors import ClusterError, SettingsError
from skystill.settings import ClusterSettings

from .scheduler import OLD, WITHOUT_RUNTIME, Change, changed


def test_a_local_cluster_of_processes_is_started_checked_and_ended() -> None:
    with open_connection(ClusterSettings(workers=2)) as connection:
        assert connection.versions == versions_here()
        assert connection.versions["skystill"] == __version__
        assert connection.versions["onnxruntime"] == importlib.metadata.version("onnxruntime")
        pids = connection.client.run(__import__("os").getpid)
        assert len(set(pids.values())) == 2
    assert connection.is_lost  # closed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (OLD, ["worker tcp://", "has skystill 0.0.1", f"this process has {__version__}"]),
        (WITHOUT_RUNTIME, ["worker tcp://", "has no onnxruntime", "skystill[cluster]"]),
    ],
)
def test_a_worker_of_another_version_is_refused(address: str, change: Change, said: list[str]) -> None:
    with (
        changed(address, change),
        pytest.raises(ClusterError) as error,
        open_connection(ClusterSettings(dask=address)),
    ):
        pass
    assert all(part in str(error.value) for part in said), error.value


def test_a_scheduler_of_another_version_is_refused(address: str) -> None:
    with (
        changed(address, OLD, on_scheduler=True),
        pytest.raises(ClusterError, match=rf"the scheduler has skystill 0\.0\.1, and this process has {__version__}"),
        open_connection(ClusterSettings(dask=address)),
    ):
        pass


def test_another_python_is_refused_before_anything_is_sent_to_it(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skystill.cluster.connection._short", lambda version: "3.99")
    with (
        pytest.raises(ClusterError, match=r"the scheduler has Python 3\.99, and this process has 3\.1"),
        open_connection(ClusterSettings(dask=address)),
    ):
        pass


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "127.0.0.1:1", "no such place", "http://127.0.0.1:1", "host", "tls://127.0.0.1:1"]
)
def test_a_scheduler_that_does_not_answer_is_an_error_in_bounded_time(
    address: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("skystill.cluster.connection._CONNECT_SECONDS", 1.0)
    began = time.monotonic()
    with (
        pytest.raises(ClusterError, match=r"no scheduler of Dask answers"),
        open_connection(ClusterSettings(dask=address)),
    ):
        pass
    gc.collect()
    assert time.monotonic() - began < 60 and "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.2p1\r\n"])
def test_another_program_is_no_scheduler(greeting: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dashboard of Dask waits for more, and its client would wait for it for ever."""
    monkeypatch.setattr("skystill.cluster.connection._CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            accepted, _ = server.accept()
            with accepted:
                accepted.sendall(greeting)
                while accepted.recv(1000):
                    pass

        thread = threading.Thread(target=greet)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ClusterError, match="is no scheduler"), open_connection(ClusterSettings(dask=address)):
            pass
        thread.join()


def test_one_cluster_is_named_at_most() -> None:
    with pytest.raises(ValueError, match="--dask is empty"):
        ClusterSettings(dask="")
    with pytest.raises(ValueError, match="--dask and --workers each name a cluster"):
        ClusterSettings(dask="tcp://a:1", workers=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("options: {}", "no line cluster"),
        ("cluster: os.system", "no class of a cluster"),
        ("cluster: subprocess.PopenCluster", "no class of a cluster"),
        ("cluster: distributed.os.system", "no class of a cluster"),
        ("cluster: distributed.Client", "no class of a cluster"),
        ("cluster: distributed.NoSuchCluster", "has no class"),
        ("cluster: dask_yarn.YarnCluster", "install the package"),
        ("cluster: distributed.LocalCluster\nworkers: -1", "workers is -1"),
        ("cluster: distributed.LocalCluster\nworkers: {least: 1}", "workers is"),
        ("cluster: distributed.LocalCluster\nworkers: true", "workers is True"),
        ("cluster: distributed.LocalCluster\nworkers: {minimum: 3, maximum: 2}", "workers is"),
        ("cluster: distributed.LocalCluster\nworkers: {minimum: 1.5}", "workers is"),
        ("cluster: distributed.LocalCluster\nworkers: {}", "workers is"),
        ("cluster: distributed.LocalCluster\noptions: false", "options are no keywords"),
        ("cluster: distributed.LocalCluster\noptions: [1]", "options are no keywords"),
        ("cluster: distributed.LocalCluster\nnumber: 2", "number is not known"),
        ("cluster: [", "cannot be read as YAML"),
    ],
)
def test_a_file_that_describes_no_cluster_is_refused(tmp_path: Path, text: str, said: Any) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said), open_connection(ClusterSettings(dask_config=path)):
        pass


def test_a_cluster_that_cannot_start_says_why_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "cluster: distributed.LocalCluster\n"
        "options: {no_such_keyword: 1, n_workers: 1, dashboard_address: '127.0.0.1:0'}\n"
    )
    with pytest.raises(ClusterError, match="no_such_keyword"), open_connection(ClusterSettings(dask_config=path)):
        pass
    assert capfd.readouterr() == ("", "")  # also of the processes of its workers


def test_a_file_describes_the_cluster_to_start(tmp_path: Path) -> None:
    path = Path(tmp_path / "cluster.yaml")
    path.write_text(
        "cluster: distributed.LocalCluster\n"
        "options: {threads_per_worker: 1, n_workers: 0, dashboard_address: '127.0.0.1:0', processes: false}\n"
        "workers: 1\n"
    )
    with open_connection(ClusterSettings(dask_config=path)) as connection:
        connection.client.wait_for_workers(1, timeout=120)


def test_a_scheduler_that_goes_while_it_is_asked_is_an_error_that_says_so(address: str) -> None:
    with pytest.raises(ClusterError, match="has gone"), open_connection(ClusterSettings(dask=address)) as connection:
        connection.client.close()
        connection.client.get_versions()
    with pytest.raises(ZeroDivisionError), open_connection(ClusterSettings(dask=address)):
        1 / 0  # noqa: B018 - an error of its own stays what it is


def test_asyncio_is_silent_about_the_tasks_of_dask_only(caplog: pytest.LogCaptureFixture, address: str) -> None:
    with open_connection(ClusterSettings(dask=address)) as connection, pytest.raises(RuntimeError) as ended:
        connection.client.close()
        connection.client.get_versions()
    logger = logging.getLogger("asyncio")
    logger.error("Task exception was never retrieved", exc_info=ended.value)
    assert not caplog.records
    logger.error("Task exception was never retrieved", exc_info=ValueError("of another"))
    logger.error("without an exception")
    assert len(caplog.records) == 2

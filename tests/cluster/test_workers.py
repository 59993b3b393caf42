"""Workers that cannot be used, inputs that kill them, and a command that is stopped."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from skystill.api import predict
from skystill.cluster import connection
from skystill.cluster.archive import ArchiveStopped
from skystill.errors import ClusterError, InputsFailed, PredictionStopped, UserError
from skystill.progress import Event, Progress
from skystill.settings import ClusterSettings
from tests.cluster.archives import contents, small_tiles, write_raster
from tests.cluster.scheduler import OLD, Change, changed, worker_of

OTHER_DISK = Change(
    "from skystill.cluster import orders; orders._RUN, orders._PATIENCE_SECONDS = 'run-of-another-disk.json', 0.1",
    "from skystill.cluster import orders; orders._RUN, orders._PATIENCE_SECONDS = 'run.json', 10.0",
)
WRITES_ELSEWHERE = Change(
    "from skystill.cluster import tasks; tasks.leave_sign = lambda *arguments: None",
    "from skystill.cluster import orders, tasks; tasks.leave_sign = orders.leave_sign",
)
HASTY = Change(
    "from skystill.cluster import orders; orders._PATIENCE_SECONDS = 0.1",
    "from skystill.cluster import orders; orders._PATIENCE_SECONDS = 10.0",
)
POISON = """
import os
from skystill.cluster import tasks
def predict_one(predictor, settings, resume, on_progress, job, whole=tasks.predict_one):
    if "poison" in job[0]:
        os._exit(9)
    return whole(predictor, settings, resume, on_progress, job)
tasks.predict_one = predict_one
"""


@pytest.fixture
def archive(tmp_path: Path) -> dict[str, Any]:
    for number in range(3):
        write_raster(tmp_path / f"in/{number}.tif", 60, 80, number)
    return {"inputs": [str(tmp_path / "in")], "model": small_tiles(tmp_path), "out": tmp_path / "out", "threads": 1}


def nothing_was_written(archive: dict[str, Any]) -> bool:
    return contents(archive["out"]) == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (OTHER_DISK, "does not see .*out, into which the results go"),
        (WRITES_ELSEWHERE, "this command does not see what the worker tcp://.* writes into .*out"),
    ],
)
def test_an_output_that_workers_do_not_share_is_refused_before_the_first_unit(
    archive: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, change: Change, said: str
) -> None:
    monkeypatch.setattr("skystill.cluster.archive._SIGN_SECONDS", 0.2)
    with changed(address, change), pytest.raises(ClusterError, match=said):
        predict(**archive, dask=address)
    assert nothing_was_written(archive)


def test_a_worker_that_joins_late_with_another_version_is_found_by_its_task(
    archive: dict[str, Any], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(connection, "check_versions", lambda connection: None)  # it was not there yet
    monkeypatch.setattr("skystill.cluster.archive._look_around", lambda *arguments: None)
    with changed(address, OLD), pytest.raises(ClusterError, match=r"has skystill 0\.0\.1, and"):
        predict(**archive, dask=address)
    assert nothing_was_written(archive)


def test_a_raster_in_an_archive_is_no_path_that_workers_do_not_see(
    archive: dict[str, Any], tmp_path: Path, address: str
) -> None:
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "in")
    archive["inputs"] = [f"/vsizip/{tmp_path}/a.zip/1.tif"]
    expected = predict(**archive | {"out": tmp_path / "here"})
    assert len(expected) == 1 and len(predict(**archive, dask=address)) == 1
    assert contents(archive["out"]) == contents(tmp_path / "here")
    assert predict(**archive, dask=address) == []  # it is known again, though workers have another current folder


def test_an_input_that_workers_do_not_see_is_named(
    archive: dict[str, Any], tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_seen_here(sources: Any) -> Any:
        return ((source.replace("/in/", "/only-here/"), target) for source, target in sources)

    monkeypatch.setattr("skystill.cluster.archive.absolute", as_seen_here)
    with pytest.raises(UserError, match=r"does not see .*/only-here/0\.tif\. Workers need the inputs under the same"):
        predict(**archive, dask=address)
    assert nothing_was_written(archive)


def test_an_input_that_kills_workers_is_listed_and_the_others_are_done(
    archive: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    monkeypatch.setattr("skystill.cluster.dispatch.ATTEMPTS", 1)
    write_raster(tmp_path / "in/poison.tif", 60, 80, 7)
    with worker_of(scheduler, tmp_path / "dask", POISON, nanny=True):
        with pytest.raises(UserError, match=r"poison\.tif: a worker was lost") as error:
            predict(**archive, dask=scheduler)
        assert not isinstance(error.value, InputsFailed)
        assert {f"{number}.tif" for number in range(3)} <= set(contents(archive["out"]))


def test_a_stopped_command_goes_on(archive: dict[str, Any], address: str) -> None:
    whole = {**archive, "out": archive["out"].with_name("whole")}
    predict(**whole)

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.unit == "pixels" and event.done:
            raise KeyboardInterrupt

    with pytest.raises(ArchiveStopped, match="The same command goes on") as stopped:
        predict(**archive, dask=address, on_progress=stop)
    assert isinstance(stopped.value, PredictionStopped) and stopped.value.exit_code == 130
    assert not (archive["out"] / ".skystill/run.json").exists()  # its workers stop as well
    assert state(archive["out"]) == '"stopped"'
    predict(**archive, dask=address)
    assert contents(archive["out"]) == contents(whole["out"])
    assert state(archive["out"]) == '"ended"'


def state(out: Path) -> str:
    base = sqlite3.connect(out / ".skystill/manifest.sqlite")
    found = base.execute("select value from about where name = 'state'").fetchone()[0]
    base.close()
    return str(found)


def test_work_of_a_command_that_was_replaced_is_not_written(
    archive: dict[str, Any], tmp_path: Path, address: str
) -> None:
    """A worker whose command was killed sees the number of the next, and stops before it writes."""
    from distributed import Client

    from skystill.cluster import tasks
    from skystill.cluster.orders import write_order
    from skystill.settings import PredictSettings

    folder = archive["out"] / ".skystill"
    folder.mkdir(parents=True)
    settings = PredictSettings(**archive)
    versions = connection.versions_here()
    old = write_order(folder, settings, archive["model"], versions)
    item = (1, str(tmp_path / "in/0.tif"), str(archive["out"] / "0.tif"))
    with Client(address, set_as_default=False) as client:

        def run(token: str) -> Any:
            return client.submit(tasks.predict_inputs_of, str(folder), token, (item,), 10**9, 60.0, pure=False).result(
                timeout=120
            )

        assert run(old)[0].kind == "done"
        (archive["out"] / "0.tif").unlink()
        new = write_order(folder, settings, archive["model"], versions)
        with changed(address, HASTY):
            ended = run(old)
        assert isinstance(ended, tasks.Ended) and not (archive["out"] / "0.tif").exists()
        assert run(new)[0].kind == "done" and (archive["out"] / "0.tif").exists()


def test_a_model_that_workers_do_not_see_comes_with_the_output(
    archive: dict[str, Any], tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skystill.cluster import orders

    written = orders.write_json

    def under_another_path(path: Path, content: dict[str, Any]) -> None:
        written(path, content | ({"model": "/nowhere/m.onnx"} if "model" in content else {}))

    monkeypatch.setattr(orders, "write_json", under_another_path)
    assert len(predict(**archive, dask=address)) == 3


def test_no_cluster_is_named() -> None:
    with pytest.raises(UserError, match="no cluster is named"), connection.open_connection(ClusterSettings()):
        pass

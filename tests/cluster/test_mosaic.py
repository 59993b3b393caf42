"""A mosaic whose windows are computed on a cluster is that of one machine, to the byte, however it was stopped."""

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from skystill.api import predict, status
from skystill.cluster.archive import predict_archive
from skystill.cluster.tasks import Crashed, Ended, Fatal
from skystill.errors import ClusterError, PredictionStopped, RunFolderError
from skystill.progress import Event, Progress
from tests.cluster.archives import contents, small_tiles, write_raster

pytestmark = pytest.mark.usefixtures("short_tasks")


@pytest.fixture
def sheets(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Three sheets, one of them in another CRS, for a mosaic of four windows."""
    monkeypatch.chdir(tmp_path)
    write_raster(Path("in/a.tif"), 60, 90, 0)
    write_raster(Path("in/b.tif"), 200, 200, 1, nodata=200)
    write_raster(Path("in/c.tif"), 60, 90, 2, crs="EPSG:32639")
    Path("grid.yaml").write_text(
        "{crs: EPSG:32640, resolution: 0.03, extent: [300000, 2799910, 300090, 2800000], order: last}"
    )
    inputs = [f"in/{name}.tif" for name in "abc"]
    given = {"inputs": inputs, "model": small_tiles(tmp_path), "threads": 1, "mosaic": Path("grid.yaml")}
    predict(out=Path("whole.tif"), **given)
    return {**given, "dask": address, "out": Path("out/m.tif")}


def same(folder: Path = Path("out")) -> bool:
    found = {name.replace("m.", "whole.", 1): content for name, content in contents(folder).items()}
    return found == {path.name: path.read_bytes() for path in Path.cwd().glob("whole.*")}


def of_workers_only(*arguments: object) -> None:
    raise AssertionError("the command computes no window itself")


def test_windows_of_workers_make_the_same_mosaic(sheets: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped when the first windows are there, and the same command goes on without --resume."""

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "windows of m.tif" and event.done:
            raise KeyboardInterrupt

    monkeypatch.setattr("skystill.predict.mosaic.mosaic_window", of_workers_only)
    with pytest.raises(PredictionStopped, match=r"The same command goes on \(out/m\.tif\)"):
        predict(**sheets, on_progress=stop)
    found = status(out=Path("out/m.tif"))
    assert found.done == 2  # the third is in another zone, far from the grid
    assert found.state == "stopped" and found.windows in ((1, 4), (2, 4)) and found.window_rate > 0
    with Client(sheets["dask"], set_as_default=False) as client:  # a window that was begun may be written
        workers = client.scheduler_info(n_workers=-1)["workers"]
        client.gather([client.submit(int, 1, workers=[worker], pure=False) for worker in workers])
    first, *others = sorted(Path("out").rglob("0*.unit"))
    for path in others:
        path.unlink()
    there = {first: first.stat().st_mtime_ns}
    kept: list[int] = []

    def keep(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "windows of m.tif":
            kept.append(sum(path.stat().st_mtime_ns == there.get(path) for path in Path("out").rglob("0*.unit")))

    (found,) = predict(**sheets, on_progress=keep)
    assert found.prediction.path == Path("out/m.tif") and same()
    assert kept and set(kept) == {len(there)}  # what was there is not computed again
    with pytest.raises(RunFolderError, match="complete has no manifest"):
        status(out=Path("out/m.tif"))


def test_what_the_cluster_cannot_do(sheets: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost cluster makes no mosaic of a part of the inputs. Nor does a worker that cannot be used. A window that
    fails three times is left to the command.
    """

    def lost(*arguments: Any, **keywords: Any) -> Iterator[Any]:
        yield next(predict_archive(*arguments, **keywords))
        raise ClusterError("the scheduler has gone.")

    def answers(answer: object) -> Callable[..., Iterator[tuple[Any, object]]]:
        def stream(connection: object, run: object, waiting: deque[Any], *rest: object) -> Iterator[tuple[Any, object]]:
            while waiting:
                asked.append(waiting.popleft())
                yield asked[-1], answer

        return stream

    asked: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr("skystill.cluster.mosaic.predict_archive", lost)
        with pytest.raises(ClusterError, match="has gone"):
            predict(**sheets)
    for answer, said in ((Fatal("another version"), "another version"), (Ended("there"), "on there does not see")):
        monkeypatch.setattr("skystill.cluster.mosaic.stream", answers(answer))
        with pytest.raises(ClusterError, match=said):
            predict(**sheets)
    assert not Path("out/m.tif").exists()
    asked.clear()
    monkeypatch.setattr("skystill.cluster.mosaic.stream", answers(Crashed("RasterioIOError: gone")))
    predict(**sheets)
    assert same() and {asked.count(piece) for piece in asked} == {3}

"""Which task comes next, on a cluster that only answers: joins wait for units, and nothing may wait for a join."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skystill.cluster.dispatch import Dispatch
from skystill.cluster.manifest import Manifest
from skystill.cluster.tasks import Item, Outcome
from skystill.predict.batch import PredictedInput
from skystill.predict.predictor import Prediction
from skystill.progress import ignore_progress

UNITS, LOOKS = 8, 30


class Landing:
    """A future that lands when it is told."""

    status = "finished"

    def __init__(self, key: str, found: object) -> None:
        self.key, self.found, self.calls = key, found, list[Callable[[Any], None]]()
        self.landed = False

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        call(self) if self.landed else self.calls.append(call)

    def land(self) -> None:
        self.landed = True
        for call in self.calls:
            call(self)

    def result(self, timeout: float) -> object:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


class Cluster:
    """One worker, whose joins end when the units of their raster are done. Some pieces fail."""

    is_lost = False

    def __init__(self, failing: Counter[tuple[str, int]]) -> None:
        self.client, self.failing = self, failing
        self.log: list[tuple[str, str]] = []
        self.joins: dict[str, Landing] = {}
        self.done, self.looks, self.most = Counter[str](), 0, 0
        self.lost: Exception | None = None  # what becomes of joins, unless they wait

    def scheduler_info(self, n_workers: int) -> dict[str, int]:
        self.looks += 1
        assert self.looks < LOOKS, self.log  # a look is a second in which nothing ended
        return {"n_workers": 1}

    def submit(self, run: Any, folder: str, token: str, *arguments: Any, key: str, pure: bool) -> Landing:
        item: Item = arguments[0][0] if run.__name__ == "predict_inputs_of" else arguments[0]
        number, source, target = item
        self.log.append((run.__name__, source))
        future = Landing(key, Outcome(number, "done", 1_000_000, 1, "0" * 64, 60.0, "host"))
        if run.__name__ == "predict_inputs_of":
            large = Outcome(number, "large", UNITS * 1_000_000, units=UNITS, missing=((0, UNITS),), one=future.found)
            future.found, self.done[source] = [large for _ in arguments[0]], 1
        elif run.__name__ == "join_pieces" and self.lost is not None:
            future.found = self.lost
        elif run.__name__ == "join_pieces":
            self.joins[source] = future
            self.most = max(self.most, len(self.joins))
            return future
        elif run.__name__ == "compute_piece":
            if self.failing[source, arguments[1]] > 0:
                self.failing[source, arguments[1]] -= 1
                future.found = Outcome(number, "failed", error="of this test")
            else:
                self.done[source] += arguments[2] - arguments[1]
        elif run.__name__ == "write_files":
            about = PredictedInput(source, Prediction(Path(target), 8_000_000, (), ()), 0.0, ())
            future.found = Outcome(number, "done", 8_000_000, 1, "0" * 64, 1.0, "host", about=about)
        future.land()
        if self.done[source] == UNITS:
            self.end(source)
        return future

    def end(self, source: str) -> None:
        if source in self.joins:
            self.joins.pop(source).land()


@pytest.fixture
def manifest(tmp_path: Path) -> Iterator[Manifest]:
    manifest = Manifest(tmp_path / "manifest.sqlite")
    manifest.add_inputs([(f"/in/{name}.tif", tmp_path / f"{name}.tif") for name in "abc"])
    yield manifest
    manifest.close()


def run(manifest: Manifest, cluster: Any, tmp_path: Path) -> list[str]:
    dispatch = Dispatch(cluster, manifest, (tmp_path, "token"), ignore_progress)
    return [one.source for one in dispatch.results()]


@pytest.mark.parametrize("failures", [{}, {("/in/a.tif", 5): 2, ("/in/b.tif", 1): 1, ("/in/b.tif", 7): 2}])
def test_rasters_are_joined_while_they_are_computed(
    manifest: Manifest, tmp_path: Path, failures: dict[tuple[str, int], int]
) -> None:
    """There are as many joins as workers, and what is tried again comes before the next."""
    cluster = Cluster(Counter(failures))
    assert sorted(run(manifest, cluster, tmp_path)) == ["/in/a.tif", "/in/b.tif", "/in/c.tif"]
    assert cluster.most == 1
    for name in "abc":
        kinds = [kind for kind, source in cluster.log if source == f"/in/{name}.tif"]
        again = sum(count for (source, _), count in failures.items() if source == f"/in/{name}.tif")
        assert kinds == ["predict_inputs_of", "join_pieces", *["compute_piece"] * (UNITS - 1 + again), "write_files"]
    assert manifest.piece_counts() == (3 * (UNITS + 2), 3 * (UNITS + 2))


def test_the_join_of_a_raster_that_fails_is_ended(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(Counter({("/in/a.tif", 5): 3}))
    monkeypatch.setattr("skystill.cluster.dispatch.end_units", lambda target: cluster.end(f"/in/{target.name}"))
    assert sorted(run(manifest, cluster, tmp_path)) == ["/in/b.tif", "/in/c.tif"]
    assert manifest.failed(9) == [("/in/a.tif", "of this test", False)]


def test_a_join_whose_worker_is_lost_is_no_attempt_of_its_raster(manifest: Manifest, tmp_path: Path) -> None:
    """The last task writes all units then. Another input may have killed the worker again and again."""
    cluster = Cluster(Counter())
    cluster.lost = RuntimeError("the worker was lost")
    assert sorted(run(manifest, cluster, tmp_path)) == ["/in/a.tif", "/in/b.tif", "/in/c.tif"]
    assert Counter(kind for kind, _ in cluster.log)["join_pieces"] == 3 and manifest.failed(9) == []

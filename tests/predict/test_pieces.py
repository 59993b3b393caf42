"""Units of a raster are written into its rasters while others compute them, to the bytes of one process."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from skystill.errors import InUse, RunFolderError
from skystill.predict.pieces import begin_raster, compute_units, end_units, join_units
from skystill.predict.predictor import Predictor
from skystill.predict.stream import Stream
from skystill.raster.steps import FurtherFiles
from skystill.settings import RasterSettings
from tests.cluster.archives import small_tiles, write_raster

SETTINGS = RasterSettings(confidence=True)


@dataclass
class Begun:
    """A raster whose journal is begun, and what one process makes of it."""

    predictor: Predictor
    source: str
    target: Path
    units: int
    whole: dict[str, bytes]

    def compute(self, first: int, last: int) -> None:
        compute_units(
            self.predictor, self.source, self.target, SETTINGS, range(first, last), lambda unit, content: None
        )

    def join(self, on_wait: Callable[[], None] = lambda: None) -> list[Path]:
        return join_units(self.predictor, self.source, self.target, SETTINGS, on_wait)

    def finish(self) -> None:
        self.predictor.predict(self.source, self.target, SETTINGS, resume=True)
        assert files(self.target.parent) == self.whole


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def begun(tmp_path: Path) -> Begun:
    source, predictor = str(write_raster(tmp_path / "a.tif", 500, 700)), Predictor(small_tiles(tmp_path), threads=1)
    for folder in ("whole", "out"):
        (tmp_path / folder).mkdir()
    predictor.predict(source, tmp_path / "whole/a.tif", SETTINGS)
    target = tmp_path / "out/a.tif"
    units = begin_raster(predictor, source, target, SETTINGS, FurtherFiles()).units
    return Begun(predictor, source, target, units, files(tmp_path / "whole"))


def test_units_are_joined_as_they_come(begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order. What is joined is neither read from the journal again nor computed again."""
    waits = Event()
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(begun.join, waits.set)
        assert waits.wait(60)
        with pytest.raises(InUse):  # the rasters have one writer
            begun.join()
        begun.compute(begun.units // 2, begun.units)
        begun.compute(0, begun.units // 2)
        parts = joining.result(60)
    assert [part.name for part in parts] == ["classes.tif", "confidence.tif"]
    journal = parts[0].parent
    for entry in journal.glob("*.unit"):
        entry.write_bytes(b"")
    monkeypatch.setattr(Stream, "predict", None)
    begun.finish()
    assert not journal.exists()


def test_a_unit_that_does_not_come_is_computed_at_the_end(begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skystill.predict.pieces._PATIENCE_SECONDS", 0.0)
    begun.compute(0, begun.units - 1)
    end_units(begun.target)
    assert begun.join() == []
    begun.finish()


def test_a_join_that_is_ended_keeps_nothing_from_the_next(begun: Begun) -> None:
    class Stopped(Exception):
        pass

    calls = iter(range(3))

    def stop() -> None:
        if next(calls, None) is None:
            raise Stopped

    begun.compute(0, begun.units)
    with pytest.raises(Stopped):
        begun.join(stop)
    assert begin_raster(begun.predictor, begun.source, begun.target, SETTINGS, FurtherFiles()).missing == ()
    begun.finish()


def test_joined_rasters_that_have_changed_are_written_again(begun: Begun) -> None:
    begun.compute(0, begun.units)
    part = begun.join()[0]
    part.write_bytes(part.read_bytes()[:-10])
    begun.finish()


def test_a_join_without_a_journal_is_refused(begun: Begun, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="has gone while"):
        join_units(begun.predictor, begun.source, tmp_path / "out/other.tif", SETTINGS, lambda: None)
    end_units(tmp_path / "out/other.tif")
    begun.finish()

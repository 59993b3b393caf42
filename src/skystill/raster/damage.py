"""The record of damaged places of a source in a journal, so that a resumed prediction still names them.

Several processes that compute parts of one raster have a record each.
"""

from pathlib import Path

from skystill.errors import RunFolderError
from skystill.parsing import built_from, read_json
from skystill.raster.places import Place
from skystill.raster.source import RasterSource
from skystill.run_folder import write_json


class DamageRecord:
    """Keeps the damaged places of a source beside the units that were computed from it.

    Args:
        source: the raster that is read.
        journal: folder of the unfinished work.
        part: what the record of a part of the raster is called, if several processes compute it.
    """

    def __init__(self, source: RasterSource, journal: Path, part: str = "") -> None:
        self._source, self._path = source, journal / f"damage{part}.json"
        self._kept = 0  # damaged pixels in the record

    def begin(self, continued: bool) -> None:
        """Take over the places of the process that was stopped, or forget those of an earlier prediction.

        Args:
            continued: whether units of the journal are used.

        Raises:
            RunFolderError: the record is damaged.
        """
        records = sorted(self._path.parent.glob("damage*.json"))
        if not continued:
            for path in records:
                path.unlink(missing_ok=True)
            return
        for path in records:
            self._source.take_damage(*self._read(path))
        self._kept = self._source.damaged_pixels if len(records) == 1 else 0

    def _read(self, path: Path) -> tuple[list[Place], str]:
        return built_from(
            read_json(path, self._refuse),
            lambda found: ([_place(*found) for found in found["places"]], str(found["reason"])),
            self._refuse,
        )

    def _refuse(self, reason: str) -> RunFolderError:
        return RunFolderError(f"{self._path} is damaged ({reason}). Delete {self._path.parent} and begin again.")

    def keep(self) -> None:
        """Record the places that were found since the last call. Call this before a unit is written.

        Raises:
            SourceChanged: the source has changed, so that the unit may be a mixture.
            DiskFull: the record cannot be written.
        """
        source = self._source
        source.states.check()
        if source.damaged_pixels > self._kept:
            self._kept = source.damaged_pixels
            write_json(self._path, {"places": source.damage.all(), "reason": source.reason})


def _place(top: int, bottom: int, left: int, right: int) -> Place:
    """Return a place of a record.

    Raises:
        ValueError: it is none.
    """
    if not (0 <= int(top) < int(bottom) and 0 <= int(left) < int(right)):
        raise ValueError(f"rows {top} to {bottom}, columns {left} to {right} are no place")
    return int(top), int(bottom), int(left), int(right)

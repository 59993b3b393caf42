"""The record of damaged places of a source in a journal, so that a resumed prediction still names them."""

from pathlib import Path

from skystill.errors import RunFolderError
from skystill.parsing import built_from, read_json
from skystill.raster.source import RasterSource
from skystill.run_folder import write_json


class DamageRecord:
    """Keeps the damaged places of a source beside the units that were computed from it.

    Args:
        source: the raster that is read.
        journal: folder of the unfinished work.
    """

    def __init__(self, source: RasterSource, journal: Path) -> None:
        self._source, self._path = source, journal / "damage.json"
        self._kept = 0

    def begin(self, continued: bool) -> None:
        """Take over the places of the process that was stopped, or forget those of an earlier prediction.

        Args:
            continued: whether units of the journal are used.

        Raises:
            RunFolderError: the record is damaged.
        """
        if not continued:
            self._path.unlink(missing_ok=True)
        elif self._path.exists():
            places, pixels, reason = built_from(
                read_json(self._path, self._refuse),
                lambda found: ([str(place) for place in found["places"]], int(found["pixels"]), str(found["reason"])),
                self._refuse,
            )
            source = self._source
            if not source.damaged:
                source.notes.append(f"{source.path}: a part cannot be read: {reason}.")
            source.take_damage(places, pixels, reason)
            self._kept = len(places)

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
        if len(source.damaged) > self._kept:
            self._kept = len(source.damaged)
            write_json(
                self._path,
                {"places": source.damaged, "pixels": source.damaged_pixels, "reason": source.reason},
            )

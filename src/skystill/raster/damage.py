"""The record of damaged places of a source in a journal, so that a resumed prediction still names them.

Several processes that compute parts of one raster have a record each.
"""

import re
from collections.abc import Sequence
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
        part: what the record of a part of the raster is called, if several processes compute it.
    """

    def __init__(self, source: RasterSource, journal: Path, part: str = "") -> None:
        self._source, self._path = source, journal / f"damage{part}.json"
        self._kept = 0

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
        found = [self._read(path) for path in records]
        if not found:
            return
        places, pixels, reason = found[0] if len(found) == 1 else _joined(found)
        source = self._source
        if not source.damaged:
            source.notes.append(f"{source.path}: a part cannot be read: {reason}.")
        source.take_damage(places, pixels, reason)
        self._kept = len(places)

    def _read(self, path: Path) -> "_Damage":
        return built_from(
            read_json(path, self._refuse),
            lambda found: ([str(place) for place in found["places"]], int(found["pixels"]), str(found["reason"])),
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
        if len(source.damaged) > self._kept:
            self._kept = len(source.damaged)
            write_json(
                self._path,
                {"places": source.damaged, "pixels": source.damaged_pixels, "reason": source.reason},
            )


_Damage = tuple[list[str], int, str]
"""Places, the number of their pixels, and why they cannot be read."""
_PLACE = re.compile(r"rows (\d+) to (\d+), columns (\d+) to (\d+)(.*)")


def _joined(records: Sequence[_Damage]) -> _Damage:
    """Join the records of several parts: each place once, and none that lies within another."""
    places = dict.fromkeys(place for record in records for place in record[0])
    found = {place: match for place in places if (match := _PLACE.fullmatch(place))}
    areas = {place: tuple(map(int, match.groups()[:4])) for place, match in found.items()}
    within = {
        one
        for one, (top, bottom, left, right) in areas.items()
        for other, (above, below, before, behind) in areas.items()
        if one != other and found[one][5] == found[other][5]
        and above <= top and bottom <= below and before <= left and right <= behind
    }  # fmt: skip
    kept = sorted((place for place in areas if place not in within), key=lambda place: areas[place])
    pixels = sum((areas[p][1] - areas[p][0] + 1) * (areas[p][3] - areas[p][2] + 1) for p in kept)
    return kept, pixels, records[0][2]

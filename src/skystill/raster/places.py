"""Places of a raster that cannot be read. Neighbours are one place, so that a file of a million strips has few."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

Place = tuple[int, int, int, int]
"""Top, bottom, left and right in pixels; ends are exclusive."""


class Places:
    """Places of a raster. Those with the same columns are joined where they touch or overlap.

    Args:
        places: the first of them.
    """

    def __init__(self, places: Iterable[Place] = ()) -> None:
        self._spans: dict[tuple[int, int], list[tuple[int, int]]] = {}  # rows by columns, from top to bottom, apart
        self.pixels = 0
        """Number of pixels of all places."""
        self.frame = ""
        """What stands behind each place in words, such as that it is one before the raster was turned."""
        for place in places:
            self.add(place)

    def __bool__(self) -> bool:
        return bool(self._spans)

    def add(self, place: Place) -> None:
        """Add a place, of which a part or all may be there."""
        top, bottom, left, right = place
        spans = self._spans.setdefault((left, right), [])
        first = bisect_left(spans, top, key=lambda span: span[1])
        last = bisect_right(spans, bottom, key=lambda span: span[0])
        touched = spans[first:last]
        joined = min([top, *(span[0] for span in touched)]), max([bottom, *(span[1] for span in touched)])
        spans[first:last] = [joined]
        more = joined[1] - joined[0] - sum(below - above for above, below in touched)
        self.pixels += more * (right - left)

    def all(self) -> list[Place]:
        """Return the places, from top to bottom and from left to right."""
        found = [(*rows, *columns) for columns, spans in self._spans.items() for rows in spans]
        return sorted(found, key=lambda place: (place[0], place[2]))

    def names(self) -> list[str]:
        """Return the places in words, for messages."""
        return [
            f"rows {top} to {bottom - 1}, columns {left} to {right - 1}{self.frame}"
            for top, bottom, left, right in self.all()
        ]

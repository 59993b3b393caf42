"""Merge small components of a class raster into their neighbours, exactly and in bounded memory.

A sweep reads the raster window by window, and finds for every component below a limit which class it takes. Components
that lie across windows are joined as the sweep goes on. What is known of a component is kept only until it cannot
change any more. The decisions go into a table on disk with one byte per component and window, from which a second pass
writes the new raster.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from skystill.classes import VOID, Labels
from skystill.predict.components import Components, Numbers, find_borders, find_components

_FIRST_LIMIT, _GROWTH = 4, 4


def sieve_limits(pixels: int) -> list[int]:
    """Return the limits of the sweeps: 4, 16, 64, ... and at last `pixels`.

    The smallest components go first. They grow into components that can take others, so that a field of noise becomes
    calm, which has no large component to begin with.
    """
    limits, limit = [], _FIRST_LIMIT
    while limit < pixels:
        limits.append(limit)
        limit *= _GROWTH
    return [*limits, pixels]


@dataclass
class _Part:
    """What is known of a component that is not decided.

    Args:
        label: its class.
        size: number of pixels that were seen.
        places: its places in the table of decisions.
        votes: length of the border with large components, by class.
        unsure: length of the border with components that may become large, by their number.
    """

    label: int
    size: int
    places: list[int]
    votes: Counter[int] = field(default_factory=Counter)
    unsure: Counter[int] = field(default_factory=Counter)

    def forget(self) -> None:
        """Forget what is needed for a decision: a large component keeps its class."""
        self.places, self.votes, self.unsure = [], Counter(), Counter()


@dataclass(frozen=True)
class _Edge:
    """The pixels along a border of a window: their labels (n,) uint8, the numbers of their components (n,) int64."""

    labels: Labels
    numbers: Numbers


class Sweep:
    """Finds the class that each component of less than `limit` pixels takes.

    It takes the class with which it shares the longest border, among neighbours of at least `limit` pixels. Of equal
    borders, the class with the lowest label wins. A component without such a neighbour stays.

    Args:
        height: height of the raster in pixels.
        width: width of the raster in pixels.
        limit: smallest number of pixels of a component that stays.
        table: file for the decisions, opened for reading and writing.
    """

    def __init__(self, height: int, width: int, limit: int, table: BinaryIO) -> None:
        self._height, self._width, self._limit = height, width, limit
        self._table = table
        self._first: dict[tuple[int, int], int] = {}  # by place of the window: number of its first component
        self._next = 0
        self._parents: dict[int, int] = {}
        self._parts: dict[int, _Part] = {}
        self._right: _Edge | None = None
        self._above: dict[int, _Edge] = {}  # bottom borders of the row above, by the left column of the window
        self._below: dict[int, _Edge] = {}
        self.merged = 0  # components that take another class
        self.left = 0  # components below the limit that stay

    def add(self, window: Window, labels: Labels) -> None:
        """Add the next window. Windows go row by row, all rows of equal height but the last.

        Args:
            window: its place in the raster, column-first (rasterio).
            labels: (H, W) uint8.
        """
        left, top = int(window.col_off), int(window.row_off)
        if left == 0:
            self._right = None
            self.end_row()
        found = find_components(labels)
        base = self._first[top, left] = self._next
        self._next += len(found.labels)
        inside = self._add_parts(found, base, self._reaches_out(found, window))
        self._table.seek(base)
        self._table.write(inside.tobytes())
        numbers = found.numbers + base
        if self._right is not None:
            self._match(self._right, _Edge(labels[:, 0], numbers[:, 0]))
        if left in self._above:
            self._match(self._above[left], _Edge(labels[0], numbers[0]))
        self._right = _Edge(labels[:, -1].copy(), numbers[:, -1].copy())
        if top + labels.shape[0] < self._height:
            self._below[left] = _Edge(labels[-1].copy(), numbers[-1].copy())

    def end_row(self) -> None:
        """Decide all components that are known well enough. Call it once more after the last window."""
        self._above, self._below = self._below, {}
        on_border = (int(n) for edge in self._above.values() for n in np.unique(edge.numbers[edge.labels != VOID]))
        parents = {number: self._root(number) for number in on_border}
        growing = set(parents.values())
        waiting: dict[int, _Part] = {}
        for root, part in self._parts.items():
            if part.size < self._limit:
                self._count_unsure(part, growing)
                if root not in growing and not part.unsure:
                    self._decide(part)
                    continue
            if root in growing or part.size < self._limit:
                waiting[root] = part
        self._parts = waiting
        self._parents = {**parents, **{root: root for root in waiting}}

    def changed(self, window: Window, labels: Labels) -> Labels:
        """Return the new labels of a window that was added. Call it after the last `end_row`.

        Args:
            window: its place in the raster.
            labels: (H, W) uint8, as in `add`.
        """
        found = find_components(labels)
        self._table.seek(self._first[int(window.row_off), int(window.col_off)])
        taken = np.frombuffer(self._table.read(len(found.labels)), np.uint8)
        return np.where(taken == VOID, found.labels, taken)[found.numbers]

    def _reaches_out(self, found: Components, window: Window) -> npt.NDArray[np.bool_]:
        """Return (n,) bool, True for components that touch a border with another window."""
        numbers = found.numbers
        sides = {
            "left": (window.col_off > 0, numbers[:, 0]),
            "right": (window.col_off + window.width < self._width, numbers[:, -1]),
            "top": (window.row_off > 0, numbers[0]),
            "bottom": (window.row_off + window.height < self._height, numbers[-1]),
        }
        result = np.zeros(len(found.labels), bool)
        for there_is_more, along in sides.values():
            if there_is_more:
                result[along] = True
        result[found.labels == VOID] = False
        return result

    def _add_parts(self, found: Components, base: int, reaches_out: npt.NDArray[np.bool_]) -> Labels:
        """Decide the components inside the window, and keep the others.

        Returns:
            (n,) uint8: the class that each component takes, 255 for none.
        """
        one, other, lengths = find_borders(found)
        large = found.sizes >= self._limit
        unsure = reaches_out & ~large
        small = ~large & (found.labels != VOID)
        waits = unsure.copy()
        waits[one[small[one] & unsure[other]]] = True
        taken = np.full(len(found.labels), VOID, np.uint8)
        counts = small[one] & ~waits[one] & large[other]
        winners, classes = _longest(one[counts], found.labels[other[counts]], lengths[counts])
        taken[winners] = classes
        self.merged += len(winners)
        self.left += int((small & ~waits).sum()) - len(winners)
        for number in np.flatnonzero(waits | reaches_out).tolist():
            part = _Part(int(found.labels[number]), int(found.sizes[number]), [base + number])
            self._parents[base + number] = base + number
            self._parts[base + number] = part
            if large[number]:
                part.forget()
        known = waits[one] & (large | unsure)[other]
        for number, near, length in zip(
            one[known].tolist(), other[known].tolist(), lengths[known].tolist(), strict=True
        ):
            part = self._parts[base + number]
            if large[near]:
                part.votes[int(found.labels[near])] += length
            else:
                part.unsure[base + near] += length
        return taken

    def _match(self, one: _Edge, other: _Edge) -> None:
        """Join components of the same class across a border, and note which others touch there."""
        valid = (one.labels != VOID) & (other.labels != VOID)
        pairs, lengths = np.unique(np.stack([one.numbers[valid], other.numbers[valid]]), axis=1, return_counts=True)
        for first, second, length in zip(*pairs.tolist(), lengths.tolist(), strict=True):
            mine, theirs = self._root(first), self._root(second)
            if self._parts[mine].label == self._parts[theirs].label:
                self._join(mine, theirs)
                continue
            for part, near in ((self._parts[mine], theirs), (self._parts[theirs], mine)):
                if part.size < self._limit:
                    part.unsure[near] += length

    def _join(self, one: int, other: int) -> None:
        if one == other:
            return
        self._parents[other] = one
        mine, theirs = self._parts[one], self._parts.pop(other)
        mine.size += theirs.size
        mine.places.extend(theirs.places)
        mine.votes.update(theirs.votes)
        mine.unsure.update(theirs.unsure)
        if mine.size >= self._limit:
            mine.forget()

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def _count_unsure(self, part: _Part, growing: set[int]) -> None:
        """Turn borders with components whose size is known by now into votes, or drop them."""
        still: Counter[int] = Counter()
        for number, length in part.unsure.items():
            root = self._root(number)
            if self._parts[root].size >= self._limit:
                part.votes[self._parts[root].label] += length
            elif root in growing:
                still[root] += length
        part.unsure = still

    def _decide(self, part: _Part) -> None:
        if not part.votes:
            self.left += 1
            return
        self.merged += 1
        longest = max(part.votes.values())
        label = min(label for label, length in part.votes.items() if length == longest)
        for place in part.places:
            self._table.seek(place)
            self._table.write(bytes([label]))


def _longest(numbers: Numbers, labels: Labels, lengths: Numbers) -> tuple[Numbers, Labels]:
    """Return each number once, with the label that has the longest borders in sum; of equal ones the lowest label."""
    keys, place = np.unique(numbers * 256 + labels, return_inverse=True)
    sums = np.bincount(place.ravel(), weights=lengths, minlength=len(keys))
    of, label = keys // 256, keys % 256
    order = np.lexsort((label, -sums, of))
    winners, first = np.unique(of[order], return_index=True)
    return winners, label[order][first].astype(np.uint8)

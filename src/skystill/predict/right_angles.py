"""Rings with right angles: the outline of a building from the noisy outline of a polygon.

A ring follows two directions that are perpendicular to each other. Its long edges determine the directions. Every wall
lies at the mean position of the outline that it replaces, so that areas stay about the same.
"""

import heapq
import math

import numpy as np
import numpy.typing as npt
import shapely

Ring = npt.NDArray[np.float64]

_BINS = 90  # one degree each
_NEAR = 10.0  # degrees from the main direction within which edges count
_TIE = 1e-9


def main_direction(ring: Ring, tolerance: float) -> float:
    """Return the direction of most of the outline in radians, modulo 90 degrees.

    Edges count with the square of their length, because the steps of pixels turn short edges the most.

    Args:
        ring: (N, 2) vertices in order, without the first one again at the end.
        tolerance: deviations from straight edges that are passed over.
    """
    corners = ring[_corners(ring, tolerance)]
    steps = np.roll(corners, -1, axis=0) - corners
    degrees = np.degrees(np.arctan2(steps[:, 1], steps[:, 0]))
    weights = (steps**2).sum(axis=1)
    bins = np.bincount(np.round(degrees).astype(int) % _BINS, weights, _BINS)
    near = np.arange(1 - int(_NEAR), int(_NEAR))
    sums = sum(np.roll(bins, shift) * (1 - abs(shift) / _NEAR) for shift in near)
    best = int(np.argmax(sums))
    off = (degrees - best + _BINS / 2) % _BINS - _BINS / 2
    weights[np.abs(off) > _NEAR] = 0
    return math.radians(best + float(np.average(off, weights=weights)))


def square_ring(ring: Ring, direction: float, shortest: float) -> Ring | None:
    """Return a ring whose edges are parallel or perpendicular to a direction, with edges that take turns.

    Args:
        ring: (N, 2) vertices in order, without the first one again at the end.
        direction: in radians.
        shortest: edges that are shorter are merged with their neighbours, unless the ring is a rectangle.

    Returns:
        (M, 2) vertices, M even and at least 4, also without the first one again. None if no such ring is found.
    """
    turn = np.array([[math.cos(direction), -math.sin(direction)], [math.sin(direction), math.cos(direction)]])
    flat = ring @ turn
    walls = None
    for corners in (_corners(flat, shortest / 2), np.arange(len(flat))):  # the first may leave nothing of a small ring
        walls = _walls(flat, corners)
        if walls is not None:
            break
    if walls is None:
        return None
    levels, first_across = _merged(walls[0], shortest), walls[1]
    after = np.roll(levels, -1)
    # A wall across has one y, and the next wall, down, has the x of the vertex between them.
    across = (np.arange(len(levels)) % 2 == 0) == first_across
    return np.asarray(np.where(across[:, None], np.stack([after, levels], 1), np.stack([levels, after], 1)) @ turn.T)


def _corners(ring: Ring, tolerance: float) -> npt.NDArray[np.intp]:
    """Return the indices of the vertices that stay when a ring is simplified (Douglas and Peucker 1973)."""
    closed = shapely.linearrings(ring)
    kept = shapely.get_coordinates(shapely.simplify(closed, tolerance, preserve_topology=True))[:-1]
    found = np.flatnonzero(np.isin(ring @ [1, 1j], kept @ [1, 1j]))
    return found if len(found) >= 3 else np.arange(len(ring))


def _walls(ring: Ring, corners: npt.NDArray[np.intp]) -> tuple[Ring, bool] | None:
    """Join successive edges that go across (along x) or down (along y) to walls that take turns.

    Args:
        ring: (N, 2) vertices in order.
        corners: indices of the vertices between which an edge goes across or down as a whole.

    Returns:
        (M,) the y of walls across and the x of walls down, in turns; and whether the first one is a wall across. None
        if there are fewer than four.
    """
    spans = np.abs(ring[np.roll(corners, -1)] - ring[corners])
    across = spans[:, 0] >= spans[:, 1] * (1 - _TIE)
    starts = np.flatnonzero(across != np.roll(across, 1))
    if len(starts) < 4:
        return None
    first = corners[starts[0]]
    ring = np.roll(ring, -first, axis=0)
    begins = np.sort((corners[starts] - first) % len(ring))
    steps = np.abs(np.roll(ring, -1, axis=0) - ring)
    middles = (np.roll(ring, -1, axis=0) + ring) / 2
    # Along a wall across, the mean of y over x: what it cuts off and what it adds have the same area.
    sums = np.add.reduceat(steps * middles[:, ::-1], begins, axis=0)
    means = sums / np.maximum(np.add.reduceat(steps, begins, axis=0), np.finfo(float).tiny)
    first_across = bool(across[starts[0]])
    return np.where((np.arange(len(begins)) % 2 == 0) == first_across, means[:, 0], means[:, 1]), first_across


def _merged(levels: Ring, shortest: float) -> Ring:
    """Remove short walls, the shortest first: the two walls beside each become one, at their mean weighted by length.

    Args:
        levels: (M,) positions of walls that take turns: y of those across, x of those down.
        shortest: length from which a wall stays. Four walls stay in any case.
    """
    level = levels.tolist()
    count = len(level)
    before, after = [(i - 1) % count for i in range(count)], [(i + 1) % count for i in range(count)]
    length = [abs(level[after[i]] - level[before[i]]) for i in range(count)]
    waiting = [(length[i], i) for i in range(count)]
    heapq.heapify(waiting)
    gone = [False] * count
    while count > 4 and waiting:
        size, wall = heapq.heappop(waiting)
        if size >= shortest:
            break
        if gone[wall] or size != length[wall]:
            continue  # merged, or its length has changed since
        one, other = before[wall], after[wall]
        both = length[one] + length[other]
        part = length[one] / both if both else 0.5
        level[one] = level[one] * part + level[other] * (1 - part)
        gone[wall] = gone[other] = True
        after[one] = after[other]
        before[after[one]] = one
        count -= 2
        for i in (before[one], one, after[one]):
            length[i] = abs(level[after[i]] - level[before[i]])
            heapq.heappush(waiting, (length[i], i))
    kept = [level[i] for i in range(len(level)) if not gone[i]]
    return np.array(kept)

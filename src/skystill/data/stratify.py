"""Share out images to the parts of a split so that every class has its area in each part."""

import numpy as np
import numpy.typing as npt

PARTS = ("train", "validation", "test")
"""The names of the parts of a split."""
Areas = npt.NDArray[np.int64]
"""(images, C): number of pixels of each class in each mask."""
_TRAIN, _VALIDATION, _TEST = 0, 1, 2
_DRAWS = 8


def stratified_parts(areas: Areas, sizes: tuple[int, int, int], seed: int) -> list[int]:
    """Return the part of each image: 0 train, 1 validation, 2 test.

    Rare classes come first: a class in three images or more gets one in each part, a class in two images gets one in
    train and one in test, as far as the sizes of the parts allow it. The other images go, one by one and in random
    order, where their classes lack most area. This is done 8 times, and the best result is taken: the one with the
    fewest classes that a part lacks, and then with the areas nearest to the sizes of the parts.

    Args:
        areas: pixels of each class in each image.
        sizes: number of images of each part; together all images.
        seed: the same seed gives the same parts.
    """
    shares = areas / np.maximum(areas.sum(axis=0), 1)
    wanted = np.array(sizes) / max(1, len(areas))
    rng = np.random.default_rng(seed)
    draws = [_draw(shares, sizes, wanted, rng) for _ in range(_DRAWS)]
    costs = [_cost(shares, parts, sizes, wanted) for parts in draws]
    return [int(part) for part in draws[costs.index(min(costs))]]


def _draw(
    shares: npt.NDArray[np.float64],
    sizes: tuple[int, int, int],
    wanted: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    parts = np.full(len(shares), -1)
    room = np.array(sizes)
    held = np.zeros((3, shares.shape[1]))  # fraction of the area of each class that each part has

    def give(image: int, part: int) -> None:
        parts[image] = part
        room[part] -= 1
        held[part] += shares[image]

    order = rng.permutation(len(shares))
    for label, part in _rare_first(shares):
        if held[part, label] > 0 or not room[part]:
            continue
        free = [image for image in order if parts[image] < 0 and shares[image, label] > 0]
        lacking = held[part] == 0
        if free:  # the image that gives the part most of the classes that it lacks; the first one of equals
            give(max(free, key=lambda image: int(np.count_nonzero(shares[image, lacking]))), part)
    for image in order:
        if parts[image] < 0:
            lack = (wanted[:, None] - held) @ shares[image]
            give(image, int(np.where(room > 0, lack, -np.inf).argmax()))
    return parts


def _rare_first(shares: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return pairs of class and part, in the order in which parts choose an image of a class."""
    images = np.count_nonzero(shares, axis=0)
    order = [label for label in np.argsort(images, kind="stable").tolist() if images[label]]
    parts = (_TRAIN, _TEST, _VALIDATION)
    return [(label, part) for label in order for part in parts[: images[label]]]


def _cost(
    shares: npt.NDArray[np.float64],
    parts: npt.NDArray[np.int64],
    sizes: tuple[int, int, int],
    wanted: npt.NDArray[np.float64],
) -> tuple[int, float]:
    """Return the number of classes that a part lacks, and the squared distance of the areas from those wanted."""
    held = np.stack([shares[parts == part].sum(axis=0) for part in range(3)])
    there = shares.sum(axis=0) > 0
    filled = np.array(sizes) > 0
    lacking = int(np.count_nonzero(held[np.ix_(filled, there)] == 0))
    return lacking, float(((held - wanted[:, None])[:, there] ** 2).sum())

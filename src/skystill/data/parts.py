"""What each part of a split holds of each class, and what it lacks, before hours of training."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skystill.classes import ClassMap
from skystill.data.check import DataCheck
from skystill.data.maps import block_of
from skystill.data.split import ENOUGH_IMAGES, PARTS, Split


@dataclass(frozen=True)
class PartCounts:
    """Pixels of each class in each part of a split.

    Args:
        classes: the C classes.
        images: number of images, or of blocks of a map, of each part, by its name.
        pixels: (C,) pixels of each class, by the name of the part.
    """

    classes: ClassMap
    images: dict[str, int]
    pixels: dict[str, npt.NDArray[np.int64]]

    def lines(self) -> list[str]:
        """Return a table as text: one line for each class, one column for each part that has images."""
        parts = [part for part, images in self.images.items() if images]
        rows = [["pixels per class", *(f"{part} ({self.images[part]} images)" for part in parts)]]
        for label, name in enumerate(self.classes.names):
            rows.append([name, *(self._cell(part, label) for part in parts)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]

    def _cell(self, part: str, label: int) -> str:
        counts = self.pixels[part]
        return f"{counts[label]:,} ({100 * counts[label] / max(1, int(counts.sum())):.2f} %)"

    def warnings(self) -> list[str]:
        """Return what the parts lack: classes without pixels, and test images for an interval."""
        found = [
            f"no training image holds {name}; the network cannot learn it." for name in self._without("train", True)
        ]
        if self.images["validation"]:
            found += [
                f"no validation image holds {name}: it counts in no validation mIoU."
                for name in self._without("validation")
            ]
        found += [
            f"no test image holds {name}: it is not scored, and counts in no mean IoU of the report."
            for name in self._without("test")
        ]
        if self.images["test"] < ENOUGH_IMAGES:
            found.append(
                f"{self.images['test']} test image(s) give scores without an interval, and no verdict on distillation; "
                f"{ENOUGH_IMAGES} or more are enough. Give more images to the test part with --split, or add images."
            )
        return found

    def _without(self, part: str, unscored: bool = False) -> list[str]:
        """Return the names of the classes without a pixel in a part, with or without those that are not scored."""
        return [
            name
            for label, name in enumerate(self.classes.names)
            if self.pixels[part][label] == 0 and (unscored or name not in self.classes.unscored)
        ]


def count_parts(check: DataCheck, split: Split) -> PartCounts:
    """Count the pixels of each class in each part of a split.

    Args:
        check: the content of the data.
        split: its images by part.
    """
    records = check.by_key
    pixels = {}
    for part in PARTS:
        counts = [records[pair.key].counts for pair in getattr(split, part)]
        pixels[part] = np.asarray(sum(counts, np.zeros(256, np.int64)))[: len(check.classes)]
    images = {part: len({block_of(pair.key) for pair in getattr(split, part)}) for part in PARTS}
    return PartCounts(check.classes, images, pixels)

"""A split in which most scenes have no labels, for `benchmarks/features.py --unlabeled`: a file and a folder of links.

    python benchmarks/few_scenes.py --data DIR --split dubai --labelled 8 --out runs/eight
    python benchmarks/few_scenes.py --data DIR --split dubai-tiles --new-places --out runs/new-places

With `--labelled N`, N training images that `--draw` draws keep their labels, and the others lose them; images of
`--others` (a folder that never had labels) are added. With `--new-places`, of each held-out place every second image
loses its labels, and the others are the test images: the images of a new place are there, its labels are not.

Written are OUT/split.json, and OUT/unlabeled with links to the images without labels.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skystill.api import check
from skystill.classes import ClassMap
from skystill.data import Pair, read_pairs
from skystill.run_folder import write_json


def main() -> None:
    """Write the split and the links."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labelled", type=int, help="number of training images that keep their labels")
    parser.add_argument("--draw", type=int, default=0, help="seed that chooses them")
    parser.add_argument("--others", type=Path, help="folder of images that never had labels")
    parser.add_argument("--new-places", action="store_true", help="half of the test images lose their labels")
    chosen = parser.parse_args()
    found = check(data=chosen.data, split=chosen.split)
    if found.split is None:
        raise SystemExit(f"{chosen.data}: no split {chosen.split}")
    parts = {name: list(getattr(found.split, name)) for name in ("train", "validation", "test")}
    without: list[Pair] = []
    if chosen.labelled:
        kept = draw(parts["train"], found.check.classes, chosen.labelled, chosen.draw)
        without, parts["train"] = [pair for pair in parts["train"] if pair not in kept], kept
    if chosen.new_places:
        ordered = sorted(parts["test"], key=lambda pair: pair.key)
        without, parts["test"] = [*without, *ordered[0::2]], ordered[1::2]
    images = [pair.image for pair in without] + (sorted(chosen.others.iterdir()) if chosen.others else [])
    link(images, chosen.data, chosen.out / "unlabeled")
    write_json(chosen.out / "split.json", {name: [pair.key for pair in pairs] for name, pairs in parts.items()})
    print(", ".join(f"{len(pairs)} {name}" for name, pairs in parts.items()), f"and {len(images)} without labels")


def draw(pairs: Sequence[Pair], classes: ClassMap, count: int, seed: int) -> list[Pair]:
    """Draw images until all classes of the training images are in them."""
    present = [set(np.unique(labels).tolist()) for _, _, labels in read_pairs(pairs, classes)]
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        drawn = rng.choice(len(pairs), count, replace=False)
        if set().union(*(present[index] for index in drawn)) >= set().union(*present):
            return [pairs[index] for index in sorted(drawn.tolist())]
    raise SystemExit(f"no {count} images hold all classes")


def link(images: Sequence[Path], data: Path, folder: Path) -> None:
    """Make links to images, named by their places in the data."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        name = "-".join(image.resolve().relative_to(data.resolve()).parts)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(image.resolve())


if __name__ == "__main__":
    main()

"""Scores of finished runs and model files on the test images of a split, and the differences between them.

    python benchmarks/scores.py --data DIR --split dubai "alone=runs/a runs/b" "distilled=runs/c" "in INT8=runs/c/student-int8.onnx"
    python benchmarks/scores.py --data TOKYO --split TOKYO/split.json --without bareland "alone=runs/a" "distilled=runs/c"

Each name stands for one kind of model, with a run folder or a model file for each seed. Printed are the mIoU of each, its
95 % interval over images, the IoU of each class, and every difference of a later kind minus an earlier one, with its 95 %
interval over the same images. Seeds are averaged, so that kinds may have different numbers of them.
"""  # noqa: E501 - commands stand in one line

import argparse
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from dubai_runs import evaluated, interval, points, score_cells, scored_part, summary

from skystill.report.metrics import compare
from skystill.run_folder import RunFolder


def main() -> None:
    """Score, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="NAME=PATH PATH ...")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="dubai")
    parser.add_argument("--without", action="append", default=[], help="a class that does not count in the mean")
    parser.add_argument("--views", type=int, default=1, help="test-time views: 1, 2, 4 or 8")
    chosen = parser.parse_args()
    test, classes = scored_part(chosen.data, chosen.split)
    if unknown := set(chosen.without) - set(classes.names):
        raise SystemExit(f"--without: there is no class {', '.join(sorted(unknown))}; {', '.join(classes.names)} are.")
    counted = replace(classes, unscored=tuple(dict.fromkeys((*classes.unscored, *chosen.without))))
    found = {}
    print(f"| {len(test)} test images | seeds | mIoU (each seed) | 95 % interval | {' | '.join(classes.names)} |")
    for text in chosen.models:
        name, _, paths = text.partition("=")
        files = [model_of(Path(path)) for path in paths.split()]
        found[name] = evaluations = [evaluated(file, test, counted, chosen.views) for file in files]
        print(f"| {name} | {len(files)} | {score_cells(summary(evaluations))} |", flush=True)
    print("\n| difference | points | 95 % interval |")
    for one, other in combinations(found, 2):
        difference = compare(found[other], found[one])
        print(f"| {other} minus {one} | {points(difference)} | {interval(difference)} |")


def model_of(path: Path) -> Path:
    """Return the model file of a run folder; a model file is itself."""
    return RunFolder(path).model if path.is_dir() else path


if __name__ == "__main__":
    main()

"""Several teachers, each as the mean over 8 symmetries, and all of them averaged, on split dubai.

    python benchmarks/teachers.py --data DIR --teachers RUN RUN ... --part validation    # choose which to take
    python benchmarks/teachers.py --data DIR --teachers RUN RUN ... --part test          # then score them once

The probabilities of the teachers are averaged. `skystill distill --teacher RUN --teacher RUN` learns from nearly the
same: means of logits over the symmetries, softened, then averaged over the teachers. The script prints the mIoU over
the five named classes with its 95 % interval over images, for each teacher, and from the second on for the average of
all teachers so far.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from dubai_runs import NAMED, percents, summary

from skystill.classes import DUBAI
from skystill.data import find_pairs, read_pairs, split_pairs
from skystill.predict import Predictor
from skystill.report.metrics import Evaluation, evaluate
from skystill.run_folder import RunFolder

Floats = npt.NDArray[np.float32]
Images = Sequence[tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]
"""Key, image (H, W, 3) uint8 and labels (H, W) uint8 of each image."""


def main() -> None:
    """Score each teacher, and the average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teachers", type=Path, nargs="+", required=True, help="run folders")
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    chosen = parser.parse_args()
    images = list(read_pairs(getattr(split_pairs(find_pairs(chosen.data).pairs, "dubai", 0), chosen.part), DUBAI))
    print(f"| {chosen.part}, {len(images)} images | mIoU | 95 % interval | {' | '.join(NAMED)} |")
    print("|---|---:|---:|" + "---:|" * len(NAMED))
    totals: list[Floats] = [np.zeros((len(DUBAI), *labels.shape), np.float32) for _, _, labels in images]
    for count, path in enumerate(chosen.teachers, 1):
        predictor = Predictor(RunFolder(path).model)
        found = [predictor.probabilities(image, views=8) for _, image, _ in images]
        totals = [total + one for total, one in zip(totals, found, strict=True)]
        print_row(path.name, evaluate_predicted(found, images))
        if count > 1:
            averages = [np.asarray(total / count, np.float32) for total in totals]
            print_row(f"these {count} averaged", evaluate_predicted(averages, images))


def evaluate_average(runs: Sequence[Path], images: Images) -> Evaluation:
    """Evaluate the mean of the probabilities of all teachers, each over 8 symmetries."""
    predictors = [Predictor(RunFolder(path).model) for path in runs]

    def mean(image: npt.NDArray[np.uint8]) -> Floats:
        found = [one.probabilities(image, views=8) for one in predictors]
        return np.asarray(np.mean(found, axis=0, dtype=np.float32))

    return evaluate(mean, images, DUBAI)


def evaluate_predicted(probabilities: Sequence[Floats], images: Images) -> Evaluation:
    """Evaluate the probabilities (C, H, W) of these images, given in the same order."""
    found = iter(probabilities)
    return evaluate(lambda image: next(found), images, DUBAI)


def print_row(name: str, evaluation: Evaluation) -> None:
    """Print one line, ready for docs/results/teachers.md."""
    row = summary([evaluation])
    between, classes = percents(row.interval, " to "), percents(row.iou[: len(NAMED)], " | ")
    print(f"| {name} | {100 * row.miou:.1f} | {between} | {classes} |", flush=True)


if __name__ == "__main__":
    main()

"""Several teachers, each as the mean over 8 views, and all of them averaged, on split dubai.

    python benchmarks/teachers.py --data DIR --teachers RUN RUN ... --part validation    # choose which to take
    python benchmarks/teachers.py --data DIR --teachers RUN RUN ... --part test          # then look once

Probabilities are averaged; `skystill distill --teacher RUN --teacher RUN` learns from nearly that: the means of logits
over the symmetries, softened, then averaged over teachers. Prints mIoU over the five named classes with its 95 %
interval over images, each teacher and after each the average so far.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from dubai import percents, summary

from skystill.classes import DUBAI
from skystill.data import find_pairs, read_pairs, split_pairs
from skystill.predict import Predictor
from skystill.report.metrics import Evaluation, evaluate
from skystill.run_folder import RunFolder

Floats = npt.NDArray[np.float32]


def main() -> None:
    """Score each teacher, and the average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teachers", type=Path, nargs="+", required=True, help="run folders")
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    chosen = parser.parse_args()
    scenes = list(read_pairs(getattr(split_pairs(find_pairs(chosen.data).pairs, "dubai", 0), chosen.part), DUBAI))
    print(f"| {chosen.part}, {len(scenes)} images | mIoU | 95 % interval | {' | '.join(DUBAI.names[:5])} |")
    print("|---|---:|---:|" + "---:|" * 5)
    totals = [np.zeros((len(DUBAI), *labels.shape), np.float32) for _, _, labels in scenes]
    for count, path in enumerate(chosen.teachers, 1):
        predictor = Predictor(RunFolder(path).model)
        found = [predictor.probabilities(image, views=8) for _, image, _ in scenes]
        totals = [total + one for total, one in zip(totals, found, strict=True)]
        print_row(path.name, judge(found, scenes))
        if count > 1:
            print_row(f"these {count} averaged", judge([total / count for total in totals], scenes))


def averaged(
    runs: Sequence[Path], scenes: Sequence[tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]
) -> Evaluation:
    """Score the mean of all teachers, each over 8 views."""
    predictors = [Predictor(RunFolder(path).model) for path in runs]

    def mean(image: npt.NDArray[np.uint8]) -> Floats:
        return np.mean([one.probabilities(image, views=8) for one in predictors], axis=0, dtype=np.float32)

    return evaluate(mean, scenes, DUBAI)


def judge(
    probabilities: Sequence[Floats], scenes: Sequence[tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]
) -> Evaluation:
    """Score what was predicted of these scenes, in their order."""
    found = iter(probabilities)
    return evaluate(lambda image: next(found), scenes, DUBAI)


def print_row(name: str, evaluation: Evaluation) -> None:
    """One line, ready for docs/results.md."""
    row = summary([evaluation])
    interval, classes = percents(row["interval"], " to "), percents(row["iou"][:5], " | ")
    print(f"| {name} | {100 * row['miou']:.1f} | {interval} | {classes} |", flush=True)


if __name__ == "__main__":
    main()

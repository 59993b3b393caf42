"""What the benchmarks on the Dubai data share: runs that are trained once, scores over seeds, cells of tables."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skystill.api import check, distill, train
from skystill.classes import DUBAI, ClassMap
from skystill.cli.bars import progress_display
from skystill.data import Pair, read_pairs
from skystill.errors import DataError
from skystill.predict import Predictor
from skystill.report.metrics import Comparison, Evaluation, evaluate
from skystill.run_folder import RunFolder
from skystill.settings import DistillSettings, FitSettings, TrainSettings

NAMED = DUBAI.names[:5]
"""The five classes that count in the mean. The sixth is Unlabeled."""


def finish(settings: TrainSettings | DistillSettings) -> None:
    """Train or distil a run, or go on with it if it was stopped. Nothing happens if it is finished.

    All runs of a benchmark are trained in its own process. The seconds of a run are its own, but the peak memory in its
    `training.json` is the largest of all runs so far.
    """
    if RunFolder(settings.out).model.exists():
        return
    with progress_display() as on_progress:
        if isinstance(settings, DistillSettings):
            distill(settings, resume=True, report=False, on_progress=on_progress)
        else:
            train(settings, resume=True, report=False, on_progress=on_progress)


def without_teacher(settings: DistillSettings, out: Path) -> TrainSettings:
    """Return the settings of the same training on labels alone, in another run folder."""
    shared = {name: getattr(settings, name) for name in FitSettings.model_fields}
    return TrainSettings(**shared | {"out": out}, network=settings.student)


def logged(path: Path, column: str) -> list[float]:
    """Return a column of the `metrics.csv` of a run, one number per epoch."""
    with RunFolder(path).metrics.open(encoding="utf-8", newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def arm_folder(out: Path, arm: str, seed: int) -> Path:
    """Return the run folder of an arm and a seed."""
    return out / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"


def scored_part(data: Path, split: str) -> tuple[tuple[Pair, ...], ClassMap]:
    """Return the test images of a data set, and its classes."""
    found = check(data=data, split=split)
    if found.split is None:
        raise DataError(f"{data}: {len(found.check.problems)} problem(s):", found.check.problems)
    return found.split.test, found.check.classes


def evaluated(path: Path, pairs: Sequence[Pair], classes: ClassMap = DUBAI) -> Evaluation:
    """Evaluate a model file on whole images."""
    return evaluate(Predictor(path).probabilities, read_pairs(pairs, classes), classes)


@dataclass(frozen=True)
class Summary:
    """Scores of one kind of model over its seeds. All are ratios from 0 to 1.

    Args:
        miou: mean over the seeds.
        seeds: mIoU of each seed.
        interval: 95 % bootstrap interval over images; the mean of the intervals of the seeds.
        iou: IoU of each class, mean over the seeds.
    """

    miou: float
    seeds: tuple[float, ...]
    interval: tuple[float, float]
    iou: tuple[float, ...]


def summary(evaluations: Sequence[Evaluation]) -> Summary:
    """Summarise the evaluations of one kind of model, one per seed."""
    scores = [evaluation.scores() for evaluation in evaluations]
    seeds = np.array([one.miou for one in scores], float)
    low, high = np.mean([one.miou_interval for one in scores], axis=0)
    iou = np.array([one.per_class.iou for one in scores], float).mean(axis=0)
    return Summary(float(seeds.mean()), tuple(seeds.tolist()), (float(low), float(high)), tuple(iou.tolist()))


def percents(ratios: Iterable[float], between: str) -> str:
    """Return ratios as percentages in one line."""
    return between.join(f"{100 * ratio:.1f}" for ratio in ratios)


def points(comparison: Comparison, digits: int = 1) -> str:
    """Return a difference in percentage points, such as "+0.6"."""
    return f"{100 * comparison.difference:+.{digits}f}"


def interval(comparison: Comparison) -> str:
    """Return the 95 % interval of a difference in percentage points, such as "-0.4 to +1.3"."""
    return f"{100 * comparison.low:+.1f} to {100 * comparison.high:+.1f}"


@dataclass(frozen=True)
class ScoreTable:
    """Scores of several kinds of models on the same test images, and their differences.

    Args:
        test_images: number of the images.
        models: scores by kind.
        differences: differences of the mean IoU by name, such as "distilled minus alone".
    """

    test_images: int
    models: dict[str, Summary]
    differences: dict[str, Comparison]

    def show(self, title: str) -> None:
        """Print the table as Markdown, ready for docs/results."""
        print(f"\n**{title}**, {self.test_images} test images\n")
        print(f"| model | seeds | mIoU (each seed) | 95 % interval | {' | '.join(NAMED)} |")
        print("|---|---:|---:|---:|" + "---:|" * len(NAMED))
        for kind, row in self.models.items():
            each, classes = percents(row.seeds, ", "), percents(row.iou[: len(NAMED)], " | ")
            between = percents(row.interval, " to ")
            print(f"| {kind} | {len(row.seeds)} | {100 * row.miou:.1f} ({each}) | {between} | {classes} |")
        for name, difference in self.differences.items():
            print(f"\n{name}: {points(difference)} points, 95 % interval {interval(difference)}")

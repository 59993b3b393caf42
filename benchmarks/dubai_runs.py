"""What the benchmarks on the Dubai data share: runs that are trained once, scores over seeds, cells of tables."""

import argparse
import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np

from skystill.api import check, distill, train
from skystill.classes import DUBAI, ClassMap
from skystill.cli.bars import progress_display
from skystill.data import Pair, read_pairs
from skystill.errors import DataError
from skystill.predict import Predictor
from skystill.report.metrics import Comparison, Evaluation, compare, evaluate
from skystill.run_folder import RunFolder, write_json
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


def evaluated(path: Path, pairs: Sequence[Pair], classes: ClassMap = DUBAI, views: int = 1) -> Evaluation:
    """Evaluate a model file on whole images, over test-time views."""
    return evaluate(partial(Predictor(path).probabilities, views=views), read_pairs(pairs, classes), classes)


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


def score_cells(row: Summary) -> str:
    """Return the cells of a table: the mIoU and that of each seed, its interval, and the IoU of each class."""
    scores = f"{100 * row.miou:.1f} ({percents(row.seeds, ', ')}) | {percents(row.interval, ' to ')}"
    return f"{scores} | {percents(row.iou, ' | ')}"


def score_arms(
    name: str,
    chosen: argparse.Namespace,
    arms: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    seeds: Iterable[int],
    seconds_of: Callable[[str, int], float],
) -> None:
    """Score the finished runs of a benchmark on the same whole test images, print them, and write them as JSON.

    Args:
        name: of the JSON file, without its ending.
        chosen: data, split and out of the benchmark.
        arms: what may be finished, each a run for each seed.
        pairs: which arm is compared with which, over the seeds that both have.
        seeds: which seeds may be finished.
        seconds_of: the seconds of training of an arm and a seed.
    """
    test, classes = scored_part(chosen.data, chosen.split)
    found: dict[str, dict[int, Evaluation]] = {}
    for arm in arms:
        runs = {seed: RunFolder(arm_folder(chosen.out, arm, seed)) for seed in seeds}
        done = {seed: run for seed, run in runs.items() if run.model.exists()}
        found[arm] = {seed: evaluated(run.model, test, classes) for seed, run in done.items()}
        if done:
            taken = mean(seconds_of(arm, seed) for seed in done)
            print(f"| {arm} | {len(done)} | {taken:.0f} | {score_cells(summary([*found[arm].values()]))} |")
    differences = {}
    for one, other in pairs:
        both = [seed for seed in found[one] if seed in found[other]]
        if both:
            named = f"{one} minus {other}"
            difference = compare([found[one][seed] for seed in both], [found[other][seed] for seed in both])
            differences[named] = difference
            print(f"| {named} | {points(difference)} | {interval(difference)} |")
    models = {arm: asdict(summary([*scored.values()])) for arm, scored in found.items() if scored}
    written = {named: asdict(difference) for named, difference in differences.items()}
    write_json(chosen.out / f"{name}.json", {"models": models, "differences": written})


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

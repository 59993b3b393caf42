"""What mirrored and turned views (`skystill predict --views`) are worth: accuracy against time, student and teachers.

    python benchmarks/views.py --data DIR --student "NAME=FILE FILE FILE" --teachers RUN RUN --out docs/images/views.png

A student is model files of one network, a seed each; the first teacher is the one that they are compared with, and all
teachers averaged over 8 views are what they learnt from. Split dubai, whole test images; times are of the network on
all threads, a tile of 1024 x 1024, median of seven, so run it on an idle machine.
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from dubai import percents, summary
from matplotlib.figure import Figure
from teachers import averaged

from skystill.classes import DUBAI
from skystill.data import find_pairs, read_pairs, split_pairs
from skystill.model.engine import average_test_time_views, open_engine
from skystill.model.measure import time_per_megapixel
from skystill.predict import Predictor
from skystill.report.metrics import Evaluation, compare, evaluate
from skystill.report.plots import save_plot
from skystill.run_folder import RunFolder
from skystill.symmetry import TEST_TIME_VIEWS

COLORS = ("#E69F00", "#56B4E9", "#CC79A7", "#D55E00", "#009E73")  # students, the U-Net last
_SIDE = 1024
Curve = list[tuple[float, list[Evaluation]]]
"""For each number of views: milliseconds a megapixel, and what each seed scores."""


def main() -> None:
    """Score, time, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--student", action="append", required=True, metavar="NAME=FILES", help="a file a seed")
    parser.add_argument("--teachers", type=Path, nargs="+", required=True, help="run folders")
    parser.add_argument("--out", type=Path, required=True, help="the chart")
    chosen = parser.parse_args()
    test = split_pairs(find_pairs(chosen.data).pairs, "dubai", 0).test
    scenes = list(read_pairs(test, DUBAI))
    curves = {name: curve_of([Path(file) for file in files.split()], scenes)
              for name, files in (text.split("=", 1) for text in chosen.student)}  # fmt: skip
    curves["U-Net of 16 filters"] = curve_of([RunFolder(chosen.teachers[0]).model], scenes)
    best = averaged(chosen.teachers, scenes)
    print_table(curves, best)
    save_plot(lambda: chart(curves, best), chosen.out, "light")


def curve_of(files: Sequence[Path], scenes: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Curve:
    """One network over 1, 2, 4 and 8 views."""
    return [
        (milliseconds(files[0], views), [scored(file, views, scenes) for file in files]) for views in TEST_TIME_VIEWS
    ]


def scored(path: Path, views: int, scenes: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Evaluation:
    """A model file on whole images, over so many views."""
    return evaluate(partial(Predictor(path).probabilities, views=views), scenes, DUBAI)


def milliseconds(path: Path, views: int) -> float:
    """Median time of a megapixel."""
    run = average_test_time_views(open_engine(path).run, views)
    planes = np.random.default_rng(0).integers(0, 256, (3, _SIDE, _SIDE), np.uint8)
    return statistics.median(time_per_megapixel(lambda: run(planes), _SIDE**2))


def print_table(curves: dict[str, Curve], best: Evaluation) -> None:
    """Ready for docs/results.md."""
    teacher = list(curves.values())[-1][0][1][0]
    print(
        "| | views | ms a megapixel | mIoU (each seed) | 95 % interval | minus the U-Net, one view | minus averaged |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, curve in curves.items():
        for views, (cost, found) in zip(TEST_TIME_VIEWS, curve, strict=True):
            row = summary(found)
            differences = " | ".join(difference(found, other) for other in (teacher, best))
            each = f" ({percents(row['seeds'], ', ')})" if len(found) > 1 else ""
            interval = percents(row["interval"], " to ")
            print(f"| {name} | {views} | {cost:.1f} | {100 * row['miou']:.1f}{each} | {interval} | {differences} |")
    print(f"\naveraged: {100 * summary([best])['miou']:.1f}")


def difference(found: Sequence[Evaluation], other: Evaluation) -> str:
    """How far the seeds stand above another model, with the paired interval."""
    row = compare(found, [other] * len(found)).to_dict()
    low, high = row["interval"]
    return f"{100 * row['difference']:+.2f} ({100 * low:+.1f} to {100 * high:+.1f})"


def chart(curves: dict[str, Curve], best: Evaluation) -> Figure:
    """Test mIoU against time, a mark for each number of views; a bar spans the seeds."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for (name, curve), color in zip(curves.items(), COLORS[-len(curves) :], strict=True):
        times = [cost for cost, _ in curve]
        seeds = 100 * np.array([summary(found)["seeds"] for _, found in curve])
        means = seeds.mean(axis=1)
        spread = np.abs(np.stack([seeds.min(axis=1), seeds.max(axis=1)]) - means)
        axes.errorbar(times, means, yerr=spread, fmt="o-", color=color, label=name, markersize=6, elinewidth=1)
        for views, cost, mean in zip(TEST_TIME_VIEWS, times, means, strict=True):
            axes.annotate(str(views), (cost, mean), xytext=(5, -11), textcoords="offset points", fontsize=8)
    axes.axhline(100 * summary([best])["miou"], color="#0072B2", linestyle="--", linewidth=1, label="teachers averaged")
    axes.set(xscale="log", xlabel="ms a megapixel (beside the marks: views averaged)", ylabel="test mIoU, %")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.grid(True, linewidth=0.5)
    axes.legend(loc="lower right", fontsize=8)
    return figure


if __name__ == "__main__":
    main()

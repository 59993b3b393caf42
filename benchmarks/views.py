"""What test-time views (`skystill predict --views`) are worth: accuracy against time, of students and teachers.

    python benchmarks/views.py --data DIR --student "NAME=FILE FILE FILE" --teachers RUN RUN --out docs/images/views.png

A student is given as the model files of one network, one per seed. It is compared with the first teacher, and with all
teachers averaged over 8 views, which is what the students learnt from. The images are the whole test images of split
dubai. Times are of the network on all threads for a tile of 1024 x 1024 pixels, median of seven, so run the script on
an idle machine.
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from dubai_runs import interval, percents, points, summary
from matplotlib.figure import Figure
from teachers import Images, evaluate_average

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
"""For each number of views: milliseconds per megapixel, and the evaluation of each seed."""


def main() -> None:
    """Score, time, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--student", action="append", required=True, metavar="NAME=FILES", help="one file per seed")
    parser.add_argument("--teachers", type=Path, nargs="+", required=True, help="run folders")
    parser.add_argument("--out", type=Path, required=True, help="the chart")
    chosen = parser.parse_args()
    images = list(read_pairs(split_pairs(find_pairs(chosen.data).pairs, "dubai", 0).test, DUBAI))
    curves = {name: curve_of([Path(file) for file in files.split()], images)
              for name, files in (text.split("=", 1) for text in chosen.student)}  # fmt: skip
    curves["U-Net of 16 filters"] = curve_of([RunFolder(chosen.teachers[0]).model], images)
    best = evaluate_average(chosen.teachers, images)
    print_table(curves, best)
    save_plot(lambda: chart(curves, best), chosen.out, "light")


def curve_of(files: Sequence[Path], images: Images) -> Curve:
    """Time and evaluate one network with 1, 2, 4 and 8 views."""
    return [
        (milliseconds(files[0], views), [evaluated(file, views, images) for file in files]) for views in TEST_TIME_VIEWS
    ]


def evaluated(path: Path, views: int, images: Images) -> Evaluation:
    """Evaluate a model file on whole images, averaged over some views."""
    return evaluate(partial(Predictor(path).probabilities, views=views), images, DUBAI)


def milliseconds(path: Path, views: int) -> float:
    """Return the median time per megapixel."""
    infer = average_test_time_views(open_engine(path).infer, views)
    planes = np.random.default_rng(0).integers(0, 256, (3, _SIDE, _SIDE), np.uint8)
    return statistics.median(time_per_megapixel(lambda: infer(planes), _SIDE**2))


def print_table(curves: dict[str, Curve], best: Evaluation) -> None:
    """Print the table, ready for docs/results/views.md."""
    teacher = list(curves.values())[-1][0][1][0]
    print(
        "| | views | ms per megapixel | mIoU (each seed) | 95 % interval | minus the U-Net, one view | minus averaged |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, curve in curves.items():
        for views, (cost, found) in zip(TEST_TIME_VIEWS, curve, strict=True):
            row = summary(found)
            differences = " | ".join(difference(found, other) for other in (teacher, best))
            each = f" ({percents(row.seeds, ', ')})" if len(found) > 1 else ""
            between = percents(row.interval, " to ")
            print(f"| {name} | {views} | {cost:.1f} | {100 * row.miou:.1f}{each} | {between} | {differences} |")
    print(f"\naveraged: {100 * summary([best]).miou:.1f}")


def difference(found: Sequence[Evaluation], other: Evaluation) -> str:
    """Return the mean IoU of the seeds minus that of another model, with the paired interval."""
    comparison = compare(found, [other] * len(found))
    return f"{points(comparison, digits=2)} ({interval(comparison)})"


def chart(curves: dict[str, Curve], best: Evaluation) -> Figure:
    """Draw test mIoU against time, one mark for each number of views. A bar spans the seeds."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for (name, curve), color in zip(curves.items(), COLORS[-len(curves) :], strict=True):
        times = [cost for cost, _ in curve]
        seeds = 100 * np.array([summary(found).seeds for _, found in curve])
        means = seeds.mean(axis=1)
        spread = np.abs(np.stack([seeds.min(axis=1), seeds.max(axis=1)]) - means)
        axes.errorbar(times, means, yerr=spread, fmt="o-", color=color, label=name, markersize=6, elinewidth=1)
        for views, cost, mean in zip(TEST_TIME_VIEWS, times, means, strict=True):
            axes.annotate(str(views), (cost, mean), xytext=(5, -11), textcoords="offset points", fontsize=8)
    axes.axhline(100 * summary([best]).miou, color="#0072B2", linestyle="--", linewidth=1, label="teachers averaged")
    axes.set(xscale="log", xlabel="ms per megapixel (beside the marks: number of views)", ylabel="test mIoU, %")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.grid(True, linewidth=0.5)
    axes.legend(loc="lower right", fontsize=8)
    return figure


if __name__ == "__main__":
    main()

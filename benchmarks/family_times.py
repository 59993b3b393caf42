"""How long each student takes in INT8 on this computer, before anything is trained.

    python benchmarks/family_times.py                            # the family
    python benchmarks/family_times.py --students lite lite-small "lite?blocks=9"
    python benchmarks/family_times.py --chart docs/images/family-int8.png

The time of a network does not depend on its weights, so random ones are exported, quantised and measured, three times
in turn, on 1,024 x 1,024 pixels in ONNX Runtime. The script prints the fastest of the three medians, on one thread and
on all cores. Run it on a computer that does nothing else.

`--chart` draws the accuracies of family_scores.csv against the times on all cores: the best that was measured in INT8
on the 16 test images of Dubai (docs/results/student-family.md has the commands). They do not depend on the computer.
"""

import argparse
import csv
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from matplotlib.figure import Figure

from skystill.classes import ClassMap
from skystill.model.measure import compare_models
from skystill.report.plots import save_plot
from skystill.train.compress.budget import int8_file
from skystill.train.networks.table import FAMILY, build_network

CLASSES = ClassMap(tuple("abcdef"), tuple((value, value, value) for value in range(6)))  # as many as in Dubai
ROUNDS = 3
SCORES = Path(__file__).with_name("family_scores.csv")
COLORS = {"random weights": "#1f77b4", "features of lite0": "#2b8a3e", "ImageNet": "#d95f02"}
LIMITS = (20, 30, 60)  # ms per megapixel


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=list(FAMILY))
    parser.add_argument("--chart", type=Path, help="draw accuracy against time, a PNG file")
    chosen = parser.parse_args()
    students: list[str] = chosen.students
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(int8_file(name, build_network(name, len(CLASSES)).eval(), CLASSES))[1]
            for name in students
        }
        rounds = [compare_models(list(files.values())) for _ in range(ROUNDS)]
    print("| student | parameters | file, kB | ms per megapixel, one thread | all cores |")
    times: dict[str, float] = {}
    for name, costs in zip(students, zip(*rounds, strict=True), strict=True):
        # Other work of the computer can only make a time longer.
        one, every = (
            min(cost.latency_ms_per_mp_1_thread for cost in costs),
            min(cost.latency_ms_per_mp for cost in costs),
        )
        times[name] = every
        print(f"| `{name}` | {costs[0].parameters:,} | {costs[0].size_bytes / 1e3:.0f} | {one:.1f} | {every:.1f} |")
    if chosen.chart:
        save_plot(lambda: chart(times), chosen.chart, "light")


def chart(times: Mapping[str, float]) -> Figure:
    """Draw test mIoU in INT8 against milliseconds per megapixel on all cores. A bar is a 95 % interval over images."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    with open(SCORES, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["student"] in times]
    for family, color in COLORS.items():
        own = [row for row in rows if row["begins with"] == family]
        x, means = [times[row["student"]] for row in own], [float(row["miou"]) for row in own]
        below = [float(row["miou"]) - float(row["low"]) for row in own]
        above = [float(row["high"]) - float(row["miou"]) for row in own]
        label = f"begins with {family}"
        axes.errorbar(x, means, yerr=[below, above], fmt="o", color=color, elinewidth=0.6, label=label)
        for index, (at, mean, row) in enumerate(zip(x, means, own, strict=True)):
            text = f"{row['student']} {mean:.1f}" + (" (1 seed)" if row["seeds"] == "1" else "")
            offset = (5, 4 if index % 2 or family != "random weights" else -11)  # two may be of one student
            axes.annotate(text, (at, mean), xytext=offset, textcoords="offset points", fontsize=7.5)
    for limit in LIMITS:
        axes.axvline(limit, color="#888888", linewidth=0.7, linestyle=":")
    axes.set(xlabel="ms per megapixel, INT8, all cores", ylabel="test mIoU in INT8, %", xlim=(10, 72))
    axes.grid(True, linewidth=0.5)
    figure.legend(loc="outside upper center", ncols=len(COLORS), frameon=False)
    return figure


if __name__ == "__main__":
    main()

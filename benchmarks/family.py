"""The student family on split dubai: alone and distilled, in float and in INT8; accuracy against time and size.

    python benchmarks/family.py --data DIR --teacher RUN --out runs/family            # train what is missing
    python benchmarks/family.py --data DIR --teacher RUN --out runs/family --score docs/images/family.png

Every student is trained for the same number of steps on labels alone and with the cached logits of the teacher (mean
over its 8 symmetries), from the same seed on the same crops. Both are quantised (`skystill quantize`). alpha goes from
0.3 to `--alpha-end`, the temperature is 2, and student and teacher are compared by means over 2 x 2 pixels. All models
are scored on whole test images from their model files. Times are those of `skystill measure` (all threads), so score on
an idle machine. `--students`, `--seeds` and `--arms` choose a part, for several processes. OMP_NUM_THREADS sets the
number of cores that a training uses. `--also NAME=FILE` adds other model files, such as a pruned network.

With `--score` the script prints the tables, writes family.json and draws the chart.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from dubai_runs import Summary, evaluated, finish, interval, percents, points, summary, without_teacher
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter

from skystill.api import measure, quantize
from skystill.cli.bars import progress_display
from skystill.data import Pair, find_pairs, split_pairs
from skystill.model.measure import ComparedCost
from skystill.report.metrics import Comparison, Evaluation, compare
from skystill.report.plots import save_plot
from skystill.run_folder import RunFolder, write_json
from skystill.settings import DistillSettings
from skystill.train.networks.table import FAMILY

ARMS = ("alone", "alone, INT8", "distilled", "distilled, INT8")
COLORS = {
    "alone": "#999999",
    "alone, INT8": "#000000",
    "distilled": "#0072B2",
    "distilled, INT8": "#D55E00",
    "others": "#009E73",
}
NAMED = {"alone, INT8": ((-6, -3), "right"), "others": ((6, -3), "left")}  # arms whose marks carry names, and where


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: of the network.
        arm: one of `ARMS`, or "others".
        scores: over the seeds.
        cost: of the model file of the first seed.
    """

    name: str
    arm: str
    scores: Summary
    cost: ComparedCost


@dataclass(frozen=True)
class Difference:
    """Difference of the mean IoU between two arms of one student.

    Args:
        comparison: the difference and its interval.
        seeds: number of seeds that both arms have.
    """

    comparison: Comparison
    seeds: int


def main() -> None:
    """Train, or score with --score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", action="append", required=True, help="run folder; several are averaged")
    parser.add_argument("--out", type=Path, default=Path("runs/family"))
    parser.add_argument("--students", nargs="+", default=list(FAMILY))
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=["alone", "distilled"], choices=["alone", "distilled"])
    parser.add_argument("--alpha-end", type=float, default=1.0, help="0.3 for constant alpha")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--score", type=Path, metavar="PNG", help="train nothing; score, and draw the chart")
    chosen = parser.parse_args()
    if chosen.score:
        score(chosen)
        return
    for seed in chosen.seeds:
        for student in chosen.students:
            for arm in chosen.arms:
                train(chosen, student, arm, seed)


def train(chosen: argparse.Namespace, student: str, arm: str, seed: int) -> None:
    """Train one student with one seed."""
    run = folder(chosen.out, student, arm, seed)
    distilled = DistillSettings(
        data=chosen.data, split="dubai", out=run, student=student, teacher=chosen.teacher, teacher_mode="cached",
        cache=chosen.out / "logits" if len(chosen.teacher) > 1 else None,  # of a single teacher in its own run folder
        epochs=chosen.epochs, seed=seed,
        alpha=0.3, alpha_end=chosen.alpha_end, temperature=2.0, distillation_stride=2, alone=False,
    )  # fmt: skip
    finish(without_teacher(distilled, run) if arm == "alone" else distilled)


def folder(out: Path, student: str, arm: str, seed: int) -> Path:
    """Return the run folder of a student, an arm and a seed."""
    return out / f"{student}-{arm}-{seed}"


def score(chosen: argparse.Namespace) -> None:
    """Score and measure every finished run, print the tables, draw the chart."""
    test = split_pairs(find_pairs(chosen.data).pairs, "dubai", 0).test
    rows: list[Row] = []
    differences: dict[str, Difference] = {}
    for student in chosen.students:
        files = {arm: files_of(chosen, student, arm) for arm in ARMS}
        found = {arm: {seed: evaluated(path, test) for seed, path in paths.items()} for arm, paths in files.items()}
        rows += [
            row_of(student, arm, list(files[arm].values()), list(found[arm].values())) for arm in ARMS if found[arm]
        ]
        for one, other in (("distilled", "alone"), ("alone, INT8", "alone"), ("distilled, INT8", "distilled")):
            seeds = [seed for seed in found[one] if seed in found[other]]
            if seeds:
                comparison = compare([found[one][seed] for seed in seeds], [found[other][seed] for seed in seeds])
                differences[f"{student}: {one} minus {other}"] = Difference(comparison, len(seeds))
    rows += other_rows(chosen, test)
    models = [asdict(row) for row in rows]
    named = {name: asdict(difference) for name, difference in differences.items()}
    write_json(chosen.out / "family.json", {"models": models, "differences": named})
    print_tables(rows, differences)
    save_plot(lambda: chart(rows), chosen.score, "light")


def files_of(chosen: argparse.Namespace, student: str, arm: str) -> dict[int, Path]:
    """Return the model files of finished runs by seed. An INT8 file that is missing is made."""
    runs = {seed: RunFolder(folder(chosen.out, student, arm.removesuffix(", INT8"), seed)) for seed in chosen.seeds}
    done = {seed: run for seed, run in runs.items() if run.model.exists()}
    if not arm.endswith("INT8"):
        return {seed: run.model for seed, run in done.items()}
    for run in done.values():
        if not run.model_int8.exists():
            with progress_display() as on_progress:
                quantize(model=run.model, data=chosen.data, out=run.model_int8, on_progress=on_progress)
    return {seed: run.model_int8 for seed, run in done.items()}


def other_rows(chosen: argparse.Namespace, test: Sequence[Pair]) -> list[Row]:
    """Score and measure the teachers and the files of --also."""
    several = len(chosen.teacher) > 1
    teachers = [Path(path) for path in chosen.teacher]
    files = [(f"teacher {path.name}" if several else "teacher", RunFolder(path).model) for path in teachers]
    files += [(name, Path(path)) for name, path in (text.split("=", 1) for text in chosen.also)]
    return [row_of(name, "others", [path], [evaluated(path, test)]) for name, path in files]


def row_of(name: str, arm: str, files: Sequence[Path], found: Sequence[Evaluation]) -> Row:
    """Summarise the scores over seeds, and measure the first file."""
    return Row(name, arm, summary(found), measure(models=[files[0]])[0])


def print_tables(rows: Sequence[Row], differences: dict[str, Difference]) -> None:
    """Print both tables, ready for docs/results/student-family.md."""
    print("\n| model | | parameters | file, kB | ms per megapixel | mIoU (each seed) | 95 % interval |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in rows:
        scores, cost = row.scores, row.cost
        each = f" ({percents(scores.seeds, ', ')})" if len(scores.seeds) > 1 else ""
        low, high = cost.latency_spread_ms_per_mp
        print(f"| {row.name} | {'' if row.arm == 'others' else row.arm} | {cost.parameters:,} "
              f"| {cost.size_bytes / 1e3:,.0f} | {cost.latency_ms_per_mp:.1f} ({low:.1f} to {high:.1f}) "
              f"| {100 * scores.miou:.1f}{each} | {percents(scores.interval, ' to ')} |")  # fmt: skip
    print("\n| difference | seeds | points | 95 % interval |\n|---|---:|---:|---:|")
    for name, difference in differences.items():
        comparison = difference.comparison
        print(f"| {name} | {difference.seeds} | {points(comparison)} | {interval(comparison)} |")


def chart(rows: Sequence[Row]) -> Figure:
    """Draw test mIoU against time and against size. A bar spans the seeds."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    axis_of: dict[str, Callable[[Row], float]] = {
        "ms per megapixel": lambda row: row.cost.latency_ms_per_mp,
        "model file, kB": lambda row: row.cost.size_bytes / 1e3,
    }
    for axes, (title, value) in zip(panels, axis_of.items(), strict=True):
        for arm in COLORS:
            draw_arm(axes, [row for row in rows if row.arm == arm], arm, value)
        axes.set(xscale="log", xlabel=title)
        axes.margins(x=0.2, y=0.12)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(True, linewidth=0.5)
    panels[0].set_ylabel("test mIoU, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


def draw_arm(axes: Axes, rows: Sequence[Row], arm: str, value: Callable[[Row], float]) -> None:
    """Draw the marks of one kind of model. A bar spans its seeds."""
    if not rows:
        return
    x = np.array([value(row) for row in rows])
    means, seeds = [100 * row.scores.miou for row in rows], [100 * np.array(row.scores.seeds) for row in rows]
    spread = [[mean - each.min() for mean, each in zip(means, seeds, strict=True)],
              [each.max() - mean for mean, each in zip(means, seeds, strict=True)]]  # fmt: skip
    mark, label = ("D", None) if arm == "others" else ("o", arm)
    axes.errorbar(x, means, yerr=spread, fmt=mark, color=COLORS[arm], label=label, markersize=6, elinewidth=1)
    if arm in NAMED:
        offset, side = NAMED[arm]
        for at, mean, row in zip(x, means, rows, strict=True):
            name = axes.annotate(row.name, (at, mean), xytext=offset, ha=side, textcoords="offset points", fontsize=7.5)
            name.set_path_effects([withStroke(linewidth=2, foreground="white")])  # names cross the bars of others


if __name__ == "__main__":
    main()

"""The student family on split dubai: alone and distilled, in float and in INT8; accuracy against time and size.

    python benchmarks/family.py --data DIR --teacher RUN --out runs/family            # train what is missing, score
    python benchmarks/family.py --data DIR --teacher RUN --out runs/family --score docs/images/family.png

Every student is trained for the same steps on labels alone and with the teacher's cached logits (mean over its 8
symmetries), from the same seed on the same crops, and both are quantised (`skystill quantize`). All are
scored on whole test images from their model files. Times are of `skystill measure` (all threads), so score on an idle
machine. `--students`, `--seeds` and `--arms` choose a part, for several processes; OMP_NUM_THREADS says how many cores
one takes. `--also NAME=FILE` puts other model files beside them, such as a pruned network.

Prints tables, writes family.json and the chart.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dubai import evaluated, learn, percents, summary
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter

from skystill.data import find_pairs, split_pairs
from skystill.model.measure import compare_models
from skystill.report.int8 import quantize_on_data
from skystill.report.metrics import Evaluation, compare
from skystill.report.plots import save_plot
from skystill.run_folder import RunFolder, write_json
from skystill.settings import QuantizeSettings
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


def main() -> None:
    """Train and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", action="append", required=True, help="run folder; several are averaged")
    parser.add_argument("--out", type=Path, default=Path("runs/family"))
    parser.add_argument("--students", nargs="+", default=list(FAMILY))
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=["alone", "distilled"], choices=["alone", "distilled"])
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
    """One student of one seed."""
    teachers = [f"--teacher={teacher}" for teacher in chosen.teacher]
    cache = [f"--cache={chosen.out / 'logits'}"] if len(teachers) > 1 else []  # of one, in its own folder
    learn(student, chosen.data, folder(chosen.out, student, arm, seed), f"--epochs={chosen.epochs}", f"--seed={seed}",
          teaching=[] if arm == "alone" else [*teachers, *cache])  # fmt: skip


def folder(out: Path, student: str, arm: str, seed: int) -> Path:
    """Where a run goes."""
    return out / f"{student}-{arm}-{seed}"


def score(chosen: argparse.Namespace) -> None:
    """Score and measure every finished run, print the tables, draw the chart."""
    test = split_pairs(find_pairs(chosen.data).pairs, "dubai", 0).test
    rows: list[dict[str, Any]] = []
    differences: dict[str, Any] = {}
    for student in chosen.students:
        files = {arm: files_of(chosen, student, arm) for arm in ARMS}
        found = {arm: {seed: evaluated(path, test) for seed, path in paths.items()} for arm, paths in files.items()}
        rows += [
            row_of(student, arm, list(files[arm].values()), list(found[arm].values())) for arm in ARMS if found[arm]
        ]
        for one, other in (("distilled", "alone"), ("alone, INT8", "alone"), ("distilled, INT8", "distilled")):
            seeds = [seed for seed in found[one] if seed in found[other]]
            if seeds:
                difference = compare(*([found[arm][seed] for seed in seeds] for arm in (one, other))).to_dict()
                differences[f"{student}: {one} minus {other}"] = difference | {"seeds": len(seeds)}
    several = len(chosen.teacher) > 1
    others = [
        (f"teacher {Path(path).name}" if several else "teacher", RunFolder(Path(path)).model) for path in chosen.teacher
    ]
    others += [(name, Path(path)) for name, path in (text.split("=", 1) for text in chosen.also)]
    rows += [row_of(name, "others", [path], [evaluated(path, test)]) for name, path in others]
    write_json(chosen.out / "family.json", {"models": rows, "differences": differences})
    print_tables(rows, differences)
    save_plot(lambda: chart(rows), chosen.score, "light")


def files_of(chosen: argparse.Namespace, student: str, arm: str) -> dict[int, Path]:
    """Model files by seed, of those that are finished; an INT8 file is made where it is missing."""
    runs = {seed: RunFolder(folder(chosen.out, student, arm.removesuffix(", INT8"), seed)) for seed in chosen.seeds}
    done = {seed: one for seed, one in runs.items() if one.model.exists()}
    if not arm.endswith("INT8"):
        return {seed: one.model for seed, one in done.items()}
    for one in done.values():
        if not one.model_int8.exists():
            quantize_on_data(QuantizeSettings(model=one.model, data=chosen.data, out=one.model_int8), print)
    return {seed: one.model_int8 for seed, one in done.items()}


def row_of(name: str, arm: str, files: Sequence[Path], found: list[Evaluation]) -> dict[str, Any]:
    """Scores over seeds, and what the first file costs."""
    cost = compare_models(files[:1])[0]
    kept = ("parameters", "size_bytes", "latency_ms_per_mp", "latency_spread_ms_per_mp", "latency_ms_per_mp_1_thread")
    return {"name": name, "arm": arm, **summary(found), **{key: cost[key] for key in kept}}


def print_tables(rows: list[dict[str, Any]], differences: dict[str, Any]) -> None:
    """Print both tables, ready for docs/results.md."""
    print("\n| model | | parameters | file, kB | ms a megapixel | mIoU (each seed) | 95 % interval |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in rows:
        each = f" ({percents(row['seeds'], ', ')})" if len(row["seeds"]) > 1 else ""
        interval = percents(row["interval"], " to ")
        low, high = row["latency_spread_ms_per_mp"]
        print(f"| {row['name']} | {'' if row['arm'] == 'others' else row['arm']} | {row['parameters']:,} "
              f"| {row['size_bytes'] / 1e3:,.0f} | {row['latency_ms_per_mp']:.1f} ({low:.1f} to {high:.1f}) "
              f"| {100 * row['miou']:.1f}{each} | {interval} |")  # fmt: skip
    print("\n| difference | seeds | points | 95 % interval |\n|---|---:|---:|---:|")
    for name, row in differences.items():
        low, high = row["interval"]
        print(f"| {name} | {row['seeds']} | {100 * row['difference']:+.1f} | {100 * low:+.1f} to {100 * high:+.1f} |")


def chart(rows: list[dict[str, Any]]) -> Figure:
    """Test mIoU against time and against size; a bar spans the seeds."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    keys = (("latency_ms_per_mp", 1.0, "ms a megapixel"), ("size_bytes", 1e-3, "model file, kB"))
    for axes, (key, factor, title) in zip(panels, keys, strict=True):
        for arm, color in COLORS.items():
            draw_arm(axes, [row for row in rows if row["arm"] == arm], arm, color, key, factor)
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


def draw_arm(axes: Axes, rows: list[dict[str, Any]], arm: str, color: str, key: str, factor: float) -> None:
    """The marks of one kind of model; a bar spans its seeds."""
    if not rows:
        return
    x = np.array([row[key] * factor for row in rows])
    means, seeds = [100 * row["miou"] for row in rows], [100 * np.array(row["seeds"]) for row in rows]
    spread = [[mean - each.min() for mean, each in zip(means, seeds, strict=True)],
              [each.max() - mean for mean, each in zip(means, seeds, strict=True)]]  # fmt: skip
    mark, label = ("D", None) if arm == "others" else ("o", arm)
    axes.errorbar(x, means, yerr=spread, fmt=mark, color=color, label=label, markersize=6, elinewidth=1)
    if arm in NAMED:
        offset, side = NAMED[arm]
        for at, mean, row in zip(x, means, rows, strict=True):
            name = axes.annotate(
                row["name"], (at, mean), xytext=offset, ha=side, textcoords="offset points", fontsize=7.5
            )
            name.set_path_effects([withStroke(linewidth=2, foreground="white")])  # names cross the bars of others


if __name__ == "__main__":
    main()

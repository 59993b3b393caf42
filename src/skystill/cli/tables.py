"""Print the results of commands: the cost of model files, the content of a data set, the verdict of a run."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from skystill.cli.bars import console, messages
from skystill.progress import duration

if TYPE_CHECKING:
    from skystill.cluster.status import Status
    from skystill.data.prepare import CheckedData
    from skystill.model.measure import ComparedCost
    from skystill.predict.ahead import Ahead
    from skystill.raster.input_spec import InputSpec
    from skystill.run_folder import RunFolder


def show_costs(costs: Sequence["ComparedCost"]) -> None:
    """Print the cost of model files as a table with one column per file."""

    def span(middle: float, spread: tuple[float, float]) -> str:
        low, high = spread
        return f"{middle:.1f} ({low:.1f} to {high:.1f})"

    both = len({cost.runtime for cost in costs}) > 1
    table = Table("", *(Path(cost.path).name + (f"\n{cost.runtime}" if both else "") for cost in costs))
    rows: dict[str, Callable[[ComparedCost], str]] = {
        "network": lambda cost: f"{cost.network}, {cost.precision}",
        "parameters": lambda cost: f"{cost.parameters:,}",
        "file, kB": lambda cost: f"{cost.size_bytes / 1e3:,.0f}",
        "multiply-adds per megapixel, G": lambda cost: f"{cost.multiply_adds_per_megapixel / 1e9:.2f}",
        "ms per megapixel, 1 thread": lambda cost: span(
            cost.latency_ms_per_mp_1_thread, cost.latency_spread_ms_per_mp_1_thread
        ),
        f"ms per megapixel, {costs[0].threads} threads": lambda cost: span(
            cost.latency_ms_per_mp, cost.latency_spread_ms_per_mp
        ),
        "peak memory, MB": lambda cost: f"{cost.peak_rss_bytes / 1e6:.0f}",
        "of the machine's float32 peak": lambda cost: f"{100 * cost.peak_fraction:.0f} %",
    }
    for title, cell in rows.items():
        table.add_row(title, *(cell(cost) for cost in costs))
    console.print(table)


def show_check(data: Path, checked: "CheckedData") -> None:
    """Print the result of `skystill data check`: sizes, classes, notes and split."""
    check = checked.check
    sizes = sorted((record.width, record.height) for record in check.records)
    console.print(f"{len(check.records)} pairs in {data}", markup=False)
    if sizes:
        console.print(f"sizes from {sizes[0][0]}x{sizes[0][1]} to {sizes[-1][0]}x{sizes[-1][1]} pixels")
    values = check.classes.values
    table = Table(
        "label", *(["value"] if values else []), "class", "color", "pixels", "share",
        title=f"classes: {check.classes.source}",
    )  # fmt: skip
    total = max(1, int(check.counts.sum()))
    rows = [*enumerate(check.classes.names), (255, "void")]
    for label, name in rows:
        color = "" if label == 255 else "#" + "".join(f"{c:02X}" for c in check.classes.colors[label])
        shown = Text.assemble(("  ", f"on {color}"), f" {color}") if color else ""
        count = int(check.counts[label])
        value = [str(values[label]) if label < len(values) else ""] if values else []
        table.add_row(str(label), *value, name, shown, f"{count:,}", f"{100 * count / total:.2f} %")
    console.print(table)
    _show_bands(checked.spec)
    for note in checked.notes:
        messages.print(f"note: {note}", markup=False)
    if checked.split is not None:
        split = checked.split
        images = {"train": split.train, "validation": split.validation, "test": split.test}
        counts = ", ".join(f"{len(pairs)} {part}" for part, pairs in images.items())
        for line in checked.parts.lines() if checked.parts else []:
            console.print(line, markup=False)
        console.print(f"split {checked.split.rule}: {counts} images")


def _show_bands(spec: "InputSpec") -> None:
    """Print what a network would be fed: its bands with their statistics, and the ground resolution."""
    table = Table("band", "number", "mean", "deviation", "smallest", "largest", title=f"fed as {spec.dtype}")
    for band in spec.bands:
        numbers = (f"{value:.5g}" for value in (band.mean, band.std, band.low, band.high))
        table.add_row(band.label, str(band.number), *numbers)
    console.print(table)
    if spec.resolution_range_m is not None:
        low, high = spec.resolution_range_m
        spread = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        console.print(f"{spread} m on the ground per pixel")


def show_verdict(run: "RunFolder", reported: bool = True) -> None:
    """Print the verdict of an evaluated run, the notes on its scores, and the path of its report.

    Args:
        run: the run folder.
        reported: whether a report was written. False prints nothing.
    """
    from skystill.report.records import read_results

    if not reported:
        return
    results = read_results(run)
    for line in (*results.verdict, *(f"note: {note}" for note in results.notes)):
        console.print(line)
    console.print(f"report: {run.report}")


def show_ahead(ahead: "Ahead", workers: int | None) -> None:
    """Print what a prediction will cost.

    Args:
        ahead: its cost.
        workers: number of workers of the cluster, or None if it is not known.
    """
    of = "" if ahead.opened == ahead.inputs else f" (by {ahead.opened:,} of them)"
    console.print(f"inputs: {ahead.inputs:,}")
    console.print(f"megapixels: {ahead.megapixels:,.1f}{of}")
    console.print(f"read: {ahead.read_bytes / 1e9:,.3f} GB, written: about {ahead.written_bytes / 1e9:,.3f} GB")
    console.print(f"rate: {ahead.megapixels_per_second:,.2f} MP/s of one worker, measured on one window")
    for count in sorted({1, 10, 100, 1000, *([workers] if workers else [])}):
        console.print(f"  {count:,} worker{'s' if count > 1 else ''}: {duration(3600 * ahead.hours(count))}")


_SHOWN = 20
_STATES = {
    "running": "running",
    "ended": "ended",
    "stopped": "stopped; the same command goes on",
    "silent": "no sign of life; the same command goes on",
}


def show_status(status: "Status") -> None:
    """Print how far a prediction on a cluster is."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.updated))
    console.print(f"{status.out}: {_STATES[status.state]} ({moment}, {status.workers:,} workers)", markup=False)
    begun = status.inputs.get("begun", 0)
    console.print(f"inputs: {status.done:,} of {status.total:,} done, {status.failed:,} failed, {begun:,} begun")
    console.print(
        f"megapixels: {status.pixels / 1e6:,.1f} of about {status.total_pixels / 1e6:,.1f} "
        f"({100 * status.fraction:.0f} %)"
    )
    left = "" if status.seconds_left is None else f", about {duration(status.seconds_left)} left"
    windows_done, windows = status.windows or (0, 0)
    if status.pieces[1]:
        console.print(f"pieces of large inputs: {status.pieces[0]:,} of {status.pieces[1]:,} done")
    console.print(f"rate: {status.rate / 1e6:,.2f} MP/s{'' if windows else left}")
    if windows:
        console.print(f"windows of the mosaic: {windows_done:,} of {windows:,} done{left}")
    elif status.windows:
        console.print("windows of the mosaic: none yet; the inputs come first")
    if status.dashboard:
        console.print(f"dashboard of Dask: {status.dashboard}", markup=False)
    if status.problem_count:
        console.print(f"problems: {status.problem_count:,}")
        for _, text in status.problems[:_SHOWN]:
            console.print(f"  - {text}", markup=False)
        if status.problem_count > _SHOWN:
            console.print(f"  and {status.problem_count - _SHOWN:,} more; --html lists them")

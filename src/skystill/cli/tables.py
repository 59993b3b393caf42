"""What the commands print: notes, costs of model files, what is in a data set."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from skystill.cli.bars import console, messages

if TYPE_CHECKING:
    from skystill.data import DataCheck


def show_notes(notes: tuple[str, ...]) -> None:
    """Print notes on the data, once."""
    for note in notes:
        messages.print(f"note: {note}", markup=False)


def show_costs(costs: Sequence[dict[str, Any]]) -> None:
    """Print what model files cost, a column each."""

    def span(cost: dict[str, Any], key: str) -> str:
        low, high = cost[f"latency_spread_ms_per_mp{key}"]
        return f"{cost[f'latency_ms_per_mp{key}']:.1f} ({low:.1f} to {high:.1f})"

    table = Table("", *(Path(cost["path"]).name for cost in costs))
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "network": lambda cost: f"{cost['network']}, {cost['precision']}",
        "parameters": lambda cost: f"{cost['parameters']:,}",
        "file, kB": lambda cost: f"{cost['size_bytes'] / 1e3:,.0f}",
        "multiply-adds a megapixel, G": lambda cost: f"{cost['multiply_adds_per_megapixel'] / 1e9:.2f}",
        "ms a megapixel, 1 thread": lambda cost: span(cost, "_1_thread"),
        f"ms a megapixel, {costs[0]['threads']} threads": lambda cost: span(cost, ""),
        "peak memory, MB": lambda cost: f"{cost['peak_rss_bytes'] / 1e6:.0f}",
        "of the machine's float32 peak": lambda cost: f"{100 * cost['peak_fraction']:.0f} %",
    }
    for title, cell in rows.items():
        table.add_row(title, *(cell(cost) for cost in costs))
    console.print(table)


def show_check(data: Path, check: "DataCheck", notes: tuple[str, ...]) -> None:
    """Print what `data check` found, as tables."""
    sizes = sorted((record.width, record.height) for record in check.records)
    console.print(f"{len(check.records)} pairs in {data}", markup=False)
    if sizes:
        console.print(f"sizes from {sizes[0][0]}x{sizes[0][1]} to {sizes[-1][0]}x{sizes[-1][1]} pixels")
    table = Table("label", "class", "color", "pixels", "share", title=f"classes: {check.classes.source}")
    total = max(1, int(check.counts.sum()))
    rows = [*enumerate(check.classes.names), (255, "void")]
    for label, name in rows:
        color = "" if label == 255 else "#" + "".join(f"{c:02X}" for c in check.classes.colors[label])
        shown = f"[on {color}]  [/] {color}" if color else ""
        count = int(check.counts[label])
        table.add_row(str(label), name, shown, f"{count:,}", f"{100 * count / total:.2f} %")
    console.print(table)
    show_notes((*notes, *check.notes))

"""The plots of the reports, from `results.json` and `study.json`, in a light and a dark theme."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skystill.errors import visible
from skystill.report.records import ClassRecord, ModelRecord, TrialRecord
from skystill.run_folder import written_whole

_MODEL_COLORS = {
    "teacher": "#0072B2",
    "alone": "#999999",
    "student": "#D55E00",
}  # Okabe, Ito: distinguishable for colour-blind readers
_STYLES = {"teacher": "-", "alone": ":", "student": "-"}
_NAME = 32  # characters of the name of a class that a plot shows
_THEMES: dict[str, dict[str, Any]] = {
    "light": {"figure.facecolor": "#ffffff", "axes.facecolor": "#ffffff", "text": "#1d2733", "grid.color": "#d9dee5"},
    "dark": {"figure.facecolor": "#161b22", "axes.facecolor": "#161b22", "text": "#dfe6ee", "grid.color": "#39424e"},
}


def save_plot(plot: Callable[[], Figure], path: Path, theme: str) -> None:
    """Draw a plot in a theme and write it as PNG.

    Args:
        plot: function that draws the figure. It is called with the colours of the theme set.
        path: the PNG file.
        theme: "light" or "dark".
    """
    values = dict(_THEMES[theme])
    text = values.pop("text")
    colored = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor")
    settings = (
        values
        | dict.fromkeys(colored, text)
        | {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
        | {"text.parse_math": False, "text.usetex": False}  # "$" in the name of a class is a character
    )
    with matplotlib.rc_context(cast(Any, settings)), written_whole(path) as part:
        plot().savefig(part, dpi=130)


def plot_losses(models: Mapping[str, ModelRecord], names: Mapping[str, str]) -> Figure:
    """Plot the losses by epoch, one panel per model: the total, its parts, and the student loss on validation images.

    Args:
        models: the models by role.
        names: title of each panel by role, in the order of the panels.
    """
    figure = Figure(figsize=(3.6 * len(names) + 0.4, 3.1), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    lines = {
        "loss": ("total, training", "#D55E00", "-"),
        "student_loss": ("student loss, training", "#0072B2", "-"),
        "distillation_loss": ("distillation loss, training", "#009E73", "-"),
        "validation_student_loss": ("student loss, validation", "#0072B2", "--"),
    }
    for axes, (role, name) in zip(panels, names.items(), strict=True):
        history = models[role].training.history
        epochs = [row["epoch"] for row in history]
        distilled = "distillation_loss" in history[0]
        for key, (title, color, style) in lines.items():
            if key in history[0] and (distilled or key != "loss"):
                shown = title if distilled else title.replace("student loss", "loss")
                axes.plot(epochs, [row[key] for row in history], style, color=color, label=shown, linewidth=1.6)
        axes.set(title=name, xlabel="epoch", ylabel="loss", ylim=(0, None))
        axes.grid(True, linewidth=0.5)
        axes.legend(frameon=False, fontsize=7.5)
    return figure


def plot_precision_recall(
    models: Mapping[str, ModelRecord], names: Mapping[str, str], classes: Sequence[ClassRecord]
) -> Figure:
    """Plot precision against recall, one panel per class and one line per model.

    A dot marks the precision and recall of the prediction, which takes the most probable class of each pixel.

    Args:
        models: the models by role.
        names: name of each model by role.
        classes: the classes, in the order of the labels.
    """
    columns = min(3, len(classes))
    rows = -(-len(classes) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.8 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for label, (axes, entry) in enumerate(zip(panels, classes, strict=False)):
        for role in names:
            _precision_recall(axes, models[role], label, role, names[role])
        absent = not any(sum(model.scores.confusion[label]) for model in models.values())
        name = _short(entry.name)
        axes.set(title=f"{name} (no truth)" if absent else name, xlim=(0, 1), ylim=(0, 1.02))
        axes.title.set_bbox({"facecolor": entry.color, "alpha": 0.25, "edgecolor": "none", "pad": 2})
        axes.grid(True, linewidth=0.5)
    for axes in panels[len(classes) :]:
        axes.set_visible(False)
    figure.supxlabel("recall", fontsize=9)
    figure.supylabel("precision", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(names), frameon=False)
    return figure


def _precision_recall(axes: Axes, model: ModelRecord, label: int, role: str, name: str) -> None:
    curve = model.curves[label]
    color = _MODEL_COLORS[role]
    axes.plot(curve.recall, curve.precision, _STYLES[role], color=color, label=name, linewidth=1.6)
    per_class = model.scores.per_class
    recall, precision = per_class.recall[label], per_class.precision[label]
    if recall is not None and precision is not None:
        axes.plot([recall], [precision], "o", color=color, markersize=4)


def plot_confusions(
    models: Mapping[str, ModelRecord], names: Mapping[str, str], classes: Sequence[ClassRecord]
) -> Figure:
    """Plot the confusion matrices, one panel per model. Each row (truth) is shown in percent of its pixels.

    Args:
        models: the models by role.
        names: title of each panel by role, in the order of the panels.
        classes: the classes, in the order of the labels.
    """
    labels = [_short(entry.name) for entry in classes]
    figure = Figure(figsize=(3.7 * len(names) + 0.6, 3.9), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for column, (axes, (role, name)) in enumerate(zip(panels, names.items(), strict=True)):
        counts = np.array(models[role].scores.confusion, float)
        pixels = counts.sum(axis=1, keepdims=True)
        fractions = counts / np.maximum(pixels, 1)
        axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        for (row, predicted), fraction in np.ndenumerate(fractions):
            if not pixels[row]:  # a class without truth has no percentages
                continue
            shade = "white" if fraction > 0.5 else "#1d2733"
            axes.text(predicted, row, f"{100 * fraction:.0f}", ha="center", va="center", fontsize=8, color=shade)
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels if column == 0 else [""] * len(labels))
        axes.set(title=name, xlabel="prediction", ylabel="truth" if column == 0 else "")
    return figure


def _short(name: str) -> str:
    """Return a name that leaves room for the plot."""
    name = visible(name)
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def plot_study(trials: Sequence[TrialRecord]) -> Figure:
    """Plot the validation mIoU of the trials in the order in which they began, and the best value so far."""
    figure = Figure(figsize=(7.2, 3.1), layout="constrained")
    axes = figure.subplots()
    scored = [trial for trial in trials if trial.validation_miou is not None]
    for state, marker, title in (("complete", "o", "finished"), ("pruned", "x", "stopped early")):
        here = [trial for trial in scored if trial.state == state]
        values = [100 * (trial.validation_miou or 0.0) for trial in here]
        axes.plot([t.number for t in here], values, marker, color="#0072B2", label=title, markersize=5)
    finished = [trial for trial in scored if trial.state == "complete"]
    best = np.maximum.accumulate([100 * (trial.validation_miou or 0.0) for trial in finished])
    axes.step([t.number for t in finished], best, where="post", color="#D55E00", label="best so far", linewidth=1.6)
    axes.set(xlabel="trial", ylabel="validation mIoU, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True, linewidth=0.5)
    axes.legend(frameon=False)
    return figure


def plot_importance(importance: dict[str, float]) -> Figure:
    """Plot how much each setting matters for the result of a trial.

    Args:
        importance: importance of each setting by name, as a fraction.
    """
    names = [name.replace("_", " ") for name in reversed(importance)]
    figure = Figure(figsize=(7.2, 0.4 * len(names) + 0.9), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, [100 * fraction for fraction in reversed(importance.values())], color="#0072B2", height=0.6)
    axes.set(xlabel="importance, %", axisbelow=True)
    axes.grid(True, axis="x", linewidth=0.5)
    return figure
